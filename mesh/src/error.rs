//! What can go wrong between the daemon and the mesh process, and in that process.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::ConfigError;
use crate::firewall::FirewallError;
use crate::tunnel::TunnelError;

/// Errors of [`crate::run()`] and [`crate::MeshClient`].
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// No process listens on the control socket.
    #[error("cannot connect to the mesh process on {}: {source}; check `systemctl status uc-mesh`", socket.display())]
    NotRunning {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The mesh process took too long.
    #[error("the mesh process did not answer on {} within {limit:?}", socket.display())]
    Timeout { socket: PathBuf, limit: Duration },
    /// The mesh process answered with an error.
    #[error("the mesh process refused the request: {0}")]
    Refused(String),
    /// The other side does not follow the protocol.
    #[error("unexpected message on the mesh control socket {}: {reason}", socket.display())]
    Protocol { socket: PathBuf, reason: String },
    /// Another mesh process answers on the control socket.
    #[error("another mesh process is already running on {}", .0.display())]
    AlreadyRunning(PathBuf),
    /// A file or the socket cannot be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What failed, such as `rename`.
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The configuration on disk cannot be read.
    #[error("the mesh configuration {} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    /// The configuration is invalid.
    #[error("invalid mesh configuration: {0}")]
    Config(#[from] ConfigError),
    /// Without the firewall rules, the tunnel gets no address.
    #[error("cannot protect the mesh by firewall rules: {0}")]
    Firewall(#[from] FirewallError),
    /// The tunnel failed.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
}
