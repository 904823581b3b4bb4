//! The Docker engine of this machine: the [`Engine`] trait, its implementation over the engine's
//! Unix socket ([`DockerEngine`]), and an implementation in memory for tests. Both pass the same
//! suite (`docker/suite.rs`).
//!
//! [`spec::container`] maps a service's spec to the engine's create request, and [`record`] maps
//! the engine's answers to our records. Both are pure. This module decides nothing about a
//! deployment.

mod client;
pub(crate) mod error;
pub(crate) mod exec;
pub(crate) mod health;
pub(crate) mod jobs;
pub(crate) mod logs;
pub(crate) mod platform;
pub(crate) mod record;
pub(crate) mod reference;
pub(crate) mod spec;
pub(crate) mod version;

#[cfg(test)]
pub(crate) mod dockerd;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod real_engine;
#[cfg(test)]
pub(crate) mod suite;

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::ContainerCreateBody;
use bytes::Bytes;
pub(crate) use client::DockerEngine;
pub(crate) use error::EngineError;
pub(crate) use exec::{ExecOptions, ExecOutput, ExecSession};
use futures_util::stream::BoxStream;
pub(crate) use health::HealthLimits;
pub(crate) use logs::{LogLine, LogOptions};
use uc_api::v1;
use uc_api::volumes::mounts_something_else;
pub(crate) use version::ApiVersion;

/// Default path of the engine's socket.
pub(crate) const DEFAULT_SOCKET: &str = "/run/docker.sock";

/// The engine's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EngineVersion {
    /// The version for display, for example `27.5.1`.
    pub version: String,
    /// The newest API version that both sides support.
    pub api: ApiVersion,
}

/// One container: the record that other machines see, and what only its own machine needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Container {
    /// The published record. `draining` is always false here, because the engine does not know it.
    pub record: v1::ReplicaRecord,
    /// True if uc created the container. Other containers are never touched.
    pub managed: bool,
    /// The deployment for which the container runs a command. Empty for a replica.
    pub hook: String,
    /// Time limit of that command. Zero for a replica.
    pub hook_limit: Duration,
    /// When it was last started, in Unix milliseconds. `None` if it never was.
    pub started_at_ms: Option<i64>,
    /// Deployment and step that created it. Empty if none did.
    pub step: String,
    /// The healthcheck's times, with the engine's defaults filled in. `None` if the container has
    /// no healthcheck.
    pub healthcheck: Option<HealthLimits>,
    /// When the engine restarts the container, by its present policy.
    pub restart: v1::RestartPolicy,
    /// Most restarts of the policy `on-failure`; 0 means no limit.
    pub restart_attempts: u32,
    /// The service sets no restart policy. [`jobs`] decides whether it is a job or a server.
    pub restart_by_default: bool,
    /// Time between the stop signal and SIGKILL.
    pub stop_grace: Duration,
    /// True if the kernel killed the container because it ran out of memory.
    pub oom_killed: bool,
    /// Why the engine could not start the container. Empty if it could.
    pub start_error: String,
    /// Name or id of the container whose network this one shares. Empty if it has its own network,
    /// its machine's, or none.
    pub network_of: String,
    /// The container has its machine's network, or shares that of a container that has it.
    pub on_machine_network: bool,
    /// Its anonymous volumes, those from its predecessors included, ordered by target.
    pub anonymous_volumes: Vec<AnonymousVolume>,
    /// Commands to run in the container after its start, in order.
    pub post_start: Vec<v1::Hook>,
    /// Commands to run in the container before its stop, in order.
    pub pre_stop: Vec<v1::Hook>,
}

impl Container {
    /// Reports whether the container is a replica of a service.
    pub(crate) fn is_replica(&self) -> bool {
        self.managed && self.hook.is_empty()
    }

    /// The anonymous volumes that the container's successor on this machine gets, as with Docker
    /// Compose: all but those at whose place it mounts something else.
    pub(crate) fn hands_on_to(&self, successor: &v1::ServiceSpec) -> Vec<AnonymousVolume> {
        let volumes = self.anonymous_volumes.iter();
        volumes
            .filter(|volume| !mounts_something_else(successor, &volume.target))
            .cloned()
            .collect()
    }

    /// The record to publish, on a machine whose address on the cluster network is `machine`. A
    /// container in the machine's network has this address, and its record only the one that the
    /// machine had when the container was created.
    pub(crate) fn record_on(self, machine: Ipv4Addr) -> v1::ReplicaRecord {
        let mut record = self.record;
        if self.on_machine_network && !record.ip.is_empty() {
            record.ip = machine.to_string();
        }
        record
    }
}

/// A volume that the engine created for a container because no name was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnonymousVolume {
    /// The name that the engine chose.
    pub name: String,
    /// Path in the container.
    pub target: String,
}

/// What creating a container needs to know about an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub id: String,
    /// The image's entrypoint. Empty if it has none.
    pub entrypoint: Vec<String>,
    /// Digests under which registries have it, as `repository@sha256:…`.
    pub digests: Vec<String>,
    /// Platform as `os/architecture[/variant]`. For a multi-platform image, the one that runs
    /// here. Empty if unknown.
    pub platform: String,
}

/// An image of this machine and its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedImage {
    /// `sha256:` and 64 hexadecimal digits.
    pub id: String,
    /// Names with a tag.
    pub names: Vec<String>,
}

/// A volume of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    /// The published record.
    pub record: v1::VolumeRecord,
    /// The driver options it was created with.
    pub options: std::collections::BTreeMap<String, String>,
}

/// A running container that holds a host port. It need not be one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortHolder {
    pub container_id: String,
    /// Its name, for messages.
    pub container_name: String,
    /// Its project. Empty if uc did not create it.
    pub project: String,
    /// Its service. Empty if uc did not create it.
    pub service: String,
    /// Address it listens on; `0.0.0.0` or `::` for all addresses.
    pub host_ip: String,
    /// Port number, 1 to 65535.
    pub port: u16,
    pub protocol: v1::Protocol,
}

/// A change on the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EngineEvent {
    /// The container, or its address, changed. It may no longer exist.
    Container(String),
    /// Some volume changed.
    Volume,
}

/// What `ucd` needs from the engine. Every call has its own time limit. Streams have none; they end
/// when they are dropped.
#[async_trait]
pub(crate) trait Engine: fmt::Debug + Send + Sync + 'static {
    /// Connects to the engine again and returns its version. Refuses an engine that is too old.
    async fn version(&self) -> Result<EngineVersion, EngineError>;

    /// Returns all containers that uc created, running or not, ordered by id.
    async fn containers(&self) -> Result<Vec<Container>, EngineError>;

    /// Returns any container by id, unique prefix or name.
    async fn inspect(&self, id: &str) -> Result<Container, EngineError>;

    /// Creates a container and returns its id. After [`EngineError::NameTaken`] the caller should
    /// try another name. `platform` can be empty; a platform other than the image's is refused with
    /// [`EngineError::OtherPlatform`].
    async fn create(
        &self,
        name: &str,
        platform: &str,
        body: ContainerCreateBody,
    ) -> Result<String, EngineError>;

    /// Starts a container. Succeeds if it already runs.
    async fn start(&self, id: &str) -> Result<(), EngineError>;

    /// Sends the stop signal, and SIGKILL after `grace` (rounded up to whole seconds). Succeeds if
    /// the container does not run.
    async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError>;

    /// Changes when the engine restarts the container. `Unspecified` is the policy with which
    /// [`spec::container`] creates a service that sets none. `attempts` counts for `OnFailure`
    /// only; 0 means no limit. A restart that is already waiting still happens.
    async fn set_restart(
        &self,
        id: &str,
        policy: v1::RestartPolicy,
        attempts: u32,
    ) -> Result<(), EngineError>;

    /// Removes a container, and kills it if it runs. Its anonymous volumes are removed as well, but
    /// not those that another container uses. Returns when the container no longer exists. Succeeds
    /// if there is none.
    async fn remove(&self, id: &str) -> Result<(), EngineError>;

    /// Streams log lines, oldest first.
    async fn logs(
        &self,
        id: &str,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError>;

    /// Runs a command in a running container.
    async fn exec(&self, id: &str, options: ExecOptions) -> Result<ExecSession, EngineError>;

    /// Sets the size of a command's terminal.
    async fn exec_resize(&self, exec_id: &str, columns: u16, rows: u16) -> Result<(), EngineError>;

    /// Returns the exit code of a command whose output has ended.
    async fn exec_exit_code(&self, exec_id: &str) -> Result<i32, EngineError>;

    /// Returns all named volumes, ordered by name. Leaves out anonymous volumes.
    async fn volumes(&self) -> Result<Vec<Volume>, EngineError>;

    /// Creates a volume. An existing volume is not changed.
    async fn create_volume(
        &self,
        volume: &v1::VolumeSpec,
        labels: Vec<(String, String)>,
    ) -> Result<(), EngineError>;

    /// Returns the image with this reference, or `None` if it is not on this machine.
    async fn image(&self, reference: &str) -> Result<Option<Image>, EngineError>;

    /// Returns the images of this machine that have a name, ordered by id.
    async fn images(&self) -> Result<Vec<NamedImage>, EngineError>;

    /// Removes a name of an image, and the image with its last name. The engine refuses it while a
    /// container uses the image by its last name. Succeeds if no image has the name.
    async fn remove_image(&self, reference: &str) -> Result<(), EngineError>;

    /// Asks the registry which digest an image has now.
    async fn registry_digest(&self, reference: &str) -> Result<String, EngineError>;

    /// Pulls an image for a platform, or for the machine's own if `platform` is empty. Each item is
    /// one line of progress. Ends without an error only if the image is then on this machine.
    async fn pull(
        &self,
        reference: &str,
        platform: &str,
    ) -> Result<BoxStream<'static, Result<String, EngineError>>, EngineError>;

    /// Loads an archive in the format of `docker save`. An error in the stream cancels the load.
    async fn load(
        &self,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), EngineError>;

    /// Returns which running container holds which host port.
    async fn port_holders(&self) -> Result<Vec<PortHolder>, EngineError>;

    /// Streams the changes from now on. Ends or fails when the engine stops.
    async fn events(
        &self,
    ) -> Result<BoxStream<'static, Result<EngineEvent, EngineError>>, EngineError>;
}
