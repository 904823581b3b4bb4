//! Services that share namespaces or ask to be replaced together, and commands of before.

use uc_api::v1::{PreDeploy, ScaleService};

use super::simulation::carry_out;
use super::*;

#[track_caller]
fn check(what: &str, observed: &Observed, services: &[ServiceSpec], expected: &str) {
    assert_eq!(run(&deploy(services), observed), expected, "{what}");
}

/// The cluster after the services were deployed.
fn deployed(mut observed: Observed, services: &[ServiceSpec]) -> Observed {
    let desired = deploy(services);
    let made = plan(&desired, &observed).unwrap();
    let specs = specs(&desired, &observed);
    carry_out(&made, &specs, &mut observed);
    assert_eq!(
        run(&desired, &observed),
        "",
        "a plan that was carried out leaves nothing to do"
    );
    observed
}

fn reasons(plan: &v1::Plan) -> Vec<(String, String)> {
    let steps = plan
        .services
        .iter()
        .flat_map(|service| service.steps.iter().map(move |step| (service, step)));
    steps
        .map(|(service, step)| (service.service.clone(), step.reason.clone()))
        .collect()
}

#[test]
fn a_service_that_shares_goes_where_the_other_runs() {
    let three = || cluster(&["m1", "m2", "m3"]);
    check(
        "one beside each",
        &three(),
        &[
            service("app", 2).shares("vpn"),
            service("vpn", 2).on(&["m2", "m3"]),
        ],
        "create vpn on m2\ncreate vpn on m3\ncreate app on m2\ncreate app on m3",
    );
    check(
        "as evenly as the other is",
        &three(),
        &[
            service("app", 4).shares("vpn"),
            service("vpn", 3).on(&["m1", "m3"]),
        ],
        "create vpn on m1\ncreate vpn on m1\ncreate vpn on m3\n\
         create app on m1\ncreate app on m1\ncreate app on m3\ncreate app on m3",
    );
    check(
        "where it runs already",
        &three()
            .with_replicas(&service("vpn", 1), &["m3"])
            .with_service(&service("vpn", 1)),
        &[service("app", 1).shares("vpn")],
        "create app on m3\nwarning: shop/vpn is not in the compose file; `uc deploy --remove-orphans` removes it",
    );
    check(
        "where both may",
        &three(),
        &[
            service("app", 1)
                .shares("vpn")
                .constraint("node.hostname==m2"),
            service("vpn", 1),
        ],
        "create vpn on m2\ncreate app on m2",
    );
    check(
        "where its volume is to be made",
        &three().with_replicas(
            &ServiceSpec {
                project: "blog".into(),
                ..service("x", 1)
            },
            &["m1"],
        ),
        &[
            service("app", 1).shares("vpn").mount("data"),
            service("vpn", 1).mount("keys").on(&["m2", "m3"]),
        ],
        "volume data on m2\nvolume keys on m2\ncreate vpn on m2\ncreate app on m2",
    );
    check(
        "on each machine of a global one",
        &three(),
        &[global("app").shares("vpn"), global("vpn").on(&["m1", "m3"])],
        "create vpn on m1\ncreate vpn on m3\ncreate app on m1\ncreate app on m3",
    );
    check(
        "through another",
        &three(),
        &[
            service("a", 1).shares("b"),
            service("b", 1).shares("c"),
            service("c", 1).on(&["m3"]),
        ],
        "create c on m3\ncreate b on m3\ncreate a on m3",
    );
    check(
        "and moves with it",
        &deployed(
            three(),
            &[service("app", 1).shares("vpn"), service("vpn", 1)],
        ),
        &[
            service("app", 1).shares("vpn"),
            service("vpn", 1).on(&["m2"]),
        ],
        "replace vpn vpn-01 on m2\nreplace app app-02 on m2",
    );
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let two = cluster(&["m1", "m2"]);
    for (services, said) in [
        (
            vec![service("app", 1).shares("vp"), service("vpn", 1)],
            "shares a namespace of `vp`, which does not exist",
        ),
        (
            vec![service("app", 1).shares("app")],
            "wait for each other: app -> app",
        ),
        (
            vec![service("app", 1).shares("b"), service("b", 1).after("app")],
            "wait for each other",
        ),
        (
            vec![
                service("app", 1).shares("vpn").on(&["m1"]),
                service("vpn", 1).on(&["m2"]),
            ],
            "no machine is allowed to run both",
        ),
        (
            vec![service("app", 1).shares("vpn"), service("vpn", 0)],
            "which runs on no machine that is allowed to run it",
        ),
    ] {
        let text = run(&deploy(&services), &two);
        assert!(text.starts_with("error: ") && text.contains(said), "{text}");
    }
    let error = plan(
        &deploy(&[service("app", 1).shares("vp"), service("vpn", 1)]),
        &two,
    )
    .unwrap_err();
    assert!(
        uc_api::Failure::from(error)
            .hint
            .unwrap()
            .contains("did you mean `vpn`?")
    );
}

#[test]
fn it_comes_after_the_other_and_is_replaced_with_it() {
    let services = |image: &str| {
        [
            service("app", 2).shares("vpn"),
            service("vpn", 2).image(image),
        ]
    };
    let observed = deployed(cluster(&["m1", "m2"]), &services("vpn:1"));
    let stored = observed.services[&"shop/app".parse().unwrap()]
        .spec
        .clone()
        .unwrap();
    assert_eq!(
        stored.shared_revisions,
        [revision(&service("vpn", 2).image("vpn:1"))]
    );

    let made = plan(&deploy(&services("vpn:2")), &observed).unwrap();
    let layers: Vec<_> = made
        .services
        .iter()
        .map(|service| (service.service.as_str(), service.layer))
        .collect();
    assert_eq!(layers, [("vpn", 0), ("app", 1)]);
    let app: Vec<_> = reasons(&made)
        .into_iter()
        .filter(|(service, _)| service == "app")
        .collect();
    assert_eq!(
        app,
        vec![("app".to_owned(), "vpn was replaced".to_owned()); 2]
    );

    // Its own change says more.
    let both = [
        service("app", 2).shares("vpn").image("app:2"),
        service("vpn", 2).image("vpn:2"),
    ];
    let made = plan(&deploy(&both), &observed).unwrap();
    assert!(
        reasons(&made).contains(&(
            "app".to_owned(),
            "image and shared service changed".to_owned()
        )),
        "{:?}",
        reasons(&made)
    );

    // What a client says of revisions is not believed.
    let mut lying = services("vpn:1");
    lying[0].shared_revisions = vec!["0".into()];
    assert_eq!(run(&deploy(&lying), &observed), "");
}

#[test]
fn it_is_replaced_where_the_other_is_made_anew() {
    let services = [service("app", 2).shares("vpn"), service("vpn", 2)];
    let observed = || deployed(cluster(&["m1", "m2"]), &services);
    let mut broken = observed();
    broken
        .machine("m2")
        .replicas
        .iter_mut()
        .filter(|replica| replica.service == "vpn")
        .for_each(|replica| {
            replica.set_state(ReplicaState::Exited);
            replica.exit_code = Some(1);
        });
    check(
        "it exited",
        &broken,
        &services,
        "replace vpn vpn-02 on m2\nreplace app app-04 on m2",
    );
    let reasons = reasons(&plan(&deploy(&services), &broken).unwrap());
    assert_eq!(reasons[1], ("app".into(), "vpn was replaced".into()));

    let mut gone = observed();
    gone.machine("m2")
        .replicas
        .retain(|replica| replica.service != "vpn");
    check(
        "it is gone",
        &gone,
        &services,
        "create vpn on m2\nreplace app app-04 on m2",
    );

    check("nothing happened", &observed(), &services, "");
    let fewer = [service("app", 2).shares("vpn"), service("vpn", 1)];
    check(
        "one is not there any more",
        &observed(),
        &fewer,
        "remove vpn vpn-02 on m2\nreplace app app-04 on m1",
    );
    let more = [service("app", 3).shares("vpn"), service("vpn", 3)];
    check(
        "one more beside those that stay",
        &observed(),
        &more,
        "create vpn on m1\ncreate app on m1",
    );
}

#[test]
fn scaling_keeps_what_it_shares() {
    let services = [service("app", 2).shares("vpn"), service("vpn", 2)];
    let observed = deployed(cluster(&["m1", "m2"]), &services);
    let scale = |name: &str, replicas| {
        Change::Scale(ScaleService {
            service: name.into(),
            replicas,
        })
    };
    assert_eq!(run(&scale("app", 3), &observed), "create app on m1");
    assert_eq!(run(&scale("app", 1), &observed), "remove app app-04 on m2");
    assert_eq!(run(&scale("vpn", 3), &observed), "create vpn on m1");
    let text = run(&scale("vpn", 1), &observed);
    assert!(
        text.starts_with(
            "remove vpn vpn-02 on m2\nwarning: shop/app shares namespaces of shop/vpn"
        ),
        "{text}"
    );
}

#[test]
fn a_dependent_that_asks_for_it_is_replaced_with_its_dependency() {
    let services = |image: &str| {
        let mut web = service("web", 2).after("db");
        web.depends_on[0].restart = true;
        [
            web,
            service("db", 1).image(image),
            service("other", 1).after("db"),
        ]
    };
    let observed = deployed(cluster(&["m1", "m2"]), &services("db:1"));
    let made = plan(&deploy(&services("db:2")), &observed).unwrap();
    assert_eq!(
        reasons(&made),
        [
            ("db".to_owned(), "image changed".to_owned()),
            ("web".to_owned(), "db was replaced".to_owned()),
            ("web".to_owned(), "db was replaced".to_owned()),
        ]
    );
    check("nothing happened", &observed, &services("db:1"), "");
    let alone = run(&deploy(&[service("db", 1).image("db:2")]), &observed);
    assert!(
        alone.contains("warning: shop/web is to be replaced together with shop/db"),
        "{alone}"
    );
    assert!(!alone.contains("shop/other is to be"), "{alone}");
    // More of it is no replacement.
    let [web, db, other] = services("db:1");
    check(
        "scaled",
        &observed,
        &[web, ServiceSpec { replicas: 2, ..db }, other],
        "create db on m2",
    );
}

#[test]
fn services_before_leave_the_places_of_those_after_them() {
    // `front` waits for `api` to be placed; its port is not given away meanwhile.
    let mut front = global("front").port(80).after("api");
    front.depends_on[0].restart = true;
    let api = service("api", 1).port(81);
    let proxy = service("proxy", 1).port(80);
    let text = run(&deploy(&[front, api, proxy]), &cluster(&["m1", "m2"]));
    assert!(
        text.starts_with("error: ") && text.contains("80/tcp") && text.contains("`shop/proxy`"),
        "{text}"
    );
}

#[test]
fn a_command_of_before_runs_where_the_first_new_replica_goes() {
    let migrate = PreDeploy {
        command: vec!["migrate".into()],
        ..PreDeploy::default()
    };
    let web = |replicas, image: &str| ServiceSpec {
        pre_deploy: Some(migrate.clone()),
        ..service("web", replicas).image(image).on(&["m2", "m3"])
    };
    let made = plan(&deploy(&[web(1, "web:1")]), &cluster(&["m1", "m2", "m3"])).unwrap();
    let step = made.services[0].pre_deploy.clone().unwrap();
    assert_eq!(
        (step.id.as_str(), step.machine_name.as_str()),
        ("shop/web/pre-deploy", "m2")
    );
    assert_eq!(
        (step.machine_id, step.command),
        (machine_id("m2").to_string(), vec!["migrate".to_owned()])
    );

    let observed = deployed(cluster(&["m1", "m2", "m3"]), &[web(2, "web:1")]);
    let of = |spec: ServiceSpec| {
        plan(&deploy(&[spec]), &observed).unwrap().services[0]
            .pre_deploy
            .clone()
    };
    assert!(of(web(2, "web:2")).is_some());
    assert!(of(web(3, "web:1")).is_some());
    assert_eq!(of(web(1, "web:1")), None, "nothing is made");
    assert_eq!(of(web(2, "web:1")), None, "nothing is done");
    // Another command alone replaces nothing.
    let other = PreDeploy {
        command: vec!["other".into()],
        ..migrate.clone()
    };
    assert_eq!(
        of(ServiceSpec {
            pre_deploy: Some(other),
            ..web(2, "web:1")
        }),
        None
    );
}
