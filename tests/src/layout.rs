//! Paths and names of a testbed: its state, bridge, cgroup and packet filter table. `down` derives
//! everything that it removes from here.

use std::path::PathBuf;
use std::str::FromStr;
use std::{env, fmt};

use anyhow::{bail, ensure};

/// The longest name: it is part of the path of a Unix socket (at most 107 bytes).
const NAME_MAX: usize = 32;

/// The name of a testbed: letters a to z, digits and `-`, beginning with a letter; at most 32
/// bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TestbedName(String);

impl Default for TestbedName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl FromStr for TestbedName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ensure!(
            !text.is_empty() && text.len() <= NAME_MAX,
            "a testbed's name has 1 to {NAME_MAX} characters"
        );
        if !text.starts_with(|c: char| c.is_ascii_lowercase())
            || !text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        {
            bail!(
                "the testbed name '{text}' must begin with a letter and consist of a-z, 0-9 and -"
            );
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TestbedName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl AsRef<str> for TestbedName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Where the state of all testbeds is.
pub(crate) fn states() -> PathBuf {
    PathBuf::from("/var/lib/uc-testbed")
}

/// Where the sockets of all testbeds are.
pub(crate) fn runs() -> PathBuf {
    PathBuf::from("/run/uc-testbed")
}

/// Where machine images and locks are kept across testbeds: `UC_TESTBED_CACHE`, else
/// `XDG_CACHE_HOME/uc-testbed`, else `/var/cache/uc-testbed`.
pub fn cache() -> PathBuf {
    if let Some(directory) = env::var_os("UC_TESTBED_CACHE").filter(|value| !value.is_empty()) {
        return PathBuf::from(directory);
    }
    match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(directory) => PathBuf::from(directory).join("uc-testbed"),
        None => PathBuf::from("/var/cache/uc-testbed"),
    }
}

/// The places of one testbed.
#[derive(Debug, Clone)]
pub struct Layout {
    name: TestbedName,
}

impl Layout {
    /// The places of the testbed of this name, whether it exists or not.
    pub fn new(name: TestbedName) -> Self {
        Self { name }
    }

    /// The testbed's name.
    pub fn name(&self) -> &TestbedName {
        &self.name
    }

    /// Its files: state, keys, the engine's data and log.
    pub fn state_dir(&self) -> PathBuf {
        states().join(&self.name.0)
    }

    /// Its sockets.
    pub fn run_dir(&self) -> PathBuf {
        runs().join(&self.name.0)
    }

    /// Where programs of the laptop may keep sockets, as in `XDG_RUNTIME_DIR`.
    pub(crate) fn laptop_run_dir(&self) -> PathBuf {
        self.run_dir().join("laptop")
    }

    /// The state file: its presence means that the testbed may hold something.
    pub(crate) fn state_file(&self) -> PathBuf {
        self.state_dir().join("state.json")
    }

    /// What the engine printed.
    pub fn engine_log(&self) -> PathBuf {
        self.state_dir().join("engine.log")
    }

    /// The engine's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run_dir().join("docker.sock")
    }

    /// The engine's address, as in `DOCKER_HOST`.
    pub fn docker_host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The cgroup of everything that runs for the testbed, below the root of each hierarchy.
    pub(crate) fn cgroup(&self) -> String {
        format!("uc-testbed-{}", self.name)
    }

    /// The packet filter table, in the families `bridge` and `inet`.
    pub(crate) fn table(&self) -> String {
        format!("uc_testbed_{}", self.name.0.replace('-', "_"))
    }

    /// Keys and ssh's configuration.
    pub(crate) fn ssh_dir(&self) -> PathBuf {
        self.state_dir().join("ssh")
    }

    /// The lock for bringing the testbed up or down.
    pub(crate) fn lock_file(&self) -> PathBuf {
        cache().join("locks").join(&self.name.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn testbed_name_that_could_leave_its_directory_is_refused() {
        for name in [
            "",
            "..",
            "a/b",
            "A",
            "1a",
            "a_b",
            "-a",
            "a b",
            &"a".repeat(33),
        ] {
            assert!(
                name.parse::<TestbedName>().is_err(),
                "{name:?} was accepted"
            );
        }
        for name in ["a", "default", "it-2", &"a".repeat(32)] {
            assert_eq!(name.parse::<TestbedName>().expect(name).as_ref(), name);
        }
    }

    #[test]
    fn socket_path_fits_for_the_longest_name() {
        let layout = Layout::new("a".repeat(NAME_MAX).parse().expect("valid"));
        // The engine adds the longest of its own, /docker/containerd/containerd-debug.sock.
        assert!(layout.run_dir().as_os_str().len() + 41 <= 107);
    }
}
