//! The inputs and outputs of a load. Nothing is read from disk or from the process.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::project::Project;

/// One file's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The path as the user would write it; diagnostics show it.
    pub path: PathBuf,
    pub text: String,
}

/// All inputs that decide what a compose file means.
#[derive(Debug, Clone)]
pub struct LoadRequest {
    /// Compose files; later ones override earlier ones.
    pub files: Vec<SourceFile>,
    /// `--project-name`: beats every other source of the name.
    pub project_name: Option<String>,
    /// Absolute: relative paths start here, and its last part is the default name.
    pub directory: PathBuf,
    /// The process's environment; it beats `.env`.
    pub environment: BTreeMap<String, String>,
    /// `.env` files; later ones override earlier ones, and may use their variables.
    pub dotenv: Vec<SourceFile>,
    /// Active profiles; `*` is all of them. `COMPOSE_PROFILES` counts where none is given.
    pub profiles: Vec<String>,
    /// Services that the user names, as `web` or `shop/web`: their profiles are active too.
    pub services: Vec<String>,
    /// Keys that are not honoured are errors.
    pub strict: bool,
    /// The project is only read and shown: what a deployment would refuse, and Docker Compose
    /// reads, is a warning.
    pub reading: bool,
    /// Whether variables are put in (they are by default). Without, values stay as they are
    /// written: the document can be printed, but what services and volumes say may hold `${…}`
    /// where a number or a name belongs.
    pub interpolate: bool,
}

impl Default for LoadRequest {
    /// No files, no variables, everything put in.
    fn default() -> Self {
        Self {
            files: Vec::new(),
            project_name: None,
            directory: PathBuf::new(),
            environment: BTreeMap::new(),
            dotenv: Vec::new(),
            profiles: Vec::new(),
            services: Vec::new(),
            strict: false,
            reading: false,
            interpolate: true,
        }
    }
}

/// The result of a load.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// `None` if there is any error.
    pub project: Option<Project>,
    /// In order of file and position.
    pub diagnostics: Vec<Diagnostic>,
    /// Keys that were read and have no effect here, by their paths in the document, in the order
    /// of the file; at most 200.
    pub no_effect: Vec<String>,
    /// Files that were read on the way (`env_file`), for [`crate::render()`].
    pub read: Vec<SourceFile>,
}

/// Where files that a compose file names come from. The caller owns the disk.
pub trait ReadFile {
    /// The text at an absolute path.
    fn read(&self, path: &Path) -> io::Result<String>;
}

impl<F: Fn(&Path) -> io::Result<String>> ReadFile for F {
    fn read(&self, path: &Path) -> io::Result<String> {
        self(path)
    }
}
