//! Facts for image names that are templates: the state of the Git repository, the time, time zones.

use std::path::Path;
use std::process::{Command, Stdio};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use uc_compose::{Diagnostic, GitFacts, Project, TemplateFacts};

/// Gives the images their names; what is wrong with one is returned.
pub(super) fn fill(project: &mut Project, directory: &Path) -> Vec<Diagnostic> {
    let git = git(directory);
    project.fill_images(&TemplateFacts {
        git: git.as_ref(),
        now: Timestamp::now().as_second(),
        zone,
    })
}

/// The repository that the directory is in. None without git, without a repository, or without a
/// commit.
fn git(directory: &Path) -> Option<GitFacts> {
    let head = ask(directory, &["log", "-1", "--format=%H %ct"])?;
    let (sha, committed_at) = head.trim().split_once(' ')?;
    // Everything of the repository, as people expect of a tag: a change beside the project's
    // directory counts too.
    let changes = ask(directory, &["status", "--porcelain"])?;
    Some(GitFacts {
        sha: sha.to_owned(),
        committed_at: committed_at.parse().ok()?,
        dirty: !changes.trim().is_empty(),
    })
}

fn ask(directory: &Path, arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    // Do not write to the repository, and do not wait for a lock or a password.
    git.args(["--no-optional-locks", "-C"])
        .arg(directory)
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0");
    let output = git
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A zone from the system's zone files.
fn zone(name: &str) -> Option<TimeZone> {
    if name == "Local" {
        return Some(TimeZone::system());
    }
    TimeZone::get(name).ok()
}
