//! Order of replacing, order of services, names in requests, texts of differences.

use uc_api::v1::{RemoveServices, ScaleService};

use super::*;

#[test]
fn start_first_where_it_can_be() {
    use UpdateOrder::{StartFirst, StopFirst, Unspecified};
    let web = |replicas| service("web", replicas);
    let in_network = |mode: &str| ServiceSpec {
        network_mode: mode.into(),
        ..web(1)
    };
    let read_only = {
        let mut spec = web(1).mount("data");
        spec.mounts[0].read_only = true;
        spec
    };
    for (what, old, new, wanted, expected) in vec![
        ("plain", web(1), web(1), Unspecified, StartFirst),
        ("as asked", web(1), web(1), StopFirst, StopFirst),
        (
            "the same fixed port",
            web(2).port(80),
            web(2).port(80),
            Unspecified,
            StopFirst,
        ),
        (
            "start-first cannot be",
            web(2).port(80),
            web(2).port(80),
            StartFirst,
            StopFirst,
        ),
        (
            "another fixed port",
            web(2).port(80),
            web(2).port(81),
            Unspecified,
            StartFirst,
        ),
        (
            "a port is added",
            web(2),
            web(2).port(81),
            Unspecified,
            StartFirst,
        ),
        (
            "a port is dropped",
            web(2).port(80),
            web(2),
            Unspecified,
            StartFirst,
        ),
        (
            "a port of the machine's choice",
            web(2).port(0),
            web(2).port(0),
            Unspecified,
            StartFirst,
        ),
        (
            "one replica with a volume",
            web(1).mount("data"),
            web(1).mount("data"),
            Unspecified,
            StopFirst,
        ),
        (
            "that asks for it",
            web(1).mount("data"),
            web(1).mount("data"),
            StartFirst,
            StartFirst,
        ),
        (
            "that only reads it",
            read_only.clone(),
            read_only,
            Unspecified,
            StartFirst,
        ),
        (
            "two replicas share it anyway",
            web(2).mount("data"),
            web(2).mount("data"),
            Unspecified,
            StartFirst,
        ),
        (
            "in the machine's network",
            in_network("host"),
            in_network("host"),
            Unspecified,
            StopFirst,
        ),
        (
            "in another's network",
            in_network("container:x"),
            in_network("container:x"),
            Unspecified,
            StopFirst,
        ),
        (
            "without a network",
            in_network("none"),
            in_network("none"),
            Unspecified,
            StartFirst,
        ),
        (
            "in the machine's, but as asked",
            in_network("host"),
            in_network("host"),
            StartFirst,
            StartFirst,
        ),
        (
            "global with a volume",
            global("web").mount("data"),
            global("web").mount("data"),
            Unspecified,
            StopFirst,
        ),
    ] {
        let mut new = new.image("web:2");
        new.set_update_order(wanted);
        let observed = cluster(&["m1"])
            .with_replicas(&old, &["m1"])
            .with_volume("data", &["m1"]);
        // With two replicas wanted on one machine, a fixed port would not fit: one is enough to see
        // the order.
        if new.ports.iter().any(|port| port.published_port != 0) {
            new.replicas = 1;
        }
        let plan = plan(&deploy(&[new]), &observed).unwrap();
        let step = plan.services[0]
            .steps
            .iter()
            .find(|step| step.action() == ReplicaAction::Replace)
            .unwrap();
        assert_eq!(step.order(), expected, "{what}");
        assert_eq!(
            plan.warnings.len(),
            usize::from(what == "start-first cannot be"),
            "{what}: {:?}",
            plan.warnings
        );
    }
}

/// An order that stops the old replica first would start it again if the new one fails.
#[test]
fn job_that_has_ended_is_never_stopped_first() {
    for wanted in [UpdateOrder::Unspecified, UpdateOrder::StopFirst] {
        let job = ServiceSpec {
            restart: v1::RestartPolicy::No.into(),
            ..service("job", 1).mount("data")
        };
        let mut observed = cluster(&["m1"])
            .with_replicas(&job, &["m1"])
            .with_volume("data", &["m1"])
            .with_service(&job);
        let replica = &mut observed.machine("m1").replicas[0];
        replica.set_state(ReplicaState::Exited);
        replica.exit_code = Some(0);
        let mut new = job.image("job:2");
        new.set_update_order(wanted);
        let plan = plan(&deploy(&[new]), &observed).unwrap();
        let step = &plan.services[0].steps[0];
        assert_eq!(
            (step.action(), step.order()),
            (ReplicaAction::Replace, UpdateOrder::StartFirst)
        );
    }
}

#[test]
fn a_port_is_no_reason_on_another_machine() {
    let old = service("web", 1).port(80).on(&["m1"]);
    let new = service("web", 1).port(80).on(&["m2"]);
    let observed = cluster(&["m1", "m2"])
        .with_replicas(&old, &["m1"])
        .with_service(&old);
    let plan = plan(&deploy(&[new]), &observed).unwrap();
    let step = &plan.services[0].steps[0];
    assert_eq!(
        (step.order(), step.machine_name.as_str()),
        (UpdateOrder::StartFirst, "m2")
    );
    assert_eq!(step.old_machine_id, machine_id("m1").to_string());
    assert_eq!(step.reason, "moved to another machine");
}

#[test]
fn machines_take_turns_with_what_they_replace() {
    let old = service("web", 4);
    let new = ServiceSpec {
        image: "web:2".into(),
        ..old.clone()
    };
    let observed = cluster(&["m1", "m2"])
        .with_replicas(&old, &["m1", "m1", "m2", "m2"])
        .with_service(&old);
    let plan = plan(&deploy(&[new]), &observed).unwrap();
    let machines: Vec<_> = plan.services[0]
        .steps
        .iter()
        .map(|step| step.machine_name.as_str())
        .collect();
    assert_eq!(machines, ["m1", "m2", "m1", "m2"]);
}

#[test]
fn dependencies_make_layers_and_removal_turns_them_round() {
    let services = [
        service("web", 1).after("api"),
        service("api", 1).after("db").after("cache"),
        service("db", 1),
        service("cache", 1),
    ];
    let layers = |plan: &v1::Plan| -> Vec<(String, u32)> {
        plan.services
            .iter()
            .map(|service| (service.service.clone(), service.layer))
            .collect()
    };
    let names =
        |list: [(&str, u32); 4]| list.map(|(name, layer)| (name.to_owned(), layer)).to_vec();
    let mut observed = cluster(&["m1"]);
    let made = plan(&deploy(&services), &observed).unwrap();
    assert_eq!(
        layers(&made),
        names([("cache", 0), ("db", 0), ("api", 0), ("web", 0)])
    );

    for spec in &services {
        observed = observed.with_service(spec).with_replicas(spec, &["m1"]);
    }
    let remove = Change::Remove(RemoveServices {
        services: vec![],
        project: "shop".into(),
    });
    let gone = plan(&remove, &observed).unwrap();
    assert_eq!(
        layers(&gone),
        names([("web", 0), ("api", 1), ("cache", 2), ("db", 2)])
    );
    assert_eq!(
        lines(&gone),
        [
            "remove web web-01 on m1",
            "remove api api-02 on m1",
            "remove cache cache-04 on m1",
            "remove db db-03 on m1"
        ]
    );
    assert!(
        gone.services
            .iter()
            .all(|service| service.change() == ServiceChange::Remove)
    );
}

#[test]
fn wrong_requests() {
    let observed = cluster(&["m1"])
        .with_service(&service("web", 1))
        .with_service(&global("agent"))
        .with_service(&ServiceSpec {
            project: "blog".into(),
            ..service("web", 1)
        });
    let scale = |service: &str| {
        Change::Scale(ScaleService {
            service: service.into(),
            replicas: 2,
        })
    };
    let remove = |services: &[&str], project: &str| {
        let services = services.iter().map(|name| (*name).to_owned()).collect();
        Change::Remove(RemoveServices {
            services,
            project: project.into(),
        })
    };
    for (desired, expected) in [
        (scale("web"), "`web` is ambiguous: blog/web and shop/web"),
        (scale("shop/wbe"), "service `shop/wbe` not found"),
        (
            scale("agent"),
            "service `shop/agent` is global: it runs once on each eligible machine and cannot be scaled",
        ),
        (
            remove(&["shop/nobody"], ""),
            "service `shop/nobody` not found",
        ),
        (remove(&["db"], "shop"), "service `shop/db` not found"),
        (remove(&[], "shp"), "project `shp` not found"),
        (
            remove(&[], ""),
            "the request asks for nothing that can be planned",
        ),
        (
            Change::Deploy(DesiredServices {
                project: "Shop".into(),
                ..Default::default()
            }),
            "invalid project name `Shop`: use lower-case letters, digits, `_` and `-`, starting with a letter or digit",
        ),
        (
            deploy(&[service("web", 1), service("web", 2)]),
            "service `web` is defined twice",
        ),
        (
            deploy(&[service("web", 1).image("")]),
            "service `web` has no image",
        ),
        (
            deploy(&[ServiceSpec {
                project: "blog".into(),
                ..service("web", 1)
            }]),
            "service `web` belongs to project `blog`, but the deployment is of project `shop`",
        ),
        (
            deploy(&[service("a", 1).after("b"), service("b", 1).after("a")]),
            "services wait for each other: a -> b -> a",
        ),
        (
            deploy(&[service("a", 1).after("bb")]),
            "service `a` depends on `bb`, which does not exist",
        ),
    ] {
        let error = plan(&desired, &observed).unwrap_err();
        assert_eq!(error.to_string(), expected);
        let failure = uc_api::Failure::from(error);
        assert_eq!(failure.message, expected);
    }
    let hint = |desired| {
        uc_api::Failure::from(plan(&desired, &observed).unwrap_err())
            .hint
            .unwrap()
    };
    assert!(hint(scale("shop/wbe")).contains("did you mean `shop/web`?"));
    assert!(hint(remove(&[], "shp")).contains("did you mean `shop`?"));
    assert_eq!(hint(scale("web")), "include the project: `blog/web`");
    let nothing = super::super::plan(&v1::PlanRequest::default(), observed.clone());
    assert_eq!(nothing.unwrap_err(), PlanError::NothingAsked);
}

#[test]
fn scaling() {
    let web = service("web", 1).mount("data");
    let observed = cluster(&["m1", "m2"])
        .with_service(&web)
        .with_replicas(&web, &["m2"])
        .with_volume("data", &["m2"])
        .with_service(&service("db", 1));
    let scaled = |replicas| {
        plan(
            &Change::Scale(ScaleService {
                service: "web".into(),
                replicas,
            }),
            &observed,
        )
        .unwrap()
    };
    let up = scaled(3);
    assert_eq!(lines(&up), ["create web on m2", "create web on m2"]);
    let service = &up.services[0];
    assert_eq!(
        (service.change(), service.kept, service.desired),
        (ServiceChange::Update, 1, 3)
    );
    let field = FieldChangeText::of(service);
    assert_eq!(field, ["deploy.replicas: 1 -> 3"]);
    assert!(is_empty(&scaled(1)));
    assert_eq!(lines(&scaled(0)), ["remove web web-01 on m2"]);
}

/// Fields as text.
struct FieldChangeText;

impl FieldChangeText {
    fn of(service: &ServicePlan) -> Vec<String> {
        service
            .fields
            .iter()
            .map(|field| format!("{}: {} -> {}", field.field, field.old, field.new))
            .collect()
    }
}

#[test]
fn removing() {
    let db = service("db", 1);
    let web = service("web", 2).after("db");
    let mut observed = cluster(&["m1", "m2", "!m3"])
        .with_service(&db)
        .with_service(&web)
        .with_replicas(&db, &["m1"])
        .with_replicas(&web, &["m2", "m3"]);
    let remove = |name: &str| {
        Change::Remove(RemoveServices {
            services: vec![name.into()],
            project: String::new(),
        })
    };
    assert_eq!(
        run(&remove("web"), &observed),
        "remove web web-02 on m2\n\
         m3 later removes web web-03: service removed"
    );
    assert_eq!(
        run(&remove("db"), &observed),
        "remove db db-01 on m1\nwarning: shop/db will be removed, but shop/web, which depends on it, will not"
    );
    // Of a service that was removed while m3 was down, only the container is left.
    observed.services.clear();
    observed.machine("m3").up = true;
    assert_eq!(
        run(&remove("web"), &observed),
        "remove web web-02 on m2\nremove web web-03 on m3"
    );
}

/// A deployment of these services of the project `shop` that removes orphans.
fn without_orphans(services: &[ServiceSpec]) -> Change {
    let Change::Deploy(desired) = deploy(services) else {
        unreachable!()
    };
    Change::Deploy(v1::DesiredServices {
        remove_orphans: true,
        ..desired
    })
}

/// The layer of each service of a plan.
fn layers_of(plan: &v1::Plan) -> Vec<(&str, u32)> {
    plan.services
        .iter()
        .map(|service| (service.service.as_str(), service.layer))
        .collect()
}

#[test]
fn orphans_are_removed_last_and_only_if_asked() {
    let (old, web) = (service("old", 1).after("gone"), service("web", 1));
    let observed = cluster(&["m1"])
        .with_service(&old)
        .with_service(&service("gone", 1))
        .with_replicas(&old, &["m1"])
        .with_replicas(&service("gone", 1), &["m1"]);
    let kept = plan(&deploy(std::slice::from_ref(&web)), &observed).unwrap();
    let removed = plan(&without_orphans(std::slice::from_ref(&web)), &observed).unwrap();
    assert_eq!(
        lines(&kept),
        [
            "create web on m1",
            "warning: shop/gone and shop/old are not in the compose file; \
             `uc deploy --remove-orphans` removes them",
        ]
    );
    assert_eq!(
        lines(&removed),
        [
            "create web on m1",
            "remove old old-01 on m1",
            "remove gone gone-02 on m1"
        ]
    );
    assert_eq!(
        layers_of(&removed),
        [("web", 0), ("old", 1), ("gone", 2)],
        "a failed deployment has removed nothing yet"
    );
    assert_ne!(kept.digest, removed.digest, "removals are confirmed");
}

#[test]
fn orphan_that_holds_a_port_of_a_new_replica_is_removed_first() {
    let (old, new) = (service("web", 1).port(80), service("site", 1).port(80));
    let observed = cluster(&["m1"])
        .with_service(&old)
        .with_replicas(&old, &["m1"]);
    let renamed = plan(&without_orphans(std::slice::from_ref(&new)), &observed).unwrap();
    assert_eq!(
        lines(&renamed),
        ["remove web web-01 on m1", "create site on m1"]
    );
    assert_eq!(layers_of(&renamed), [("web", 0), ("site", 1)]);
    assert!(
        run(&deploy(&[new]), &observed).starts_with("error: "),
        "without the removal, the port is taken"
    );
}

#[test]
fn services_of_the_file_that_are_not_deployed_are_not_orphans() {
    let observed = cluster(&["m1"])
        .with_service(&service("db", 1))
        .with_service(&service("tools", 1));
    for remove_orphans in [false, true] {
        let desired = Change::Deploy(v1::DesiredServices {
            project: "shop".into(),
            services: vec![service("web", 1)],
            other_services: vec!["db".into(), "tools".into()],
            remove_orphans,
            ..Default::default()
        });
        assert_eq!(run(&desired, &observed), "create web on m1");
    }
}

#[test]
fn removed_orphan_that_a_service_depends_on_is_warned_about() {
    let web = service("web", 1).after("db");
    let observed = cluster(&["m1"])
        .with_service(&service("db", 1))
        .with_service(&service("web", 1).after("old"))
        .with_service(&service("old", 1));
    assert_eq!(
        run(&without_orphans(&[web]), &observed),
        "create web on m1\n\
         warning: shop/db will be removed, but shop/web, which depends on it, will not"
    );
}

#[test]
fn orphan_is_kept_and_named_in_a_warning() {
    let old = service("old", 1);
    let blog = ServiceSpec {
        project: "blog".into(),
        ..service("x", 1)
    };
    let observed = cluster(&["m1"])
        .with_service(&old)
        .with_service(&blog)
        .with_replicas(&service("ghost", 1), &["m1"]);
    assert_eq!(
        run(&deploy(&[]), &observed),
        "warning: shop/ghost and shop/old are not in the compose file; `uc deploy --remove-orphans` removes them"
    );
}

#[test]
fn differences_in_words_of_the_file() {
    let old = ServiceSpec {
        environment: [
            ("A", "1"),
            ("GONE", ""),
            ("DB_PASSWORD", "hunter2"),
            ("URL", "pg://u:hunter2@db/x"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        stop_grace_period_ms: Some(1_500),
        ..service("web", 1).port(80)
    };
    let new = ServiceSpec {
        environment: [
            ("A", "2"),
            ("NEW", "x"),
            ("DB_PASSWORD", "hunter3"),
            ("URL", "pg://u:hunter3@db/x?a=b"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        command: Some(v1::StringList {
            values: vec!["sh".into(), "-c".into(), "a b".into()],
        }),
        restart: v1::RestartPolicy::No.into(),
        healthcheck: Some(v1::Healthcheck {
            test: vec!["CMD".into(), "true".into()],
            interval_ms: Some(5_000),
            retries: Some(3),
            ..Default::default()
        }),
        read_only: true,
        stop_grace_period_ms: Some(20_000),
        ..service("web", 2)
            .port(81)
            .mount("data")
            .after("db")
            .image("web:2")
    };
    let observed = cluster(&["m1", "m2"])
        .with_volume("data", &["m1", "m2"])
        .with_service(&old)
        .with_replicas(&old, &["m1"]);
    let plan = plan(&deploy(&[new, service("db", 1)]), &observed).unwrap();
    let web = plan
        .services
        .iter()
        .find(|service| service.service == "web")
        .unwrap();
    assert_eq!(
        FieldChangeText::of(web),
        [
            "image: web:1 -> web:2",
            r#"command:  -> ["sh","-c","a b"]"#,
            "environment.A: 1 -> 2",
            "environment.DB_PASSWORD: *** -> ***",
            r#"environment.GONE: "" -> "#,
            "environment.NEW:  -> x",
            "environment.URL: pg://u:***@db/x -> pg://u:***@db/x?a=b",
            "ports: 80:80 -> 81:80",
            "volumes:  -> data:/data",
            r#"healthcheck:  -> ["CMD","true"] interval=5s retries=3"#,
            "depends_on:  -> db",
            "deploy.replicas: 1 -> 2",
            "stop_grace_period: 1500ms -> 20s",
            "restart:  -> no",
            "read_only:  -> true",
        ]
    );
    let replace = web
        .steps
        .iter()
        .find(|step| step.action() == ReplicaAction::Replace)
        .unwrap();
    assert_eq!(replace.reason, "image and 8 more changed");
    assert!(!format!("{plan:?}").contains("hunter"));
}
