//! `Node` on both servers: passes each call to the [`NodeService`] of this member, if there is one.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};
use uc_api::Failure;
use uc_api::v1::node_server::Node;
use uc_api::v1::{
    CreateReplicaRequest, CreateVolumeRequest, CreateVolumeResponse, ExecRequest, FilePart,
    HasFilesRequest, HasFilesResponse, HasImagesRequest, HasImagesResponse, LoadFileResponse,
    LoadImageResponse, NodeLogsRequest, NodeResetRequest, NodeResetResponse, ObserveRequest,
    ObserveResponse, PushImageRequest, ReadFileRequest, RemoveReplicaRequest,
    RemoveReplicaResponse, RunPreDeployRequest, StartReplicaRequest, StartReplicaResponse,
    StopReplicaRequest, StopReplicaResponse,
};

use crate::app::App;
use crate::member::Member;
use crate::node::NodeService;

/// Where the member is found.
pub(super) trait Source: Send + Sync + 'static {
    fn member(&self) -> Result<Arc<Member>, Failure>;
}

impl Source for App {
    fn member(&self) -> Result<Arc<Member>, Failure> {
        App::member(self)
    }
}

impl Source for MeshMember {
    fn member(&self) -> Result<Arc<Member>, Failure> {
        Ok(Arc::clone(&self.0))
    }
}

/// The member whose listener it is.
#[derive(Debug)]
pub(super) struct MeshMember(pub(super) Arc<Member>);

#[derive(Debug)]
pub(super) struct NodeGate<S> {
    source: Arc<S>,
}

impl<S: Source> NodeGate<S> {
    pub(super) fn new(source: Arc<S>) -> Self {
        Self { source }
    }

    fn node(&self) -> Result<NodeService, Status> {
        Ok(self.source.member()?.node.clone())
    }
}

#[tonic::async_trait]
impl<S: Source> Node for NodeGate<S> {
    type CreateReplicaStream = <NodeService as Node>::CreateReplicaStream;
    type RunPreDeployStream = <NodeService as Node>::RunPreDeployStream;
    type LogsStream = <NodeService as Node>::LogsStream;
    type ExecStream = <NodeService as Node>::ExecStream;
    type ReadFileStream = <NodeService as Node>::ReadFileStream;

    async fn observe(
        &self,
        request: Request<ObserveRequest>,
    ) -> Result<Response<ObserveResponse>, Status> {
        self.node()?.observe(request).await
    }

    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        self.node()?.create_volume(request).await
    }

    async fn create_replica(
        &self,
        request: Request<CreateReplicaRequest>,
    ) -> Result<Response<Self::CreateReplicaStream>, Status> {
        self.node()?.create_replica(request).await
    }

    async fn run_pre_deploy(
        &self,
        request: Request<RunPreDeployRequest>,
    ) -> Result<Response<Self::RunPreDeployStream>, Status> {
        self.node()?.run_pre_deploy(request).await
    }

    async fn start_replica(
        &self,
        request: Request<StartReplicaRequest>,
    ) -> Result<Response<StartReplicaResponse>, Status> {
        self.node()?.start_replica(request).await
    }

    async fn stop_replica(
        &self,
        request: Request<StopReplicaRequest>,
    ) -> Result<Response<StopReplicaResponse>, Status> {
        self.node()?.stop_replica(request).await
    }

    async fn remove_replica(
        &self,
        request: Request<RemoveReplicaRequest>,
    ) -> Result<Response<RemoveReplicaResponse>, Status> {
        self.node()?.remove_replica(request).await
    }

    async fn logs(
        &self,
        request: Request<NodeLogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        self.node()?.logs(request).await
    }

    async fn exec(
        &self,
        request: Request<Streaming<ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        self.node()?.exec(request).await
    }

    async fn has_images(
        &self,
        request: Request<HasImagesRequest>,
    ) -> Result<Response<HasImagesResponse>, Status> {
        self.node()?.has_images(request).await
    }

    async fn load_image(
        &self,
        request: Request<Streaming<PushImageRequest>>,
    ) -> Result<Response<LoadImageResponse>, Status> {
        self.node()?.load_image(request).await
    }

    async fn has_files(
        &self,
        request: Request<HasFilesRequest>,
    ) -> Result<Response<HasFilesResponse>, Status> {
        self.node()?.has_files(request).await
    }

    async fn load_file(
        &self,
        request: Request<Streaming<FilePart>>,
    ) -> Result<Response<LoadFileResponse>, Status> {
        self.node()?.load_file(request).await
    }

    async fn read_file(
        &self,
        request: Request<ReadFileRequest>,
    ) -> Result<Response<Self::ReadFileStream>, Status> {
        self.node()?.read_file(request).await
    }

    async fn reset(
        &self,
        request: Request<NodeResetRequest>,
    ) -> Result<Response<NodeResetResponse>, Status> {
        let member = self.source.member()?;
        let answer = member.node.reset(request).await?;
        member.leave.notify_one();
        Ok(answer)
    }
}
