//! Who this machine is: its WireGuard key from the first start on, and its place in a cluster once
//! it has one. Everything that changes while it is a member (its name, its endpoints as others
//! should see them) lives in the replicated store instead.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uc_api::v1::MachineRecord;
use uc_mesh::{PrivateKey, PublicKey};

/// The identity file could not be read or written.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file system said no.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// read, write, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No key could be made.
    #[error("cannot make a WireGuard key: {0}")]
    Key(#[source] uc_mesh::key::KeyError),
    /// It is there and is not ours.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The content of `machine.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    /// Base64; the machine's only secret.
    pub private_key: String,
    /// None until it is initialised or joined.
    pub membership: Option<Membership>,
}

/// The machine's place in its cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Membership {
    /// 32 hexadecimal digits.
    pub cluster_id: String,
    /// 32 hexadecimal digits.
    pub machine_id: String,
    /// The cluster's network, of which `subnet` is a part.
    pub network: Ipv4Net,
    /// This machine's containers.
    pub subnet: Ipv4Net,
    /// UDP.
    pub wireguard_port: u16,
    /// The members known when it joined, so that the mesh can come up before the first exchange.
    pub bootstrap: Vec<MachineRecord>,
}

impl Identity {
    /// A new key and no membership.
    pub fn fresh() -> Result<Self, IdentityError> {
        let key = PrivateKey::generate().map_err(IdentityError::Key)?;
        Ok(Self {
            private_key: key.to_base64(),
            membership: None,
        })
    }

    /// Reads the file; makes a new key (and the file) where there is none.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
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

    /// Writes the file whole or not at all; it is on the disk when this returns.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let io = |action, source| IdentityError::Io {
            action,
            path: path.to_owned(),
            source,
        };
        let directory = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).map_err(|source| io("create the directory of", source))?;
        let temporary = path.with_extension("json.new");
        let json = serde_json::to_vec_pretty(self).map_err(|error| io("encode", error.into()))?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(|source| io("write", source))?;
        file.write_all(&json)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&temporary, path))
            .and_then(|()| fs::File::open(directory)?.sync_all())
            .map_err(|source| io("write", source))
    }

    /// The key; an error text if the file holds something else.
    pub fn key(&self) -> Result<PrivateKey, String> {
        self.private_key
            .parse()
            .map_err(|_| "its private key is not a WireGuard key".to_owned())
    }

    /// The public half.
    pub fn public_key(&self) -> Result<PublicKey, String> {
        self.key().map(|key| key.public())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_kept_private() {
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
    fn a_damaged_file_is_said_and_left_alone() {
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
