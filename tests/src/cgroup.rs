//! The cgroup of a testbed contains all of its processes, so it lists what to kill. Version 1 of
//! the cgroup file systems has one tree per controller and version 2 a single tree. Both work the
//! same.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context as _, bail, ensure};

use crate::run::{command, wait_for};

const ROOT: &str = "/sys/fs/cgroup";

/// Limit for the kernel to end everything that was killed.
const LIMIT: Duration = Duration::from_mins(1);

/// Creates the cgroup in every tree and returns the directories, for a process that joins all of
/// them. A new cpuset is empty and accepts no process, so it gets the processors and memory of its
/// parent.
pub(crate) fn create_to_join(cgroup: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut places = Vec::new();
    for tree in trees() {
        let place = tree.join(cgroup);
        fs::create_dir_all(&place).with_context(|| format!("cannot create {}", place.display()))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (tree.join(file), place.join(file));
            if tree.ends_with("cpuset") && from.exists() {
                fs::copy(&from, &to).with_context(|| format!("cannot write {}", to.display()))?;
            }
        }
        places.push(place);
    }
    ensure!(
        !places.is_empty(),
        "no cgroup file system is mounted under {ROOT}"
    );
    Ok(places)
}

/// Creates the cgroup in every tree, and a child for the engine. Containers get other children,
/// since version 2 allows processes in leaves only.
pub(crate) fn create(cgroup: &str) -> anyhow::Result<()> {
    let mut made = 0;
    // A new cpuset has no processors. The engine does not need one, and it sets up those of its
    // containers.
    for tree in trees().into_iter().filter(|tree| !tree.ends_with("cpuset")) {
        let engine = tree.join(cgroup).join("engine");
        fs::create_dir_all(&engine)
            .with_context(|| format!("cannot create {}", engine.display()))?;
        made += 1;
    }
    ensure!(made > 0, "no cgroup file system is mounted under {ROOT}");
    Ok(())
}

/// Whether the cgroup exists in any tree.
pub(crate) fn exists(cgroup: &str) -> bool {
    trees().iter().any(|tree| tree.join(cgroup).is_dir())
}

/// Kills every process in the cgroup and removes it. Another process can join in the meantime, so
/// both steps repeat until the cgroup no longer exists.
pub(crate) fn remove(cgroup: &str) -> anyhow::Result<()> {
    wait_for(&format!("the processes of {cgroup} to end"), LIMIT, || {
        let places: Vec<PathBuf> = trees()
            .into_iter()
            .map(|tree| tree.join(cgroup))
            .filter(|place| place.is_dir())
            .collect();
        let mut processes = Vec::new();
        for place in &places {
            collect(place, &mut processes);
        }
        processes.sort();
        processes.dedup();
        if !processes.is_empty() {
            kill(&processes)?;
            bail!(
                "{} processes are left: {}",
                processes.len(),
                processes.join(" ")
            );
        }
        for place in &places {
            remove_tree(place).with_context(|| format!("cannot remove {}", place.display()))?;
        }
        Ok(())
    })
}

/// The mount points of the cgroup trees.
fn trees() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    children(root)
        .into_iter()
        // A link (cpu to cpu,cpuacct) is another name of a listed tree.
        .filter(|tree| !tree.is_symlink() && tree.join("cgroup.procs").exists())
        .collect()
}

fn kill(processes: &[String]) -> anyhow::Result<()> {
    // `kill` also fails for a process that has ended in the meantime.
    command(&["sh", "-c", "kill -KILL \"$@\"", "sh"])
        .args(processes)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    Ok(())
}

fn collect(cgroup: &Path, into: &mut Vec<String>) {
    // It can disappear while its parent is read.
    let Ok(text) = fs::read_to_string(cgroup.join("cgroup.procs")) else {
        return;
    };
    into.extend(text.lines().map(str::to_owned));
    for child in children(cgroup) {
        collect(&child, into);
    }
}

fn remove_tree(cgroup: &Path) -> io::Result<()> {
    for child in children(cgroup) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(cgroup) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}
