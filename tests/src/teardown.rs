//! Taking a testbed away. Works from names and cgroups alone, so that it does not matter what of
//! the testbed is still alive: after `kill -9` of the engine, of `up`, of anything, the result is
//! the same. Only what the testbed made is touched.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{fs, io};

use anyhow::Context as _;

use crate::layout::{Layout, runs, states};
use crate::run::{capture, wait_for};
use crate::state::{State, lock_all};
use crate::{cgroup, network};

/// Until the kernel has let go of the files of what was killed.
const LIMIT: Duration = Duration::from_mins(1);

/// Removes processes, cgroups, interfaces, filter tables and files of a testbed, whatever is left
/// of it. The caller holds its lock.
pub(crate) fn teardown(layout: &Layout) -> anyhow::Result<()> {
    // An unreadable state file must not keep the processes alive.
    let state = State::load(layout);
    close_connections(&layout.laptop_run_dir())?;
    cgroup::remove(&layout.cgroup())?;
    network::remove(layout, state?.map(|state| state.subnet))?;
    remove_files(layout)
}

/// Ends the processes with which ssh keeps connections open, each behind a socket somewhere in
/// `directory`.
fn close_connections(directory: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let kind = entry.file_type()?;
        if kind.is_dir() {
            close_connections(&entry.path())?;
        } else if kind.is_socket() {
            // One that has ended by itself leaves a socket on which nobody answers.
            let path = format!("ControlPath={}", entry.path().display());
            let _ = capture(Command::new("ssh").args([
                "-F",
                "/dev/null",
                "-o",
                &path,
                "-O",
                "exit",
                "-",
            ]))?;
        }
    }
    Ok(())
}

fn remove_files(layout: &Layout) -> anyhow::Result<()> {
    // The state file goes last: if this is interrupted, the next `down` still knows all.
    let state_dir = layout.state_dir();
    for entry in fs::read_dir(&state_dir).into_iter().flatten().flatten() {
        if entry.path() != layout.state_file() {
            remove(&entry.path())?;
        }
    }
    remove(&layout.run_dir())?;
    remove(&state_dir)?;
    let _lock = lock_all()?;
    for directory in [states(), runs()] {
        match fs::remove_dir(&directory) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                return Err(error)
                    .with_context(|| format!("cannot remove {}", directory.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Some 20,000 files a machine: `rm` is as fast as it gets, and copes with what the engine left
/// immutable in permissions but not in attributes.
fn remove(path: &Path) -> anyhow::Result<()> {
    wait_for("files to be released", LIMIT, || {
        capture(
            Command::new("rm")
                .args(["-rf", "--one-file-system", "--"])
                .arg(path),
        )?
        .checked()
    })?;
    Ok(())
}
