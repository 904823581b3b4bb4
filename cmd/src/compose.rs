//! The compose files of a project, read from disk and handed to `uc-compose`.

mod facts;
mod locate;
mod read;
mod select;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) use select::{build_jobs, select};
use serde::Serialize;
use uc_compose::{Build, Diagnostic, LoadRequest, Project, Rule, Severity, SourceFile};

use crate::error::{CliError, CliResult};
use crate::term;
use crate::ui::Ui;

/// Columns of diagnostics where no terminal says how many it has.
const WIDTH: usize = 120;

/// Which project is meant, from the command line.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ProjectArgs {
    /// Compose file; may be repeated, later ones override earlier ones, `-` is stdin [default:
    /// compose.yaml here or above]
    #[arg(short, long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Project name [default: the file's `name`, else the directory's]
    #[arg(short, long, visible_alias = "project-name", value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// Active profile; may be repeated, `*` is all
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Vec<String>,
    /// File of variables in place of `.env`; may be repeated, later ones override earlier ones
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Where relative paths start [default: the directory of the first compose file]
    #[arg(long, value_name = "DIR")]
    pub(crate) project_directory: Option<PathBuf>,
    /// Treat what would not be honoured as an error
    #[arg(long)]
    pub(crate) strict: bool,
}

/// A service to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BuildJob {
    pub(crate) project: String,
    pub(crate) service: String,
    pub(crate) build: Build,
}

/// What is done with what is found wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Errors and warnings are shown.
    All,
    /// Warnings only where there are errors too.
    Errors,
    /// As data: of a file with errors it is printed here, of a good one it is for the caller to
    /// print.
    Json,
}

/// For what a project is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// To be shown only: what a deployment would refuse is a warning.
    pub(crate) reading: bool,
    /// Variables are put in.
    pub(crate) interpolate: bool,
}

/// Diagnostics as data.
#[derive(Debug, Serialize)]
struct Found<'a> {
    diagnostics: &'a [Diagnostic],
}

/// Reads the project; diagnostics go to stderr. `services`: those that were named, which are active
/// whatever their profile.
pub(crate) fn load(
    args: &ProjectArgs,
    services: &[String],
    ui: &Ui,
    show: Show,
) -> CliResult<Project> {
    load_as(
        args,
        services,
        How {
            reading: false,
            interpolate: true,
        },
        ui,
        show,
    )
    .map(|(project, _)| project)
}

/// [`load`], with what is found printed to stdout as data, whether the file is good or not.
pub(crate) fn load_as_data(args: &ProjectArgs, services: &[String], ui: &Ui) -> CliResult<Project> {
    let how = How {
        reading: false,
        interpolate: true,
    };
    let (project, diagnostics) = load_as(args, services, how, ui, Show::Json)?;
    ui.json(&Found {
        diagnostics: &diagnostics,
    })?;
    Ok(project)
}

/// [`load`], with the warnings that a good file may have.
pub(crate) fn load_as(
    args: &ProjectArgs,
    services: &[String],
    how: How,
    ui: &Ui,
    show: Show,
) -> CliResult<(Project, Vec<Diagnostic>)> {
    let (request, mut diagnostics) = match request(args, how) {
        Ok(found) => found,
        Err(wrong) => return Err(refused(&[*wrong], &[], ui, show)?),
    };
    let mut loaded = uc_compose::load_with(&request, &read::limited);
    if let Some(project) = &loaded.project
        && services.iter().any(|name| {
            !project
                .service_names()
                .contains(&select::own_name(project, name))
        })
        && !request.profiles.iter().any(|profile| profile == "*")
    {
        // A service that somebody names is meant, whatever profile it has.
        let everything = LoadRequest {
            profiles: vec!["*".to_owned()],
            ..request.clone()
        };
        let all = uc_compose::load_with(&everything, &read::limited);
        let names_all = |project: &Project| {
            services.iter().all(|name| {
                project
                    .service_names()
                    .contains(&select::own_name(project, name))
            })
        };
        if all.project.as_ref().is_some_and(names_all) {
            loaded = all;
        }
    }
    let mut sources: Vec<SourceFile> = request
        .files
        .iter()
        .chain(&request.dotenv)
        .cloned()
        .collect();
    sources.extend(loaded.read);
    diagnostics.extend(loaded.diagnostics);
    let mut project = loaded.project;
    if let Some(project) = project
        .as_mut()
        .filter(|project| project.has_image_templates())
    {
        let severity = if request.reading {
            Severity::Warning
        } else {
            Severity::Error
        };
        let wrong = facts::fill(project, &request.directory);
        diagnostics.extend(
            wrong
                .into_iter()
                .map(|wrong| Diagnostic { severity, ..wrong }),
        );
    }
    let good = !diagnostics
        .iter()
        .any(|diagnostic| diagnostic.severity == Severity::Error);
    match project.filter(|_| good) {
        Some(project) => {
            if show == Show::All {
                print(&diagnostics, &sources, ui)?;
            }
            Ok((project, diagnostics))
        }
        None => Err(refused(&diagnostics, &sources, ui, show)?),
    }
}

/// The variables that the project's files use.
pub(crate) fn variables(
    args: &ProjectArgs,
    ui: &Ui,
    show: Show,
) -> CliResult<Vec<uc_compose::Variable>> {
    match request(
        args,
        How {
            reading: true,
            interpolate: false,
        },
    ) {
        Ok((request, _)) => Ok(uc_compose::variables(&request, &read::limited)),
        Err(wrong) => Err(refused(&[*wrong], &[], ui, show)?),
    }
}

fn request(
    args: &ProjectArgs,
    how: How,
) -> Result<(LoadRequest, Vec<Diagnostic>), Box<Diagnostic>> {
    let environment = with_directory(crate::env::all(), std::env::current_dir().ok());
    let found = locate::locate(args, &environment)?;
    let request = LoadRequest {
        files: found
            .files
            .iter()
            .map(|path| read::source(path))
            .collect::<Result<_, _>>()?,
        project_name: args.project.clone(),
        directory: found.directory,
        environment,
        dotenv: found.dotenv,
        profiles: args.profile.clone(),
        strict: args.strict,
        reading: how.reading,
        interpolate: how.interpolate,
    };
    Ok((request, found.ignored))
}

/// `PWD` is there also where no shell has set it, as in Compose: files say `${PWD}/data`.
fn with_directory(
    mut environment: BTreeMap<String, String>,
    current: Option<PathBuf>,
) -> BTreeMap<String, String> {
    if let Some(current) = current {
        environment
            .entry("PWD".to_owned())
            .or_insert_with(|| current.to_string_lossy().into_owned());
    }
    environment
}

/// Shows why the files cannot be used.
fn refused(
    diagnostics: &[Diagnostic],
    sources: &[SourceFile],
    ui: &Ui,
    show: Show,
) -> CliResult<CliError> {
    if show == Show::Json {
        ui.json(&Found { diagnostics })?;
    } else {
        print(diagnostics, sources, ui)?;
    }
    let errors = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .count();
    let plural = if errors == 1 { "error" } else { "errors" };
    Ok(CliError::usage(format!(
        "the compose file has {errors} {plural}; nothing was changed"
    )))
}

fn print(diagnostics: &[Diagnostic], sources: &[SourceFile], ui: &Ui) -> CliResult {
    if diagnostics.is_empty() {
        return Ok(());
    }
    let width = term::size()
        .and_then(|(columns, _)| usize::try_from(columns).ok())
        .unwrap_or(WIDTH);
    // Colours are taken out by the stream where they are not wanted.
    ui.status(&uc_compose::render_within(
        diagnostics,
        sources,
        true,
        width,
    ))
}

/// Something wrong with a file as a whole, or with what was asked for.
fn wrong(path: &Path, message: impl Into<String>, hint: impl Into<String>) -> Box<Diagnostic> {
    let hint: String = hint.into();
    Box::new(Diagnostic {
        severity: Severity::Error,
        rule: Rule::File,
        file: path.to_owned(),
        line: 0,
        column: 0,
        length: 1,
        path: String::new(),
        message: message.into(),
        label: None,
        hint: Some(hint).filter(|hint| !hint.is_empty()),
    })
}
