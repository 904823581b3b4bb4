//! `cargo xtask test`: every test there is, or with `fast` those that need neither root nor an
//! engine. Runs nextest where it is installed and cargo's own runner elsewhere. The last lines are
//! the runner's.

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
    /// `fast`: what needs neither root nor a Docker engine
    #[arg(value_enum, default_value = "all")]
    scope: Scope,
    /// For the test runner: names of tests, and its own options
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
    // The end-to-end tests run the programs, which belong to other packages than theirs.
    let binaries = Binaries::build(root)?;
    let nextest = has_subcommand("nextest");
    if nextest {
        // It does not run the examples in the documentation. Before it, so that its summary comes
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
        runner.args(&arguments.runner);
    }
    let (variable, directory) = binaries.variable();
    runner.env(variable, directory);
    match (arguments.scope, host::unsupported()) {
        (Scope::Fast, _) => {
            runner.env(host::SKIP, "1");
            finish(&mut runner)
        }
        (Scope::All, Some(reason)) => {
            note(&format!("end-to-end tests are skipped: {reason}"));
            finish(&mut runner)
        }
        (Scope::All, None) => with_testbed(&mut runner),
    }
}

/// One testbed for all tests: with nextest each runs in a process of its own.
fn with_testbed(runner: &mut Command) -> anyhow::Result<ExitCode> {
    let name: TestbedName = TESTBED.parse()?;
    let _claim = Claim::stake(&name)?;
    // What a run that was interrupted left behind is in nobody's way, but it is not fresh either.
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
