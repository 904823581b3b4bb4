//! Reads the compose files of a project from disk and loads them with `uc-compose`.

mod facts;
mod locate;
mod read;
mod select;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) use select::{build_jobs, select};
use uc_compose::{Build, Diagnostic, LoadRequest, Project, Rule, Severity, SourceFile};

use crate::error::{CliError, CliResult};
use crate::term;
use crate::ui::Ui;
use crate::words::counted;

/// Columns of diagnostics if stderr is not a terminal.
const WIDTH: usize = 120;

/// Options that select the project.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ProjectArgs {
    /// Compose file, `-` for stdin; repeatable, later files override earlier ones [default:
    /// compose.yaml in this directory or above]
    #[arg(short, long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Project name [default: the file's `name`, else the directory's]
    #[arg(short, long, visible_alias = "project-name", value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// Profile to activate, `*` for all; repeatable
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Vec<String>,
    /// Env file to use instead of `.env`; repeatable, later files override earlier ones
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Directory that relative paths start from [default: that of the first compose file]
    #[arg(long, value_name = "DIR")]
    pub(crate) project_directory: Option<PathBuf>,
    /// Treat keys that are not honoured as errors
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

/// How diagnostics are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Errors and warnings on stderr, with every place.
    All,
    /// As [`Show::All`], but many warnings in short form.
    Summary,
    /// Nothing for a valid file; for others as [`Show::All`].
    Errors,
    /// As data: errors become part of the command's error, warnings are returned.
    Json,
}

/// What a project is read for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purpose {
    /// The project is only shown, so what a deployment would refuse is a warning.
    pub(crate) reading: bool,
    /// Whether variables are replaced.
    pub(crate) interpolate: bool,
}

/// A project that was read without errors.
#[derive(Debug)]
pub(crate) struct ReadProject {
    pub(crate) project: Project,
    /// Its warnings.
    pub(crate) warnings: Vec<Diagnostic>,
    /// Paths of keys that have no effect here.
    pub(crate) no_effect: Vec<String>,
}

const DEPLOYMENT: Purpose = Purpose {
    reading: false,
    interpolate: true,
};

/// Reads the project for a deployment and shows the diagnostics. `services` are those that the user
/// named: their profiles are active too.
pub(crate) fn load(
    args: &ProjectArgs,
    services: &[String],
    ui: &Ui,
    show: Show,
) -> CliResult<Project> {
    Ok(load_for(DEPLOYMENT, args, services, ui, show)?.project)
}

/// [`load`] for `-o json`: the caller prints the warnings.
pub(crate) fn load_as_data(
    args: &ProjectArgs,
    services: &[String],
    ui: &Ui,
) -> CliResult<(Project, Vec<Diagnostic>)> {
    let read = load_for(DEPLOYMENT, args, services, ui, Show::Json)?;
    Ok((read.project, read.warnings))
}

/// Reads the project for a purpose and shows the diagnostics.
pub(crate) fn load_for(
    purpose: Purpose,
    args: &ProjectArgs,
    services: &[String],
    ui: &Ui,
    show: Show,
) -> CliResult<ReadProject> {
    let (request, mut diagnostics) = match request(args, services, purpose) {
        Ok(found) => found,
        Err(problem) => return Err(invalid_files(&[*problem], &[], ui, show)?),
    };
    let loaded = uc_compose::load_with(&request, &read::limited);
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
        let problems = facts::fill(project, &request.directory);
        diagnostics.extend(problems.into_iter().map(|problem| Diagnostic {
            severity,
            ..problem
        }));
    }
    let valid = !diagnostics
        .iter()
        .any(|diagnostic| diagnostic.severity == Severity::Error);
    let Some(project) = project.filter(|_| valid) else {
        return Err(invalid_files(&diagnostics, &sources, ui, show)?);
    };
    if !services.is_empty() {
        drop_other_services(&mut diagnostics, &project, services);
    }
    if matches!(show, Show::All | Show::Summary) {
        print(&diagnostics, &sources, ui, show)?;
    }
    Ok(ReadProject {
        project,
        warnings: diagnostics,
        no_effect: loaded.no_effect,
    })
}

/// Drops warnings about services that the command does not touch.
fn drop_other_services(warnings: &mut Vec<Diagnostic>, project: &Project, services: &[String]) {
    // A name that is not in the project is an error of the command, which comes later.
    let Ok(selected) = select(project, services) else {
        return;
    };
    warnings.retain(|warning| {
        warning
            .service()
            .is_none_or(|name| selected.iter().any(|service| service.spec.name == name))
    });
}

/// `x-context` of the compose file that `uc deploy` would use in this directory. `None` without a
/// file, without the key, or if the file has errors: then `uc deploy` would not run, either.
pub(crate) fn context_here() -> Option<String> {
    let purpose = Purpose {
        reading: true,
        interpolate: true,
    };
    // Nothing may be read from stdin, which belongs to the question.
    let from_stdin = crate::env::all()
        .get(crate::env::COMPOSE_FILE)
        .is_some_and(|files| files.split([':', ';']).any(|file| file == "-"));
    if from_stdin {
        return None;
    }
    let (request, _) = request(&ProjectArgs::default(), &[], purpose).ok()?;
    uc_compose::load_with(&request, &read::limited)
        .project?
        .context
}

/// The variables that the project's files use.
pub(crate) fn variables(
    args: &ProjectArgs,
    ui: &Ui,
    show: Show,
) -> CliResult<Vec<uc_compose::Variable>> {
    match request(
        args,
        &[],
        Purpose {
            reading: true,
            interpolate: false,
        },
    ) {
        Ok((request, _)) => Ok(uc_compose::variables(&request, &read::limited)),
        Err(problem) => Err(invalid_files(&[*problem], &[], ui, show)?),
    }
}

fn request(
    args: &ProjectArgs,
    services: &[String],
    purpose: Purpose,
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
        services: services.to_vec(),
        strict: args.strict,
        reading: purpose.reading,
        interpolate: purpose.interpolate,
    };
    Ok((request, found.ignored))
}

/// Sets `PWD` where no shell has set it, as Docker Compose does: files use `${PWD}/data`.
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

/// Shows why the files cannot be used, and makes the error of the command.
fn invalid_files(
    diagnostics: &[Diagnostic],
    sources: &[SourceFile],
    ui: &Ui,
    show: Show,
) -> CliResult<CliError> {
    if show != Show::Json {
        print(diagnostics, sources, ui, show)?;
    }
    let errors: Vec<&Diagnostic> = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .collect();
    let error = match errors.as_slice() {
        // A count of errors in the file would say less than what was printed.
        [only] if only.rule == Rule::File && show != Show::Json => CliError::usage(""),
        [only] if only.rule == Rule::File => {
            CliError::usage(&only.message).hints(only.hint.clone())
        }
        several => {
            let errors = counted(several.len() as u64, "error", "errors");
            CliError::usage(format!(
                "the compose file has {errors}; nothing was changed"
            ))
        }
    };
    Ok(error.with_json("diagnostics", &diagnostics))
}

fn print(diagnostics: &[Diagnostic], sources: &[SourceFile], ui: &Ui, show: Show) -> CliResult {
    if diagnostics.is_empty() {
        return Ok(());
    }
    let render = match show {
        Show::Summary => uc_compose::render_summary,
        Show::All | Show::Errors | Show::Json => uc_compose::render_within,
    };
    // The stream removes colours where they are not wanted.
    ui.status(&render(diagnostics, sources, true, diagnostics_width()))
}

/// Columns for diagnostics.
pub(crate) fn diagnostics_width() -> usize {
    term::size()
        .and_then(|(columns, _)| usize::try_from(columns).ok())
        .unwrap_or(WIDTH)
}

/// An error about a file as a whole, or about the arguments.
fn file_error(path: &Path, message: impl Into<String>, hint: impl Into<String>) -> Box<Diagnostic> {
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
