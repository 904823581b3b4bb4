//! The resolved project: what a compose file means once everything in it is worked out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use uc_api::{ProjectName, v1};

use crate::document;
use crate::emit;

/// One compose project, resolved.
#[derive(Debug, Clone)]
pub struct Project {
    /// From the request, the environment, the file or the directory, in this order.
    pub name: ProjectName,
    /// In order of their names. Services of inactive profiles are not here.
    pub services: Vec<Service>,
    /// Named volumes that a service uses, in order of their names.
    pub volumes: Vec<v1::VolumeSpec>,
    /// `x-context`: the context to deploy to.
    pub context: Option<String>,
    /// The resolved file in compose's own words.
    pub(crate) document: serde_json::Value,
    /// Of all services, active or not.
    pub(crate) profiles: BTreeSet<String>,
    /// What variables of the file are replaced by.
    pub(crate) environment: BTreeMap<String, String>,
}

/// One service of a project.
#[derive(Debug, Clone)]
pub struct Service {
    /// What runs. `image` is empty when the service is built and names no image.
    pub spec: v1::ServiceSpec,
    /// How its image is built, if it is.
    pub build: Option<Build>,
    /// Files, folders and texts of this computer that it needs: relative bind mounts, configs, secrets.
    pub local: Vec<LocalFile>,
}

/// Something of this computer that a service needs where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFile {
    /// Absolute path in the container; empty with `variable`.
    pub target: String,
    /// For people: `config nginx`, `secret db_password`, `./conf`.
    pub name: String,
    /// Where its content comes from.
    pub source: LocalSource,
    /// Never shown, and kept where only root reads it.
    pub secret: bool,
    /// Owner in the container of a config or secret; absent: root.
    pub uid: Option<u32>,
    /// Group in the container of a config or secret; absent: root.
    pub gid: Option<u32>,
    /// Permission bits of a config or secret; absent: 0444.
    pub mode: Option<u32>,
    /// The environment variable that carries it, in place of a file at `target`.
    pub variable: Option<String>,
    /// A bind mount that says `ro`. Of no meaning for configs and secrets, which always are.
    pub read_only_said: bool,
    /// A bind mount with `create_host_path: false`: a missing source is an error.
    pub must_exist: bool,
    /// The compose file that names it.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

/// Where the content of a [`LocalFile`] comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalSource {
    /// A bind mount: the absolute path of a file or folder of this computer, which may be missing and keeps its own permissions.
    Bind(PathBuf),
    /// A config's or secret's `file`: the absolute path of a file of this computer.
    Path(PathBuf),
    /// The text itself (`content`).
    Content(String),
    /// The variable of this environment that holds it (`environment`).
    Variable(String),
    /// A program and its arguments that print it (`x-command`).
    Command(Vec<String>),
}

/// How an image is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Absolute directory.
    pub context: PathBuf,
    /// As written, relative to the context; absent: `Dockerfile` (or the inline one).
    pub dockerfile: Option<PathBuf>,
    /// The Dockerfile's text itself.
    pub dockerfile_inline: Option<String>,
    /// Build arguments. `None`: named in the file without a value and not set in the environment.
    pub args: BTreeMap<String, Option<String>>,
    /// Stage to build; absent: the last.
    pub target: Option<String>,
    /// The service's `image`, the tag to give to what is built.
    pub image: Option<String>,
}

impl Project {
    /// The resolved compose file as JSON, keys sorted, in the form of `docker compose config --format json`.
    pub fn to_json(&self) -> serde_json::Value {
        document::plain(&self.document)
    }

    /// The same as YAML.
    pub fn to_yaml(&self) -> String {
        emit::to_yaml(&self.document)
    }
}
