//! `cargo xtask fmt`: one format for all Rust code. Comments are wrapped and imports are grouped,
//! which rustfmt does on request only: as arguments these settings work on every channel, in
//! `rustfmt.toml` the stable rustfmt ignores them with a warning for each.

use std::path::Path;

use crate::process::{cargo, run};

const SETTINGS: &str = "imports_granularity=Module,group_imports=StdExternalCrate,\
                        wrap_comments=true,comment_width=100";

/// Arguments of `fmt`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fail if something is not formatted, without changing it
    #[arg(long)]
    pub(crate) check: bool,
}

/// Formats the workspace, or reports what is not formatted.
pub(crate) fn run_fmt(root: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let mut fmt = cargo(root);
    fmt.args(["fmt", "--all"]);
    if arguments.check {
        fmt.arg("--check");
    }
    run(fmt.args(["--", "--config", SETTINGS]))
}
