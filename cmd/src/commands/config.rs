//! `uc config`

use clap::{Args, ValueEnum};

use crate::compose::{self, ProjectArgs};
use crate::error::CliResult;
use crate::ui::Ui;

/// Check the compose file and print it resolved
///
/// Variables are filled in, files merged, short forms written out: what `uc deploy` would deploy.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc config -q                         check only; exit code 2 if there is an error
  uc config --format json | jq .services.web")]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// How to print
    #[arg(long, value_enum, default_value_t = ConfigFormat::Yaml)]
    format: ConfigFormat,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ConfigFormat {
    Yaml,
    Json,
}

pub(crate) fn run(args: &ConfigArgs, ui: &Ui) -> CliResult {
    let project = compose::load(&args.project, ui, args.quiet)?;
    match args.format {
        _ if args.quiet => Ok(()),
        ConfigFormat::Yaml => ui.out(&project.to_yaml()),
        ConfigFormat::Json => ui.json(&project.to_json()),
    }
}
