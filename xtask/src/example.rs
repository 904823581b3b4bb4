//! `cargo xtask example`: prepares the build contexts of an example without an image registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;

use crate::printer::data;
use crate::process::run as run_command;

/// Arguments of `example`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Name of a directory in examples/
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
        "example '{name}' not found: {} does not exist",
        script.display()
    );
    run_command(Command::new("sh").arg(&script))?;
    Ok(directory)
}

/// The manifests of the examples' programs. Like a user's own programs, they belong to no
/// workspace, so cargo does not find them on its own.
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
