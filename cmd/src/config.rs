//! The config file: contexts, each with the id of its cluster and the connections that lead to the
//! cluster's machines.
//!
//! `$XDG_CONFIG_HOME/uc/config.toml`, mode 0600 in a directory of mode 0700, replaced in one step
//! so that a crash or a full disk leaves the old one. A file that cannot be read is never
//! overwritten. Comments and keys that this version does not know are kept ([`edit`]).

mod edit;
mod unknown;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use serde::{Deserialize, Deserializer};
use thiserror::Error;
use uc_api::ClusterId;

use crate::connection::{Connection, SshTarget};

/// A config file larger than this was not written by `uc`.
const MAX_SIZE: u64 = 1024 * 1024;

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Config {
    /// The context used where none is named.
    #[serde(default)]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
    /// Keys of the file that this version does not know, such as `contexts.prod.clutser`. They
    /// have no effect and are kept.
    #[serde(skip)]
    pub(crate) unknown: Vec<String>,
}

/// One cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Context {
    /// Id of the cluster, 32 hexadecimal digits in the file. `None`: an older `uc` or the user
    /// wrote the context, and no connection has shown yet which cluster it is.
    #[serde(default, deserialize_with = "cluster_id")]
    pub(crate) cluster: Option<ClusterId>,
    #[serde(default)]
    pub(crate) connections: Vec<Entry>,
}

/// A connection to one machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Entry {
    /// `ssh://USER@HOST[:PORT]` or `unix:///path`.
    pub(crate) address: String,
    /// A key file for `ssh -i`.
    #[serde(default)]
    pub(crate) ssh_key: Option<PathBuf>,
    /// Id of the machine it leads to, so that it is removed with the machine.
    #[serde(default)]
    pub(crate) machine: Option<String>,
}

fn cluster_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ClusterId>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// Why the config file cannot be used.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error("cannot find the config file: no home directory")]
    NoHome,
    #[error("cannot read the config file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("invalid config file {}", path.display())]
    Syntax {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("invalid config file {}: context `{context}`: {problem}", path.display())]
    Connection {
        path: PathBuf,
        context: String,
        problem: String,
    },
    #[error("cannot write the config file {}; the old one is unchanged", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl Entry {
    /// An entry for a connection.
    pub(crate) fn new(connection: &Connection, machine: Option<String>) -> Self {
        let ssh_key = match connection {
            Connection::Ssh(target) => target.key.clone(),
            Connection::Unix(_) => None,
        };
        Self {
            address: connection.to_string(),
            ssh_key,
            machine,
        }
    }

    /// The connection it stands for.
    pub(crate) fn connection(&self) -> Result<Connection, String> {
        match self
            .address
            .parse::<Connection>()
            .map_err(|error| error.to_string())?
        {
            Connection::Ssh(target) => Ok(Connection::Ssh(SshTarget {
                key: self.ssh_key.clone(),
                ..target
            })),
            unix @ Connection::Unix(_) => Ok(unix),
        }
    }
}

impl Config {
    /// The path of the file unless `--config` gives another.
    pub(crate) fn default_path() -> Result<PathBuf, ConfigError> {
        let base = etcetera::base_strategy::Xdg::new().map_err(|_| ConfigError::NoHome)?;
        Ok(base.config_dir().join("uc").join("config.toml"))
    }

    /// Reads and checks the file. A missing file is an empty config.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read {
            path: path.into(),
            source,
        };
        match fs::metadata(path) {
            Ok(meta) if meta.len() > MAX_SIZE => {
                return Err(read(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "larger than 1 MiB",
                )));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(read(error)),
        }
        let text = fs::read_to_string(path).map_err(read)?;
        let broken = |source| ConfigError::Syntax {
            path: path.into(),
            source: Box::new(source),
        };
        let mut config: Self = toml::from_str(&text).map_err(broken)?;
        config.unknown = unknown::keys(&toml::from_str(&text).map_err(broken)?);
        config
            .check()
            .map_err(|(context, problem)| ConfigError::Connection {
                path: path.into(),
                context,
                problem,
            })?;
        Ok(config)
    }

    /// Checks every connection. The error has the name of the context and the problem.
    fn check(&self) -> Result<(), (String, String)> {
        for (name, context) in &self.contexts {
            for entry in &context.connections {
                entry
                    .connection()
                    .map_err(|problem| (name.clone(), problem))?;
            }
        }
        Ok(())
    }

    /// Reads the file, changes it and writes it. Two commands that do this at the same time wait
    /// for each other, so that neither loses the other's change. Without a change, nothing is
    /// written.
    pub(crate) fn update<T>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, ConfigError> {
        let failed = |source| ConfigError::Write {
            path: path.into(),
            source,
        };
        // A link to a file kept elsewhere (dotfiles) stays a link.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let directory = target
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        // Held until this function returns.
        let _lock = lock(directory).map_err(failed)?;
        let before = Self::load(path)?;
        let mut after = before.clone();
        let result = change(&mut after);
        if after != before {
            after.write(&target, directory).map_err(failed)?;
        }
        Ok(result)
    }

    /// Replaces the file: written beside it, synced, renamed. A content that [`Self::load`] would
    /// refuse is not written.
    fn write(&self, path: &Path, directory: &Path) -> io::Result<()> {
        let old = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            old => old?,
        };
        let invalid = |problem| io::Error::new(io::ErrorKind::InvalidData, problem);
        self.check()
            .map_err(|(context, problem)| invalid(format!("context `{context}`: {problem}")))?;
        let text = edit::apply(self, &old)?;
        if text.len() as u64 > MAX_SIZE {
            return Err(invalid("the new content is larger than 1 MiB".to_owned()));
        }
        let temporary = directory.join(format!(".config.toml.{}", std::process::id()));
        let result = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, path));
        if result.is_err() {
            _ = fs::remove_file(&temporary);
        }
        result
    }

    /// Removes a context, which is then no longer the current one.
    pub(crate) fn remove(&mut self, name: &str) {
        self.contexts.remove(name);
        self.current.take_if(|current| current == name);
    }

    /// `default`, or the first of `default-2`, `default-3`, … that is free.
    pub(crate) fn free_name(&self) -> String {
        let numbered = (2..).map(|number| format!("default-{number}"));
        std::iter::once("default".to_owned())
            .chain(numbered)
            .find(|name| !self.contexts.contains_key(name))
            .expect("the numbers are endless, and the contexts are not")
    }
}

/// The directory, made if it does not exist, locked against other commands that change the file.
fn lock(directory: &Path) -> io::Result<fs::File> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let lock = fs::File::open(directory)?;
    match lock.lock() {
        // Some network file systems have no locks.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        locked => locked?,
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn sample() -> Config {
        let target = SshTarget {
            key: Some("/k".into()),
            ..("root@10.0.0.1".parse().unwrap())
        };
        let entry = Entry::new(&Connection::Ssh(target), Some("ab".into()));
        let context = Context {
            cluster: Some(ClusterId::from_bytes([0xab; 16])),
            connections: vec![entry],
        };
        Config {
            current: Some("default".into()),
            contexts: [("default".to_owned(), context)].into(),
            unknown: Vec::new(),
        }
    }

    fn save(config: &Config, path: &Path) -> Result<(), ConfigError> {
        Config::update(path, |saved| config.clone_into(saved))
    }

    #[test]
    fn update_writes_with_private_modes() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("uc/config.toml");
        save(&sample(), &path).unwrap();
        assert_eq!(Config::load(&path).unwrap(), sample());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        insta::assert_snapshot!(fs::read_to_string(&path).unwrap(), @r#"
        current = "default"

        [contexts.default]
        cluster = "abababababababababababababababab"

        [[contexts.default.connections]]
        address = "ssh://root@10.0.0.1"
        ssh_key = "/k"
        machine = "ab"
        "#);
    }

    #[test]
    fn load_without_file_is_an_empty_config() {
        assert_eq!(
            Config::load(Path::new("/nonexistent/config.toml")).unwrap(),
            Config::default()
        );
    }

    #[test]
    fn load_of_invalid_file_reports_the_cause() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config.toml");
        for (text, problem) in [
            ("current = 5", "invalid type"),
            (
                "[contexts.a]\nconnections = [{ adress = 'x' }]",
                "missing field `address`",
            ),
            (
                "[contexts.a]\ncluster = 'prod'\nconnections = []",
                "invalid cluster id `prod`",
            ),
            (
                "[contexts.a]\nconnections = [{ address = 'tcp://x' }]",
                "not supported",
            ),
        ] {
            fs::write(&path, text).unwrap();
            let error = Config::load(&path).unwrap_err();
            let cause = std::error::Error::source(&error)
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                format!("{error} {cause}").contains(problem),
                "{error} {cause}"
            );
        }
    }

    #[test]
    fn update_waits_for_other_updates() {
        let home = tempfile::tempdir().unwrap();
        let path = &home.path().join("config.toml");
        std::thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || {
                    Config::update(path, |config| {
                        config
                            .contexts
                            .insert(format!("c{number}"), Context::default())
                    })
                    .unwrap()
                });
            }
        });
        assert_eq!(Config::load(path).unwrap().contexts.len(), 8);
    }

    #[test]
    fn update_keeps_a_symbolic_link() {
        let home = tempfile::tempdir().unwrap();
        let (real, link) = (
            home.path().join("real.toml"),
            home.path().join("config.toml"),
        );
        fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        save(&sample(), &link).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(Config::load(&real).unwrap(), sample());
    }

    #[test]
    fn failed_update_keeps_the_old_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file/config.toml");
        fs::write(home.path().join("file"), "in the way").unwrap();
        assert!(matches!(
            save(&sample(), &path),
            Err(ConfigError::Write { .. })
        ));
        assert_eq!(
            fs::read_to_string(home.path().join("file")).unwrap(),
            "in the way"
        );
    }

    #[test]
    fn update_refuses_what_load_would_refuse() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config.toml");
        save(&sample(), &path).unwrap();
        let before = fs::read_to_string(&path).unwrap();
        for (address, machine) in [
            ("ssh://root@-oProxyCommand=x", String::new()),
            ("ssh://root@h", "m".repeat(1024 * 1024)),
        ] {
            let refused = Config::update(&path, |config| {
                let context = config.contexts.entry("new".into()).or_default();
                context.connections.push(Entry {
                    address: address.into(),
                    ssh_key: None,
                    machine: Some(machine),
                });
            });
            assert!(
                matches!(refused, Err(ConfigError::Write { .. })),
                "{refused:?}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), before);
        }
    }

    #[test]
    fn free_name_counts_up() {
        assert_eq!(Config::default().free_name(), "default");
        assert_eq!(sample().free_name(), "default-2");
    }
}
