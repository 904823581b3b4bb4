//! `cargo xtask build`: `uc` and `ucd` as users run them, and where they are.

use std::path::Path;

use anyhow::Context as _;

use crate::printer::{data, note};
use crate::process::{cargo, read, run};

/// Builds both programs with the release profile and prints how to use them.
pub(crate) fn run_build(root: &Path) -> anyhow::Result<()> {
    note("building uc and ucd with the release profile; the first time takes some minutes");
    run(cargo(root).args([
        "build",
        "--release",
        "--locked",
        "--package",
        "uc-cmd",
        "--package",
        "uc-daemon",
    ]))?;
    let metadata =
        read(cargo(root).args(["metadata", "--format-version", "1", "--no-deps", "--locked"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let target = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?;
    note("put uc into your PATH (it finds ucd beside itself):");
    data(&format!("export PATH=\"{target}/release:$PATH\""));
    Ok(())
}
