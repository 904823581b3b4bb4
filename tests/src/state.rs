//! The state of a testbed on disk and its lock. The state is saved before anything is made, so that
//! `down` finds everything, also after a crash.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::layout::{Layout, cache, runs, states};
use crate::network::Subnet;
use crate::recipe::Engine;

/// One machine, whether it runs or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MachineRecord {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) mac: String,
}

/// The content of `state.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) engine: Engine,
    pub(crate) subnet: Subnet,
    pub(crate) machines: Vec<MachineRecord>,
    /// Pairs of machines that are cut off from each other.
    pub(crate) cuts: Vec<(String, String)>,
    /// False until `up` has succeeded, so also after a crash.
    pub(crate) complete: bool,
}

impl State {
    /// `None` if no such testbed was begun.
    pub(crate) fn load(layout: &Layout) -> anyhow::Result<Option<Self>> {
        let file = layout.state_file();
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        let state = serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is not a valid testbed state\nhint: remove it with `cargo xtask testbed down --name {}`",
                file.display(),
                layout.name()
            )
        })?;
        Ok(Some(state))
    }

    /// Replaces the file atomically: a reader sees the old or the new state.
    pub(crate) fn save(&self, layout: &Layout) -> anyhow::Result<()> {
        let file = layout.state_file();
        let new = file.with_extension("new");
        fs::create_dir_all(layout.state_dir())?;
        fs::write(&new, serde_json::to_string_pretty(self)?)
            .and_then(|()| fs::rename(&new, &file))
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// The names of all testbeds that exist, including incomplete ones.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<String> = [states(), runs()]
        .iter()
        .flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// An empty standard input for a program that changes the host. The program holds the lock
    /// until it ends, even if this process is killed first, so a clean-up waits for it.
    pub(crate) fn stdin(&self) -> anyhow::Result<Stdio> {
        Ok(Stdio::from(self.0.try_clone()?))
    }
}

/// Lets one process at a time bring a testbed up or down or change it.
pub(crate) fn lock(layout: &Layout) -> anyhow::Result<Lock> {
    lock_file(&layout.lock_file())
}

/// Lets one process at a time choose a subnet, or remove the directories of all testbeds.
pub(crate) fn lock_all() -> anyhow::Result<Lock> {
    lock_named(".all")
}

/// A lock for another purpose. Names of testbeds do not begin with a dot.
pub(crate) fn lock_named(name: &str) -> anyhow::Result<Lock> {
    lock_file(&cache().join("locks").join(name))
}

pub(crate) fn lock_file(path: &Path) -> anyhow::Result<Lock> {
    let directory = path.parent().context("a lock file has a directory")?;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(Lock(file))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn child_program_holds_the_lock_after_its_parent_dropped_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lock");
        let lock = lock_file(&path).expect("a lock");
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(lock.stdin().expect("a file"))
            .spawn()
            .expect("starts");
        drop(lock);
        let again = File::open(&path).expect("there");
        assert!(
            again.try_lock().is_err(),
            "the lock is free while the program runs"
        );
        child.kill().expect("killed");
        child.wait().expect("dead");
        again
            .try_lock()
            .expect("the lock is free once the program has ended");
    }

    #[test]
    fn state_round_trips_through_json() {
        let state = State {
            engine: Engine::V20_10,
            subnet: Subnet::new(3),
            machines: vec![MachineRecord {
                name: "m1".to_owned(),
                address: "10.213.3.11".to_owned(),
                mac: "02:42:0a:d5:03:0b".to_owned(),
            }],
            cuts: vec![("m1".to_owned(), "m2".to_owned())],
            complete: true,
        };
        let text = serde_json::to_string(&state).expect("serialises");
        assert_eq!(serde_json::from_str::<State>(&text).expect("parses"), state);
    }
}
