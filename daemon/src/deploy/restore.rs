//! The records that a failed deployment puts back. Only those that it wrote itself: a record that
//! someone else changed in the meantime is theirs, and is left as it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use uc_api::ServiceKey;
use uc_api::revision::revision;
use uc_api::v1::{Plan, ServiceRecord, ServiceSpec};
use uc_cluster_state::Write;

use super::undo::service_key;
use crate::cluster::records::{self, delete, put};

/// What has to be written so that the previous records are back.
#[derive(Debug, Default)]
pub(super) struct Restore {
    pub(super) writes: Vec<Write>,
    /// Services that someone else changed or removed in the meantime. They have no write.
    pub(super) changed_by_others: Vec<ServiceKey>,
}

/// The specs that a deployment of this plan writes, of all specs of the plan by service name. A
/// service that it removes has none.
pub(super) fn written(
    plan: &Plan,
    specs: &BTreeMap<String, ServiceSpec>,
) -> BTreeMap<ServiceKey, ServiceSpec> {
    let services = plan.services.iter();
    services
        .filter_map(|service| {
            let spec = specs.get(&service.service)?;
            Some((
                service_key(&service.project, &service.service),
                spec.clone(),
            ))
        })
        .collect()
}

/// Compares the present records with those before the deployment (`None`: it did not exist) and
/// with what the deployment wrote (missing: it removed the service).
pub(super) fn restore(
    previous: &BTreeMap<ServiceKey, Option<ServiceRecord>>,
    written: &BTreeMap<ServiceKey, ServiceSpec>,
    present: &BTreeMap<ServiceKey, Arc<ServiceRecord>>,
) -> Restore {
    let mut restore = Restore::default();
    for (key, before) in previous {
        let now = present.get(key).map(|record| &**record);
        if now == before.as_ref() {
            continue;
        }
        if !is_written(now, written.get(key)) {
            restore.changed_by_others.push(key.clone());
            continue;
        }
        restore.writes.push(match before {
            Some(record) => put(records::SERVICE, key.to_string(), record),
            None => delete(records::SERVICE, key.to_string()),
        });
    }
    restore
}

/// Whether a record is the one that the deployment wrote.
fn is_written(now: Option<&ServiceRecord>, written: Option<&ServiceSpec>) -> bool {
    match (now, written) {
        (Some(now), Some(spec)) => {
            now.spec.as_ref() == Some(spec) && now.revision == revision(spec)
        }
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(image: &str) -> ServiceSpec {
        ServiceSpec {
            project: "shop".into(),
            name: "web".into(),
            image: image.into(),
            ..ServiceSpec::default()
        }
    }

    fn record(image: &str) -> ServiceRecord {
        ServiceRecord {
            revision: revision(&spec(image)),
            spec: Some(spec(image)),
            ..ServiceRecord::default()
        }
    }

    /// What is restored of one service: `write`, `delete`, `left` or `nothing`.
    fn restored(
        previous: Option<&str>,
        written: Option<&str>,
        present: Option<&str>,
    ) -> &'static str {
        let key: ServiceKey = "shop/web".parse().unwrap();
        let previous = BTreeMap::from([(key.clone(), previous.map(record))]);
        let written = written.map(|image| (key.clone(), spec(image)));
        let present = present.map(|image| (key.clone(), Arc::new(record(image))));
        let restore = restore(
            &previous,
            &written.into_iter().collect(),
            &present.into_iter().collect(),
        );
        match (
            restore.writes.as_slice(),
            restore.changed_by_others.as_slice(),
        ) {
            ([Write::Put { .. }], []) => "write",
            ([Write::Delete { .. }], []) => "delete",
            ([], [_]) => "left",
            ([], []) => "nothing",
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn record_that_the_deployment_wrote_is_restored() {
        assert_eq!(restored(Some("a"), Some("b"), Some("b")), "write");
        assert_eq!(
            restored(None, Some("b"), Some("b")),
            "delete",
            "a new service"
        );
        assert_eq!(
            restored(Some("a"), None, None),
            "write",
            "a removed service"
        );
    }

    #[test]
    fn record_that_is_as_before_needs_nothing() {
        assert_eq!(restored(Some("a"), Some("b"), Some("a")), "nothing");
        assert_eq!(restored(None, Some("b"), None), "nothing");
        assert_eq!(restored(Some("a"), None, Some("a")), "nothing");
    }

    #[test]
    fn record_that_someone_else_changed_is_left() {
        assert_eq!(restored(Some("a"), Some("b"), Some("c")), "left");
        assert_eq!(restored(None, Some("b"), Some("c")), "left");
        assert_eq!(
            restored(Some("a"), Some("b"), None),
            "left",
            "removed by someone else"
        );
        assert_eq!(restored(Some("a"), None, Some("c")), "left");
    }

    #[test]
    fn record_with_the_same_spec_and_another_revision_is_left() {
        let key: ServiceKey = "shop/web".parse().unwrap();
        let other = ServiceRecord {
            revision: "of another version of uc".into(),
            ..record("b")
        };
        let restore = restore(
            &BTreeMap::from([(key.clone(), Some(record("a")))]),
            &BTreeMap::from([(key.clone(), spec("b"))]),
            &BTreeMap::from([(key.clone(), Arc::new(other))]),
        );
        assert_eq!(restore.changed_by_others, [key]);
    }
}
