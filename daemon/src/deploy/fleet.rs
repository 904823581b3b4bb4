//! The executor's machines, for real: each call goes to that machine's `Node` service.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;
use uc_api::v1::{
    CreateReplicaRequest, CreateVolumeRequest, ObserveRequest, RemoveReplicaRequest, ReplicaRecord,
    StartReplicaRequest, StopReplicaRequest, VolumeSpec, create_replica_event, node_client::NodeClient,
};
use uc_api::{Code, Failure};

use super::contents;
use super::execute::{Fleet, NewReplica, Progress};
use crate::member::Member;
use crate::peers::PeerChannel;

/// Calls that do not wait for a container.
const SHORT: Duration = Duration::from_secs(30);
/// A pull of a large image over a slow line; progress arrives meanwhile, so this bounds silence, not the pull.
const SILENCE: Duration = Duration::from_mins(5);
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
        Err(_) => Err(Failure::new(Code::TimedOut, format!("no answer within {} s", limit.as_secs()))),
    }
}

#[async_trait]
impl Fleet for NodeFleet<'_> {
    async fn create_volume(&self, machine: &str, volume: &VolumeSpec) -> Result<(), Failure> {
        let request = CreateVolumeRequest { volume: Some(volume.clone()) };
        within(SHORT, self.node(machine)?.create_volume(request)).await.map(|_| ())
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
                Failure::new(Code::TimedOut, format!("no progress for {} s", SILENCE.as_secs()))
            })?;
            match message.map_err(Failure::from)?.and_then(|event| event.event) {
                Some(create_replica_event::Event::Progress(text)) => progress.say(text).await,
                Some(create_replica_event::Event::ContainerId(id)) => return Ok(id),
                None => {
                    return Err(Failure::new(
                        Code::Internal,
                        "the machine ended the call without a container",
                    ));
                }
            }
        }
    }

    async fn start(&self, machine: &str, container: &str, wait: bool) -> Result<(), Failure> {
        let request =
            StartReplicaRequest { container_id: container.to_owned(), monitor_ms: 0, no_wait: !wait };
        within(LONG, self.node(machine)?.start_replica(request)).await.map(|_| ())
    }

    async fn stop(&self, machine: &str, container: &str) -> Result<(), Failure> {
        let request = StopReplicaRequest { container_id: container.to_owned(), grace_ms: None };
        match within(LONG, self.node(machine)?.stop_replica(request)).await {
            Err(failure) if failure.code == Code::NotFound => Ok(()),
            stopped => stopped.map(|_| ()),
        }
    }

    async fn remove(&self, machine: &str, container: &str) -> Result<(), Failure> {
        let request = RemoveReplicaRequest { container_id: container.to_owned() };
        within(SHORT, self.node(machine)?.remove_replica(request)).await.map(|_| ())
    }

    async fn observe(&self, machine: &str) -> Result<Vec<ReplicaRecord>, Failure> {
        within(SHORT, self.node(machine)?.observe(ObserveRequest {})).await.map(|answer| answer.replicas)
    }
}
