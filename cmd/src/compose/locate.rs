//! Locates the files of a project: the arguments, else `COMPOSE_FILE`, else the default names in
//! this directory or above.
//!
//! In Docker Compose's order: the `.env` of the working directory may name the compose files, whose
//! directory may have a `.env` of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use uc_compose::{Diagnostic, Severity, SourceFile, default_files};

use super::{ProjectArgs, file_error, read};
use crate::env;

/// What was found.
#[derive(Debug)]
pub(super) struct Located {
    /// Absolute: where relative paths start.
    pub(super) directory: PathBuf,
    pub(super) files: Vec<PathBuf>,
    pub(super) dotenv: Vec<SourceFile>,
    /// Files with default names that are not read.
    pub(super) ignored: Vec<Diagnostic>,
}

type Result<T> = std::result::Result<T, Box<Diagnostic>>;
type Variables = BTreeMap<String, String>;

pub(super) fn locate(args: &ProjectArgs, environment: &Variables) -> Result<Located> {
    let here = std::env::current_dir().map_err(|error| {
        file_error(
            Path::new(""),
            format!("cannot read the current directory: {error}"),
            "change to a directory that exists",
        )
    })?;
    let named = named_directory(args, &here)?;
    let first = args.files.iter().find(|path| path.as_os_str() != "-");
    let start = named
        .clone()
        .or_else(|| first.map(|path| parent(path, &here)))
        .unwrap_or_else(|| here.clone());
    let explicit = explicit_env_files(args, environment);
    let mut dotenv = match &explicit {
        Some(files) => files
            .iter()
            .map(|path| env_file(path))
            .collect::<Result<_>>()?,
        None => default_env_file(&start, &here, environment)?
            .into_iter()
            .collect::<Vec<_>>(),
    };

    let mut ignored = Vec::new();
    let files = if args.files.is_empty() {
        let variables = with_dotenv(environment, &dotenv);
        match listed(&variables) {
            Some(files) => files,
            None => defaults(&start, &here, &mut ignored)?,
        }
    } else {
        args.files.clone()
    };
    let directory = match named {
        Some(directory) => directory,
        None => files
            .iter()
            .find(|path| path.as_os_str() != "-")
            .map_or(here.clone(), |path| parent(path, &here)),
    };
    if explicit.is_none() && directory != start {
        // Later files override earlier ones, and the first one found takes precedence.
        if let Some(second) = default_env_file(&directory, &here, environment)? {
            dotenv.insert(0, second);
        }
    }
    Ok(Located {
        directory,
        files,
        dotenv,
        ignored,
    })
}

/// `--project-directory`, absolute.
fn named_directory(args: &ProjectArgs, here: &Path) -> Result<Option<PathBuf>> {
    let Some(typed) = &args.project_directory else {
        return Ok(None);
    };
    let directory = here.join(typed);
    if !directory.is_dir() {
        let why = if directory.exists() {
            "is not a directory"
        } else {
            "does not exist"
        };
        return Err(file_error(
            typed,
            format!("project directory `{}` {why}", typed.display()),
            "correct `--project-directory`",
        ));
    }
    Ok(Some(directory.canonicalize().unwrap_or(directory)))
}

/// The directory of a file, absolute.
fn parent(path: &Path, here: &Path) -> PathBuf {
    let directory = here.join(path.parent().unwrap_or(Path::new("")));
    directory.canonicalize().unwrap_or(directory)
}

/// `--env-file`, else `COMPOSE_ENV_FILES`.
fn explicit_env_files(args: &ProjectArgs, environment: &Variables) -> Option<Vec<PathBuf>> {
    if !args.env_file.is_empty() {
        return Some(args.env_file.clone());
    }
    let listed = environment.get(env::COMPOSE_ENV_FILES)?;
    let files: Vec<_> = listed
        .split(',')
        .filter(|part| !part.is_empty())
        .map(PathBuf::from)
        .collect();
    Some(files).filter(|files| !files.is_empty())
}

fn env_file(path: &Path) -> Result<SourceFile> {
    if path.exists() {
        return read::source(path);
    }
    Err(file_error(
        path,
        format!("env file `{}` not found", path.display()),
        "create it, or correct `--env-file` (or COMPOSE_ENV_FILES)",
    ))
}

/// The `.env` of a directory, unless it is switched off or not there.
fn default_env_file(
    directory: &Path,
    here: &Path,
    environment: &Variables,
) -> Result<Option<SourceFile>> {
    let path = directory.join(".env");
    if disabled(environment)? || !path.is_file() {
        return Ok(None);
    }
    // As a person would name it.
    let shown = if directory == here {
        Path::new(".env")
    } else {
        &path
    };
    read::source(shown).map(Some)
}

/// `COMPOSE_DISABLE_ENV_FILE`, as Go reads booleans.
fn disabled(environment: &Variables) -> Result<bool> {
    match environment
        .get(env::COMPOSE_DISABLE_ENV_FILE)
        .map(String::as_str)
    {
        None | Some("" | "0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(false),
        Some("1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(true),
        Some(other) => Err(file_error(
            Path::new(""),
            format!("invalid COMPOSE_DISABLE_ENV_FILE `{other}`: it must be `true` or `false`"),
            "set it to `true` or `false`, or unset it",
        )),
    }
}

/// The variables, with those of `.env` below them. Most `.env` files say nothing about the project,
/// and are not read for it twice.
fn with_dotenv(environment: &Variables, dotenv: &[SourceFile]) -> Variables {
    if dotenv.iter().any(|file| file.text.contains("COMPOSE_")) {
        uc_compose::environment(environment, dotenv)
    } else {
        environment.clone()
    }
}

/// `COMPOSE_FILE`.
fn listed(variables: &Variables) -> Option<Vec<PathBuf>> {
    let separator = variables
        .get(env::COMPOSE_PATH_SEPARATOR)
        .filter(|text| !text.is_empty());
    let list = variables.get(env::COMPOSE_FILE)?;
    let parts = list.split(separator.map_or(":", String::as_str));
    let files: Vec<_> = parts
        .filter(|part| !part.is_empty())
        .map(PathBuf::from)
        .collect();
    Some(files).filter(|files| !files.is_empty())
}

/// The default names, in a directory or the nearest above it.
fn defaults(start: &Path, here: &Path, ignored: &mut Vec<Diagnostic>) -> Result<Vec<PathBuf>> {
    for directory in start.ancestors() {
        let Some(found) = default_files(|name| directory.join(name).is_file()) else {
            continue;
        };
        // As a person would name them: without the directory where that is the current one.
        let shown = |name: &str| {
            if directory == here {
                PathBuf::from(name)
            } else {
                directory.join(name)
            }
        };
        for name in &found.ignored {
            let message = format!("ignoring {name}: using {}", found.files.join(" and "));
            let hint = "remove one of them, or select the files with `-f`";
            ignored.push(Diagnostic {
                severity: Severity::Warning,
                ..*file_error(&shown(name), message, hint)
            });
        }
        return Ok(found.files.iter().map(|name| shown(name)).collect());
    }
    Err(file_error(
        Path::new(""),
        format!("no compose file in {} or above it", start.display()),
        "create a compose.yaml, or name a file with `-f FILE`",
    ))
}
