//! `cargo xtask`: everything the house does that cargo does not. One file per command.

mod bench;
mod check;
mod codegen;
mod demo;
mod example;
mod fmt;
mod fresh;
mod fuzz;
mod guard;
mod printer;
mod process;
mod test;
mod testbed;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything the house does that cargo does not
#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure: one figure a line, with its budget
    Bench(bench::Arguments),
    /// Formatting, lints, generated code, scripts, dependencies, documentation
    Check(check::Arguments),
    /// Compile api/proto to api/src/generated
    Codegen(codegen::Arguments),
    /// Three machines, a cluster, a deployment, failures: the whole of uc in a few minutes
    Demo(demo::Arguments),
    /// Make the build contexts of an example
    Example(example::Arguments),
    /// Format all Rust code
    Fmt(fmt::Arguments),
    /// Run a command of ./dev in a clone on a fresh Debian machine
    Fresh(fresh::Arguments),
    /// Fuzz every decoder of what comes from a peer
    Fuzz(fuzz::Arguments),
    /// Run the tests: all of them, or only the fast ones
    Test(test::Arguments),
    /// Real machines on this box, as containers
    Testbed(testbed::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Bench(arguments) => bench::run(&root(), &arguments).map(|()| ExitCode::SUCCESS),
        Command::Check(arguments) => {
            check::run_checks(&root(), &arguments).map(|()| ExitCode::SUCCESS)
        }
        Command::Codegen(arguments) => {
            codegen::run(&root(), &arguments).map(|()| ExitCode::SUCCESS)
        }
        Command::Demo(arguments) => demo::run(&root(), &arguments).map(|()| ExitCode::SUCCESS),
        Command::Example(arguments) => {
            example::run(&root(), &arguments).map(|()| ExitCode::SUCCESS)
        }
        Command::Fmt(arguments) => fmt::run_fmt(&root(), &arguments).map(|()| ExitCode::SUCCESS),
        Command::Fresh(arguments) => fresh::run(&root(), &arguments),
        Command::Fuzz(arguments) => fuzz::run(&root(), &arguments).map(|()| ExitCode::SUCCESS),
        Command::Test(arguments) => test::run_tests(&root(), &arguments),
        Command::Testbed(arguments) => testbed::run(arguments),
    };
    result.unwrap_or_else(|error| {
        printer::note(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}
