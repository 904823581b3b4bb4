//! Digests of images.

use uc_api::v1::ScaleService;

use super::simulation::carry_out;
use super::*;

fn pinned(digest: &str) -> ServiceSpec {
    ServiceSpec {
        image_digest: digest.into(),
        ..service("app", 2).image("app:latest")
    }
}

/// A cluster that runs the service with this digest.
fn runs(digest: &str) -> Observed {
    let mut observed = cluster(&["m1", "m2"]);
    let desired = deploy(&[pinned(digest)]);
    let made = plan(&desired, &observed).unwrap();
    carry_out(&made, &specs(&desired, &observed), &mut observed);
    observed
}

#[test]
fn moved_tag_replaces_every_replica_and_is_the_reason() {
    let plan = plan(&deploy(&[pinned("sha256:bbb")]), &runs("sha256:aaa")).unwrap();
    let [of_app] = plan.services.as_slice() else {
        panic!("{plan:?}")
    };
    assert_eq!(of_app.image_digest, "sha256:bbb");
    let reasons: Vec<&str> = of_app
        .steps
        .iter()
        .map(|step| step.reason.as_str())
        .collect();
    assert_eq!(reasons, ["image app:latest has moved"; 2]);
    let changed = of_app.fields.iter().map(|change| {
        let (field, old, new) = (&change.field, &change.old, &change.new);
        (field.as_str(), old.as_str(), new.as_str())
    });
    let changed: Vec<_> = changed.collect();
    assert_eq!(changed, [("image digest", "sha256:aaa", "sha256:bbb")]);
}

#[test]
fn another_image_is_the_reason_and_its_digest_is_not() {
    let other = pinned("sha256:bbb").image("app:2");
    let plan = plan(&deploy(&[other]), &runs("sha256:aaa")).unwrap();
    let fields = plan.services[0].fields.iter();
    let fields: Vec<&str> = fields.map(|change| change.field.as_str()).collect();
    assert_eq!(fields, ["image"]);
    assert_eq!(plan.services[0].steps[0].reason, "image changed");
}

#[test]
fn same_digest_changes_nothing_and_scaling_keeps_it() {
    let observed = runs("sha256:aaa");
    assert!(is_empty(
        &plan(&deploy(&[pinned("sha256:aaa")]), &observed).unwrap()
    ));
    let scale = Change::Scale(ScaleService {
        service: "app".into(),
        replicas: 3,
    });
    let scaled = specs(&scale, &observed);
    assert_eq!(scaled[0].image_digest, "sha256:aaa");
    assert_eq!(plan(&scale, &observed).unwrap().services[0].kept, 2);
}
