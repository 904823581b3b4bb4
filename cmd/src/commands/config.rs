//! `uc config`

mod listing;

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use serde::Serialize;
use uc_compose::{Diagnostic, Project};

use crate::args::Output;
use crate::compose::{self, ProjectArgs, Purpose, ReadProject, Show};
use crate::error::CliResult;
use crate::ui::Ui;

/// Check the compose file and print it resolved
///
/// Prints what `uc deploy` would deploy: variables are filled in, files are merged and short forms
/// are written out. Errors are shown with their place in the file, and the exit code is 2.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc config -q                         check only; exit code 2 if there is an error
  uc config --format json | jq .services.web
  uc config web                        print web and the services it depends on
  uc config --variables                list the variables and their defaults
  uc config -q -o json                 print the errors and warnings as JSON")]
pub(crate) struct ConfigArgs {
    /// Services to print, with those they depend on [default: all]
    #[arg(value_name = "SERVICE")]
    names: Vec<String>,
    #[command(flatten)]
    project: ProjectArgs,
    /// Format of the file [default: yaml]
    #[arg(long, value_enum)]
    format: Option<ConfigFormat>,
    /// Do not replace variables by their values
    #[arg(long)]
    no_interpolate: bool,
    /// Print only errors
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    list: listing::ListArgs,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ConfigFormat {
    Yaml,
    Json,
}

/// `-o json`.
#[derive(Debug, Serialize)]
struct Checked<'a> {
    diagnostics: &'a [Diagnostic],
    /// Paths of keys that have no effect here.
    no_effect: &'a [String],
    /// Absent with `-q`.
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<serde_json::Value>,
}

pub(crate) fn run(args: &ConfigArgs, ui: &Ui) -> CliResult {
    let json = args.output.is_json();
    let show = match args.quiet {
        _ if json => Show::Json,
        true => Show::Errors,
        false => Show::All,
    };
    let purpose = Purpose {
        reading: !args.project.strict,
        interpolate: !args.no_interpolate,
    };
    if args.list.variables {
        // The variables can be listed even if their values are missing.
        let variables = compose::variables(&args.project, ui, show)?;
        return listing::variables(&variables, args.format, json, ui);
    }
    let ReadProject {
        mut project,
        warnings,
        no_effect,
    } = compose::load_for(purpose, &args.project, &args.names, ui, show)?;
    if !args.names.is_empty() {
        narrow(&mut project, args, ui)?;
    }
    if let Some(lines) = listing::lines(&args.list, &project)? {
        return if json {
            ui.json(&lines)
        } else {
            ui.lines(&lines)
        };
    }
    if json {
        let config = (!args.quiet).then(|| project.to_json());
        return ui.json(&Checked {
            diagnostics: &warnings,
            no_effect: &no_effect,
            config,
        });
    }
    if !args.quiet && !no_effect.is_empty() {
        ui.status(&format!(
            "note: keys without effect here: {}",
            no_effect.join(", ")
        ))?;
    }
    match args.format {
        _ if args.quiet => Ok(()),
        None | Some(ConfigFormat::Yaml) => ui.out(&project.to_yaml()),
        Some(ConfigFormat::Json) => ui.json(&project.to_json()),
    }
}

/// Keeps only the named services and those they depend on.
fn narrow(project: &mut Project, args: &ConfigArgs, ui: &Ui) -> CliResult {
    if args.no_interpolate {
        return ui.warn("--no-interpolate prints the whole file: services are ignored");
    }
    let kept: BTreeSet<String> = compose::select(project, &args.names)?
        .into_iter()
        .map(|service| service.spec.name)
        .collect();
    project.keep(&kept);
    Ok(())
}
