//! Newer Docker engines for machines: packages of later Debian releases, unpacked over the
//! machine's own. Its systemd, libraries and runc are kept, since later ones need a later C library
//! or version 2 of the cgroup file systems.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::apt::mirror;
use crate::run::{capture, change, command};
use crate::state::Lock;

const PACKAGES: [&str; 3] = ["containerd", "docker-cli", "docker.io"];

/// Unpacks the engine of the Debian `suite` into the machine's root directory. Removes `scratch`
/// afterwards.
pub(crate) fn unpack(
    lock: &Lock,
    suite: &str,
    version: &str,
    root: &Path,
    scratch: &Path,
) -> anyhow::Result<()> {
    for directory in ["state/lists/partial", "cache/archives/partial", "packages"] {
        fs::create_dir_all(scratch.join(directory))?;
    }
    let archive = match mirror(suite).or_else(|| mirror("bookworm")) {
        Some(archive) => archive,
        None => default_mirror()?,
    };
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(
        scratch.join("sources.list"),
        format!("deb [signed-by={keys}] {archive} {suite} main\n"),
    )?;
    change(lock, apt(scratch).args(["update", "-q"]))?;
    let packages = scratch.join("packages");
    change(
        lock,
        apt(scratch)
            .current_dir(&packages)
            .args(["download", "-q"])
            .args(PACKAGES),
    )?;
    let mut unpacked = 0;
    for package in fs::read_dir(&packages)? {
        change(
            lock,
            command(&["dpkg", "--extract"])
                .arg(package?.path())
                .arg(root),
        )?;
        unpacked += 1;
    }
    ensure!(
        unpacked == PACKAGES.len(),
        "{unpacked} of the packages {} came",
        PACKAGES.join(", ")
    );
    let said = capture(
        command(&["chroot"])
            .arg(root)
            .args(["dockerd", "--version"]),
    )?
    .checked()?
    .stdout;
    ensure!(
        said.contains(&format!(" {version}.")),
        "Debian {suite} has a different engine now: {}\nhint: update `Engine` in tests/src/recipe.rs",
        said.trim()
    );
    fs::remove_dir_all(scratch)?;
    Ok(())
}

/// `apt-get` with its own lists, sources and archives.
fn apt(scratch: &Path) -> Command {
    let mut apt = command(&["apt-get"]);
    for (option, value) in [
        ("Dir::Etc::SourceList", scratch.join("sources.list")),
        ("Dir::Etc::SourceParts", "-".into()),
        ("Dir::State", scratch.join("state")),
        ("Dir::Cache", scratch.join("cache")),
        // apt's sandbox user cannot write here.
        ("APT::Sandbox::User", "root".into()),
    ] {
        apt.arg("-o").arg(format!("{option}={}", value.display()));
    }
    apt
}

/// The default archive of debootstrap.
fn default_mirror() -> anyhow::Result<String> {
    let script =
        fs::read_to_string("/usr/sbin/debootstrap").context("debootstrap is not installed")?;
    default_in(&script).context("debootstrap has no DEF_MIRROR")
}

fn default_in(script: &str) -> Option<String> {
    let value = script
        .lines()
        .find_map(|line| line.strip_prefix("DEF_MIRROR="))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_mirror_is_read_from_the_script_of_debootstrap() {
        let script =
            "#!/bin/sh\nDEF_MIRROR=\"http://archive.example/debian\"\nMIRRORS=\"$DEF_MIRROR\"\n";
        assert_eq!(
            default_in(script).as_deref(),
            Some("http://archive.example/debian")
        );
        assert_eq!(default_in("MIRRORS=x\n"), None);
    }
}
