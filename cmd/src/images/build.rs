//! Builds, one after another, with what they need from each other.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use uc_api::id::short;
use uc_compose::BuildContext;

use super::arguments::{Arguments, arguments, unsupported};
use super::{ask, docker, no_docker};
use crate::compose::BuildJob;
use crate::error::{CliError, CliResult};
use crate::ui::{BOLD, Ui};

/// What the command line says about builds.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct BuildFlags {
    /// Build argument, overrides the file; NAME alone takes its value from the environment
    /// (repeatable)
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Pull newer base images
    #[arg(long)]
    pub(crate) build_pull: bool,
    /// Build without the cache
    #[arg(long)]
    pub(crate) no_cache: bool,
}

/// A service and the image it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Built {
    pub(crate) service: String,
    /// Names the content.
    pub(crate) image: String,
    /// Names that the file gives it.
    pub(crate) tags: Vec<String>,
}

/// Builds all, in the order given; or takes what the last build made. `variables` are those of the
/// project.
pub(crate) async fn build_all(
    ui: &Ui,
    jobs: &[BuildJob],
    flags: &BuildFlags,
    variables: &BTreeMap<String, String>,
    no_build: bool,
) -> CliResult<Vec<Built>> {
    let mut images = BTreeMap::new();
    let mut all = Vec::new();
    for job in jobs {
        let image = if no_build {
            last_build(job).await?
        } else {
            let arguments = arguments(job, flags, &images, variables)?;
            build(ui, job, &arguments).await?
        };
        images.insert(job.service.clone(), image.clone());
        let tags = job
            .build
            .image
            .iter()
            .chain(&job.build.tags)
            .cloned()
            .collect();
        all.push(Built {
            service: job.service.clone(),
            image,
            tags,
        });
    }
    Ok(all)
}

/// Builds one service's image; docker's output goes to stderr. Gives the tag to deploy: it names
/// the content, so an unchanged build is an unchanged spec.
async fn build(ui: &Ui, job: &BuildJob, arguments: &Arguments) -> CliResult<String> {
    check_docker(job, arguments).await?;
    ui.status(&format!(
        "{BOLD}building {}/{}{BOLD:#}",
        job.project, job.service
    ))?;
    let scratch = tempfile::tempdir()
        .map_err(|error| CliError::failed("no temporary directory could be made").source(error))?;
    let id_file = scratch.path().join("image-id");
    let mut command = docker();
    command
        .arg("build")
        .arg("--iidfile")
        .arg(&id_file)
        .args(&arguments.list);
    if let Some(text) = &job.build.dockerfile_inline {
        let path = scratch.path().join("Dockerfile");
        std::fs::write(&path, text).map_err(|error| {
            CliError::failed("the inline Dockerfile could not be written").source(error)
        })?;
        command.arg("-f").arg(path);
    }
    command.arg("--").arg(&arguments.context);
    command.envs(
        arguments
            .environment
            .iter()
            .map(|(name, value)| (name, value)),
    );
    // What docker says while it builds is no data of ours.
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    let status = command.status().await.map_err(no_docker)?;
    if !status.success() {
        return Err(CliError::failed(format!(
            "the image of {}/{} could not be built (docker build: {status})",
            job.project, job.service
        ))
        .hint("the reason is in docker's output above; nothing was deployed"));
    }
    let id = std::fs::read_to_string(&id_file).map_err(|error| {
        CliError::failed("docker build did not say which image it built").source(error)
    })?;
    tag(job, id.trim()).await
}

/// Whether the docker of this computer can do what the build asks for. Only asked where not every
/// docker can.
async fn check_docker(job: &BuildJob, arguments: &Arguments) -> CliResult {
    if arguments.needed.is_empty() {
        return Ok(());
    }
    let help = ask(&["build", "--help"]).await?.unwrap_or_default();
    if let Some((option, key)) = unsupported(&arguments.needed, &help) {
        return Err(CliError::failed(format!(
            "{}/{} has `build.{key}`, and the docker of this computer cannot do that: its `docker build` has no {option}",
            job.project, job.service
        ))
        .hint("install BuildKit for it: the package docker-buildx-plugin (or docker-buildx)")
        .hint(format!("or remove `{key}` from the build")));
    }
    if job.build.platforms.len() > 1 {
        let store = ask(&["info", "--format", "{{json .DriverStatus}}"])
            .await?
            .unwrap_or_default();
        if !store.contains("io.containerd.snapshotter") {
            return Err(CliError::failed(format!(
                "{}/{} is built for {} platforms, and the docker of this computer keeps images of one only",
                job.project,
                job.service,
                job.build.platforms.len()
            ))
            .hint("turn on its containerd image store (`\"features\": {\"containerd-snapshotter\": true}` in daemon.json)")
            .hint("or give the service the one `platform` that the machines have"));
        }
    }
    Ok(())
}

/// The image that the last build of a service made.
async fn last_build(job: &BuildJob) -> CliResult<String> {
    let latest = latest(job);
    match ask(&["image", "inspect", "--format", "{{.Id}}", &latest]).await? {
        Ok(id) => tag(job, id.trim()).await,
        Err(reason) => Err(CliError::failed(format!(
            "there is no built image of {}/{} here ({latest})",
            job.project, job.service
        ))
        .source(reason)
        .hint("leave out --no-build")),
    }
}

fn repository(job: &BuildJob) -> String {
    // A repository name is in lower case and cannot begin or end with a separator.
    format!("{}-{}", job.project, job.service).to_ascii_lowercase()
}

/// What the last build of a service is called.
pub(super) fn latest(job: &BuildJob) -> String {
    format!("{}:latest", repository(job))
}

/// `<project>-<service>:<12 digits of the image's id>`.
async fn tag(job: &BuildJob, id: &str) -> CliResult<String> {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    if digits.len() < 12 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(CliError::failed(format!(
            "docker gave `{id}` as an image id"
        )));
    }
    let tag = format!("{}:{}", repository(job), short(digits));
    match ask(&["tag", id, &tag]).await? {
        Ok(_) => Ok(tag),
        Err(reason) => Err(CliError::failed(format!("the image could not be tagged {tag}"))
            .source(reason)
            .hint("a builder of its own may keep what it builds to itself: `docker buildx use default`")),
    }
}

/// Whether directories can be build contexts, before docker is asked.
pub(crate) fn check_contexts(jobs: &[BuildJob]) -> CliResult {
    for job in jobs {
        check(job, &job.build.context, "")?;
        for (name, context) in &job.build.additional_contexts {
            check(job, context, &format!(" `{name}`"))?;
        }
    }
    Ok(())
}

fn check(job: &BuildJob, context: &BuildContext, name: &str) -> CliResult {
    let BuildContext::Directory(directory) = context else {
        return Ok(());
    };
    let directory: &Path = directory;
    if directory.is_dir() {
        return Ok(());
    }
    let why = if directory.exists() {
        "is no directory"
    } else {
        "is not there"
    };
    Err(CliError::usage(format!(
        "{}/{} is to be built with the context{name} {}, which {why}",
        job.project,
        job.service,
        directory.display()
    ))
    .hint("create it, or correct `build:` in the compose file"))
}
