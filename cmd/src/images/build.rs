//! Builds images one after another, in the order of their dependencies.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use uc_api::id::short;
use uc_compose::BuildContext;

use super::arguments::{Arguments, BuildFlags, arguments, latest, repository, unsupported};
use super::{ask_docker, docker, no_docker, try_docker};
use crate::compose::BuildJob;
use crate::error::{CliError, CliResult};
use crate::ui::{BOLD, Ui};

/// A service and the image it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Built {
    pub(crate) service: String,
    /// Names the content.
    pub(crate) image: String,
    /// Names that the file gives it.
    pub(crate) tags: Vec<String>,
}

/// Which images a command uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageSource {
    /// Build them now.
    Build,
    /// Those of the last build (`--no-build`). A missing one is an error.
    LastBuild,
    /// Those of the last build, for a dry run: nothing is built or tagged. A missing one gets a
    /// name that says so.
    DryRun,
}

/// Builds all images in this order, or takes those of the last build. `variables` are those of the
/// project.
pub(crate) async fn build_all(
    ui: &Ui,
    jobs: &[BuildJob],
    flags: &BuildFlags,
    variables: &BTreeMap<String, String>,
    source: ImageSource,
) -> CliResult<Vec<Built>> {
    let mut images = BTreeMap::new();
    let mut all = Vec::new();
    for job in jobs {
        let image = match source {
            ImageSource::LastBuild => last_build(job).await?,
            ImageSource::DryRun => image_for_dry_run(ui, job).await?,
            ImageSource::Build => {
                let arguments = arguments(job, flags, &images, variables)?;
                build(ui, job, &arguments).await?
            }
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
        .map_err(|error| CliError::failed("cannot create a temporary directory").source(error))?;
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
            CliError::failed("cannot write the inline Dockerfile").source(error)
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
    // The output of docker is not data of this command.
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    let status = command.status().await.map_err(no_docker)?;
    if !status.success() {
        return Err(CliError::failed(format!(
            "cannot build the image of {}/{}: docker build failed ({status})",
            job.project, job.service
        ))
        .hint("the output of docker above has the reason; nothing was deployed"));
    }
    let id = std::fs::read_to_string(&id_file).map_err(|error| {
        CliError::failed("docker build did not write the id of the image").source(error)
    })?;
    tag(job, id.trim()).await
}

/// Checks that the local Docker supports the options of the build. Docker is only asked about
/// options that some versions lack.
async fn check_docker(job: &BuildJob, arguments: &Arguments) -> CliResult {
    if arguments.needed.is_empty() {
        return Ok(());
    }
    let help = ask_docker(&["build", "--help"]).await?;
    if let Some((option, key)) = unsupported(&arguments.needed, &help) {
        return Err(CliError::failed(format!(
            "{}/{} has `build.{key}`, but `docker build` on this computer has no option {option}",
            job.project, job.service
        ))
        .hint("install BuildKit (package docker-buildx-plugin or docker-buildx)")
        .hint(format!("or remove `{key}` from the build")));
    }
    if job.build.platforms.len() > 1 {
        let store = ask_docker(&["info", "--format", "{{json .DriverStatus}}"]).await?;
        if !store.contains("io.containerd.snapshotter") {
            return Err(CliError::failed(format!(
                "{}/{} is built for {} platforms, but Docker on this computer stores images of one platform only",
                job.project,
                job.service,
                job.build.platforms.len()
            ))
            .hint("turn on the containerd image store (`\"features\": {\"containerd-snapshotter\": true}` in daemon.json)")
            .hint("or set `platform` of the service to the platform of the machines"));
        }
    }
    Ok(())
}

/// The image that the last build of a service made.
async fn last_build(job: &BuildJob) -> CliResult<String> {
    let latest = latest(job);
    match try_docker(&["image", "inspect", "--format", "{{.Id}}", &latest]).await? {
        Ok(id) => tag(job, id.trim()).await,
        Err(reason) => Err(CliError::failed(format!(
            "no image of {}/{} was built on this computer ({latest} not found)",
            job.project, job.service
        ))
        .source(reason)
        .hint("run the command without --no-build")),
    }
}

/// The image of the last build, found without changing anything.
async fn image_for_dry_run(ui: &Ui, job: &BuildJob) -> CliResult<String> {
    let service = format!("{}/{}", job.project, job.service);
    let id = try_docker(&["image", "inspect", "--format", "{{.Id}}", &latest(job)]).await;
    // Without Docker, or without a built image, a dry run can still show everything else.
    if let Ok(Ok(id)) = id {
        ui.status(&format!(
            "{service} was not built; the plan has the image of its last build"
        ))?;
        return tag_name(job, id.trim());
    }
    ui.status(&format!(
        "{service} was not built, and this computer has no image of an earlier build"
    ))?;
    Ok(format!("{}:not-built", repository(job)))
}

/// `<project>-<service>:<12 digits of the image's id>`.
fn tag_name(job: &BuildJob, id: &str) -> CliResult<String> {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    if digits.len() < 12 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(CliError::failed(format!(
            "docker returned an invalid image id `{id}`"
        )));
    }
    Ok(format!("{}:{}", repository(job), short(digits)))
}

/// Gives an image its [`tag_name`].
async fn tag(job: &BuildJob, id: &str) -> CliResult<String> {
    let tag = tag_name(job, id)?;
    match try_docker(&["tag", id, &tag]).await? {
        Ok(_) => Ok(tag),
        Err(reason) => Err(CliError::failed(format!("cannot tag the image as {tag}"))
            .source(reason)
            .hint("the buildx builder may not store images in the local Docker; switch with `docker buildx use default`")),
    }
}

/// Checks that the directories of build contexts exist.
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
        "is not a directory"
    } else {
        "does not exist"
    };
    Err(CliError::usage(format!(
        "build context{name} of {}/{} {why}: {}",
        job.project,
        job.service,
        directory.display()
    ))
    .hint("create it, or correct `build:` in the compose file"))
}
