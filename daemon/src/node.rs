//! The gRPC service `Node`: the containers of one machine, for the daemons of the cluster. Each
//! call is checked against the present state of the engine and can be refused with a typed reason.
//! It only touches containers that uc created.
//!
//! Every operation is also a plain method that fails with a [`Failure`], for callers in the same
//! process.

mod changes;
mod create;
mod exec;
mod files;
mod hooks;
mod images;
mod jobs;
mod leases;
mod lifecycle;
mod logs;
pub(crate) mod marks;
pub(crate) mod observe;
mod ports;
mod pre_deploy;

use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

pub(crate) use changes::{Audience, Changes};
use futures_util::Stream;
use futures_util::stream::BoxStream;
use images::sweep::ImageUse;
pub(crate) use images::sweep::NamedImages;
pub(crate) use leases::{Executing, Leases, TTL as LEASE_TTL};
pub(crate) use marks::Marks;
use pre_deploy::PreDeploys;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use uc_api::layout::label;
use uc_api::v1::node_server::Node;
use uc_api::{ClusterId, Code, Failure, MachineId, MachineName, v1};

use crate::engine::{Container, Engine, EngineError};
use crate::files::Files;
use crate::paths::Paths;

/// Maximum number of messages between a task and the stream it feeds.
const QUEUE: usize = 32;

/// The machine's identity in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub cluster: ClusterId,
    pub machine: MachineId,
    /// The machine's name, for messages.
    pub name: MachineName,
    /// The machine's address on the cluster network. Its bridge and its DNS server use it.
    pub bridge: Ipv4Addr,
}

/// What the service keeps in the state directory, besides contents.
#[derive(Debug)]
pub(crate) struct NodeState {
    changes: Changes,
    image_use: ImageUse,
    pre_deploys: PreDeploys,
}

impl NodeState {
    /// Reads it, and marks the containers that are kept.
    pub(crate) fn open(paths: &Paths, marks: &Marks) -> Result<Self, Failure> {
        Ok(Self {
            changes: Changes::open(&paths.changes(), marks)?,
            image_use: ImageUse::open(&paths.built_images()),
            pre_deploys: PreDeploys::open(&paths.pre_deploys()),
        })
    }
}

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct NodeService {
    engine: Arc<dyn Engine>,
    files: Files,
    identity: watch::Receiver<Option<Identity>>,
    marks: Marks,
    changes: Arc<Changes>,
    audience: Arc<OnceLock<Arc<dyn Audience>>>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    leases: Arc<Leases>,
    image_use: Arc<ImageUse>,
    pre_deploys: Arc<PreDeploys>,
}

impl NodeService {
    /// `identity` holds `None` while the machine is not in a cluster. `cancel` ends streams and
    /// running creations.
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        files: Files,
        identity: watch::Receiver<Option<Identity>>,
        marks: Marks,
        state: NodeState,
        cancel: CancellationToken,
    ) -> Self {
        // A random value of this process.
        let process = format!("{:016x}", rand::random::<u64>());
        Self {
            leases: Arc::new(Leases::new(process.into())),
            image_use: Arc::new(state.image_use),
            pre_deploys: Arc::new(state.pre_deploys),
            engine,
            files,
            identity,
            marks,
            changes: Arc::new(state.changes),
            audience: Arc::default(),
            tasks: TaskTracker::new(),
            cancel,
        }
    }

    /// The contents that deployments brought to this machine.
    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// The projects that this machine has leased to deployments.
    pub(crate) fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    /// The marks of this machine's containers. The observer shares them.
    pub(crate) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// The changes that are not settled.
    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Sets who has to see the changes of this machine's replicas. Until then nobody has to.
    pub(crate) fn set_audience(&self, audience: Arc<dyn Audience>) {
        let set = self.audience.set(audience);
        set.expect("a member starts once");
    }

    /// Waits until the machines that are up have what this machine has published. Returns the names
    /// of those that do not have it after a short time.
    async fn seen(&self) -> Vec<String> {
        match self.audience.get() {
            Some(audience) => audience.seen().await,
            None => Vec::new(),
        }
    }

    /// Whether a deployment is known to have ended.
    fn has_ended(&self, deployment: &str) -> bool {
        let audience = self.audience.get();
        audience.is_some_and(|audience| audience.has_ended(deployment))
    }

    /// Waits for the tasks that still run after `cancel`, so that nothing is left half-done.
    pub(crate) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn identity(&self) -> Result<Identity, Failure> {
        self.identity.borrow().clone().ok_or_else(|| {
            Failure::new(Code::Refused, "this machine is not in a cluster")
                .hint("run `uc machine init` here, or `uc machine add` on a machine of the cluster")
        })
    }

    /// Finds a replica by id, unique prefix or name.
    async fn managed(&self, id: &str) -> Result<Container, Failure> {
        let unknown = || {
            Failure::new(
                Code::NotFound,
                format!("replica `{}` not found", uc_api::id::short(id)),
            )
        };
        match self.engine.inspect(id).await {
            Ok(container) if container.is_replica() => Ok(container),
            Ok(_) | Err(EngineError::NotFound { .. }) => Err(unknown()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the present replicas and volumes.
    pub(crate) async fn observe_now(&self) -> Result<v1::ObserveResponse, Failure> {
        let bridge = self.identity.borrow().as_ref().map(|own| own.bridge);
        let (containers, volumes) =
            tokio::try_join!(self.engine.containers(), self.engine.volumes())?;
        let replicas = containers.into_iter().filter(Container::is_replica);
        let replicas = replicas
            .map(|container| match bridge {
                Some(bridge) => container.record_on(bridge),
                None => container.record,
            })
            .map(|record| self.marks.marked(record))
            .collect();
        Ok(v1::ObserveResponse {
            replicas,
            volumes: volumes.into_iter().map(|volume| volume.record).collect(),
        })
    }

    /// The failure with the name of this machine.
    fn named(&self, failure: Failure) -> Failure {
        match &*self.identity.borrow() {
            Some(identity) => failure.on(identity.name.as_str()),
            None => failure,
        }
    }

    /// Converts a failure to a status that names this machine.
    fn status(&self, failure: Failure) -> Status {
        self.named(failure).into()
    }

    fn reply<T>(&self, result: Result<T, Failure>) -> Result<Response<T>, Status> {
        result
            .map(Response::new)
            .map_err(|failure| self.status(failure))
    }
}

/// A part that every request has; one without it comes from another program.
fn given<T>(part: Option<T>, name: &str) -> Result<T, Failure> {
    part.ok_or_else(|| Failure::new(Code::Invalid, format!("the request has no {name}")))
}

/// The change of a request. A user's own label must not make a container that is not counted as a
/// replica.
fn change_of(request: v1::ApplyRequest) -> Result<v1::ReplicaChange, Failure> {
    let mut change = given(request.change, "change")?;
    if let Some(spec) = &mut change.spec {
        spec.labels.remove(label::HOOK);
    }
    Ok(change)
}

/// A stream of replies.
pub(crate) type Replies<T> = BoxStream<'static, Result<T, Status>>;

/// A request's stream once it is no longer tied to a connection.
trait Incoming<T>: Stream<Item = Result<T, Status>> + Send + Unpin + 'static {}
impl<T, S: Stream<Item = Result<T, Status>> + Send + Unpin + 'static> Incoming<T> for S {}

#[tonic::async_trait]
impl Node for NodeService {
    type ApplyStream = Replies<v1::ApplyEvent>;
    type UndoStream = Replies<v1::ApplyEvent>;
    type RunPreDeployStream = Replies<v1::RunPreDeployEvent>;
    type LogsStream = Replies<v1::LogEntry>;
    type ExecStream = Replies<v1::ExecResponse>;
    type ReadContentStream = Replies<v1::ContentPart>;

    async fn observe(
        &self,
        _request: Request<v1::ObserveRequest>,
    ) -> Result<Response<v1::ObserveResponse>, Status> {
        self.reply(self.observe_now().await)
    }

    async fn create_volume(
        &self,
        request: Request<v1::CreateVolumeRequest>,
    ) -> Result<Response<v1::CreateVolumeResponse>, Status> {
        let created = async {
            let volume = given(request.into_inner().volume, "volume")?;
            self.create_volume_from(&volume).await
        };
        self.reply(created.await.map(|()| v1::CreateVolumeResponse {}))
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<Self::ApplyStream>, Status> {
        let change = change_of(request.into_inner());
        self.reply(change.and_then(|change| self.apply_from(&change)))
    }

    async fn undo(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<Self::UndoStream>, Status> {
        let change = change_of(request.into_inner());
        self.reply(change.and_then(|change| self.undo_from(&change)))
    }

    async fn settle(
        &self,
        request: Request<v1::SettleRequest>,
    ) -> Result<Response<v1::SettleResponse>, Status> {
        Ok(Response::new(self.settle(&request.into_inner()).await))
    }

    async fn run_pre_deploy(
        &self,
        request: Request<v1::RunPreDeployRequest>,
    ) -> Result<Response<Self::RunPreDeployStream>, Status> {
        self.reply(self.run_pre_deploy_from(request.into_inner()))
    }

    async fn logs(
        &self,
        request: Request<v1::NodeLogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        self.reply(Ok(self.logs_of(request.into_inner()).await))
    }

    async fn exec(
        &self,
        request: Request<Streaming<v1::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        self.reply(self.exec_with(request.into_inner()).await)
    }

    async fn missing_images(
        &self,
        request: Request<v1::NodeMissingImagesRequest>,
    ) -> Result<Response<v1::NodeMissingImagesResponse>, Status> {
        let missing = self.missing_images(request.into_inner().images).await;
        self.reply(missing.map(|missing| v1::NodeMissingImagesResponse { missing }))
    }

    async fn resolve_image(
        &self,
        request: Request<v1::ResolveImageRequest>,
    ) -> Result<Response<v1::ResolveImageResponse>, Status> {
        self.reply(self.resolve_image(&request.into_inner()).await)
    }

    async fn load_image(
        &self,
        request: Request<Streaming<v1::PushImageRequest>>,
    ) -> Result<Response<v1::LoadImageResponse>, Status> {
        self.reply(
            self.load_image_from(request.into_inner())
                .await
                .map(|()| v1::LoadImageResponse {}),
        )
    }

    async fn missing_contents(
        &self,
        request: Request<v1::MissingContentsRequest>,
    ) -> Result<Response<v1::MissingContentsResponse>, Status> {
        let missing = self.missing_contents(&request.into_inner().hashes).await;
        self.reply(missing.map(|missing| v1::MissingContentsResponse { missing }))
    }

    async fn load_content(
        &self,
        request: Request<Streaming<v1::ContentPart>>,
    ) -> Result<Response<v1::LoadContentResponse>, Status> {
        self.reply(
            self.files
                .receive(request.into_inner())
                .await
                .map(|()| v1::LoadContentResponse {}),
        )
    }

    async fn read_content(
        &self,
        request: Request<v1::ReadContentRequest>,
    ) -> Result<Response<Self::ReadContentStream>, Status> {
        self.reply(self.read_content_of(&request.into_inner().hash).await)
    }

    async fn lease(
        &self,
        request: Request<v1::LeaseRequest>,
    ) -> Result<Response<v1::LeaseResponse>, Status> {
        let held = self.leases.lease(&request.into_inner(), Instant::now());
        self.reply(held.map(|held| v1::LeaseResponse { held }))
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let released = given(request.into_inner().what, "lease to release")
            .map(|what| self.leases.release(&what, Instant::now()));
        self.reply(released.map(|released| v1::ReleaseResponse { released }))
    }

    async fn leases(
        &self,
        _request: Request<v1::LeasesRequest>,
    ) -> Result<Response<v1::LeasesResponse>, Status> {
        let leases = self.leases.list(Instant::now());
        self.reply(Ok(v1::LeasesResponse { leases }))
    }
}

#[cfg(test)]
pub(crate) mod tests;
