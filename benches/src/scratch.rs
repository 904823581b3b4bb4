//! Where a run keeps its files: below `target/`, on the disk that is measured, removed at the end.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A directory that goes with its owner.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let path = root().join(format!("run-{}", std::process::id()));
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        // Without `..`: the path of a socket may be no longer than 107 bytes.
        Ok(Self(path.canonicalize()?))
    }

    /// Makes a directory in it.
    pub(crate) fn directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Only a stale directory below target/ stays behind.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What outlives a run: the rival's program.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench")
}
