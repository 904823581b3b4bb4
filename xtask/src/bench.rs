//! `cargo xtask bench`: prints figures and their budgets, one per line. The build is that of a
//! release without link-time optimisation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;
use uc_testbed::{Claim, Testbed, TestbedName};

use crate::guard::Guard;
use crate::process;

/// The testbed that the benchmark `deploy` starts.
const DEPLOY_TESTBED: &str = "bench-deploy";

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Benchmark to run
    #[arg(value_enum)]
    name: Name,
    /// The ucd that `daemon` measures, in place of the one of this source
    #[arg(long, value_name = "PATH")]
    ucd: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    /// Durable writes on one machine and with three replicas beside etcd; file and memory after a
    /// million changes
    Store,
    /// How soon other machines see a write
    Replication,
    /// Processor time and memory of a running ucd in a cluster of 51 machines with 1,000 replicas,
    /// idle and while replicas change; needs root and dockerd
    Daemon,
    /// `uc config` over real compose files, beside Docker Compose itself
    Compose,
    /// First deployment and update of 12 replicas on three machines of the testbed, beside `docker
    /// run` and Docker Swarm; needs root
    Deploy,
    /// 1,000 simulated machines, 50 ms round trip, 1 % loss: how soon all see a write, and what it
    /// costs
    Sim,
}

impl Name {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Store => &["--package", "uc-bench", "--", "store"],
            Self::Replication => &["--package", "uc-bench", "--", "replication"],
            Self::Daemon => &["--package", "uc-bench", "--", "daemon"],
            Self::Compose => &["--package", "uc-bench", "--", "compose"],
            Self::Deploy => &["--package", "uc-bench", "--", "deploy"],
            Self::Sim => &[
                "--package",
                "uc-cluster-state",
                "--features",
                "simulation",
                "--example",
                "simulate",
                "--",
                "1000",
            ],
        }
    }
}

/// Builds and runs one. Succeeds when it could measure, even if a figure exceeds its budget.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let mut bench = process::cargo(root);
    bench
        .args(["run", "--quiet", "--profile", "bench"])
        .args(arguments.name.arguments());
    match (arguments.name, &arguments.ucd) {
        (Name::Compose, None) => {
            bench.arg(built(root, "uc-cmd", "uc")?);
        }
        (Name::Daemon, None) => {
            bench.arg(built(root, "uc-daemon", "ucd")?);
        }
        (Name::Daemon, Some(ucd)) => {
            bench.arg(std::path::absolute(ucd)?);
        }
        (Name::Deploy, None) => return run_deploy(root, &mut bench),
        (_, Some(_)) => bail!("only `daemon` measures the program of `--ucd`"),
        (_, None) => {}
    }
    process::run(&mut bench)
}

/// Runs `deploy`, and removes its machines also if it is interrupted.
fn run_deploy(root: &Path, bench: &mut Command) -> anyhow::Result<()> {
    let (uc, ucd) = (
        built(root, "uc-cmd", "uc")?,
        built(root, "uc-daemon", "ucd")?,
    );
    let install = root.join("install.sh");
    // Where `uc machine init` looks for what it installs.
    let programs = root.join("target/bench/programs");
    fs::create_dir_all(&programs)?;
    for from in [&uc, &ucd, &install] {
        let name = from.file_name().context("a program has a name")?;
        let (to, new) = (programs.join(name), programs.join("new"));
        // A new file replaces the old one, which can be running.
        fs::copy(from, &new).with_context(|| format!("cannot copy {}", from.display()))?;
        fs::rename(&new, &to)?;
    }
    let name: TestbedName = DEPLOY_TESTBED.parse()?;
    let _claim = Claim::stake(&name)?;
    // What an interrupted run left.
    Testbed::down(&name)?;
    let _guard = Guard::over(&name)?;
    process::run(bench.arg(&programs).arg(DEPLOY_TESTBED))
}

/// Builds a program and returns its path.
fn built(root: &Path, package: &str, program: &str) -> anyhow::Result<PathBuf> {
    let mut cargo = process::cargo(root);
    cargo.args([
        "build",
        "--quiet",
        "--profile",
        "bench",
        "--message-format",
        "json",
        "--package",
        package,
    ]);
    for line in process::read(&mut cargo)?.lines() {
        let message: Value = serde_json::from_str(line)?;
        if message["target"]["name"] == program
            && let Some(path) = message["executable"].as_str()
        {
            return Ok(path.into());
        }
    }
    bail!("cargo did not report the path of {program}")
}
