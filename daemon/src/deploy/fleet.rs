//! The executor's machines, for real: each call goes to that machine's daemon.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use uc_api::v1::{
    CreateReplicaRequest, ReplicaRecord, RunPreDeployRequest, StartReplicaRequest,
    StopReplicaRequest, VolumeSpec, create_replica_event, run_pre_deploy_event,
};
use uc_api::{Code, Failure};

use super::contents;
use super::execute::{Fleet, NewReplica, Progress, Wait};
use crate::cluster::member::Member;
use crate::cluster::peers::PATIENT_LOOK_LIMIT;

/// Lines of a command's output in its failure.
const LOG_TAIL: usize = 10;
/// Calls machines through their daemons.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeFleet<'a> {
    member: &'a Member,
}

impl<'a> NodeFleet<'a> {
    /// Over this member's connections.
    pub(super) fn new(member: &'a Member) -> Self {
        Self { member }
    }
}

#[async_trait]
impl Fleet for NodeFleet<'_> {
    async fn create_volume(&self, machine: &str, volume: &VolumeSpec) -> Result<(), Failure> {
        self.member
            .remote(machine)?
            .create_volume(volume.clone())
            .await
    }

    async fn create(
        &self,
        machine: &str,
        new: &NewReplica<'_>,
        progress: &Progress,
    ) -> Result<String, Failure> {
        contents::ensure(&self.member, machine, new.spec, progress).await?;
        let request = CreateReplicaRequest {
            spec: Some(new.spec.clone()),
            revision: new.revision.to_owned(),
            deployment_id: new.deployment.to_owned(),
        };
        let mut events = self.member.remote(machine)?.create_replica(request).await?;
        loop {
            match events.next().await?.and_then(|event| event.event) {
                Some(create_replica_event::Event::Progress(text)) => progress.say(text).await,
                Some(create_replica_event::Event::ContainerId(id)) => return Ok(id),
                None => {
                    return Err(Failure::new(
                        Code::Internal,
                        "the machine ended the call without creating a container",
                    ));
                }
            }
        }
    }

    async fn start(&self, machine: &str, container: &str, wait: Wait) -> Result<(), Failure> {
        // On the wire 0 is "as you see fit", which is not what somebody wants who writes 0.
        let monitor_ms = match wait {
            Wait::Serves {
                monitor_ms: Some(ms),
            } => ms.max(1),
            Wait::Serves { monitor_ms: None } | Wait::No => 0,
        };
        let request = StartReplicaRequest {
            container_id: container.to_owned(),
            monitor_ms,
            no_wait: wait == Wait::No,
        };
        self.member
            .remote(machine)?
            .start_replica(request)
            .await
            .map(drop)
    }

    async fn pre_deploy(
        &self,
        machine: &str,
        new: &NewReplica<'_>,
        progress: &Progress,
    ) -> Result<(), Failure> {
        contents::ensure(&self.member, machine, new.spec, progress).await?;
        let request = RunPreDeployRequest {
            spec: Some(new.spec.clone()),
            revision: new.revision.to_owned(),
            deployment_id: new.deployment.to_owned(),
        };
        let own = new
            .spec
            .pre_deploy
            .as_ref()
            .map_or(0, |hook| hook.timeout_ms);
        let own_limit = Duration::from_millis(own);
        let remote = self.member.remote(machine)?;
        let mut events = remote.run_pre_deploy(request, own_limit).await?;
        let mut tail = VecDeque::new();
        loop {
            match events.next().await?.and_then(|event| event.event) {
                Some(run_pre_deploy_event::Event::Progress(text)) => progress.say(text).await,
                Some(run_pre_deploy_event::Event::Line(line)) => {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    if tail.len() == LOG_TAIL {
                        tail.pop_front();
                    }
                    tail.push_back(line.clone());
                    progress.say(line).await;
                }
                Some(run_pre_deploy_event::Event::ExitCode(0)) => return Ok(()),
                Some(run_pre_deploy_event::Event::ExitCode(code)) => {
                    let message = format!(
                        "the pre-deploy command of {} exited with code {code}",
                        new.spec.name
                    );
                    return Err(Failure::new(Code::Refused, message)
                        .log_tail(tail.into())
                        .hint(format!("no replica of {} was changed", new.spec.name)));
                }
                None => {
                    return Err(Failure::new(
                        Code::Internal,
                        "the machine ended the call without an exit code of the command",
                    ));
                }
            }
        }
    }

    async fn stop(&self, machine: &str, container: &str) -> Result<(), Failure> {
        let request = StopReplicaRequest {
            container_id: container.to_owned(),
            grace_ms: None,
        };
        match self.member.remote(machine)?.stop_replica(request).await {
            Err(failure) if failure.code == Code::NotFound => Ok(()),
            stopped => stopped,
        }
    }

    async fn remove(&self, machine: &str, container: &str) -> Result<(), Failure> {
        self.member.remote(machine)?.remove_replica(container).await
    }

    async fn observe(&self, machine: &str) -> Result<Vec<ReplicaRecord>, Failure> {
        let observed = self
            .member
            .remote(machine)?
            .observe(PATIENT_LOOK_LIMIT)
            .await?;
        Ok(observed.replicas)
    }
}
