//! Runs the built `uc` program like a person, with its own configuration that does not use the
//! user's contexts, keys and Docker.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, ensure};

use crate::run::{Output, capture};
use crate::testbed::Testbed;

/// Variable with the directory of `uc`, `ucd` and `install.sh`. If it is not set, they are built.
const BIN_DIR: &str = "UC_BIN_DIR";

/// The directory of the built programs and install.sh, as `uc machine init` expects it.
#[derive(Debug, Clone)]
pub struct Binaries {
    directory: PathBuf,
}

impl Binaries {
    /// Those of `UC_BIN_DIR`, or builds them with cargo (profile dev) from the repository at
    /// `root`.
    pub fn find_or_build(root: &Path) -> anyhow::Result<Self> {
        if let Some(directory) = env::var_os(BIN_DIR).filter(|value| !value.is_empty()) {
            return Self::in_directory(Path::new(&directory))
                .with_context(|| format!("{BIN_DIR} is set"));
        }
        Self::build(root)
    }

    /// Those in a directory, which has install.sh as well.
    pub fn in_directory(directory: &Path) -> anyhow::Result<Self> {
        let binaries = Self {
            directory: directory.to_owned(),
        };
        for program in [binaries.uc(), binaries.ucd()] {
            ensure!(program.is_file(), "{} does not exist", program.display());
        }
        Ok(binaries)
    }

    /// Builds them with cargo (profile dev) from the repository at `root`.
    pub fn build(root: &Path) -> anyhow::Result<Self> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(&cargo);
        build.current_dir(root).args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            "uc-cmd",
            "--package",
            "uc-daemon",
        ]);
        capture(&mut build)?
            .checked()
            .context("cannot build uc and ucd")?;
        let mut metadata = Command::new(&cargo);
        metadata.current_dir(root).args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--locked",
        ]);
        let metadata: serde_json::Value =
            serde_json::from_str(&capture(&mut metadata)?.checked()?.stdout)?;
        let target = metadata["target_directory"]
            .as_str()
            .context("cargo metadata names no target directory")?;
        Self::stage(root, Path::new(target))
    }

    /// Copies what goes to a machine to its own directory in the target directory.
    fn stage(root: &Path, target: &Path) -> anyhow::Result<Self> {
        let directory = target.join("uc-dev");
        fs::create_dir_all(&directory)?;
        let debug = target.join("debug");
        for (name, from) in [
            ("uc", &debug),
            ("ucd", &debug),
            ("install.sh", &root.to_owned()),
        ] {
            let (from, to) = (from.join(name), directory.join(name));
            let new = to.with_extension("new");
            // A new file replaces the old one, which can be running.
            fs::copy(&from, &new).with_context(|| format!("cannot copy {}", from.display()))?;
            fs::rename(&new, &to)?;
        }
        Ok(Self { directory })
    }

    /// Their directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The command line program.
    pub fn uc(&self) -> PathBuf {
        self.directory.join("uc")
    }

    /// The daemon.
    pub fn ucd(&self) -> PathBuf {
        self.directory.join("ucd")
    }

    /// `UC_BIN_DIR` and its value, for the environment of a program.
    pub fn variable(&self) -> (&'static str, &Path) {
        (BIN_DIR, &self.directory)
    }
}

/// The `uc` program on the "laptop", which is the host with a separate home directory.
#[derive(Debug, Clone)]
pub struct Uc {
    program: PathBuf,
    home: PathBuf,
    variables: Vec<(&'static str, String)>,
}

impl Uc {
    /// Configured for the ssh and the Docker of a testbed.
    pub fn on(testbed: &Testbed, binaries: &Binaries) -> anyhow::Result<Self> {
        let home = testbed.scratch()?.join("home");
        fs::create_dir_all(&home)?;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        Ok(Self {
            program: binaries.uc(),
            variables: vec![
                ("HOME", text(home.clone())),
                ("XDG_CONFIG_HOME", text(home.join("config"))),
                ("XDG_CACHE_HOME", text(home.join("cache"))),
                ("XDG_STATE_HOME", text(home.join("state"))),
                ("XDG_RUNTIME_DIR", text(testbed.laptop_run_dir()?)),
                ("UC_CONFIG", text(home.join("config.toml"))),
                ("UC_SSH_CONFIG", text(testbed.ssh_config())),
                ("DOCKER_HOST", testbed.docker_host()),
                ("UC_NO_PROGRESS", "1".to_owned()),
                ("NO_COLOR", "1".to_owned()),
            ],
            home,
        })
    }

    /// The variables that a person has to set to run `uc` by hand.
    pub fn variables(&self) -> &[(&'static str, String)] {
        &self.variables
    }

    /// Returns it with another value for a variable.
    pub fn with(mut self, variable: &'static str, value: &str) -> Self {
        self.variables.retain(|(name, _)| *name != variable);
        self.variables.push((variable, value.to_owned()));
        self
    }

    /// Its home directory, in which it runs.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A command, not run yet.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).current_dir(&self.home);
        for variable in [
            "UC_CONNECT",
            "UC_CONTEXT",
            "UC_AUTO_CONFIRM",
            "SSH_AUTH_SOCK",
        ] {
            command.env_remove(variable);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to the end. Fails only if it cannot be started.
    pub fn run(&self, words: &[&str]) -> anyhow::Result<Output> {
        capture(&mut self.command(words))
    }

    /// Runs it with `-o json` and reads what it prints.
    pub fn json(&self, words: &[&str]) -> anyhow::Result<serde_json::Value> {
        let output = self.run(&[words, &["-o", "json"]].concat())?.checked()?;
        serde_json::from_str(&output.stdout)
            .with_context(|| format!("`{}` printed no JSON", output.command))
    }
}
