//! The resolved project: the result of a load.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use uc_api::{ProjectName, v1};

use crate::diagnostic::Diagnostic;
use crate::template::{ImageTemplate, TemplateFacts};
use crate::{document, emit};

/// One compose project, resolved.
#[derive(Debug, Clone)]
pub struct Project {
    /// From the request, the environment, the file or the directory, in this order.
    pub name: ProjectName,
    /// In order of their names. Services of inactive profiles are not here.
    pub services: Vec<Service>,
    /// Names of the services of inactive profiles.
    pub inactive: BTreeSet<String>,
    /// Named volumes that a service uses, in order of their names.
    pub volumes: Vec<v1::VolumeSpec>,
    /// `x-context`: the context to deploy to.
    pub context: Option<String>,
    /// Images whose names are templates, by service.
    pub(crate) images: BTreeMap<String, ImageTemplate>,
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
    /// Files, folders and texts of this computer that it needs: relative bind mounts, configs,
    /// secrets.
    pub local: Vec<LocalFile>,
}

/// Content of this computer that a service needs on its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFile {
    /// Absolute path in the container; empty with `variable`.
    pub target: String,
    /// For people: `config nginx`, `secret db_password`, `./conf`.
    pub name: String,
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
    /// A bind mount: the absolute path of a file or folder of this computer, which may be missing
    /// and keeps its own permissions.
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
    pub context: BuildContext,
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
    /// Further contexts by name.
    pub additional_contexts: BTreeMap<String, BuildContext>,
    /// Where to read the cache, in the builder's words.
    pub cache_from: Vec<String>,
    /// Where to write the cache, in the builder's words.
    pub cache_to: Vec<String>,
    /// Do not use the build cache.
    pub no_cache: bool,
    /// Stages to build without the cache.
    pub no_cache_filter: Vec<String>,
    /// Pull newer base images.
    pub pull: bool,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Further tags.
    pub tags: Vec<String>,
    /// `os/arch[/variant]`; empty: the builder's own.
    pub platforms: Vec<String>,
    /// Of `RUN` steps.
    pub network: Option<String>,
    /// `host=address`.
    pub extra_hosts: Vec<String>,
    /// Bytes.
    pub shm_size: Option<u64>,
    /// Soft and hard limit by name; -1: none.
    pub ulimits: BTreeMap<String, (i64, i64)>,
    /// What `RUN --mount=type=secret` sees.
    pub secrets: Vec<BuildSecret>,
    /// `default`, or `id=path` of a key or agent socket.
    pub ssh: Vec<String>,
    /// Rights beyond the builder's usual ones: `network.host`, `security.insecure`, …
    pub entitlements: Vec<String>,
    /// `true`, `false` or what the builder is to attest.
    pub provenance: Option<String>,
    /// `true`, `false` or how the bill of materials is made.
    pub sbom: Option<String>,
}

/// What a build may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildContext {
    /// Absolute directory of this computer.
    Directory(PathBuf),
    /// A Git repository, an archive's URL, or an image (`docker-image://`), in the builder's words.
    Remote(String),
    /// The image of this service, which is built first.
    Service(String),
}

/// A secret of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildSecret {
    /// The id that the Dockerfile uses.
    pub id: String,
    /// [`LocalSource::Path`] or [`LocalSource::Variable`].
    pub source: LocalSource,
}

impl Build {
    /// A build with only a context.
    pub fn of(context: BuildContext) -> Self {
        Self {
            context,
            dockerfile: None,
            dockerfile_inline: None,
            args: BTreeMap::new(),
            target: None,
            image: None,
            additional_contexts: BTreeMap::new(),
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            no_cache: false,
            no_cache_filter: Vec::new(),
            pull: false,
            labels: BTreeMap::new(),
            tags: Vec::new(),
            platforms: Vec::new(),
            network: None,
            extra_hosts: Vec::new(),
            shm_size: None,
            ulimits: BTreeMap::new(),
            secrets: Vec::new(),
            ssh: Vec::new(),
            entitlements: Vec::new(),
            provenance: None,
            sbom: None,
        }
    }
}

impl Project {
    /// The resolved compose file as JSON, keys sorted, in the form of `docker compose config
    /// --format json`.
    pub fn to_json(&self) -> serde_json::Value {
        document::plain(&self.document)
    }

    /// The resolved compose file as YAML.
    pub fn to_yaml(&self) -> String {
        emit::document(&self.document)
    }

    /// Whether an image's name depends on git or on the time. [`Self::fill_images`] must then be
    /// called before the images are used.
    pub fn has_image_templates(&self) -> bool {
        !self.images.is_empty()
    }

    /// Gives the images whose names are templates their names; what is wrong with one is returned,
    /// and its name stays as it is.
    pub fn fill_images(&mut self, facts: &TemplateFacts<'_>) -> Vec<Diagnostic> {
        let mut wrong = Vec::new();
        for (service, template) in &self.images {
            let name = match template.render(self.name.as_str(), service, facts) {
                Ok(name) => name,
                Err(diagnostic) => {
                    wrong.push(*diagnostic);
                    continue;
                }
            };
            for found in self
                .services
                .iter_mut()
                .filter(|found| found.spec.name == *service)
            {
                if let Some(build) = &mut found.build {
                    build.image = Some(name.clone());
                }
                found.spec.image.clone_from(&name);
            }
            if let Some(image) = self
                .document
                .pointer_mut(&format!("/services/{service}/image"))
            {
                *image = name.replace('$', "$$").into();
            }
        }
        wrong
    }
}
