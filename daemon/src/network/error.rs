//! What can go wrong on the host side of the network.

use std::io;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use uc_api::{Code, Failure};
use uc_mesh::firewall::FirewallError;

/// Errors of this module.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Docker did not do what it was asked.
    #[error("docker could not {action}: {source}")]
    Docker {
        action: &'static str,
        #[source]
        source: bollard::errors::Error,
    },
    /// Docker did not answer in time.
    #[error("docker did not {action} within {seconds} s")]
    DockerTimeout { action: &'static str, seconds: u64 },
    /// The list of the containers that are being moved.
    #[error("cannot {action} {}: {source}", path.display())]
    Journal {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A subnet that cannot hold a machine's containers.
    #[error("invalid subnet {0} for a machine: its prefix length must be from 8 to 29")]
    Subnet(Ipv4Net),
    /// A network that uc did not create has the name.
    #[error(
        "docker network {name} already exists, and uc did not create it; remove it (`docker network rm {name}`) or recreate it under another name"
    )]
    Foreign { name: String },
    /// The network has to be recreated, but containers use it.
    #[error(
        "docker network {name} must be recreated ({differences}), but containers use it: {}; remove them first",
        containers.join(", ")
    )]
    InUse {
        name: String,
        /// What differs.
        differences: String,
        /// The containers on it, by name.
        containers: Vec<String>,
    },
    /// The rules could not be applied.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// A kernel setting cannot be changed.
    #[error("cannot set {setting}: {source}; containers could not reach other machines")]
    Sysctl {
        /// The setting.
        setting: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl From<NetworkError> for Failure {
    fn from(error: NetworkError) -> Self {
        let code = match &error {
            NetworkError::Docker { .. } => Code::Unreachable,
            NetworkError::DockerTimeout { .. } => Code::TimedOut,
            NetworkError::Foreign { .. }
            | NetworkError::InUse { .. }
            | NetworkError::Firewall(FirewallError::MissingProgram { .. }) => Code::Refused,
            _ => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}
