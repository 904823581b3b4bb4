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
        let words = Previous::of(&previous_records(previous_of(&plan, &services)));
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
    assert_eq!(previous_records(previous_of(&plan, &services)).len(), 1);
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
