//! Deployments that run or have ended: watch, cancel, list. Any machine is asked; the one that
//! executes answers.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tonic::Status;
use uc_api::v1::{DeployEvent, DeploymentStatus, Liveness, deploy_event};
use uc_api::{Code, Failure};

use crate::cluster::deployments::{Deployment, deployments};
use crate::cluster::examine::wire_liveness;
use crate::cluster::member::Member;

pub(in crate::grpc) type DeployEvents = BoxStream<'static, Result<DeployEvent, Status>>;

/// The deployment with this id, or with the only id that begins so.
fn find(member: &Member, id: &str) -> Result<Deployment, Failure> {
    let mut matching = deployments(&member.store.snapshot())
        .into_iter()
        .filter(|deployment| !id.is_empty() && deployment.id.starts_with(id));
    let first = matching.next().ok_or_else(|| {
        Failure::new(Code::NotFound, format!("deployment `{id}` not found"))
            .hint("`uc deployments ls` lists the deployments")
    })?;
    if matching.next().is_some() {
        let message = format!("`{id}` matches several deployments");
        return Err(Failure::new(Code::Invalid, message).hint("write more digits of the id"));
    }
    Ok(first)
}

/// The events of a deployment that this machine executes.
pub(in crate::grpc) fn watch_own(member: &Member, id: &str) -> Result<DeployEvents, Failure> {
    let executed = member.executed(id)?;
    Ok(executed.events.subscribe().map(Ok).boxed())
}

pub(super) async fn watch(member: Arc<Member>, id: &str) -> Result<DeployEvents, Failure> {
    if member.executing.get(id).is_some() {
        return watch_own(&member, id);
    }
    let deployment = find(&member, id)?;
    if let Some((_, finished)) = deployment.ended {
        let event = DeployEvent {
            event: Some(deploy_event::Event::Finished(finished)),
        };
        return Ok(stream::iter([Ok(event)]).boxed());
    }
    if deployment.machine == member.id {
        return watch_own(&member, &deployment.id);
    }
    let remote = member.remote(&deployment.machine.to_string())?;
    let events = remote.watch(&deployment.id).await?;
    Ok(events.map_err(Status::from).boxed())
}

pub(super) async fn cancel(member: &Member, id: &str) -> Result<(), Failure> {
    let deployment = find(member, id)?;
    if deployment.ended.is_some() {
        let message = format!("deployment {} has ended", deployment.id);
        return Err(Failure::new(Code::Refused, message)
            .hint(format!("`uc deployments show {}` tells how", deployment.id)));
    }
    member
        .cancel_deployment(deployment.machine, &deployment.id)
        .await
}

/// The newest first.
pub(super) fn list(member: &Member, project: &str) -> Vec<DeploymentStatus> {
    let cluster = member.cluster();
    let all = deployments(&member.store.snapshot()).into_iter().rev();
    all.filter(|deployment| project.is_empty() || deployment.concerns(project))
        .map(|deployment| {
            let (machine, id) = (deployment.machine, deployment.machine.to_string());
            let liveness = if machine == member.id {
                Liveness::Up
            } else {
                wire_liveness(cluster.liveness(machine))
            };
            let (ended_at_ms, finished) = deployment.ended.unzip();
            DeploymentStatus {
                deployment_id: deployment.id,
                machine_name: cluster
                    .machine(&id)
                    .map_or_else(|_| id.clone(), |of| of.name.to_string()),
                machine_id: id,
                machine_liveness: liveness.into(),
                began_at_ms: deployment.began_at_ms,
                services: deployment.began.services,
                finished,
                ended_at_ms: ended_at_ms.unwrap_or(0),
            }
        })
        .collect()
}
