//! `cargo xtask`: development tasks beyond cargo. Each command has its own file.

mod bench;
mod build;
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

/// Development tasks of uc
#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a benchmark, which prints one figure per line with its budget
    Bench(bench::Arguments),
    /// Build uc and ucd with the release profile
    Build,
    /// Check formatting, wording, lints, generated code, scripts, dependencies and documentation
    Check(check::Arguments),
    /// Generate api/src/generated from api/proto
    Codegen(codegen::Arguments),
    /// Create a cluster of three machines, deploy to it, and break it
    Demo(demo::Arguments),
    /// Prepare the build contexts of an example
    Example(example::Arguments),
    /// Format all Rust code
    Fmt(fmt::Arguments),
    /// Run a command of ./dev in a clone on a fresh Debian machine
    Fresh(fresh::Arguments),
    /// Fuzz the decoders of data from peers and of compose files
    Fuzz(fuzz::Arguments),
    /// Run all tests, or only the fast ones
    Test(test::Arguments),
    /// Control machines that run as containers on this computer
    Testbed(testbed::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Bench(arguments) => bench::run(&root(), &arguments).map(|()| ExitCode::SUCCESS),
        Command::Build => build::run_build(&root()).map(|()| ExitCode::SUCCESS),
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

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this package is in a folder of the repository")
        .to_path_buf()
}
