//! The files of the mesh process: its configuration, and the endpoints that worked.
//!
//! The configuration contains the private key, so the files have mode 0600. They are replaced
//! atomically: temporary file, fsync, rename, fsync of the directory.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tokio::io::AsyncWriteExt as _;

use crate::config::MeshConfig;
use crate::error::MeshError;
use crate::key::PublicKey;

/// The files of one mesh process.
#[derive(Debug)]
pub(crate) struct Store {
    config: PathBuf,
    endpoints: PathBuf,
}

impl Store {
    /// For the configuration in this file, and the endpoints in `NAME.endpoints` beside it.
    pub(crate) fn new(config: PathBuf) -> Self {
        let mut endpoints = config.as_os_str().to_owned();
        endpoints.push(".endpoints");
        Self {
            config,
            endpoints: PathBuf::from(endpoints),
        }
    }

    /// The configuration on disk; `None` if there is none.
    pub(crate) async fn load(&self) -> Result<Option<MeshConfig>, MeshError> {
        let Some(bytes) = read(&self.config).await? else {
            return Ok(None);
        };
        let damaged = |reason: String| MeshError::Damaged {
            path: self.config.clone(),
            reason,
        };
        let config: MeshConfig =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        config
            .validate()
            .map_err(|error| damaged(error.to_string()))?;
        Ok(Some(config))
    }

    /// Writes the configuration. It is on the disk when this returns.
    pub(crate) async fn save(&self, config: &MeshConfig) -> Result<(), MeshError> {
        let json =
            serde_json::to_vec_pretty(config).map_err(|error| self.fail("write", error.into()))?;
        replace(&self.config, &json, true)
            .await
            .map_err(|error| self.fail("write", error))
    }

    /// Renames a damaged configuration to `NAME.damaged`.
    pub(crate) async fn put_aside(&self) -> Result<(), MeshError> {
        let mut aside = self.config.as_os_str().to_owned();
        aside.push(".damaged");
        tokio::fs::rename(&self.config, aside)
            .await
            .map_err(|error| self.fail("rename", error))
    }

    /// Removes the configuration and the remembered endpoints.
    pub(crate) async fn forget(&self) -> Result<(), MeshError> {
        for path in [&self.config, &self.endpoints] {
            match tokio::fs::remove_file(path).await {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(MeshError::Io {
                        action: "remove",
                        path: path.clone(),
                        source,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The endpoints that worked when the process ended. They only save time, so a file that cannot
    /// be read counts as empty.
    pub(crate) async fn load_endpoints(&self) -> BTreeMap<PublicKey, SocketAddr> {
        let reason = match read(&self.endpoints).await {
            Ok(None) => return BTreeMap::new(),
            Ok(Some(bytes)) => match serde_json::from_slice(&bytes) {
                Ok(endpoints) => return endpoints,
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        tracing::warn!(path = %self.endpoints.display(), reason, "cannot load endpoints");
        BTreeMap::new()
    }

    /// Remembers the endpoints that work, without an fsync: a power cut may lose them.
    pub(crate) async fn save_endpoints(&self, endpoints: &BTreeMap<PublicKey, SocketAddr>) {
        let Ok(json) = serde_json::to_vec(endpoints) else {
            return;
        };
        if let Err(error) = replace(&self.endpoints, &json, false).await {
            tracing::warn!(path = %self.endpoints.display(), %error, "cannot remember endpoints");
        }
    }

    fn fail(&self, action: &'static str, source: io::Error) -> MeshError {
        MeshError::Io {
            action,
            path: self.config.clone(),
            source,
        }
    }
}

async fn read(path: &Path) -> Result<Option<Vec<u8>>, MeshError> {
    match tokio::fs::read(path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(MeshError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

async fn replace(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // Removed first, since the mode applies only to a file that is created.
    match tokio::fs::remove_file(&new).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = tokio::fs::OpenOptions::from(options).open(&new).await?;
    file.write_all(bytes).await?;
    file.flush().await?;
    if durable {
        file.sync_all().await?;
    }
    tokio::fs::rename(&new, path).await?;
    if durable {
        tokio::fs::File::open(directory).await?.sync_all().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::tests::{config, key};

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("mesh.json"));
        (directory, store)
    }

    #[tokio::test]
    async fn saved_config_is_loaded_and_only_its_owner_can_read_it() {
        let (directory, store) = store();
        assert_eq!(store.load().await.unwrap(), None);
        store.save(&config(1, &[2])).await.unwrap();
        store.save(&config(1, &[2, 3])).await.unwrap();
        assert_eq!(store.load().await.unwrap(), Some(config(1, &[2, 3])));
        let mode = std::fs::metadata(directory.path().join("mesh.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[tokio::test]
    async fn save_replaces_left_over_temporary_file_with_another_mode() {
        let (directory, store) = store();
        std::fs::write(directory.path().join("mesh.json.new"), "half").unwrap();
        store.save(&config(1, &[2])).await.unwrap();
        let mode = std::fs::metadata(directory.path().join("mesh.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn load_reports_damaged_config_with_its_path() {
        let (directory, store) = store();
        std::fs::write(directory.path().join("mesh.json"), "{\"private_key\":").unwrap();
        let error = store.load().await.unwrap_err();
        assert!(matches!(error, MeshError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("mesh.json"), "{error}");
    }

    #[tokio::test]
    async fn endpoints_are_loaded_and_a_damaged_file_is_ignored() {
        let (directory, store) = store();
        let endpoints = BTreeMap::from([(key(2).public(), "192.0.2.1:51820".parse().unwrap())]);
        store.save_endpoints(&endpoints).await;
        assert_eq!(store.load_endpoints().await, endpoints);
        std::fs::write(directory.path().join("mesh.json.endpoints"), "[").unwrap();
        assert_eq!(store.load_endpoints().await, BTreeMap::new());
    }
}
