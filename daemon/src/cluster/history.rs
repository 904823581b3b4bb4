//! The revisions of each service that were deployed. Each is a record of its own that is written
//! once, so two machines that deploy at the same time do not disagree about any of them.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use uc_api::v1::{
    DesiredServices, PlanRequest, RevisionRecord, RollBackServices, ServiceRecord, plan_request,
};
use uc_api::{Code, Failure, ServiceKey};
use uc_cluster_state::{Snapshot, Write};

use super::records::{REVISION, delete, put};
use super::view::Cluster;
use crate::node::NamedImages;

/// Revisions that are kept of one service.
const MAX_REVISIONS: usize = 50;

/// Built images that are kept of one service: those of its newest revisions, the present one
/// included. Going back further needs the image from the computer that built it.
const KEPT_IMAGES: usize = 3;

/// One revision with its key in the store.
#[derive(Debug, Clone, PartialEq)]
struct Stored {
    key: String,
    record: RevisionRecord,
}

/// The revisions of a service, the newest first.
pub(crate) fn revisions(snapshot: &Snapshot, service: &ServiceKey) -> Vec<RevisionRecord> {
    let stored = stored(snapshot, service).into_iter();
    stored.map(|stored| stored.record).collect()
}

fn stored(snapshot: &Snapshot, service: &ServiceKey) -> Vec<Stored> {
    let prefix = format!("{service}@");
    let mut found: Vec<Stored> = snapshot
        .intents(REVISION)
        .filter(|(key, _)| key.starts_with(&prefix))
        .filter_map(|(key, value)| {
            let record = RevisionRecord::decode(value).ok()?;
            record.record.as_ref()?.spec.as_ref()?;
            Some(Stored {
                key: key.to_owned(),
                record,
            })
        })
        .collect();
    found.sort_by(|a, b| (b.record.at_ms, &b.key).cmp(&(a.record.at_ms, &a.key)));
    found
}

/// Adds a revision of a service, unless it is the newest one already, and drops the oldest ones
/// above the limit.
pub(crate) fn add(
    snapshot: &Snapshot,
    service: &ServiceKey,
    record: &ServiceRecord,
    deployment: &str,
    now_ms: i64,
) -> Vec<Write> {
    let stored = stored(snapshot, service);
    let newest = stored
        .first()
        .and_then(|newest| newest.record.record.as_ref());
    if newest.is_some_and(|newest| newest.revision == record.revision) {
        return Vec::new();
    }
    let added = RevisionRecord {
        record: Some(record.clone()),
        deployment_id: deployment.to_owned(),
        at_ms: now_ms,
    };
    let added = put(REVISION, format!("{service}@{deployment}"), &added);
    let surplus = stored.iter().skip(MAX_REVISIONS - 1);
    let surplus = surplus.map(|old| delete(REVISION, old.key.clone()));
    std::iter::once(added).chain(surplus).collect()
}

/// Forgets the revisions of a service that was removed.
pub(crate) fn forget(snapshot: &Snapshot, service: &ServiceKey) -> Vec<Write> {
    let stored = stored(snapshot, service).into_iter();
    stored.map(|old| delete(REVISION, old.key)).collect()
}

/// The request as the planner takes it: going back to a revision is deploying what it was. Other
/// requests stay as they are.
pub(crate) fn resolve(
    cluster: &Cluster,
    snapshot: &Snapshot,
    request: PlanRequest,
) -> Result<PlanRequest, Failure> {
    let Some(plan_request::Change::RollBack(wanted)) = &request.change else {
        return Ok(request);
    };
    let desired = earlier(cluster, snapshot, wanted)?;
    Ok(PlanRequest {
        change: Some(plan_request::Change::Deploy(desired)),
    })
}

fn earlier(
    cluster: &Cluster,
    snapshot: &Snapshot,
    wanted: &RollBackServices,
) -> Result<DesiredServices, Failure> {
    let (key, present) = cluster.service(&wanted.service)?;
    let all = revisions(snapshot, key);
    let mut records = all.iter().filter_map(|revision| revision.record.as_ref());
    let found = if wanted.revision.is_empty() {
        records.find(|record| record.revision != present.revision)
    } else {
        records.find(|record| record.revision.starts_with(&wanted.revision))
    };
    let found = found.ok_or_else(|| {
        let message = match wanted.revision.as_str() {
            "" => format!("{key} has no earlier revision"),
            revision => format!("{key} has no revision {revision}"),
        };
        Failure::new(Code::NotFound, message)
            .hint(format!("`uc history {key}` lists the revisions"))
    })?;
    let mut spec = found
        .spec
        .clone()
        .expect("a revision without a spec is left out");
    // Going back is about what runs, not about how much of it.
    if let Some(present) = &present.spec {
        spec.replicas = present.replicas;
    }
    let others = cluster.services().keys();
    let others = others.filter(|other| other.project == key.project && *other != key);
    Ok(DesiredServices {
        project: key.project.to_string(),
        services: vec![spec],
        volumes: found.volumes.clone(),
        other_services: others.map(|other| other.service.to_string()).collect(),
        images_resolved: true,
        ..DesiredServices::default()
    })
}

/// The writes of a deployment that ended well: a revision of each service that it changed.
/// `removed` are the services that it removed.
pub(crate) fn of_deployment<'a>(
    snapshot: &Snapshot,
    changed: &BTreeMap<ServiceKey, ServiceRecord>,
    removed: impl Iterator<Item = &'a ServiceKey>,
    deployment: &str,
    now_ms: i64,
) -> Vec<Write> {
    let added = changed
        .iter()
        .flat_map(|(key, record)| add(snapshot, key, record, deployment, now_ms));
    let forgotten = removed.flat_map(|key| forget(snapshot, key));
    added.chain(forgotten).collect()
}

/// The built images that the services of the cluster name.
pub(crate) fn named_images(cluster: &Cluster, snapshot: &Snapshot) -> NamedImages {
    let mut named = NamedImages::default();
    for (service, present) in cluster.services() {
        let earlier = revisions(snapshot, service).into_iter();
        let records: Vec<ServiceRecord> = std::iter::once((**present).clone())
            .chain(earlier.filter_map(|revision| revision.record))
            .collect();
        add_images(&records, &mut named);
    }
    named
}

/// Adds the built images of one service. `records` are its present record and its revisions, the
/// newest first.
fn add_images(records: &[ServiceRecord], named: &mut NamedImages) {
    let specs = records.iter().filter_map(|record| record.spec.as_ref());
    let mut kept = BTreeSet::new();
    for spec in specs.filter(|spec| spec.built) {
        if kept.len() < KEPT_IMAGES {
            kept.insert(spec.image.clone());
        }
        named.all.insert(spec.image.clone());
    }
    named.kept.extend(kept);
}

#[cfg(test)]
mod tests {
    use uc_api::v1::ServiceSpec;

    use super::*;

    #[test]
    fn add_images_keeps_the_newest_three_of_a_service() {
        let record = |(image, built): (&str, bool)| ServiceRecord {
            spec: Some(ServiceSpec {
                image: image.into(),
                built,
                ..ServiceSpec::default()
            }),
            ..ServiceRecord::default()
        };
        let records = [
            ("c", true),
            ("c", true),
            ("nginx", false),
            ("b", true),
            ("c", true),
            ("a", true),
            ("z", true),
            ("b", true),
        ];
        let mut named = NamedImages::default();
        add_images(&records.map(record), &mut named);
        assert_eq!(
            named.kept,
            BTreeSet::from(["a", "b", "c"].map(str::to_owned))
        );
        assert_eq!(
            named.all,
            BTreeSet::from(["a", "b", "c", "z"].map(str::to_owned))
        );
    }
}
