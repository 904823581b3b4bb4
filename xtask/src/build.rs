//! `cargo xtask build`: `uc` and `ucd` as users run them, and where they are.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::printer::{data, note};
use crate::process::{cargo, read, run};

/// What `uc version` shows as the commit of its build.
const COMMIT: &str = "UC_BUILD_COMMIT";

/// The checked-out commit, with `-dirty` if there are uncommitted changes. `None` without git or a
/// repository of our own, as in an unpacked archive.
fn commit(root: &Path) -> Option<String> {
    if !root.join(".git").exists() {
        return None;
    }
    let output = Command::new("git")
        .args([
            "describe",
            "--always",
            "--abbrev=12",
            "--dirty",
            "--exclude=*",
        ])
        .current_dir(root)
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Some(text).filter(|text| !text.is_empty())
}

/// Builds both programs with the release profile and prints how to use them.
pub(crate) fn run_build(root: &Path) -> anyhow::Result<()> {
    note("building uc and ucd with the release profile; the first time takes some minutes");
    let mut build = cargo(root);
    build.args([
        "build",
        "--release",
        "--locked",
        "--package",
        "uc-cmd",
        "--package",
        "uc-daemon",
    ]);
    if env::var_os(COMMIT).is_none()
        && let Some(commit) = commit(root)
    {
        build.env(COMMIT, commit);
    }
    run(&mut build)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_is_of_our_own_repository() {
        assert_eq!(commit(Path::new("/nonexistent")), None);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        // Not every machine that compiles us has git and a repository.
        if let Some(commit) = commit(&root) {
            let id = commit.trim_end_matches("-dirty");
            assert!(
                id.len() >= 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{commit}"
            );
        }
    }
}
