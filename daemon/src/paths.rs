//! Where the daemon keeps its files.

use std::path::{Path, PathBuf};

use uc_api::layout;

/// The daemon's directories and the files in them.
#[derive(Debug, Clone)]
pub struct Paths {
    state: PathBuf,
    run: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self::new(layout::STATE_DIR, layout::RUN_DIR)
    }
}

impl Paths {
    /// State (kept over restarts, mode 0700) and run (sockets) directories.
    pub fn new(state: impl Into<PathBuf>, run: impl Into<PathBuf>) -> Self {
        Self {
            state: state.into(),
            run: run.into(),
        }
    }

    /// The state directory itself.
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// The run directory itself.
    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// Who this machine is: key and membership.
    pub fn identity(&self) -> PathBuf {
        self.state.join("machine.json")
    }

    /// The replicated store.
    pub fn store(&self) -> PathBuf {
        self.state.join("state.db")
    }

    /// Contents that came with deployments.
    pub fn files(&self) -> PathBuf {
        self.state.join("files")
    }

    /// The containers that are being moved to another network.
    pub(crate) fn moved_containers(&self) -> PathBuf {
        self.state.join("moved-containers")
    }

    /// The names of the built images that came from the cluster.
    pub(crate) fn built_images(&self) -> PathBuf {
        self.state.join("built-images")
    }

    /// Changes of this machine's replicas that are not settled.
    pub(crate) fn changes(&self) -> PathBuf {
        self.state.join("changes")
    }

    /// The commands of before a deployment that have ended on their own.
    pub(crate) fn pre_deploys(&self) -> PathBuf {
        self.state.join("pre-deploys")
    }

    /// Deployments that this machine executes.
    pub(crate) fn deployments(&self) -> PathBuf {
        self.state.join("deployments")
    }

    /// What `ucd mesh` restores when it starts.
    pub fn mesh_config(&self) -> PathBuf {
        self.state.join("mesh.json")
    }

    /// Control socket of `ucd mesh`.
    pub fn mesh_socket(&self) -> PathBuf {
        self.run.join("mesh.sock")
    }

    /// The API.
    pub fn api_socket(&self) -> PathBuf {
        self.run.join("uc.sock")
    }
}
