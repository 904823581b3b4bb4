//! Removes a testbed. It uses only names and cgroups, so the result is the same no matter which of
//! the testbed's processes were killed before. It touches only what the testbed made.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use anyhow::Context as _;

use crate::apt::which;
use crate::layout::{Layout, runs, states};
use crate::run::{capture, command, wait_for};
use crate::state::{State, lock_all};
use crate::{cgroup, host, network};

/// Limit for the kernel to release the files of killed processes.
const LIMIT: Duration = Duration::from_mins(1);

/// Removes processes, cgroups, interfaces, filter tables and files of a testbed, as far as they
/// exist. The caller holds its lock.
pub(crate) fn teardown(layout: &Layout) -> anyhow::Result<()> {
    match programs(has_traces(layout), which("nft").is_some()) {
        Programs::Present => {}
        Programs::Install => host::install_network_tools()?,
        Programs::NotNeeded => return Ok(()),
    }
    // The processes are killed even if the state file cannot be read.
    let state = State::load(layout);
    close_connections(&layout.laptop_run_dir());
    cgroup::remove(&layout.cgroup())?;
    network::remove(layout, state?.map(|state| state.subnet))?;
    remove_files(layout)
}

/// What to do about the programs that remove a testbed.
#[derive(Debug, PartialEq, Eq)]
enum Programs {
    /// Run them, even without a trace of the testbed: a filter table can outlive its files.
    Present,
    /// Install them first. `up` installed them before it made anything, so they were removed since,
    /// and a filter table may be left.
    Install,
    /// Nothing to remove. Only `nft` makes a filter table, and it was never here.
    NotNeeded,
}

fn programs(traces: bool, nft_installed: bool) -> Programs {
    match (traces, nft_installed) {
        (_, true) => Programs::Present,
        (true, false) => Programs::Install,
        (false, false) => Programs::NotNeeded,
    }
}

/// Whether this host has files or processes of the testbed.
fn has_traces(layout: &Layout) -> bool {
    layout.state_dir().exists() || layout.run_dir().exists() || cgroup::exists(&layout.cgroup())
}

/// Ends the processes with which ssh keeps connections open, each behind a socket somewhere in
/// `directory`. Where that fails, as without ssh, the rest of the testbed is removed anyway: such a
/// process ends on its own when its machine no longer answers.
fn close_connections(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            close_connections(&entry.path());
        } else if kind.is_socket() {
            // A process that has already ended leaves a socket on which nothing answers.
            let path = format!("ControlPath={}", entry.path().display());
            let _closed = capture(&mut command(&[
                "ssh",
                "-F",
                "/dev/null",
                "-o",
                &path,
                "-O",
                "exit",
                "-",
            ]));
        }
    }
}

fn remove_files(layout: &Layout) -> anyhow::Result<()> {
    // The state file is removed last, so that an interrupted `down` can be repeated.
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

/// Removes a directory with `rm`, which is fast: a machine has about 20,000 files. It also removes
/// files that the engine left without write permission.
fn remove(path: &Path) -> anyhow::Result<()> {
    wait_for("files to be released", LIMIT, || {
        capture(command(&["rm", "-rf", "--one-file-system", "--"]).arg(path))?.checked()
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn teardown_needs_no_program_on_a_machine_that_never_had_a_testbed() {
        assert_eq!(programs(false, false), Programs::NotNeeded);
    }

    #[test]
    fn teardown_installs_removed_programs_before_it_removes_a_testbed() {
        assert_eq!(programs(true, false), Programs::Install);
    }

    #[test]
    fn teardown_looks_for_filter_tables_even_without_other_traces() {
        assert_eq!(programs(false, true), Programs::Present);
        assert_eq!(programs(true, true), Programs::Present);
    }
}
