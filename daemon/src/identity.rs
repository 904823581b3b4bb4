//! The identity of this machine: its WireGuard key, created at the first start, and its membership
//! in a cluster. What changes while it is a member, such as its name and endpoints, is in the
//! replicated store instead.

use std::path::{Path, PathBuf};
use std::{fs, io};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uc_api::v1::MachineRecord;
use uc_mesh::{PrivateKey, PublicKey};

use crate::durable;

/// The identity file cannot be read or written.
#[derive(Debug, Error)]
pub(crate) enum IdentityError {
    /// An error of the file system.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What failed, such as `read`.
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A key cannot be generated.
    #[error("cannot generate a WireGuard key: {0}")]
    Key(#[source] uc_mesh::key::KeyError),
    /// The file exists, but does not contain an identity.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
}

/// The content of `machine.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Base64; the machine's only secret.
    pub private_key: String,
    /// `None` while the machine is in no cluster.
    pub membership: Option<Membership>,
}

/// The machine's membership in its cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// 32 hexadecimal digits.
    pub cluster_id: String,
    /// 32 hexadecimal digits.
    pub machine_id: String,
    /// The network of the cluster, which contains `subnet`.
    pub network: Ipv4Net,
    /// The subnet of this machine's containers.
    pub subnet: Ipv4Net,
    pub wireguard_port: u16,
    /// The members: those of its join, then those that it knew last. With them the mesh starts
    /// before the first exchange, and also after the store was lost.
    pub bootstrap: Vec<MachineRecord>,
}

impl Identity {
    /// A new key and no membership.
    pub(crate) fn fresh() -> Result<Self, IdentityError> {
        let key = PrivateKey::generate().map_err(IdentityError::Key)?;
        Ok(Self {
            private_key: key.to_base64(),
            membership: None,
        })
    }

    /// Reads the file. If there is none, creates a key and the file.
    pub(crate) fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        match fs::read(path) {
            Ok(bytes) => {
                let identity: Self =
                    serde_json::from_slice(&bytes).map_err(|error| IdentityError::Damaged {
                        path: path.to_owned(),
                        reason: error.to_string(),
                    })?;
                identity.key().map_err(|reason| IdentityError::Damaged {
                    path: path.to_owned(),
                    reason,
                })?;
                Ok(identity)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Self::fresh()?;
                identity.save(path)?;
                Ok(identity)
            }
            Err(source) => Err(IdentityError::Io {
                action: "read",
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Writes the file completely or not at all. It is on the disk when this returns.
    pub(crate) fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let io = |action, source| IdentityError::Io {
            action,
            path: path.to_owned(),
            source,
        };
        let directory = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).map_err(|source| io("create the directory of", source))?;
        let json = serde_json::to_vec_pretty(self).map_err(|error| io("encode", error.into()))?;
        durable::replace(path, &json).map_err(|source| io("write", source))
    }

    /// The key, or why the text is not one.
    pub(crate) fn key(&self) -> Result<PrivateKey, String> {
        self.private_key
            .parse()
            .map_err(|_| "its private key is not a WireGuard key".to_owned())
    }

    /// The public half.
    pub(crate) fn public_key(&self) -> Result<PublicKey, String> {
        self.key().map(|key| key.public())
    }
}

/// The machine's host name, from the kernel.
pub(crate) fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname");
    // Without a name the user has to give one.
    name.map_or_else(|_| String::new(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn key_is_created_once_with_private_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("uc/machine.json");
        let first = Identity::load_or_create(&path).unwrap();
        let second = Identity::load_or_create(&path).unwrap();
        assert_eq!(first.private_key, second.private_key);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn damaged_file_is_reported_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("machine.json");
        for content in ["{", r#"{"private_key":"x","membership":null}"#] {
            fs::write(&path, content).unwrap();
            let error = Identity::load_or_create(&path).unwrap_err().to_string();
            assert!(
                error.contains("damaged") && error.contains("machine.json"),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
}
