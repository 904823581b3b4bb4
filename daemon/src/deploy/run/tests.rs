//! The pure parts: what is gone back to, whose spec is taken, who may deploy.

use uc_api::v1::{FieldChange, ReplicaStep, ServicePlan, ServiceSpec, VolumeSpec};

use super::*;

fn key(text: &str) -> ServiceKey {
    text.parse().unwrap()
}

fn record(project: &str, name: &str, volume: &str) -> ServiceRecord {
    let spec = ServiceSpec {
        project: project.into(),
        name: name.into(),
        replicas: 1,
        ..ServiceSpec::default()
    };
    let volumes = vec![VolumeSpec {
        name: volume.into(),
        ..VolumeSpec::default()
    }];
    ServiceRecord {
        spec: Some(spec),
        volumes,
        ..ServiceRecord::default()
    }
}

fn touched(project: &str, service: &str) -> ServicePlan {
    ServicePlan {
        project: project.into(),
        service: service.into(),
        steps: vec![ReplicaStep::default()],
        ..ServicePlan::default()
    }
}

#[test]
fn rollback_is_worded_by_what_existed_before() {
    let services = BTreeMap::from([(key("shop/web"), record("shop", "web", "data"))]);
    let words = |touched: &[ServicePlan]| {
        let plan = Plan {
            services: touched.to_vec(),
            ..Plan::default()
        };
        let words = Previous::of(&previous_records(&plan, &services));
        (words.rolling_back(), words.rolled_back())
    };
    let (old, new) = (touched("shop", "web"), touched("shop", "new"));
    let (begins, done) = words(std::slice::from_ref(&new));
    assert!(!begins.contains("previous revision"), "{begins}");
    assert_eq!(done, "the new services were removed");
    assert_eq!(
        words(std::slice::from_ref(&old)),
        (
            "rolling back to the previous revision",
            "the previous revision serves again"
        )
    );
    let (begins, done) = words(&[old, new]);
    assert!(
        begins.contains("previous revision") && begins.contains("new services"),
        "{begins}"
    );
    assert!(
        done.contains("previous revision") && done.contains("new services"),
        "{done}"
    );
}

#[test]
fn going_back_means_the_old_specs_and_none_of_the_new_services() {
    let services = BTreeMap::from([
        (key("shop/web"), record("shop", "web", "data")),
        (key("shop/db"), record("shop", "db", "data")),
        (key("blog/web"), record("blog", "web", "posts")),
    ]);
    let plan = Plan {
        services: vec![
            touched("shop", "web"),
            touched("shop", "db"),
            touched("shop", "new"),
            ServicePlan {
                steps: Vec::new(),
                ..touched("blog", "web")
            },
        ],
        ..Plan::default()
    };
    let previous = previous_records(&plan, &services);
    assert_eq!(
        previous.keys().map(ToString::to_string).collect::<Vec<_>>(),
        ["shop/db", "shop/new", "shop/web"]
    );
    let requests = previous_requests(&previous);
    assert!(
        matches!(&requests[0].change, Some(plan_request::Change::Remove(remove))
        if remove.services == ["shop/new"])
    );
    let Some(plan_request::Change::Deploy(deploy)) = &requests[1].change else {
        panic!("{requests:?}")
    };
    assert_eq!(
        deploy
            .services
            .iter()
            .map(|spec| spec.name.as_str())
            .collect::<Vec<_>>(),
        ["db", "web"]
    );
    assert_eq!(
        deploy.volumes.len(),
        1,
        "a volume that two services share is one volume"
    );
    assert_eq!(requests.len(), 2);
}

#[test]
fn what_shared_a_namespace_of_a_touched_service_is_made_anew_after_it() {
    let sharing = |with: &str| {
        let mut app = record("shop", "app", "data");
        app.spec.as_mut().unwrap().pid = format!("service:{with}");
        app
    };
    for (with, expected) in [
        ("vpn", vec![(vec!["vpn"], false), (vec!["app"], true)]),
        ("other", vec![(vec!["app", "vpn"], false)]),
    ] {
        let previous = BTreeMap::from([
            (key("shop/app"), Some(sharing(with))),
            (key("shop/vpn"), Some(record("shop", "vpn", "data"))),
        ]);
        let requests: Vec<_> = previous_requests(&previous)
            .into_iter()
            .map(|request| {
                let Some(plan_request::Change::Deploy(deploy)) = request.change else {
                    panic!()
                };
                (
                    deploy
                        .services
                        .into_iter()
                        .map(|spec| spec.name)
                        .collect::<Vec<_>>(),
                    deploy.recreate,
                )
            })
            .collect();
        assert_eq!(
            requests
                .iter()
                .map(|(names, anew)| (names.iter().map(String::as_str).collect(), *anew))
                .collect::<Vec<_>>(),
            expected
        );
    }
}

#[test]
fn a_service_whose_record_alone_changes_is_restored_too() {
    let services = BTreeMap::from([(key("shop/web"), record("shop", "web", "data"))]);
    let fields = vec![FieldChange::default()];
    let plan = Plan {
        services: vec![ServicePlan {
            steps: Vec::new(),
            fields,
            ..touched("shop", "web")
        }],
        ..Plan::default()
    };
    assert_eq!(previous_records(&plan, &services).len(), 1);
}

#[test]
fn a_deployment_that_put_up_with_failures_says_so() {
    assert_eq!(done(Vec::new()).outcome(), DeployOutcome::Done);
    let failure = Failure::new(Code::Refused, "exited with code 1")
        .on("m1")
        .log_tail(vec!["boom".into()]);
    let end = done(vec![failure.clone(), failure]);
    assert_eq!(end.outcome(), DeployOutcome::Incomplete);
    assert!(
        end.message.starts_with("2 steps failed") && end.message.contains("exited with code 1")
    );
    assert!(end.log_tail == ["boom"] && end.hint.contains("uc ps"));
}
