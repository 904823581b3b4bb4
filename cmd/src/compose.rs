//! The compose files of a project, read from disk and handed to `uc-compose`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use uc_compose::{Build, BuildContext, LoadRequest, Project, Service, Severity, SourceFile, default_files};

use crate::error::{CliError, CliResult};
use crate::suggest;
use crate::ui::Ui;

/// No honest compose file is larger.
const MAX_SIZE: u64 = 16 * 1024 * 1024;

/// Which project is meant, from the command line.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ProjectArgs {
    /// Compose file; may be repeated, later ones override earlier ones, `-` is stdin [default: compose.yaml here or above]
    #[arg(short, long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Project name [default: the file's `name`, else the directory's]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// Active profile; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Vec<String>,
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

/// Reads the project; diagnostics go to stderr. `quiet`: only errors are shown.
pub(crate) fn load(args: &ProjectArgs, ui: &Ui, quiet: bool) -> CliResult<Project> {
    let environment = crate::env::all();
    let (directory, paths) = locate(args, &environment, ui)?;
    let files = paths.iter().map(|path| read_source(path)).collect::<CliResult<Vec<_>>>()?;
    let dotenv = dotenv(&directory, &environment)?.into_iter().collect();
    let request = LoadRequest {
        files,
        project_name: args.project.clone(),
        directory,
        environment,
        dotenv,
        profiles: args.profile.clone(),
        strict: args.strict,
        reading: false,
        interpolate: true,
    };
    let loaded = uc_compose::load_with(&request, &|path: &Path| read_limited(path));
    let mut shown = loaded.diagnostics;
    if quiet && loaded.project.is_some() {
        shown.retain(|diagnostic| diagnostic.severity == Severity::Error);
    }
    if !shown.is_empty() {
        let sources: Vec<SourceFile> =
            request.files.iter().chain(&request.dotenv).chain(&loaded.read).cloned().collect();
        // Colours are taken out by the stream where they are not wanted.
        ui.status(&uc_compose::render(&shown, &sources, true))?;
    }
    let errors = shown.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    loaded.project.ok_or_else(|| {
        let plural = if errors == 1 { "error" } else { "errors" };
        CliError::usage(format!("the compose file has {errors} {plural}; nothing was changed"))
    })
}

/// The directory that paths are relative to, and the files to read.
fn locate(
    args: &ProjectArgs,
    environment: &BTreeMap<String, String>,
    ui: &Ui,
) -> CliResult<(PathBuf, Vec<PathBuf>)> {
    let here = std::env::current_dir()
        .map_err(|error| CliError::failed("the current directory is not known").source(error))?;
    let mut files = args.files.clone();
    if files.is_empty() {
        let separator = environment.get("COMPOSE_PATH_SEPARATOR").map_or(":", String::as_str);
        let listed = environment.get("COMPOSE_FILE").map(|list| list.split(separator)).into_iter().flatten();
        files = listed.filter(|part| !part.is_empty()).map(PathBuf::from).collect();
    }
    if let Some(first) = files.first() {
        let parent = first.parent().filter(|_| first.as_os_str() != "-").unwrap_or(Path::new(""));
        let directory = here.join(parent);
        return Ok((fs::canonicalize(&directory).unwrap_or(directory), files));
    }
    for directory in here.ancestors() {
        let Some(found) = default_files(|name| directory.join(name).is_file()) else { continue };
        for name in &found.ignored {
            ui.warn(&format!("{name} is there too and is not read; {} is", found.files.join(" and ")))?;
        }
        // As a person would name them: without the directory where that is the current one.
        let shown = |name: &str| if directory == here { PathBuf::from(name) } else { directory.join(name) };
        let files = found.files.iter().map(|name| shown(name)).collect();
        return Ok((directory.to_owned(), files));
    }
    Err(CliError::usage(format!("there is no compose file in {} or above it", here.display()))
        .hint("write a compose.yaml, or name a file with `-f FILE`"))
}

fn read_source(path: &Path) -> CliResult<SourceFile> {
    let text = if path.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().lock().take(MAX_SIZE).read_to_string(&mut text).map(|_| text)
    } else {
        read_limited(path)
    };
    let text = text.map_err(|error| unreadable(path, error))?;
    Ok(SourceFile { path: path.to_owned(), text })
}

fn unreadable(path: &Path, error: io::Error) -> CliError {
    CliError::usage(format!("{} could not be read", path.display())).source(error)
}

fn read_limited(path: &Path) -> io::Result<String> {
    let file = fs::File::open(path)?;
    let mut text = String::new();
    file.take(MAX_SIZE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than 16 MiB"));
    }
    Ok(text)
}

fn dotenv(directory: &Path, environment: &BTreeMap<String, String>) -> CliResult<Option<SourceFile>> {
    let off = environment
        .get("COMPOSE_DISABLE_ENV_FILE")
        .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"));
    let path = directory.join(".env");
    if off || !path.is_file() {
        return Ok(None);
    }
    let text = read_limited(&path).map_err(|error| unreadable(&path, error))?;
    Ok(Some(SourceFile { path, text }))
}

/// The named services and all that they wait for; all services where none is named.
pub(crate) fn select(project: &Project, names: &[String]) -> CliResult<Vec<Service>> {
    if names.is_empty() {
        return Ok(project.services.clone());
    }
    let by_name: BTreeMap<&str, &Service> =
        project.services.iter().map(|service| (service.spec.name.as_str(), service)).collect();
    let mut wanted = BTreeSet::new();
    let mut next: Vec<&str> = Vec::new();
    for name in names {
        let own = name.strip_prefix(&format!("{}/", project.name)).unwrap_or(name);
        if !by_name.contains_key(own) {
            return Err(CliError::usage(format!("the project {} has no service `{name}`", project.name))
                .hint(suggest::hint(name, by_name.keys().copied())));
        }
        next.push(own);
    }
    while let Some(name) = next.pop() {
        let Some(service) = by_name.get(name).filter(|_| wanted.insert(name)) else { continue };
        next.extend(service.spec.depends_on.iter().map(|dependency| dependency.service.as_str()));
    }
    Ok(project
        .services
        .iter()
        .filter(|service| wanted.contains(service.spec.name.as_str()))
        .cloned()
        .collect())
}

/// What has to be built for these services, in the order in which it must be: a service whose image another build needs comes first, even if
/// it is none of them.
pub(crate) fn build_jobs(project: &Project, services: &[Service]) -> Vec<BuildJob> {
    fn visit(name: &str, project: &Project, seen: &mut BTreeSet<String>, jobs: &mut Vec<BuildJob>) {
        let found = project.services.iter().find(|service| service.spec.name == name);
        let Some((service, build)) = found.and_then(|service| Some((service, service.build.as_ref()?)))
        else {
            return;
        };
        if !seen.insert(name.to_owned()) {
            return;
        }
        for context in std::iter::once(&build.context).chain(build.additional_contexts.values()) {
            if let BuildContext::Service(needed) = context {
                visit(needed, project, seen, jobs);
            }
        }
        jobs.push(BuildJob {
            project: service.spec.project.clone(),
            service: name.to_owned(),
            build: build.clone(),
        });
    }
    let (mut seen, mut jobs) = (BTreeSet::new(), Vec::new());
    for service in services {
        visit(&service.spec.name, project, &mut seen, &mut jobs);
    }
    jobs
}
