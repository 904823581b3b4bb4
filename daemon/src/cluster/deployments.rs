//! The deployments of the cluster, from the log that each executing machine writes.

use std::collections::BTreeMap;

use prost::Message as _;
use uc_api::v1::{DeployFinished, DeploymentBegan, DeploymentEntry, Plan, deployment_entry};
use uc_api::{Failure, MachineId};
use uc_cluster_state::{Retention, Snapshot};

use super::member::{Member, write_failure};
use super::records::DEPLOYMENT;
use crate::clock::now_ms;

/// What each machine keeps of the deployments that it executed.
const RETENTION: Retention = Retention {
    entries: 1_000,
    age_ms: 180 * 24 * 3_600 * 1_000,
};

/// Begins the ids of deployments that no user asked for.
const AUTOMATIC: &str = "auto-";

/// The id of a new deployment that no user asked for. It makes way for one that a user asks for.
pub(crate) fn automatic_id() -> String {
    format!("{AUTOMATIC}{:016x}", rand::random::<u64>())
}

/// Whether no user asked for the deployment with this id.
pub(crate) fn is_automatic(deployment: &str) -> bool {
    deployment.starts_with(AUTOMATIC)
}

/// One deployment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Deployment {
    pub(crate) id: String,
    /// The machine that executes it.
    pub(crate) machine: MachineId,
    /// Unix milliseconds, by the clock of that machine.
    pub(crate) began_at_ms: i64,
    pub(crate) began: DeploymentBegan,
    /// When and how it ended; `None` while it runs, or if nobody wrote down its end.
    pub(crate) ended: Option<(i64, DeployFinished)>,
}

impl Deployment {
    /// Whether it changes a service of this project.
    pub(crate) fn concerns(&self, project: &str) -> bool {
        let mut services = self.began.services.iter();
        services.any(|service| service.project == project)
    }
}

/// All known deployments, the oldest first. An entry that cannot be parsed is left out.
pub(crate) fn deployments(snapshot: &Snapshot) -> Vec<Deployment> {
    let entries = snapshot.log(DEPLOYMENT);
    fold(
        entries
            .filter_map(|entry| Some((entry.machine, DeploymentEntry::decode(entry.value).ok()?))),
    )
}

fn fold(entries: impl Iterator<Item = (MachineId, DeploymentEntry)>) -> Vec<Deployment> {
    let mut began = BTreeMap::new();
    let mut ended: BTreeMap<String, (i64, DeployFinished)> = BTreeMap::new();
    for (machine, entry) in entries {
        let DeploymentEntry {
            deployment_id: id,
            at_ms,
            event,
        } = entry;
        match event {
            Some(deployment_entry::Event::Began(event)) => {
                began.insert(id, (machine, at_ms, event));
            }
            Some(deployment_entry::Event::Ended(event)) => {
                ended.insert(id, (at_ms, event));
            }
            None => {}
        }
    }
    let mut all: Vec<Deployment> = began
        .into_iter()
        .map(|(id, (machine, began_at_ms, began))| Deployment {
            ended: ended.remove(&id),
            id,
            machine,
            began_at_ms,
            began,
        })
        .collect();
    all.sort_by(|a, b| (a.began_at_ms, &a.id).cmp(&(b.began_at_ms, &b.id)));
    all
}

impl Member {
    /// Writes down that a deployment begins.
    pub(crate) async fn log_began(&self, deployment: &str, plan: &Plan) -> Result<(), Failure> {
        let services = plan.services.iter().filter(|service| {
            service.change() != uc_api::v1::ServiceChange::None || !service.steps.is_empty()
        });
        let services = services.map(|service| uc_api::v1::DeployedService {
            project: service.project.clone(),
            service: service.service.clone(),
            change: service.change,
            revision: service.revision.clone(),
            steps: service.steps.len() as u32,
        });
        let began = DeploymentBegan {
            services: services.collect(),
        };
        self.log(deployment, deployment_entry::Event::Began(began))
            .await
    }

    /// Writes down how a deployment ended.
    pub(crate) async fn log_ended(
        &self,
        deployment: &str,
        finished: &DeployFinished,
    ) -> Result<(), Failure> {
        let ended = finished.clone();
        self.log(deployment, deployment_entry::Event::Ended(ended))
            .await
    }

    async fn log(&self, deployment: &str, event: deployment_entry::Event) -> Result<(), Failure> {
        // Later than all that is known, whatever the other machines' clocks say.
        let all = deployments(&self.store.snapshot());
        let newest = all.last().map_or(0, |newest| newest.began_at_ms);
        let entry = DeploymentEntry {
            deployment_id: deployment.to_owned(),
            at_ms: now_ms().max(newest + 1),
            event: Some(event),
        };
        let entries = vec![entry.encode_to_vec()];
        let appended = self.store.append(DEPLOYMENT, entries, RETENTION).await;
        appended.map(drop).map_err(|error| write_failure(&error))
    }
}

#[cfg(test)]
mod tests {
    use uc_api::v1::DeployOutcome;

    use super::*;

    #[test]
    fn the_end_can_be_written_down_by_another_machine() {
        let machine = |number| MachineId::from_bytes([number; 16]);
        let entry = |id: &str, at_ms, event| DeploymentEntry {
            deployment_id: id.into(),
            at_ms,
            event: Some(event),
        };
        let began = || deployment_entry::Event::Began(DeploymentBegan::default());
        let end = DeployFinished {
            outcome: DeployOutcome::RolledBack.into(),
            ..DeployFinished::default()
        };
        let ended = deployment_entry::Event::Ended(end.clone());
        let all = fold(
            [
                (machine(1), entry("b", 20, began())),
                (machine(2), entry("a", 10, began())),
                (machine(2), entry("b", 30, ended.clone())),
                // Its beginning was trimmed.
                (machine(2), entry("c", 5, ended)),
            ]
            .into_iter(),
        );
        let ids: Vec<_> = all.iter().map(|of| (of.id.as_str(), of.machine)).collect();
        assert_eq!(ids, [("a", machine(2)), ("b", machine(1))]);
        assert_eq!(all[0].ended, None);
        assert_eq!(all[1].ended, Some((30, end)));
    }
}
