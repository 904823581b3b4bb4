//! `uc version`

use clap::Args;
use serde::Serialize;
use uc_api::version::{PROTOCOL, VERSION};

use crate::cli::Output;
use crate::error::CliResult;
use crate::ui::Ui;

/// Print the version of this program
///
/// Versions of the machines are in `uc machine ls`.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    protocol: u32,
    platform: String,
}

pub(crate) fn run(args: &VersionArgs, ui: &Ui) -> CliResult {
    let platform = format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH);
    if args.output.is_json() {
        return ui.json(&Version {
            version: VERSION,
            protocol: PROTOCOL,
            platform,
        });
    }
    ui.out(&format!("uc {VERSION} (protocol {PROTOCOL}, {platform})"))
}
