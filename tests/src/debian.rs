//! Root directories of Debian, made by debootstrap and kept as tar files: the image of the
//! testbed's machines and the pristine root of `fresh`.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, bail, ensure};

use crate::apt::{Need, install_missing, mirror};
use crate::run::{capture, change, command, read};
use crate::state::Lock;

/// The newest Debian whose systemd still boots where the host has version 1 of the cgroup file
/// systems.
pub(crate) const SUITE: &str = "bookworm";

/// Makes a root directory of [`SUITE`] with these packages beside the essential ones, from the
/// archive that the host itself uses.
pub(crate) fn debootstrap(lock: &Lock, root: &Path, packages: &[&str]) -> anyhow::Result<()> {
    install_missing(&[Need {
        program: "debootstrap",
        package: "debootstrap",
    }])?;
    let mut debootstrap = command(&["debootstrap", "--variant=minbase"]);
    if !packages.is_empty() {
        debootstrap.arg(format!("--include={}", packages.join(",")));
    }
    debootstrap.arg(SUITE).arg(root);
    if let Some(mirror) = mirror(SUITE) {
        debootstrap.arg(mirror);
    }
    for (variable, key) in [
        ("http_proxy", "Acquire::http::Proxy"),
        ("https_proxy", "Acquire::https::Proxy"),
    ] {
        let value = read(&["apt-config", "shell", "P", key]).unwrap_or_default();
        if let Some(proxy) = value
            .trim()
            .strip_prefix("P='")
            .and_then(|rest| rest.strip_suffix('\''))
        {
            debootstrap.env(variable, proxy);
        }
    }
    change(lock, &mut debootstrap)
}

/// Packs a root directory into a tar file, which has its name only once it is complete.
pub(crate) fn pack(lock: &Lock, root: &Path, tar: &Path) -> anyhow::Result<()> {
    let partial = tar.with_extension("partial");
    change(
        lock,
        &mut command(&[
            "tar",
            "--directory",
            path(root)?,
            "--create",
            "--file",
            path(&partial)?,
            ".",
        ]),
    )?;
    fs::rename(&partial, tar).with_context(|| format!("cannot create {}", tar.display()))
}

/// Unpacks such a tar file into `root`, which is made.
pub(crate) fn unpack(lock: &Lock, tar: &Path, root: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(root).with_context(|| format!("cannot create {}", root.display()))?;
    change(
        lock,
        &mut command(&[
            "tar",
            "--directory",
            path(root)?,
            "--extract",
            "--preserve-permissions",
            "--same-owner",
            "--file",
            path(tar)?,
        ]),
    )
}

/// Removes a root directory, whole or half made. An interrupted debootstrap leaves file systems
/// mounted in it. Files below a mount are not part of the root, so nothing is removed while one is
/// left.
pub(crate) fn discard(root: &Path) -> anyhow::Result<()> {
    for mount in mounts_in(root)?.iter().rev() {
        read(&["umount", "--lazy", mount])?;
    }
    let left = mounts_in(root)?;
    ensure!(
        left.is_empty(),
        "cannot remove {}: still mounted: {}",
        root.display(),
        left.join(", ")
    );
    // A file system that is mounted from now on is not entered.
    capture(command(&["rm", "-rf", "--one-file-system", "--"]).arg(root))?.checked()?;
    Ok(())
}

/// The mount points at or below `root`, in the order in which they were mounted.
fn mounts_in(root: &Path) -> anyhow::Result<Vec<String>> {
    let Some(root) = canonical(root)? else {
        return Ok(Vec::new());
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mount_points(&mounts)
        .filter(|mount| Path::new(mount).starts_with(&root))
        .collect())
}

/// The path as the kernel writes it in mountinfo: absolute and with the links in its parents
/// resolved. `None`: the parent does not exist, so nothing is mounted there.
fn canonical(root: &Path) -> anyhow::Result<Option<PathBuf>> {
    let absolute = std::path::absolute(root)
        .with_context(|| format!("cannot make {} absolute", root.display()))?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        bail!("cannot remove {}: not a directory's name", root.display());
    };
    match fs::canonicalize(parent) {
        Ok(parent) => Ok(Some(parent.join(name))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(error).with_context(|| format!("cannot resolve the path {}", parent.display()))
        }
    }
}

/// The fifth column of mountinfo, in which `\040` is a space; see proc(5).
fn mount_points(mountinfo: &str) -> impl Iterator<Item = String> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|mount| {
            mount
                .replace("\\040", " ")
                .replace("\\011", "\t")
                .replace("\\012", "\n")
                .replace("\\134", "\\")
        })
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .with_context(|| format!("the path {} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_spaces() {
        let mountinfo = "22 27 0:21 / /proc rw - proc proc rw\n\
                         23 27 0:22 /x /a\\040b\\134c rw - ext4 /dev/vda rw\n";
        assert_eq!(
            mount_points(mountinfo).collect::<Vec<_>>(),
            ["/proc", "/a b\\c"]
        );
    }

    #[test]
    fn mounts_are_found_below_a_linked_or_relative_path() {
        let directory = tempfile::tempdir().expect("a directory");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/", &link).expect("linked");
        let mounts = mounts_in(&link.join("proc")).expect("read");
        assert!(mounts.contains(&"/proc".to_owned()), "{mounts:?}");
        // Cargo runs tests in the package's directory, which is less deep than this.
        let relative = Path::new("..").join("../".repeat(30)).join("proc");
        let mounts = mounts_in(&relative).expect("read");
        assert!(mounts.contains(&"/proc".to_owned()), "{mounts:?}");
    }

    #[test]
    fn discard_removes_a_half_made_root() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("root");
        discard(&root).expect("nothing there is fine");
        fs::create_dir_all(root.join("a/b")).expect("created");
        discard(&root).expect("removed");
        assert!(!root.exists());
    }
}
