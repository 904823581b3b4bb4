//! `cargo xtask example`: makes the build contexts of an example, without a registry of images.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;

use crate::printer::data;
use crate::process::run as run_command;

/// Arguments of `example`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A directory of examples/
    name: String,
}

/// Prepares it and prints its directory.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    data(&prepare(root, &arguments.name)?.display().to_string());
    Ok(())
}

/// Runs the example's own script; returns its directory.
pub(crate) fn prepare(root: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let directory = root.join("examples").join(name);
    let script = directory.join("build.sh");
    ensure!(
        script.is_file(),
        "there is no example '{name}': {} is missing",
        script.display()
    );
    run_command(Command::new("sh").arg(&script))?;
    Ok(directory)
}

/// The manifests of the programs that examples bring along. They are what a user's own would be and
/// belong to no workspace, so cargo does not find them by itself.
pub(crate) fn programs(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let examples = root.join("examples");
    if !examples.is_dir() {
        return Ok(Vec::new());
    }
    let mut manifests = Vec::new();
    for example in fs::read_dir(examples)? {
        manifests.extend(
            Some(example?.path().join("app/Cargo.toml")).filter(|manifest| manifest.is_file()),
        );
    }
    manifests.sort();
    Ok(manifests)
}
