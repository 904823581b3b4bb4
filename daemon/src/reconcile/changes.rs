//! Ends the changes of this machine whose deployments have ended without it: it was away when the
//! deployment was settled or taken back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use uc_api::Failure;
use uc_api::v1::{DeployOutcome, SettleRequest};

use super::ready;
use crate::cluster::deployments::{Deployment, deployments};
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
            for deployment in ended {
                let id = deployment.id.clone();
                if let Err(failure) = end(&member, deployment).await {
                    tracing::warn!(deployment = id, %failure, "cannot end what is left of a deployment");
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
fn ended(member: &Member) -> Vec<Deployment> {
    let open = member.node.changes().deployments();
    if open.is_empty() {
        return Vec::new();
    }
    let all = deployments(&member.store.snapshot()).into_iter();
    all.filter(|deployment| open.contains(&deployment.id) && deployment.ended.is_some())
        .collect()
}

async fn end(member: &Member, deployment: Deployment) -> Result<(), Failure> {
    let (_, finished) = deployment
        .ended
        .as_ref()
        .expect("only ended ones are ended");
    let outcome = finished.outcome();
    let cluster = member.cluster();
    let services = deployment.began.services.iter();
    let gone = services.map(|of| format!("{}/{}", of.project, of.service));
    let gone = gone.filter(|name| cluster.service(name).is_err()).collect();
    let deployment = deployment.id.as_str();
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
        gone,
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
