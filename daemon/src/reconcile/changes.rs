//! Ends the changes of this machine whose deployments have ended without it: it was away when the
//! deployment was settled or undone. Also removes what the engine created for a change after the
//! change had ended, and replicas that failed once a later deployment of their service has ended.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;
use uc_api::Failure;
use uc_api::v1::{ChangeStage, DeployOutcome, ReplicaChange, ReplicaState, SettleRequest};

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
        if has_unstarted(&member)
            && let Err(error) = member.node.remove_late_containers().await
        {
            // When the engine is back, what it has is published, and this is tried again.
            tracing::debug!(%error, "cannot look for containers that were created too late");
        }
        if ended(&member).is_empty() && outdated(&member).is_empty() {
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
        for change in outdated(&member) {
            let is_it = |other: &ReplicaChange| *other == change;
            member.node.abandon(&change.deployment_id, is_it).await;
        }
    }
}

/// Whether this machine has published a container that was never started. It can belong to a change
/// that is under way.
fn has_unstarted(member: &Member) -> bool {
    let cluster = member.cluster();
    let mut replicas = cluster.reported(member.id).replicas.values();
    replicas.any(|of| of.record.state() == ReplicaState::Created)
}

/// The deployments that have ended, but not on this machine, and whose projects no other deployment
/// has at the moment.
fn ended(member: &Member) -> Vec<Deployment> {
    let mut open = member.node.changes().deployments();
    open.extend(member.node.pre_deploy_deployments());
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

/// The changes whose failed replicas are kept although a later deployment of the service, or its
/// removal, has ended. This machine was away when it was settled.
fn outdated(member: &Member) -> Vec<ReplicaChange> {
    let mut failed = member.node.changes().failed();
    if !failed.is_empty() {
        let all = deployments(&member.store.snapshot());
        failed.retain(|change| is_outdated(change, &all));
    }
    failed
}

fn is_outdated(change: &ReplicaChange, all: &[Deployment]) -> bool {
    let mut later = later_of_service(change, all);
    later.any(|other| other.ended.is_some())
}

/// Whether a later deployment changes the service of this change. It has decided about what runs.
fn is_overtaken(change: &ReplicaChange, all: &[Deployment]) -> bool {
    later_of_service(change, all).next().is_some()
}

/// The deployments of a change's service that began after its own.
fn later_of_service<'a>(
    change: &'a ReplicaChange,
    all: &'a [Deployment],
) -> impl Iterator<Item = &'a Deployment> {
    let own = &change.deployment_id;
    let later = all.iter().skip_while(move |other| other.id != *own).skip(1);
    later.filter(|other| {
        let mut services = other.began.services.iter();
        services.any(|of| of.project == change.project && of.service == change.service)
    })
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
        .abandon(id, |change| is_overtaken(change, all))
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
    let request = SettleRequest {
        deployment_id: id.to_owned(),
        services: Vec::new(),
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
    use uc_api::v1::{DeployFinished, DeployedService, DeploymentBegan};

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
        let change = |deployment: &str, service: &str| ReplicaChange {
            deployment_id: deployment.into(),
            project: "shop".into(),
            service: service.into(),
            ..ReplicaChange::default()
        };
        assert!(is_overtaken(&change("a", "web"), &all));
        assert!(is_overtaken(&change("b", "db"), &all));
        assert!(!is_overtaken(&change("b", "web"), &all));
        assert!(!is_overtaken(&change("unknown", "web"), &all));
        // A failed replica is kept until the later deployment has ended.
        assert!(!is_outdated(&change("a", "web"), &all));
        let mut ended = all.clone();
        ended[1].ended = Some((2, DeployFinished::default()));
        assert!(is_outdated(&change("a", "web"), &ended));
        assert!(!is_outdated(&change("b", "web"), &ended));
    }
}
