//! What can go wrong between the daemon and the mesh process, and in that process.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::ConfigError;
use crate::tunnel::TunnelError;

/// Errors of [`crate::run()`] and [`crate::MeshClient`].
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// Nobody listens on the control socket.
    #[error("the mesh process does not answer on {}: {source}; is it running (systemctl status uc-mesh)?", socket.display())]
    NotRunning {
        /// The control socket.
        socket: PathBuf,
        /// What connecting said.
        #[source]
        source: io::Error,
    },
    /// The mesh process took too long.
    #[error("the mesh process did not answer on {} within {limit:?}", socket.display())]
    Timeout {
        /// The control socket.
        socket: PathBuf,
        /// How long it was given.
        limit: Duration,
    },
    /// The mesh process answered with an error.
    #[error("the mesh process refused: {0}")]
    Refused(String),
    /// The other side speaks another language.
    #[error("unexpected message on the mesh control socket {}: {reason}", socket.display())]
    Protocol {
        /// The control socket.
        socket: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another mesh process owns the control socket.
    #[error("another mesh process is running: it answers on {}", .0.display())]
    AlreadyRunning(PathBuf),
    /// A file or the socket cannot be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The configuration on disk cannot be read.
    #[error("the mesh configuration {} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration makes no sense.
    #[error("bad mesh configuration: {0}")]
    Config(#[from] ConfigError),
    /// The tunnel does not do what it should.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
}
