//! The executor's machines, for real: each call goes to that machine's `Node` service.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;
use uc_api::v1::node_client::NodeClient;
use uc_api::v1::{
    CreateReplicaRequest, CreateVolumeRequest, ObserveRequest, RemoveReplicaRequest, ReplicaRecord,
    RunPreDeployRequest, StartReplicaRequest, StopReplicaRequest, VolumeSpec, create_replica_event,
    run_pre_deploy_event,
};
use uc_api::{Code, Failure};

use super::contents;
use super::execute::{Fleet, NewReplica, Progress, Wait};
use crate::member::Member;
use crate::peers::PeerChannel;

/// Calls that do not wait for a container.
const SHORT: Duration = Duration::from_secs(30);
/// A pull of a large image over a slow line; progress arrives meanwhile, so this bounds silence,
/// not the pull.
const SILENCE: Duration = Duration::from_mins(5);
/// Lines of a command's output in its failure.
const LOG_TAIL: usize = 10;
/// Starting waits for health, stopping for the grace period; their own limits apply first.
const LONG: Duration = Duration::from_hours(1);

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

    fn node(self, machine: &str) -> Result<NodeClient<PeerChannel>, Failure> {
        let record = self.member.view().machine(machine)?;
        Ok(NodeClient::new(self.member.peers.channel(&record)?))
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Failure> {
    match timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Failure::from(status)),
        Err(_) => Err(Failure::new(
            Code::TimedOut,
            format!("no answer within {} s", limit.as_secs()),
        )),
    }
}

#[async_trait]
impl Fleet for NodeFleet<'_> {
    async fn create_volume(&self, machine: &str, volume: &VolumeSpec) -> Result<(), Failure> {
        let request = CreateVolumeRequest {
            volume: Some(volume.clone()),
        };
        within(SHORT, self.node(machine)?.create_volume(request))
            .await
            .map(|_| ())
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
        let mut stream = within(SILENCE, self.node(machine)?.create_replica(request)).await?;
        loop {
            let message = timeout(SILENCE, stream.message()).await.map_err(|_| {
                Failure::new(
                    Code::TimedOut,
                    format!("no progress for {} s", SILENCE.as_secs()),
                )
            })?;
            match message
                .map_err(Failure::from)?
                .and_then(|event| event.event)
            {
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
        within(LONG, self.node(machine)?.start_replica(request))
            .await
            .map(|_| ())
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
        // The machine has its own limit, which comes first; this one is for a machine that went
        // away.
        let silence = SILENCE
            .saturating_add(Duration::from_millis(own))
            .saturating_mul(2);
        let mut stream = within(SILENCE, self.node(machine)?.run_pre_deploy(request)).await?;
        let mut tail = VecDeque::new();
        loop {
            let message = timeout(silence, stream.message()).await.map_err(|_| {
                Failure::new(
                    Code::TimedOut,
                    format!("no output for {} s", silence.as_secs()),
                )
            })?;
            match message
                .map_err(Failure::from)?
                .and_then(|event| event.event)
            {
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
        match within(LONG, self.node(machine)?.stop_replica(request)).await {
            Err(failure) if failure.code == Code::NotFound => Ok(()),
            stopped => stopped.map(|_| ()),
        }
    }

    async fn remove(&self, machine: &str, container: &str) -> Result<(), Failure> {
        let request = RemoveReplicaRequest {
            container_id: container.to_owned(),
        };
        within(SHORT, self.node(machine)?.remove_replica(request))
            .await
            .map(|_| ())
    }

    async fn observe(&self, machine: &str) -> Result<Vec<ReplicaRecord>, Failure> {
        within(SHORT, self.node(machine)?.observe(ObserveRequest {}))
            .await
            .map(|answer| answer.replicas)
    }
}
