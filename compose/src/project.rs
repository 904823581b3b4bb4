//! The resolved project: what a compose file means once everything in it is worked out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use uc_api::{ProjectName, v1};

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
}

/// One service of a project.
#[derive(Debug, Clone)]
pub struct Service {
    /// What runs. `image` is empty when the service is built and names no image.
    pub spec: v1::ServiceSpec,
    /// How its image is built, if it is.
    pub build: Option<Build>,
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
        self.document.clone()
    }

    /// The same as YAML.
    pub fn to_yaml(&self) -> String {
        emit::to_yaml(&self.document)
    }
}
