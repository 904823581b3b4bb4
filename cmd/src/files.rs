//! Local files that services need on the machines: relative bind mounts, configs, secrets. Each is
//! read, packed, named by its hash in the service's spec, and sent to the connected machine before
//! the plan is executed. `docs/files.md` explains what travels and why.

mod data_folder;
mod pack;
mod push;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use data_folder::State;
use pack::PackError;
pub(crate) use push::push_missing;
use source::{Commands, Problem};
use uc_api::ContentHash;
use uc_api::v1::{FileSpec, ListServicesRequest, MountKind, VolumeSpec};
use uc_compose::{Diagnostic, LocalFile, LocalSource, Rule, Service, Severity, SourceFile};

use crate::compose::diagnostics_width;
use crate::connect::{Client, ask, within};
use crate::error::{CliError, CliResult};
use crate::ui::Ui;
use crate::words::counted;

/// Configs and secrets may be read by whatever user the container has.
const DEFAULT_MODE: u32 = 0o444;
/// Bytes of all archives of a deployment: they are in memory from reading to sending.
const MAX_TOTAL: u64 = 256 * 1024 * 1024;

/// Hint for contents that are too large.
const TOO_MUCH: &str = "put data into a named volume, and programs and large files into the image";

/// Everything that travels with a deployment.
#[derive(Debug, Default)]
pub(crate) struct Contents(BTreeMap<ContentHash, Content>);

struct Content {
    /// For messages.
    name: String,
    secret: bool,
    archive: Vec<u8>,
}

impl std::fmt::Debug for Content {
    /// Without what may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content")
            .field("name", &self.name)
            .field("secret", &self.secret)
            .finish_non_exhaustive()
    }
}

/// Inputs of [`prepare`] beside the services.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    /// The project's name.
    pub(crate) project: &'a str,
    /// Warnings are errors.
    pub(crate) strict: bool,
    /// Variables for secrets and configs that come from the environment.
    pub(crate) environment: &'a BTreeMap<String, String>,
    /// Run no commands.
    pub(crate) dry_run: bool,
    /// What the services of the project have on the machines now.
    pub(crate) current: Current,
}

/// What the deployed services of a project have, by service.
#[derive(Debug, Default)]
pub(crate) struct Current {
    /// Names of their volumes.
    pub(crate) volumes: BTreeMap<String, BTreeSet<String>>,
    /// Hashes of their contents, by target or variable.
    contents: BTreeMap<String, BTreeMap<String, String>>,
}

/// What the services of a project have now. The cluster is asked only if a bind mount may have
/// become a volume, or if a dry run needs the hash of what a command printed.
pub(crate) async fn current(
    client: &Client,
    project: &str,
    services: &[Service],
    dry_run: bool,
) -> CliResult<Current> {
    let matters = |file: &LocalFile| match file.source {
        LocalSource::Bind(_) => !file.read_only_said,
        LocalSource::Command(_) => dry_run,
        _ => false,
    };
    if !services
        .iter()
        .flat_map(|service| &service.local)
        .any(matters)
    {
        return Ok(Current::default());
    }
    let request = ListServicesRequest {
        project: project.to_owned(),
    };
    let listed = ask(client.services().list(within(30, request)))
        .await?
        .services;
    let mut current = Current::default();
    for spec in listed.into_iter().filter_map(|status| status.spec) {
        let volumes = spec
            .mounts
            .into_iter()
            .filter(|mount| mount.kind() == MountKind::Volume)
            .map(|mount| mount.source)
            .collect();
        let contents = spec
            .files
            .into_iter()
            .map(|file| (file.target, file.hash))
            .chain(spec.secret_environment)
            .collect();
        current.volumes.insert(spec.name.clone(), volumes);
        current.contents.insert(spec.name, contents);
    }
    Ok(current)
}

/// Adds the local files of the services to their specs and returns their contents. All problems are
/// reported together.
pub(crate) async fn prepare(
    ui: &Ui,
    services: &mut [Service],
    volumes: &mut Vec<VolumeSpec>,
    known: &Known<'_>,
) -> CliResult<Contents> {
    let mut found = Found::default();
    let contents = collect(services, volumes, known, &mut found).await;
    found.show(ui)?;
    Ok(contents)
}

/// Diagnostics and notes of [`prepare`].
#[derive(Debug, Default)]
struct Found {
    diagnostics: Vec<Diagnostic>,
    /// What is made of what, once for each.
    notes: Vec<String>,
}

impl Found {
    /// Fails if there is an error among them.
    fn show(self, ui: &Ui) -> CliResult {
        if !self.diagnostics.is_empty() {
            let paths: BTreeSet<&PathBuf> = self
                .diagnostics
                .iter()
                .map(|diagnostic| &diagnostic.file)
                .collect();
            // Without its text a diagnostic still says file and line.
            let source = |path: &PathBuf| {
                let text = fs::read_to_string(path).ok()?;
                Some(SourceFile {
                    path: path.clone(),
                    text,
                })
            };
            let sources: Vec<SourceFile> = paths.into_iter().filter_map(source).collect();
            ui.status(&uc_compose::render_summary(
                &self.diagnostics,
                &sources,
                true,
                diagnostics_width(),
            ))?;
        }
        let errors = self
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .count();
        if errors > 0 {
            let errors = counted(errors as u64, "error", "errors");
            return Err(CliError::usage(format!(
                "{errors} in local files that the compose file uses; nothing was changed"
            )));
        }
        for note in self.notes {
            ui.status(&note)?;
        }
        Ok(())
    }
}

async fn collect(
    services: &mut [Service],
    volumes: &mut Vec<VolumeSpec>,
    known: &Known<'_>,
    found: &mut Found,
) -> Contents {
    let mut prepare = Prepare {
        known,
        declared: volumes.iter().map(|volume| volume.name.clone()).collect(),
        added: BTreeMap::new(),
        contents: BTreeMap::new(),
        packed: BTreeMap::new(),
        commands: Commands::default(),
        found,
    };
    for service in services.iter_mut() {
        for file in std::mem::take(&mut service.local) {
            prepare.file(service, &file).await;
        }
    }
    prepare.check_total();
    volumes.extend(prepare.added.into_values());
    Contents(prepare.contents)
}

struct Prepare<'a> {
    known: &'a Known<'a>,
    /// Names of the volumes that the compose file declares.
    declared: BTreeSet<String>,
    /// Those that data folders become, by name.
    added: BTreeMap<String, VolumeSpec>,
    contents: BTreeMap<ContentHash, Content>,
    /// Files and folders as they are on the disk: none is read twice.
    packed: BTreeMap<PathBuf, Option<ContentHash>>,
    commands: Commands,
    found: &'a mut Found,
}

impl Prepare<'_> {
    async fn file(&mut self, service: &mut Service, file: &LocalFile) {
        if let LocalSource::Bind(path) = &file.source
            && self.data_folder(service, file, path)
        {
            return;
        }
        let hash = if self.known.dry_run && matches!(file.source, LocalSource::Command(_)) {
            self.assumed(service, file)
        } else {
            match self.content(file).await {
                Some(hash) => hash.to_string(),
                None => return,
            }
        };
        match &file.variable {
            Some(variable) => {
                service
                    .spec
                    .secret_environment
                    .insert(variable.clone(), hash);
            }
            None => service.spec.files.push(FileSpec {
                hash,
                target: file.target.clone(),
                name: file.name.clone(),
                secret: file.secret,
            }),
        }
    }

    /// The hash of what a command printed at the last deployment, because a dry run does not run
    /// it. Without one, a hash that no content has.
    fn assumed(&mut self, service: &Service, file: &LocalFile) -> String {
        let place = file.variable.as_ref().unwrap_or(&file.target);
        let deployed = self
            .known
            .current
            .contents
            .get(&service.spec.name)
            .and_then(|contents| contents.get(place));
        let note = match deployed {
            Some(_) => "the plan assumes that its output has not changed",
            None => "the plan shows it as new",
        };
        self.found
            .notes
            .push(format!("the command of {} was not run; {note}", file.name));
        deployed.cloned().unwrap_or_else(|| "0".repeat(64))
    }

    /// Whether a bind mount needs no content, because it becomes a volume or is an error.
    fn data_folder(&mut self, service: &mut Service, file: &LocalFile, path: &Path) -> bool {
        let state = match data_folder::state(path) {
            Ok(state) => state,
            Err(error) => {
                self.error(file, format!("cannot read `{}`: {error}", file.name), "");
                return true;
            }
        };
        let project = self.known.project;
        let volume = data_folder::volume_name(project, &file.name);
        let current = self.known.current.volumes.get(&service.spec.name);
        let is_volume =
            !file.read_only_said && current.is_some_and(|current| current.contains(&volume));
        let why = match state {
            State::Missing if file.must_exist => {
                self.error(
                    file,
                    format!("`{}` does not exist", file.name),
                    "create it, or correct the path",
                );
                return true;
            }
            State::Missing => format!("{} does not exist", file.name),
            State::Empty => format!("{} is empty", file.name),
            State::Filled if is_volume => {
                let message = format!(
                    "`{}` is not uploaded: this service already keeps its data in volume {volume}",
                    file.name
                );
                self.warning(
                    file,
                    message,
                    "mount it with `:ro` to upload the files instead",
                );
                format!("{} is a data folder", file.name)
            }
            State::Filled => {
                if !file.read_only_said {
                    let message = format!("`{}` is mounted read-only on the machines", file.name);
                    self.warning(
                        file,
                        message,
                        "add `:ro` if the service only reads it; for data use a named volume: `data:/path`",
                    );
                }
                return false;
            }
        };
        if self.declared.contains(&volume) {
            self.error(
                file,
                format!(
                    "{why}, so it would become volume {volume}, which the file already declares"
                ),
                "mount the declared volume by name, or rename the folder",
            );
            return true;
        }
        if self.known.strict {
            self.error(
                file,
                format!("{why}, so it would become volume {volume}"),
                "declare a named volume below `volumes:`, and mount it instead of the folder",
            );
            return true;
        }
        let (spec, mount) =
            data_folder::volume(project, &volume, &file.target, file.read_only_said);
        service.spec.mounts.push(mount);
        if self.added.insert(volume.clone(), spec).is_none() {
            self.found.notes.push(format!(
                "{why}, so it becomes volume {volume} on the machine that runs the service"
            ));
        }
        true
    }

    /// The packed content of anything but a data folder; none if something is wrong with it.
    async fn content(&mut self, file: &LocalFile) -> Option<ContentHash> {
        let bytes = match &file.source {
            LocalSource::Bind(path) => return self.as_it_is(file, path),
            LocalSource::Path(path) if path.is_dir() && file.variable.is_none() => {
                return self.as_it_is(file, path);
            }
            LocalSource::Path(path) => pack::read(path).map_err(|error| problem(&error)),
            LocalSource::Content(text) => Ok(text.clone().into_bytes()),
            LocalSource::Variable(name) => {
                source::variable(name, self.known.environment).map(String::into_bytes)
            }
            LocalSource::Command(words) => {
                let directory = file
                    .file
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty());
                self.commands
                    .output(words, directory.unwrap_or(Path::new(".")))
                    .await
            }
        };
        let packed = bytes.and_then(|bytes| {
            if file.variable.is_some() {
                source::check_value(&bytes)?;
            }
            let (mode, uid, gid) = (file.mode.unwrap_or(DEFAULT_MODE), file.uid, file.gid);
            pack::text(&bytes, mode, uid.unwrap_or(0), gid.unwrap_or(0))
                .map_err(|error| problem(&error))
        });
        match packed {
            Ok(archive) => Some(self.keep(file, archive)),
            Err(Problem { message, hint }) => {
                self.error(file, format!("{}: {message}", file.name), &hint);
                None
            }
        }
    }

    /// A file or folder with the permissions that it has on the disk.
    fn as_it_is(&mut self, file: &LocalFile, path: &Path) -> Option<ContentHash> {
        if let Some(packed) = self.packed.get(path).cloned() {
            if let Some(content) = packed.as_ref().and_then(|hash| self.contents.get_mut(hash)) {
                content.secret |= file.secret;
            }
            return packed;
        }
        let hash = match pack::path(path) {
            Ok(pack::Packed { archive, skipped }) => {
                for skipped in skipped {
                    let message = format!(
                        "{}: skipped `{}`, which is not a regular file or folder",
                        file.name,
                        skipped.display()
                    );
                    self.warning(file, message, "");
                }
                Some(self.keep(file, archive))
            }
            Err(errors) => {
                for error in &errors {
                    let Problem { message, hint } = problem(error);
                    self.error(file, format!("{}: {message}", file.name), &hint);
                }
                None
            }
        };
        self.packed.insert(path.to_owned(), hash.clone());
        hash
    }

    /// Keeps a content. It is secret if any of its users marks it as secret.
    fn keep(&mut self, file: &LocalFile, archive: Vec<u8>) -> ContentHash {
        let hash = ContentHash::of(&archive);
        let new = || Content {
            name: file.name.clone(),
            secret: false,
            archive,
        };
        self.contents.entry(hash.clone()).or_insert_with(new).secret |= file.secret;
        hash
    }

    fn check_total(&mut self) {
        let total: u64 = self
            .contents
            .values()
            .map(|content| content.archive.len() as u64)
            .sum();
        if total <= MAX_TOTAL {
            return;
        }
        let biggest = self
            .contents
            .values()
            .max_by_key(|content| content.archive.len())
            .expect("contents above the limit are at least one");
        let name = &biggest.name;
        self.found.diagnostics.push(Diagnostic {
            severity: Severity::Error,
            rule: Rule::File,
            file: PathBuf::new(),
            line: 0,
            column: 0,
            length: 0,
            path: String::new(),
            message: format!(
                "the files of this deployment have {} MiB, more than the limit of {} MiB; the largest is {name}",
                total >> 20,
                MAX_TOTAL >> 20
            ),
            label: None,
            hint: Some(TOO_MUCH.to_owned()),
        });
    }

    fn error(&mut self, file: &LocalFile, message: String, hint: &str) {
        self.say(file, Severity::Error, message, hint);
    }

    /// A warning, or an error with `--strict`.
    fn warning(&mut self, file: &LocalFile, message: String, hint: &str) {
        let severity = if self.known.strict {
            Severity::Error
        } else {
            Severity::Warning
        };
        self.say(file, severity, message, hint);
    }

    fn say(&mut self, file: &LocalFile, severity: Severity, message: String, hint: &str) {
        let diagnostic = Diagnostic {
            severity,
            rule: Rule::File,
            file: file.file.clone(),
            line: file.line,
            column: file.column,
            length: 1,
            path: String::new(),
            message,
            label: None,
            hint: Some(hint.to_owned()).filter(|hint| !hint.is_empty()),
        };
        // Two services may use one config.
        if !self.found.diagnostics.contains(&diagnostic) {
            self.found.diagnostics.push(diagnostic);
        }
    }
}

/// The message and hint for a content that cannot be packed.
fn problem(error: &PackError) -> Problem {
    let hint = match error {
        PackError::Size { .. } | PackError::Entries { .. } => TOO_MUCH,
        PackError::Read { .. } => "create it, or correct the path",
        PackError::Link { .. } => {
            "replace the link with a copy of the file; links that stay inside the folder are allowed"
        }
        PackError::Path { .. } | PackError::Kind => "",
    };
    Problem::new(error.to_string(), hint)
}

#[cfg(test)]
mod tests;
