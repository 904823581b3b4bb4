//! `cargo xtask fuzz`: runs the fuzz targets of all crates in sequence. New inputs go to the build
//! directory and not into the committed corpus. Inputs that make a target fail go to
//! `CRATE/fuzz/artifacts`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::printer::note;
use crate::process::{self, cargo, has_subcommand};

/// Crates with fuzz targets.
const PACKAGES: [&str; 2] = ["cluster-state", "compose"];

/// Longest input: several full frames of a session.
const MAX_LENGTH: usize = 64 * 1024;

/// Arguments of `fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Seconds for each target
    #[arg(default_value_t = 300)]
    seconds: u32,
    /// Run only this target; repeatable [default: all]
    #[arg(long = "target", value_name = "TARGET")]
    only: Vec<String>,
}

/// The compiler of the targets. The instrumentation of libFuzzer needs unstable options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compiler {
    Nightly,
    /// A stable compiler that accepts unstable options.
    Bootstrapped,
}

/// Runs all targets, even after one failed, and fails if one did.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    if !has_subcommand("fuzz") {
        bail!("cargo-fuzz is not installed\nhint: cargo install --locked cargo-fuzz");
    }
    let compiler = if has_nightly() {
        Compiler::Nightly
    } else {
        Compiler::Bootstrapped
    };
    if compiler == Compiler::Bootstrapped {
        note("nightly toolchain not found: using the stable one with RUSTC_BOOTSTRAP=1");
        note("hint: rustup toolchain install nightly --profile minimal");
    }
    let mut all = Vec::new();
    for package in PACKAGES {
        all.extend(
            targets(&root.join(package))?
                .into_iter()
                .map(|target| (package, target)),
        );
    }
    let names: Vec<&str> = all.iter().map(|(_, target)| target.as_str()).collect();
    if let Some(unknown) = arguments
        .only
        .iter()
        .find(|name| !names.contains(&name.as_str()))
    {
        bail!(
            "fuzz target {unknown} not found\nhint: choose one of {}",
            names.join(", ")
        );
    }
    let mut failed = Vec::new();
    for (package, target) in &all {
        if !arguments.only.is_empty() && !arguments.only.contains(target) {
            continue;
        }
        let found = root.join(package).join("fuzz/target/found").join(target);
        fs::create_dir_all(&found).with_context(|| format!("cannot create {}", found.display()))?;
        note(&format!("fuzz {target}: {} s", arguments.seconds));
        if let Err(error) = process::run(&mut command(
            &root.join(package),
            compiler,
            target,
            arguments.seconds,
        )) {
            note(&format!("fuzz {target}: {error:#}"));
            failed.push(format!("{target} of {package}"));
        }
    }
    if !failed.is_empty() {
        bail!(
            "failed: {}\nhint: the inputs are in CRATE/fuzz/artifacts; run one again with `cargo +nightly fuzz run \
             TARGET INPUT` in CRATE",
            failed.join(", ")
        );
    }
    Ok(())
}

/// The names of the targets, in order.
fn targets(package: &Path) -> anyhow::Result<Vec<String>> {
    let directory = package.join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in
        fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?
    {
        let path = entry?.path();
        names.extend(
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

fn has_nightly() -> bool {
    let mut probe = Command::new("rustup");
    probe.args(["run", "nightly", "rustc", "--version"]);
    probe
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

fn command(package: &Path, compiler: Compiler, target: &str, seconds: u32) -> Command {
    let mut command = match compiler {
        Compiler::Nightly => {
            let mut rustup = Command::new("rustup");
            rustup
                .args(["run", "nightly", "cargo"])
                .current_dir(package);
            rustup
        }
        Compiler::Bootstrapped => {
            let mut cargo = cargo(package);
            cargo.env("RUSTC_BOOTSTRAP", "1");
            cargo
        }
    };
    // SQLite's single source file defines two variables with the same name.
    command.env("ASAN_OPTIONS", "detect_odr_violation=0");
    // libFuzzer reads both directories and writes to the first.
    let (found, corpus) = (
        format!("fuzz/target/found/{target}"),
        format!("fuzz/corpus/{target}"),
    );
    command.args([
        "fuzz",
        "run",
        target,
        &found,
        &corpus,
        "--",
        "-timeout=10",
        "-malloc_limit_mb=64",
    ]);
    command
        .arg(format!("-max_len={MAX_LENGTH}"))
        .arg(format!("-max_total_time={seconds}"));
    command.arg("-print_final_stats=1");
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::shown;

    #[test]
    fn every_target_has_a_corpus_and_a_manifest_entry() {
        for (package, at_least) in PACKAGES.into_iter().zip([4, 1]) {
            let package = crate::root().join(package);
            let manifest = fs::read_to_string(package.join("fuzz/Cargo.toml")).unwrap();
            let targets = targets(&package).unwrap();
            assert!(targets.len() >= at_least, "{targets:?}");
            for target in targets {
                assert!(
                    manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")),
                    "{target}"
                );
                assert!(
                    package.join("fuzz/corpus").join(&target).is_dir(),
                    "{target}"
                );
            }
        }
    }

    #[test]
    fn command_keeps_new_inputs_out_of_the_committed_corpus() {
        let nightly = command(Path::new("/r/cluster-state"), Compiler::Nightly, "frame", 5);
        assert_eq!(
            shown(&nightly),
            "rustup run nightly cargo fuzz run frame fuzz/target/found/frame fuzz/corpus/frame -- -timeout=10 \
             -malloc_limit_mb=64 -max_len=65536 -max_total_time=5 -print_final_stats=1"
        );
        let other = command(
            Path::new("/r/cluster-state"),
            Compiler::Bootstrapped,
            "frame",
            5,
        );
        assert!(other.get_envs().any(|(name, _)| name == "RUSTC_BOOTSTRAP"));
        assert_eq!(other.get_current_dir(), Some(Path::new("/r/cluster-state")));
    }
}
