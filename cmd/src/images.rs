//! Images that come from here: built with the local `docker`, sent to the machines that miss them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use uc_api::id::short;
use uc_api::v1::{
    ImageTarget, MissingImagesRequest, Plan, PushImageRequest, PushImageStart, push_image_request::Message,
};

use crate::compose::BuildJob;
use crate::connect::{Client, within};
use crate::error::{CliError, CliResult, Kind};
use crate::ui::{BOLD, Task, Ui};

/// Bytes of an archive in one message.
const CHUNK: usize = 64 * 1024;
/// Messages of an archive that may wait for the connection: 1 MiB.
const CHUNKS_WAITING: usize = 16;
/// For short questions to the local engine.
const QUESTION: Duration = Duration::from_secs(30);

/// Builds one service's image; its output goes to stderr. Gives the tag to deploy: it names the content, so an unchanged build is an unchanged spec.
pub(crate) async fn build(ui: &Ui, job: &BuildJob) -> CliResult<String> {
    ui.status(&format!("{BOLD}building {}/{}{BOLD:#}", job.project, job.service))?;
    let scratch = tempfile::tempdir()
        .map_err(|error| CliError::failed("no temporary directory could be made").source(error))?;
    let id_file = scratch.path().join("image-id");
    let mut command = docker();
    command.arg("build").arg("--iidfile").arg(&id_file).args(build_arguments(job));
    if let Some(text) = &job.build.dockerfile_inline {
        let path = scratch.path().join("Dockerfile");
        std::fs::write(&path, text)
            .map_err(|error| CliError::failed("the inline Dockerfile could not be written").source(error))?;
        command.arg("-f").arg(path);
    }
    command.arg("--").arg(&job.build.context);
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
    let id = std::fs::read_to_string(&id_file)
        .map_err(|error| CliError::failed("docker build did not say which image it built").source(error))?;
    tag(job, id.trim()).await
}

/// The image that the last build of a service made.
pub(crate) async fn last_build(job: &BuildJob) -> CliResult<String> {
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

/// `docker build`'s arguments, without those that name scratch files and the context.
fn build_arguments(job: &BuildJob) -> Vec<String> {
    let mut list = vec!["-t".to_owned(), latest(job)];
    if let Some(image) = &job.build.image {
        list.extend(["-t".to_owned(), image.clone()]);
    }
    if let (None, Some(dockerfile)) = (&job.build.dockerfile_inline, &job.build.dockerfile) {
        // docker takes -f relative to the working directory, a compose file means the context.
        list.extend(["-f".to_owned(), job.build.context.join(dockerfile).display().to_string()]);
    }
    for (name, value) in &job.build.args {
        let value = value.as_ref().map(|value| format!("={value}")).unwrap_or_default();
        list.extend(["--build-arg".to_owned(), format!("{name}{value}")]);
    }
    if let Some(target) = &job.build.target {
        list.extend(["--target".to_owned(), target.clone()]);
    }
    list
}

fn repository(job: &BuildJob) -> String {
    // A repository name is in lower case and cannot begin or end with a separator.
    format!("{}-{}", job.project, job.service).to_ascii_lowercase()
}

fn latest(job: &BuildJob) -> String {
    format!("{}:latest", repository(job))
}

/// `<project>-<service>:<12 digits of the image's id>`.
async fn tag(job: &BuildJob, id: &str) -> CliResult<String> {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    if digits.len() < 12 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(CliError::failed(format!("docker gave `{id}` as an image id")));
    }
    let tag = format!("{}:{}", repository(job), short(digits));
    match ask(&["tag", id, &tag]).await? {
        Ok(_) => Ok(tag),
        Err(reason) => Err(CliError::failed(format!("the image could not be tagged {tag}")).source(reason)),
    }
}

fn docker() -> Command {
    let mut command = Command::new("docker");
    command.kill_on_drop(true);
    command
}

/// A short question: what docker answered, or what it complained about.
async fn ask(arguments: &[&str]) -> CliResult<Result<String, String>> {
    let mut command = docker();
    command.args(arguments).stdin(Stdio::null());
    let output = tokio::time::timeout(QUESTION, command.output())
        .await
        .map_err(|_| CliError::new(Kind::TimedOut, "the local docker did not answer within 30 seconds"))?
        .map_err(no_docker)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}

fn no_docker(error: std::io::Error) -> CliError {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    let error = CliError::failed("the program `docker` could not be started").source(error);
    if missing {
        return error
            .hint("services with `build:` are built by the Docker of this computer; install it")
            .hint("or push the image to a registry and name it with `image:`");
    }
    error
}

/// Sends each built image of the plan to the machines that miss it.
pub(crate) async fn push_missing(ui: &Ui, client: &Client, plan: &Plan) -> CliResult {
    if plan.images.is_empty() {
        return Ok(());
    }
    let request = MissingImagesRequest { images: plan.images.clone() };
    let missing = client.deploy().missing_images(within(60, request)).await?.into_inner().missing;
    let progress = ui.progress();
    for target in missing.into_iter().filter(|target| !target.machine_ids.is_empty()) {
        let size = match ask(&["image", "inspect", "--format", "{{.Size}}", &target.image]).await? {
            Ok(size) => size.parse().unwrap_or(0),
            Err(reason) => {
                return Err(CliError::failed(format!(
                    "the image {} is needed and is not on this computer",
                    target.image
                ))
                .source(reason)
                .hint("build it: `uc deploy` without --no-build"));
            }
        };
        let machines = target.machine_ids.len();
        let to = if machines == 1 { "1 machine".to_owned() } else { format!("{machines} machines") };
        let task = progress.transfer(format!("image {} → {to}", target.image), size);
        match push(client, &target, &task).await {
            Ok(()) => task.done(""),
            Err(error) => {
                task.failed("");
                return Err(error.context(format!("image {}", target.image)));
            }
        }
    }
    Ok(())
}

async fn push(client: &Client, target: &ImageTarget, task: &Task) -> CliResult {
    let mut save = docker()
        .args(["save", "--", &target.image])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(no_docker)?;
    let (Some(mut archive), Some(mut complaints)) = (save.stdout.take(), save.stderr.take()) else {
        return Err(CliError::failed("docker save was started without its pipes"));
    };
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    let start = PushImageStart { image: target.image.clone(), machine_ids: target.machine_ids.clone() };
    let mut api = client.deploy();
    let call = api.push_image(ReceiverStream::new(receiver));
    let feed = async move {
        let mut message = Message::Start(start);
        loop {
            // The daemon ended the call: its answer says why.
            if sender.send(PushImageRequest { message: Some(message) }).await.is_err() {
                return Ok(());
            }
            let mut chunk = Vec::with_capacity(CHUNK);
            let mut part = (&mut archive).take(CHUNK as u64);
            let count = part
                .read_to_end(&mut chunk)
                .await
                .map_err(|error| CliError::failed("docker save could not be read").source(error))?;
            if count == 0 {
                break;
            }
            task.advance(count as u64);
            message = Message::Chunk(chunk);
        }
        let mut text = String::new();
        _ = (&mut complaints).take(16 * 1024).read_to_string(&mut text).await;
        let status = save.wait().await.map_err(no_docker)?;
        if !status.success() {
            return Err(
                CliError::failed(format!("docker save failed ({status})")).source(text.trim().to_owned())
            );
        }
        // Only a whole archive is ended; a torn one ends the call.
        drop(sender);
        Ok(())
    };
    tokio::pin!(call);
    tokio::pin!(feed);
    // An archive that could not be read to its end drops the call, so that nobody takes it for whole.
    let results = tokio::select! {
        answer = &mut call => answer,
        fed = &mut feed => {
            fed?;
            call.await
        }
    };
    let failed: Vec<_> =
        results?.into_inner().results.into_iter().filter(|result| !result.error.is_empty()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let list: Vec<String> =
        failed.iter().map(|result| format!("{}: {}", result.machine_name, result.error)).collect();
    Err(CliError::new(Kind::Partial, "it could not be loaded everywhere").source(list.join("\n")))
}

/// Whether a directory can be a build context, before docker is asked.
pub(crate) fn check_context(job: &BuildJob) -> CliResult {
    let context: &Path = &job.build.context;
    if context.is_dir() {
        return Ok(());
    }
    Err(CliError::usage(format!(
        "{}/{} is to be built in {}, which is no directory",
        job.project,
        job.service,
        context.display()
    )))
}
