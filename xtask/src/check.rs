//! `cargo xtask check`: everything that can be wrong without running the programs.

mod dependencies;
mod licence;
mod protoc;
mod scripts;
mod wording;

use std::path::Path;
use std::time::Instant;

use anyhow::bail;
use clap::ValueEnum;

use crate::printer::note;
use crate::process::{cargo, run};
use crate::{codegen, fmt};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these [default: all]
    only: Vec<Check>,
}

/// One kind of check, the quick ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Check {
    /// Formatting
    Fmt,
    /// Generated code is what api/proto says
    Codegen,
    /// api/proto compiles with Google's protoc
    Protoc,
    /// Licences, sources, bans and the number of packages
    Deps,
    /// shellcheck of every shell script
    Scripts,
    /// Wording in messages, help, documents and scripts
    Wording,
    /// clippy, warnings are errors
    Clippy,
    /// Documentation builds without a warning
    Doc,
}

/// Runs the checks, all of them even if one fails, and fails if one did.
pub(crate) fn run_checks(root: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for check in Check::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(check) {
            continue;
        }
        let name = format!("{check:?}").to_lowercase();
        let start = Instant::now();
        match one(*check, root) {
            Ok(()) => note(&format!(
                "check {name}: fine ({:.1} s)",
                start.elapsed().as_secs_f64()
            )),
            Err(error) => {
                note(&format!("check {name}: {error:#}"));
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!(
            "failed: {}\nhint: `cargo xtask check {}` repeats them",
            failed.join(", "),
            failed.join(" ")
        );
    }
    Ok(())
}

fn one(check: Check, root: &Path) -> anyhow::Result<()> {
    match check {
        Check::Fmt => fmt::run_fmt(root, &fmt::Arguments { check: true }),
        Check::Codegen => codegen::run(root, &codegen::Arguments { check: true }),
        Check::Protoc => protoc::check(root),
        Check::Deps => dependencies::check(root),
        Check::Scripts => scripts::check(root),
        Check::Wording => wording::check(root),
        Check::Clippy => run(cargo(root).args([
            "clippy",
            "--quiet",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])),
        Check::Doc => run(cargo(root)
            .args([
                "doc",
                "--quiet",
                "--locked",
                "--workspace",
                "--no-deps",
                "--document-private-items",
            ])
            .env("RUSTDOCFLAGS", "-D warnings")),
    }
}
