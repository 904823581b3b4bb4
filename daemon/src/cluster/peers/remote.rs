//! The calls to one machine's daemon. Each has its deadline here, so that no caller waits forever
//! for a machine that hangs. A failure names the machine.

use std::time::Duration;

use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Response, Status, Streaming};
use uc_api::v1::node_client::NodeClient;
use uc_api::v1::peer_client::PeerClient;
use uc_api::v1::release_request::What;
use uc_api::v1::{
    ApplyEvent, ApplyRequest, BackupResponse, CancelRequest, ContentPart, CreateVolumeRequest,
    DeployEvent, Examination, ExecRequest, ExecResponse, Lease, LeaseRequest, LeasesRequest,
    LogEntry, MissingContentsRequest, NodeLogsRequest, NodeMissingImagesRequest, ObserveRequest,
    ObserveResponse, PeerBackupRequest, PeerExamineRequest, PeerResetRequest, PositionRequest,
    PushImageRequest, ReadContentRequest, ReleaseRequest, ReplicaChange, ReplicationFrame,
    ResolveImageRequest, ResolveImageResponse, RunPreDeployEvent, RunPreDeployRequest, SeenRequest,
    SettleRequest, VolumeSpec, WatchRequest,
};
use uc_api::{Code, ContentHash, Failure};
use uc_cluster_state::Actor;

use super::PeerChannel;

/// Far more than the largest message: replies hold at most the replicas of one machine.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A look at the engine before a plan. A machine that takes longer is planned around.
pub(crate) const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// A look at the engine during a deployment, which waits for a machine that is busy.
pub(crate) const PATIENT_LOOK_LIMIT: Duration = Duration::from_secs(30);
/// A look for images or contents.
const MISSING_LIMIT: Duration = Duration::from_secs(10);
/// A question to a registry. The engine's own limit is ten seconds, and comes first.
const REGISTRY_LIMIT: Duration = Duration::from_secs(12);
/// An examination, which has its own, shorter limits for each part.
const EXAMINE_LIMIT: Duration = Duration::from_secs(10);
/// Making a volume.
const VOLUME_LIMIT: Duration = Duration::from_secs(30);
/// Removing containers. The engine's own limit for one is two minutes, and comes first.
const REMOVE_LIMIT: Duration = Duration::from_mins(10);
/// Waiting until a machine has heard of a replica. One that lags behind is not waited for any
/// longer.
const SEEN_LIMIT: Duration = Duration::from_secs(2);
/// Starting waits for the health check, stopping for the grace period. Their own limits come first;
/// this one is for a machine that hangs.
const CONTAINER_LIMIT: Duration = Duration::from_hours(1);
/// A pull of a large image over a slow line reports progress, so this limits silence, not the pull.
/// Longer than the engine's own limit of five minutes, whose message has the reason.
const SILENCE_LIMIT: Duration = Duration::from_mins(6);
/// Opening a stream of logs, of a command or of replication.
const OPEN_LIMIT: Duration = Duration::from_secs(5);
/// One content of at most 16 MiB over a line of half a megabit a second, twice. It includes waiting
/// for other contents that the same machine sends.
const CONTENT_LIMIT: Duration = Duration::from_mins(10);
/// Removing all containers of a machine that leaves. The machine keeps its rights until the caller
/// gives up, so a machine that hangs, or that an intruder controls, does not get long. One with
/// many containers, each with its hooks and its grace period, takes longer, and continues on its
/// own.
const RESET_LIMIT: Duration = Duration::from_secs(30);
/// A look into the memory of the machine. One that takes longer is left out.
const LEASE_LIMIT: Duration = Duration::from_secs(2);
/// Copying the store; a slow disk takes seconds for each hundred megabytes.
const BACKUP_LIMIT: Duration = Duration::from_mins(5);

/// One machine's daemon.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    machine: String,
    calls: PeerChannel,
    bulk: PeerChannel,
}

impl Remote {
    /// `calls` is for what is answered soon; `bulk` is for streams that wait for users and disks.
    pub(super) fn new(machine: &str, calls: PeerChannel, bulk: PeerChannel) -> Self {
        Self {
            machine: machine.to_owned(),
            calls,
            bulk,
        }
    }

    /// The machine's replicas and volumes as its engine reports them now, within [`LOOK_LIMIT`] or
    /// [`PATIENT_LOOK_LIMIT`].
    pub(crate) async fn observe(&self, limit: Duration) -> Result<ObserveResponse, Failure> {
        self.within(limit, self.node().observe(ObserveRequest {}))
            .await
    }

    pub(crate) async fn create_volume(&self, volume: VolumeSpec) -> Result<(), Failure> {
        let request = CreateVolumeRequest {
            volume: Some(volume),
        };
        self.within(VOLUME_LIMIT, self.node().create_volume(request))
            .await
            .map(drop)
    }

    /// Has the machine carry out a change, or join it.
    pub(crate) async fn apply(
        &self,
        change: ReplicaChange,
    ) -> Result<Replies<ApplyEvent>, Failure> {
        let request = ApplyRequest {
            change: Some(change),
        };
        let stream = self
            .within(SILENCE_LIMIT, self.node().apply(request))
            .await?;
        Ok(self.replies(stream, CONTAINER_LIMIT))
    }

    /// Has the machine take a change back.
    pub(crate) async fn undo(&self, change: ReplicaChange) -> Result<Replies<ApplyEvent>, Failure> {
        let request = ApplyRequest {
            change: Some(change),
        };
        let stream = self
            .within(SILENCE_LIMIT, self.node().undo(request))
            .await?;
        Ok(self.replies(stream, CONTAINER_LIMIT))
    }

    /// Ends a deployment on the machine. Returns what could not be removed.
    pub(crate) async fn settle(&self, request: SettleRequest) -> Result<Vec<String>, Failure> {
        self.within(REMOVE_LIMIT, self.node().settle(request))
            .await
            .map(|settled| settled.warnings)
    }

    /// Returns when the machine's store has what `actor` wrote up to `version`.
    pub(crate) async fn seen(&self, actor: Actor, version: u64) -> Result<(), Failure> {
        let request = SeenRequest {
            machine_id: actor.machine.to_string(),
            incarnation: actor.incarnation,
            version,
        };
        self.within(SEEN_LIMIT, self.peer().seen(request))
            .await
            .map(drop)
    }

    /// Runs a pre-deploy command, which may itself be silent for `own_limit`.
    pub(crate) async fn run_pre_deploy(
        &self,
        request: RunPreDeployRequest,
        own_limit: Duration,
    ) -> Result<Replies<RunPreDeployEvent>, Failure> {
        let stream = self
            .within(SILENCE_LIMIT, self.node().run_pre_deploy(request))
            .await?;
        // The machine's own limit comes first; this one is for a machine that hangs.
        let silence = SILENCE_LIMIT.saturating_add(own_limit).saturating_mul(2);
        Ok(self.replies(stream, silence))
    }

    pub(crate) async fn logs(
        &self,
        request: NodeLogsRequest,
    ) -> Result<Streaming<LogEntry>, Failure> {
        self.within(OPEN_LIMIT, self.bulk_node().logs(request))
            .await
    }

    /// Runs a command in a container. The daemon there answers when the command has started.
    pub(crate) async fn exec(
        &self,
        requests: impl Stream<Item = ExecRequest> + Send + 'static,
    ) -> Result<Streaming<ExecResponse>, Failure> {
        let mut node = self.woken_bulk_node().await?;
        self.within(SILENCE_LIMIT, node.exec(requests)).await
    }

    /// Which of the images the machine does not have.
    pub(crate) async fn missing_images(&self, images: Vec<String>) -> Result<Vec<String>, Failure> {
        let request = NodeMissingImagesRequest { images };
        self.within(MISSING_LIMIT, self.node().missing_images(request))
            .await
            .map(|answer| answer.missing)
    }

    /// Which content an image reference means: for the machine's engine, or for the registry.
    pub(crate) async fn resolve_image(
        &self,
        image: &str,
        ask_registry: bool,
    ) -> Result<ResolveImageResponse, Failure> {
        let request = ResolveImageRequest {
            image: image.to_owned(),
            ask_registry,
        };
        let limit = if ask_registry {
            REGISTRY_LIMIT
        } else {
            LOOK_LIMIT
        };
        self.within(limit, self.node().resolve_image(request)).await
    }

    /// Loads an image. The caller limits how long the machine may accept nothing.
    pub(crate) async fn load_image(
        &self,
        archive: impl Stream<Item = PushImageRequest> + Send + 'static,
    ) -> Result<(), Failure> {
        let loaded = self.woken_bulk_node().await?.load_image(archive).await;
        loaded.map(drop).map_err(|status| self.failed(status))
    }

    /// Which of the contents the machine does not have.
    pub(crate) async fn missing_contents(
        &self,
        hashes: &[ContentHash],
    ) -> Result<Vec<ContentHash>, Failure> {
        let request = MissingContentsRequest {
            hashes: hashes.iter().map(ToString::to_string).collect(),
        };
        let answer = self
            .within(MISSING_LIMIT, self.node().missing_contents(request))
            .await?;
        answer
            .missing
            .iter()
            .map(|hash| crate::files::parse(hash))
            .collect()
    }

    pub(crate) async fn load_content(
        &self,
        parts: impl Stream<Item = ContentPart> + Send + 'static,
    ) -> Result<(), Failure> {
        let mut node = self.woken_bulk_node().await?;
        self.within(CONTENT_LIMIT, node.load_content(parts))
            .await
            .map(drop)
    }

    pub(crate) async fn read_content(
        &self,
        hash: &ContentHash,
    ) -> Result<Replies<ContentPart>, Failure> {
        let request = ReadContentRequest {
            hash: hash.to_string(),
        };
        let stream = self
            .within(CONTENT_LIMIT, self.bulk_node().read_content(request))
            .await?;
        Ok(self.replies(stream, CONTENT_LIMIT))
    }

    /// Opens a replication stream.
    pub(crate) async fn exchange(
        &self,
        frames: impl Stream<Item = ReplicationFrame> + Send + 'static,
    ) -> Result<Streaming<ReplicationFrame>, Failure> {
        self.within(OPEN_LIMIT, self.peer().exchange(frames)).await
    }

    /// What the machine's store has: of each writer, the version up to which it has everything.
    pub(crate) async fn position(&self) -> Result<Vec<(Actor, u64)>, Failure> {
        let answer = self
            .within(SEEN_LIMIT, self.peer().position(PositionRequest {}))
            .await?;
        let written = answer.written.into_iter().filter_map(|of| {
            let machine = of.machine_id.parse().ok()?;
            let incarnation = of.incarnation;
            Some((
                Actor {
                    machine,
                    incarnation,
                },
                of.version,
            ))
        });
        Ok(written.collect())
    }

    /// The events of a deployment that the machine executes.
    pub(crate) async fn watch(
        &self,
        deployment: &str,
    ) -> Result<impl Stream<Item = Result<DeployEvent, Failure>> + Send + use<>, Failure> {
        let request = WatchRequest {
            deployment_id: deployment.to_owned(),
        };
        let mut bulk = PeerClient::new(self.bulk.clone()).max_decoding_message_size(MAX_MESSAGE);
        let events = self.within(OPEN_LIMIT, bulk.watch_own(request)).await?;
        let machine = self.machine.clone();
        Ok(events.map(move |event| event.map_err(|status| Failure::from(status).on(&machine))))
    }

    /// Has the machine end a deployment that it executes.
    pub(crate) async fn cancel(&self, deployment: &str) -> Result<(), Failure> {
        let request = CancelRequest {
            deployment_id: deployment.to_owned(),
        };
        self.within(OPEN_LIMIT, self.peer().cancel_own(request))
            .await
            .map(drop)
    }

    pub(crate) async fn examine(&self) -> Result<Examination, Failure> {
        self.within(EXAMINE_LIMIT, self.peer().examine(PeerExamineRequest {}))
            .await
    }

    pub(crate) async fn backup(&self, path: String) -> Result<BackupResponse, Failure> {
        self.within(BACKUP_LIMIT, self.peer().backup(PeerBackupRequest { path }))
            .await
    }

    /// Has the machine remove its containers and leave the cluster.
    pub(crate) async fn reset(&self) -> Result<(), Failure> {
        self.within(RESET_LIMIT, self.peer().reset(PeerResetRequest {}))
            .await
            .map(drop)
    }

    /// Asks for projects, or renews their lease. Returns the lease of another deployment that has
    /// one of them.
    pub(crate) async fn lease(&self, request: LeaseRequest) -> Result<Option<Lease>, Failure> {
        self.within(LEASE_LIMIT, self.node().lease(request))
            .await
            .map(|answer| answer.held)
    }

    /// Ends leases. Returns them as they were.
    pub(crate) async fn release(&self, what: What) -> Result<Vec<Lease>, Failure> {
        let request = ReleaseRequest { what: Some(what) };
        self.within(LEASE_LIMIT, self.node().release(request))
            .await
            .map(|answer| answer.released)
    }

    /// The leases that the machine has granted.
    pub(crate) async fn leases(&self) -> Result<Vec<Lease>, Failure> {
        self.within(LEASE_LIMIT, self.node().leases(LeasesRequest {}))
            .await
            .map(|answer| answer.leases)
    }

    fn node(&self) -> NodeClient<PeerChannel> {
        NodeClient::new(self.calls.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    fn bulk_node(&self) -> NodeClient<PeerChannel> {
        NodeClient::new(self.bulk.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// As [`bulk_node`](Self::bulk_node), once the machine answers on the connection. One from
    /// before a power cut of the machine looks open until something is sent on it, and a stream
    /// of the caller cannot be sent twice.
    async fn woken_bulk_node(&self) -> Result<NodeClient<PeerChannel>, Failure> {
        let ask = || async {
            let asked = self.bulk_node().leases(LeasesRequest {}).await;
            asked.map(drop).map_err(|status| self.failed(status))
        };
        let answered = async {
            match ask().await {
                // The next call connects.
                Err(failure) if failure.code == Code::Unreachable => ask().await,
                answered => answered,
            }
        };
        match timeout(LOOK_LIMIT, answered).await {
            Err(_) => Err(no_answer(LOOK_LIMIT).on(&self.machine)),
            Ok(Err(failure)) if failure.code == Code::Unreachable => Err(failure),
            Ok(_) => Ok(self.bulk_node()),
        }
    }

    fn peer(&self) -> PeerClient<PeerChannel> {
        PeerClient::new(self.calls.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    fn failed(&self, status: Status) -> Failure {
        Failure::from(status).on(&self.machine)
    }

    async fn within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match timeout(limit, call).await {
            Ok(answer) => answer
                .map(Response::into_inner)
                .map_err(|status| self.failed(status)),
            Err(_) => Err(no_answer(limit).on(&self.machine)),
        }
    }

    fn replies<T>(&self, stream: Streaming<T>, silence: Duration) -> Replies<T> {
        Replies {
            machine: self.machine.clone(),
            stream,
            silence,
        }
    }
}

fn no_answer(limit: Duration) -> Failure {
    Failure::new(
        Code::TimedOut,
        format!("no answer within {} s", limit.as_secs()),
    )
}

/// A machine's replies to one call, each of which has to arrive within a limit.
#[derive(Debug)]
pub(crate) struct Replies<T> {
    machine: String,
    stream: Streaming<T>,
    silence: Duration,
}

impl<T> Replies<T> {
    /// The next reply; `None` after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, Failure> {
        match timeout(self.silence, self.stream.message()).await {
            Ok(message) => message.map_err(|status| Failure::from(status).on(&self.machine)),
            Err(_) => Err(Failure::new(
                Code::TimedOut,
                format!("no message for {} s", self.silence.as_secs()),
            )
            .on(&self.machine)),
        }
    }
}
