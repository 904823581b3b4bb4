//! ssh to the machines: a key for root, a host key for each machine, and a configuration file with
//! both. `ssh -F FILE m1` works with strict host key checking and without the user's files.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::run::{change, command};
use crate::state::Lock;

/// The files of ssh in a testbed's state directory.
#[derive(Debug, Clone)]
pub(crate) struct SshFiles {
    directory: PathBuf,
}

impl SshFiles {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The private key that opens root's account on every machine.
    pub(crate) fn key(&self) -> PathBuf {
        self.directory.join("id_ed25519")
    }

    pub(crate) fn public_key(&self) -> PathBuf {
        self.directory.join("id_ed25519.pub")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.join("config")
    }

    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.directory.join("known_hosts")
    }

    /// The host key of a machine.
    pub(crate) fn host_key(&self, machine: &str) -> PathBuf {
        self.directory.join(format!("host_{machine}"))
    }

    /// Makes keys and files for these machines, given as name and address.
    pub(crate) fn create(&self, lock: &Lock, machines: &[(&str, &str)]) -> anyhow::Result<()> {
        fs::create_dir_all(&self.directory)?;
        keygen(lock, &self.key(), "uc-testbed")?;
        let mut known_hosts = String::new();
        for (name, address) in machines {
            let key = self.host_key(name);
            keygen(lock, &key, name)?;
            let public = fs::read_to_string(key.with_extension("pub"))
                .with_context(|| format!("no public key for {name}"))?;
            // Without the comment.
            let public: Vec<&str> = public.split_whitespace().take(2).collect();
            writeln!(known_hosts, "{name},{address} {}", public.join(" "))?;
        }
        fs::write(self.known_hosts(), known_hosts)?;
        fs::write(self.config(), self.config_text(machines))?;
        Ok(())
    }

    fn config_text(&self, machines: &[(&str, &str)]) -> String {
        let mut text = String::new();
        for (name, address) in machines {
            // A machine can be addressed by both.
            let _ = write!(text, "Host {name} {address}\n    HostName {address}\n\n");
        }
        let _ = write!(
            text,
            "Host *\n    User root\n    IdentityFile {}\n    IdentitiesOnly yes\n    UserKnownHostsFile {}\n    \
             GlobalKnownHostsFile /dev/null\n    StrictHostKeyChecking yes\n    BatchMode yes\n    ConnectTimeout 10\n",
            self.key().display(),
            self.known_hosts().display()
        );
        text
    }
}

fn keygen(lock: &Lock, file: &Path, comment: &str) -> anyhow::Result<()> {
    let file = file.to_str().context("the path of a key is not UTF-8")?;
    change(
        lock,
        &mut command(&[
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            comment,
            "-f",
            file,
        ]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::read;
    use crate::state::lock_file;

    #[test]
    fn every_machine_has_its_own_host_key_under_name_and_address() {
        crate::host::ensure_program("ssh-keygen", "openssh-client").expect("it can be installed");
        let directory = tempfile::tempdir().expect("a directory");
        let files = SshFiles::new(directory.path().join("ssh"));
        let lock = lock_file(&directory.path().join("lock")).expect("a lock");
        files
            .create(&lock, &[("m1", "10.0.0.1"), ("m2", "10.0.0.2")])
            .expect("ssh-keygen works");
        let known = fs::read_to_string(files.known_hosts()).expect("written");
        let lines: Vec<Vec<&str>> = known
            .lines()
            .map(|line| line.split(' ').collect())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0][0], lines[0][1]), ("m1,10.0.0.1", "ssh-ed25519"));
        assert_eq!((lines[1][0], lines[1][1]), ("m2,10.0.0.2", "ssh-ed25519"));
        assert_ne!(lines[0][2], lines[1][2]);
        let config = read(&[
            "ssh",
            "-F",
            files.config().to_str().expect("utf-8"),
            "-G",
            "m2",
        ])
        .expect("ssh reads it");
        for line in [
            "hostname 10.0.0.2",
            "user root",
            "stricthostkeychecking true",
            "identitiesonly yes",
        ] {
            assert!(
                config.lines().any(|one| one == line),
                "no '{line}' in\n{config}"
            );
        }
    }
}
