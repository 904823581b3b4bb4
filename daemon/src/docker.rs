//! The Docker engine of this machine, as far as `ucd` needs one: an [`Engine`] trait, its real
//! implementation over the engine's Unix socket ([`DockerEngine`]) and, for tests, one in memory.
//! Both pass one and the same suite (`docker/suite.rs`).
//!
//! What a service asks for is turned into what the engine is told by a pure function
//! ([`spec::container`]); what the engine says is turned into our records by another ([`record`]).
//! Nothing here decides anything about a deployment.

mod client;
pub mod error;
pub mod exec;
pub mod health;
pub mod logs;
pub mod platform;
pub mod record;
pub mod spec;
pub mod version;

#[cfg(test)]
pub(crate) mod dockerd;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod real_engine;
#[cfg(test)]
pub(crate) mod suite;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::ContainerCreateBody;
use bytes::Bytes;
pub use client::DockerEngine;
pub use error::EngineError;
pub use exec::{ExecOptions, ExecOutput, ExecSession};
use futures_util::stream::BoxStream;
pub use health::HealthLimits;
pub use logs::{LogLine, LogOptions};
use uc_api::v1;
pub use version::ApiVersion;

/// Where the engine listens unless set otherwise.
pub const DEFAULT_SOCKET: &str = "/run/docker.sock";

/// What the engine says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineVersion {
    /// For people, for example `27.5.1`.
    pub version: String,
    /// The newest of the API that both sides know.
    pub api: ApiVersion,
}

/// One container: what others may know of it, and what only its own machine needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// What is published. `draining` is always false here: the engine knows nothing of it.
    pub record: v1::ReplicaRecord,
    /// Made by uc; nothing else is ever touched.
    pub managed: bool,
    /// It runs a command for a deployment and is no replica: the mark of that run. Empty: a
    /// replica.
    pub hook: String,
    /// Its healthcheck, with the engine's defaults filled in; none when it has none.
    pub healthcheck: Option<HealthLimits>,
    /// When the engine starts it again by itself.
    pub restart: v1::RestartPolicy,
    /// Between the stop signal and SIGKILL.
    pub stop_grace: Duration,
    /// The kernel killed it for memory.
    pub oom_killed: bool,
    /// Why it could not be started; empty when it could.
    pub start_error: String,
    /// Name or id of the container whose network it has; empty: a network of its own, its
    /// machine's, or none.
    pub network_of: String,
    /// To be run in it after its start, in this order.
    pub post_start: Vec<v1::Hook>,
    /// To be run in it before it is stopped, in this order.
    pub pre_stop: Vec<v1::Hook>,
}

impl Container {
    /// A replica of a service.
    pub fn is_replica(&self) -> bool {
        self.managed && self.hook.is_empty()
    }
}

/// An image as far as creating a container needs to know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Content id.
    pub id: String,
    /// What it runs; empty: nothing.
    pub entrypoint: Vec<String>,
    /// `os/architecture[/variant]`; of one for several platforms, the one that runs here. Empty:
    /// unknown.
    pub platform: String,
}

/// A volume of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What is published.
    pub record: v1::VolumeRecord,
    /// Options it was made with.
    pub options: std::collections::BTreeMap<String, String>,
}

/// A running container (any, not only ours) that holds a port of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortHolder {
    /// Who.
    pub container_id: String,
    /// Its name, for people.
    pub container_name: String,
    /// Our project, if it is ours.
    pub project: String,
    /// Our service, if it is ours.
    pub service: String,
    /// Address it listens on; `0.0.0.0` or `::` for all.
    pub host_ip: String,
    /// 1..=65535
    pub port: u16,
    /// Transport.
    pub protocol: v1::Protocol,
}

/// Something changed on the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineEvent {
    /// This container, or its address. It may be gone.
    Container(String),
    /// Some volume.
    Volume,
}

/// What `ucd` asks of its engine. Every call has a time limit of its own; streams have none and end
/// when dropped.
#[async_trait]
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// Speaks to the engine anew; refuses one that is too old.
    async fn version(&self) -> Result<EngineVersion, EngineError>;

    /// All containers made by uc, running or not, in the order of their ids.
    async fn containers(&self) -> Result<Vec<Container>, EngineError>;

    /// One container, ours or not, by id, unique prefix or name.
    async fn inspect(&self, id: &str) -> Result<Container, EngineError>;

    /// Creates and returns the id. [`EngineError::NameTaken`]: try another name. `platform` may be
    /// empty; another one than the image's is
    /// [`EngineError::OtherPlatform`].
    async fn create(
        &self,
        name: &str,
        platform: &str,
        body: ContainerCreateBody,
    ) -> Result<String, EngineError>;

    /// Starts; one that runs already is no error.
    async fn start(&self, id: &str) -> Result<(), EngineError>;

    /// Stop signal, then SIGKILL after `grace` (whole seconds, rounded up). One that does not run
    /// is no error.
    async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError>;

    /// Removes it and its anonymous volumes, killing it if it runs. Returns when it is gone; one
    /// that is not there is no error.
    async fn remove(&self, id: &str) -> Result<(), EngineError>;

    /// Log lines, oldest first.
    async fn logs(
        &self,
        id: &str,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError>;

    /// Runs a command in a running container.
    async fn exec(&self, id: &str, options: ExecOptions) -> Result<ExecSession, EngineError>;

    /// Tells a terminal its new size.
    async fn exec_resize(&self, exec_id: &str, columns: u16, rows: u16) -> Result<(), EngineError>;

    /// The exit code of a command whose output has ended.
    async fn exec_exit_code(&self, exec_id: &str) -> Result<i32, EngineError>;

    /// All volumes with a name (anonymous ones are left out), sorted by name.
    async fn volumes(&self) -> Result<Vec<Volume>, EngineError>;

    /// Makes a volume; one that is there already stays as it is.
    async fn create_volume(
        &self,
        volume: &v1::VolumeSpec,
        labels: Vec<(String, String)>,
    ) -> Result<(), EngineError>;

    /// The image under that reference, if it is on this machine.
    async fn image(&self, reference: &str) -> Result<Option<Image>, EngineError>;

    /// Pulls it, for a platform or, if that is empty, for the machine's; each item is one line of
    /// progress. Ends without error only when the image is here.
    async fn pull(
        &self,
        reference: &str,
        platform: &str,
    ) -> Result<BoxStream<'static, Result<String, EngineError>>, EngineError>;

    /// Takes in an archive as `docker save` writes them. An error in the stream gives up the whole.
    async fn load(
        &self,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), EngineError>;

    /// Who holds which port of the machine, among running containers.
    async fn port_holders(&self) -> Result<Vec<PortHolder>, EngineError>;

    /// What happens from now on. Ends or fails when the engine goes away.
    async fn events(
        &self,
    ) -> Result<BoxStream<'static, Result<EngineEvent, EngineError>>, EngineError>;
}
