//! `cargo xtask test`: runs all tests, or with `fast` those that need neither root nor a Docker
//! engine. Uses nextest if it is installed, else `cargo test`. The last lines are those of the
//! runner.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use clap::ValueEnum;
use uc_testbed::{Binaries, Claim, SHARED, Testbed, TestbedName, UpOptions, host};

use crate::example;
use crate::guard::Guard;
use crate::printer::note;
use crate::process::{cargo, has_subcommand, run, shown};

/// The testbed of the end-to-end tests.
const TESTBED: &str = "it";

/// Arguments of `test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// All tests, or only the `fast` ones, which need neither root nor a Docker engine
    #[arg(value_enum, default_value = "all")]
    scope: Scope,
    /// Names of tests and options for the test runner
    #[arg(last = true)]
    runner: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scope {
    All,
    Fast,
}

/// Runs the tests; the exit code is the runner's.
pub(crate) fn run_tests(root: &Path, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    for program in example::programs(root)? {
        run(cargo(root)
            .args(["test", "--quiet", "--locked", "--manifest-path"])
            .arg(program))?;
    }
    // The end-to-end tests run programs of other packages.
    let binaries = Binaries::build(root)?;
    let nextest = has_subcommand("nextest");
    if nextest {
        // nextest does not run examples in documentation. They run first, so that its summary comes
        // last.
        run(cargo(root).args(["test", "--quiet", "--locked", "--workspace", "--doc"]))?;
    }
    let mut runner = cargo(root);
    if nextest {
        runner.args(["nextest", "run", "--locked", "--workspace"]);
        if arguments.scope == Scope::Fast {
            runner.args(["--profile", "fast"]);
        }
        runner.args(&arguments.runner);
    } else {
        // nextest reports all failures as well: see .config/nextest.toml.
        runner.args(["test", "--locked", "--workspace", "--no-fail-fast"]);
        // cargo refuses the same option twice.
        let given = arguments.runner.iter();
        runner.args(given.filter(|argument| *argument != "--no-fail-fast"));
    }
    let (variable, directory) = binaries.variable();
    runner.env(variable, directory);
    match (arguments.scope, host::unsupported()) {
        (Scope::Fast, _) => {
            runner.env(host::SKIP, "1");
            finish(&mut runner)
        }
        (Scope::All, Some(reason)) => {
            note(&format!("skipping end-to-end tests: {reason}"));
            finish(&mut runner)
        }
        (Scope::All, None) => with_testbed(&mut runner),
    }
}

/// Starts one testbed for all tests, since nextest runs each test in its own process.
fn with_testbed(runner: &mut Command) -> anyhow::Result<ExitCode> {
    // For tests of the daemon's own package; the testbed installs what else they need.
    host::ensure_program("docker-registry", "docker-registry")?;
    let name: TestbedName = TESTBED.parse()?;
    let _claim = Claim::stake(&name)?;
    // An interrupted run leaves machines in an unknown state.
    Testbed::down(&name)?;
    let guard = Guard::over(&name)?;
    let testbed = Testbed::up(&UpOptions {
        name: name.clone(),
        ..UpOptions::default()
    })?;
    runner.env(SHARED, TESTBED);
    let result = finish(runner);
    drop(testbed);
    drop(guard);
    result
}

fn finish(runner: &mut Command) -> anyhow::Result<ExitCode> {
    let line = shown(runner);
    let status = runner
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run `{line}`"))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
