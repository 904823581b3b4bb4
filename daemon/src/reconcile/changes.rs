//! Ends the changes of this machine whose deployments have ended without it: it was away when the
//! deployment was settled or taken back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use uc_api::Failure;
use uc_api::v1::{DeployOutcome, SettleRequest};

use super::ready;
use crate::cluster::deployments::deployments;
use crate::cluster::member::Member;

/// How soon it is tried again when it failed, and how long the machine that executes has to settle
/// its deployment itself.
const PAUSE: Duration = Duration::from_secs(5);

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    if !ready(&member, |readiness| &readiness.network).await {
        return;
    }
    member.node.resume_changes();
    let mut changes = member.changes();
    loop {
        let ended = ended(&member);
        let running = if ended.is_empty() {
            changes.next().await
        } else {
            tokio::select! {
                () = member.cancel.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            for (deployment, outcome) in ended {
                if let Err(failure) = end(&member, &deployment, outcome).await {
                    tracing::warn!(deployment, %failure, "cannot end what is left of a deployment");
                }
            }
            changes.next_within(PAUSE).await
        };
        if !running {
            return;
        }
    }
}

/// The deployments that have ended, but not on this machine.
fn ended(member: &Member) -> Vec<(String, DeployOutcome)> {
    let open = member.node.changes().deployments();
    if open.is_empty() {
        return Vec::new();
    }
    deployments(&member.store.snapshot())
        .into_iter()
        .filter(|deployment| open.contains(&deployment.id))
        .filter_map(|deployment| Some((deployment.id, deployment.ended?.1.outcome())))
        .collect()
}

async fn end(member: &Member, deployment: &str, outcome: DeployOutcome) -> Result<(), Failure> {
    if let DeployOutcome::RolledBack | DeployOutcome::Failed = outcome {
        for change in member.node.changes().of(deployment) {
            let mut events = member.node.undo_from(change)?;
            while let Some(event) = events.next().await {
                event.map_err(Failure::from)?;
            }
        }
    }
    let request = SettleRequest {
        deployment_id: deployment.to_owned(),
        services: Vec::new(),
    };
    for warning in member.node.settle(&request).await.warnings {
        tracing::warn!(
            deployment,
            warning,
            "a deployment is not settled on this machine"
        );
    }
    Ok(())
}
