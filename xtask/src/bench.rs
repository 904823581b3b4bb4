//! `cargo xtask bench`: prints figures and their budgets, one per line. The build is that of a
//! release without link-time optimisation.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::Value;

use crate::process;

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
        (_, Some(_)) => bail!("only `daemon` measures the program of `--ucd`"),
        (_, None) => {}
    }
    process::run(&mut bench)
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
