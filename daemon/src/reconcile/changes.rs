//! Ends the changes of this machine whose deployments have ended without it: it was away when the
//! deployment was settled or undone.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;
use uc_api::Failure;
use uc_api::v1::{ChangeStage, DeployOutcome, ReplicaChange, SettleRequest};

use super::ready;
use crate::backoff::Backoff;
use crate::cluster::deployments::{Deployment, deployments};
use crate::cluster::member::Member;
use crate::deploy::resume::catch_up;

/// How long the machine that executes has to settle its deployment itself, and the pauses between
/// attempts when something cannot be ended.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LAST_PAUSE: Duration = Duration::from_mins(5);

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    if !ready(&member, |readiness| &readiness.network).await {
        return;
    }
    member.node.resume_changes();
    let mut changes = member.changes();
    let mut backoff = Backoff::new(FIRST_PAUSE, LAST_PAUSE);
    loop {
        if ended(&member).is_empty() {
            backoff.reset();
            if !changes.next().await {
                return;
            }
            continue;
        }
        tokio::select! {
            () = member.cancel.cancelled() => return,
            () = tokio::time::sleep(backoff.wait(rand::random())) => {}
        }
        // A later deployment may have changed the same services.
        catch_up(&member).await;
        let all = deployments(&member.store.snapshot());
        for deployment in ended(&member) {
            if let Err(failure) = end(&member, &deployment, &all).await {
                let id = &deployment.id;
                tracing::warn!(deployment = id, %failure, "cannot end what is left of a deployment");
            }
        }
    }
}

/// The deployments that have ended, but not on this machine, and whose projects no other deployment
/// has at the moment.
fn ended(member: &Member) -> Vec<Deployment> {
    let open = member.node.changes().deployments();
    if open.is_empty() {
        return Vec::new();
    }
    let leases = member.node.leases().list(Instant::now());
    let is_leased = |of: &Deployment| {
        let mut others = leases.iter().filter(|lease| lease.deployment_id != of.id);
        others.any(|lease| of.concerns(&lease.project))
    };
    let all = deployments(&member.store.snapshot()).into_iter();
    all.filter(|of| open.contains(&of.id) && of.ended.is_some() && !is_leased(of))
        .collect()
}

/// Whether a later deployment changes the service of this change. It has decided about what runs.
fn is_overtaken(change: &ReplicaChange, of: &Deployment, all: &[Deployment]) -> bool {
    let later = all.iter().skip_while(|other| other.id != of.id).skip(1);
    let mut services = later.flat_map(|other| &other.began.services);
    services.any(|other| other.project == change.project && other.service == change.service)
}

async fn end(member: &Member, deployment: &Deployment, all: &[Deployment]) -> Result<(), Failure> {
    let (_, finished) = deployment
        .ended
        .as_ref()
        .expect("only ended ones are ended");
    let taken_back = matches!(
        finished.outcome(),
        DeployOutcome::RolledBack | DeployOutcome::Failed
    );
    let id = deployment.id.as_str();
    member
        .node
        .abandon(id, |change| is_overtaken(change, deployment, all))
        .await;
    for (stage, change) in member.node.changes().stages(id) {
        let undo = match stage {
            ChangeStage::Done => taken_back,
            // It was cut short, or it could not be undone before.
            ChangeStage::Forward | ChangeStage::Backward => true,
            ChangeStage::Undone | ChangeStage::Failed | ChangeStage::Unspecified => false,
        };
        if undo {
            let mut events = member.node.undo_from(&change)?;
            while let Some(event) = events.next().await {
                event.map_err(Failure::from)?;
            }
        }
    }
    let cluster = member.cluster();
    let services = deployment.began.services.iter();
    let gone = services.map(|of| format!("{}/{}", of.project, of.service));
    let request = SettleRequest {
        deployment_id: id.to_owned(),
        services: Vec::new(),
        gone: gone.filter(|name| cluster.service(name).is_err()).collect(),
    };
    for warning in member.node.settle(&request).await.warnings {
        tracing::warn!(
            deployment = id,
            warning,
            "a deployment is not settled on this machine"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use uc_api::MachineId;
    use uc_api::v1::{DeployedService, DeploymentBegan};

    use super::*;

    #[test]
    fn a_change_is_overtaken_by_a_later_deployment_of_its_service() {
        let deployment = |id: &str, service: &str| Deployment {
            id: id.into(),
            machine: MachineId::from_bytes([1; 16]),
            began_at_ms: 0,
            began: DeploymentBegan {
                services: vec![DeployedService {
                    project: "shop".into(),
                    service: service.into(),
                    ..DeployedService::default()
                }],
            },
            ended: None,
        };
        let all = [
            deployment("a", "web"),
            deployment("b", "web"),
            deployment("c", "db"),
        ];
        let change = |service: &str| ReplicaChange {
            project: "shop".into(),
            service: service.into(),
            ..ReplicaChange::default()
        };
        assert!(is_overtaken(&change("web"), &all[0], &all));
        assert!(is_overtaken(&change("db"), &all[1], &all));
        assert!(!is_overtaken(&change("web"), &all[1], &all));
    }
}
