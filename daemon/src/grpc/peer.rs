//! `Peer` and `Join`: what other daemons and the holders of join tokens ask of this machine. Their
//! connections have proved who they are, and the servers check on each call that they still may.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uc_api::v1::join_server::Join;
use uc_api::v1::peer_server::Peer;
use uc_api::v1::{
    AddMachineRequest, AddMachineResponse, BackupResponse, CancelRequest, CancelResponse,
    Examination, PeerBackupRequest, PeerExamineRequest, PeerResetRequest, PeerResetResponse,
    PositionRequest, PositionResponse, ReplicationFrame, SeenRequest, SeenResponse, WatchRequest,
};
use uc_api::{Code, Failure};
use uc_cluster_state::Actor;

use super::deploy::deployments;
use super::{access, cluster};
use crate::cluster::examine;
use crate::cluster::member::Member;
use crate::cluster::peers::Caller;
use crate::reconcile::replication;

/// Most frames between a session and its stream.
const QUEUE: usize = 16;

#[derive(Debug)]
pub(super) struct PeerApi {
    member: Arc<Member>,
}

impl PeerApi {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Self { member }
    }
}

#[tonic::async_trait]
impl Peer for PeerApi {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<ReplicationFrame, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<ReplicationFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let Caller::Member { id, .. } = access::caller(&request)? else {
            let message = "a machine does not replicate with itself";
            return Err(Failure::new(Code::Invalid, message).into());
        };
        let session = self.member.store.session(*id);
        let (sender, receiver) = mpsc::channel(QUEUE);
        let cancel = self.member.cancel.clone();
        self.member.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = replication::pump(session, request.into_inner(), sender, Ok) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn seen(&self, request: Request<SeenRequest>) -> Result<Response<SeenResponse>, Status> {
        let SeenRequest {
            machine_id,
            incarnation,
            version,
        } = request.into_inner();
        let machine = machine_id
            .parse()
            .map_err(|_| Failure::new(Code::Invalid, "the machine's id is invalid"))?;
        let actor = Actor {
            machine,
            incarnation,
        };
        let seen = self.member.store.wait_for(actor, version).await;
        seen.map_err(|_| Failure::new(Code::Unreachable, "the machine is stopping"))?;
        Ok(Response::new(SeenResponse {}))
    }

    async fn position(
        &self,
        _: Request<PositionRequest>,
    ) -> Result<Response<PositionResponse>, Status> {
        let snapshot = self.member.store.snapshot();
        let vector = snapshot.version_vector();
        let written = vector.iter().map(|(actor, version)| SeenRequest {
            machine_id: actor.machine.to_string(),
            incarnation: actor.incarnation,
            version,
        });
        Ok(Response::new(PositionResponse {
            written: written.collect(),
        }))
    }

    type WatchOwnStream = deployments::DeployEvents;

    async fn watch_own(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchOwnStream>, Status> {
        let id = request.into_inner().deployment_id;
        Ok(Response::new(deployments::watch_own(&self.member, &id)?))
    }

    async fn cancel_own(
        &self,
        request: Request<CancelRequest>,
    ) -> Result<Response<CancelResponse>, Status> {
        let id = request.into_inner().deployment_id;
        self.member.executed(&id)?.cancel.cancel();
        Ok(Response::new(CancelResponse {}))
    }

    async fn examine(
        &self,
        _: Request<PeerExamineRequest>,
    ) -> Result<Response<Examination>, Status> {
        Ok(Response::new(examine::here(&self.member).await))
    }

    async fn backup(
        &self,
        request: Request<PeerBackupRequest>,
    ) -> Result<Response<BackupResponse>, Status> {
        let path = request.into_inner().path;
        Ok(Response::new(cluster::back_up(&self.member, path).await?))
    }

    async fn reset(
        &self,
        _: Request<PeerResetRequest>,
    ) -> Result<Response<PeerResetResponse>, Status> {
        // To its end also if the caller hangs up: the caller removes this machine's record anyway.
        cluster::to_its_end(&self.member, |own| async move {
            own.node.remove_all().await?;
            own.leave.notify_one();
            Ok(())
        })
        .await?;
        Ok(Response::new(PeerResetResponse {}))
    }
}

#[derive(Debug)]
pub(super) struct JoinApi {
    member: Arc<Member>,
}

impl JoinApi {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Self { member }
    }
}

#[tonic::async_trait]
impl Join for JoinApi {
    async fn register(
        &self,
        request: Request<AddMachineRequest>,
    ) -> Result<Response<AddMachineResponse>, Status> {
        let Caller::Token { id } = access::caller(&request)?.clone() else {
            return Err(Failure::new(Code::Refused, "the caller holds no join token").into());
        };
        let registered = cluster::register(&self.member, request.into_inner(), Some(id)).await?;
        Ok(Response::new(registered))
    }
}
