//! Images that are built with the local `docker` and sent to the machines that do not have them.
//!
//! A built image is named by its content (`<project>-<service>:<12 digits of its id>`), so an
//! unchanged build is an unchanged spec, whatever the commit or the time.

mod arguments;
mod build;
mod push;

use std::process::Stdio;
use std::time::Duration;

pub(crate) use arguments::BuildFlags;
pub(crate) use build::{Built, ImageSource, build_all, check_contexts};
pub(crate) use push::push_missing;
use tokio::process::Command;

use crate::error::{CliError, CliResult, Kind};

/// Time limit of a short query to the local engine.
const QUESTION: Duration = Duration::from_secs(30);

fn docker() -> Command {
    let mut command = Command::new("docker");
    command.kill_on_drop(true);
    command
}

/// Runs a short docker command and returns its output, or its error output.
async fn try_docker(arguments: &[&str]) -> CliResult<Result<String, String>> {
    let mut command = docker();
    command.args(arguments).stdin(Stdio::null());
    let output = tokio::time::timeout(QUESTION, command.output())
        .await
        .map_err(|_| {
            CliError::new(
                Kind::TimedOut,
                "Docker on this computer did not answer within 30 seconds",
            )
        })?
        .map_err(no_docker)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    })
}

/// The output of a docker command that fails only if Docker does not work.
async fn ask_docker(arguments: &[&str]) -> CliResult<String> {
    try_docker(arguments).await?.map_err(|reason| {
        CliError::failed(format!("`docker {}` failed", arguments.join(" "))).source(reason)
    })
}

fn no_docker(error: std::io::Error) -> CliError {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    let error = CliError::failed("cannot run `docker`").source(error);
    if missing {
        return error
            .hint("install Docker on this computer, which builds the services with `build:`")
            .hint("or push the image to a registry, and name it with `image:`");
    }
    error
}
