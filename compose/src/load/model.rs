//! Files of one working directory and one set of variables as one tree: the main files, or those of
//! an `include`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::canonical::{self, Context};
use crate::diagnostic::Rule;
use crate::environment::Environment;
use crate::node::{Entry, Map, Node, Span, Value};
use crate::parse::{self, MAX_BYTES};
use crate::report::{Place, Report};
use crate::request::{LoadRequest, ReadFile, SourceFile};
use crate::reset::{self, Places};
use crate::schema::{self, Shape};
use crate::{interpolate, merge};

/// Most files that one project may bring together by `include` and `extends`: bounds what a load
/// reads.
const MAX_FILES: usize = 1_000;

/// Most values of all files together, those of extended services counted each time: a bound on
/// memory, twice what one file may have.
const MAX_NODES: usize = 2_000_000;

/// The next step for a file that does not exist.
pub(super) const MISSING: &str = "create it, or correct the path";

/// A load on its way.
pub(super) struct Loader<'a> {
    pub(super) request: &'a LoadRequest,
    pub(super) files: &'a dyn ReadFile,
    pub(super) read: &'a mut Vec<SourceFile>,
    pub(super) report: &'a mut Report,
    /// Unset variables that have been warned about.
    pub(super) warned: BTreeSet<String>,
    /// Files that services of the document at hand extend, by path.
    pub(super) extended: HashMap<PathBuf, Option<Rc<Extended>>>,
    /// Circles of `extends` that have been reported, each as its services in order.
    pub(super) circles: HashSet<Vec<String>>,
    /// Values so far.
    pub(super) nodes: usize,
}

/// A file whose services others extend.
pub(super) struct Extended {
    pub(super) tree: Node,
    pub(super) places: Places,
}

/// A file of a model.
pub(super) struct File {
    /// Absolute.
    pub(super) path: PathBuf,
    pub(super) documents: Vec<Node>,
}

/// What a model's files have in common.
pub(super) struct Scope<'a> {
    /// Relative paths start here.
    pub(super) directory: PathBuf,
    pub(super) variables: Environment,
    /// Files that include each other, down to this model.
    pub(super) including: Vec<&'a Path>,
}

impl Place for Loader<'_> {
    fn report(&mut self) -> &mut Report {
        self.report
    }
}

impl Loader<'_> {
    /// All documents of the files as one tree in long form, with paths absolute.
    pub(super) fn model(&mut self, files: Vec<File>, scope: &Scope<'_>) -> Node {
        let mut tree: Option<Node> = None;
        for file in files {
            for document in file.documents {
                tree = Some(self.document(document, tree, &file.path, scope));
            }
        }
        let mut tree = tree.unwrap_or_else(|| Node::new(Value::Map(Map::new()), Span::default()));
        complete_builds(&mut tree, &scope.directory);
        resolve_devices(
            &mut tree,
            &scope.directory,
            scope.variables.get("HOME").as_deref(),
        );
        tree
    }

    /// A document on top of what came before it.
    fn document(
        &mut self,
        document: Node,
        earlier: Option<Node>,
        path: &Path,
        scope: &Scope<'_>,
    ) -> Node {
        let (mut document, places) = self.normal(document, &scope.directory, &scope.variables);
        self.include(&mut document, path, &places, scope);
        self.extend(&mut document, path, &places, scope);
        let Some(mut earlier) = earlier else {
            return document;
        };
        reset::apply(&places, &mut earlier, &[]);
        merge::merge(earlier, document, Shape::Object(schema::TOP))
    }

    /// A document with variables put in and in long form, and the places that it resets or
    /// overrides.
    pub(super) fn normal(
        &mut self,
        mut document: Node,
        directory: &Path,
        variables: &Environment,
    ) -> (Node, Places) {
        let places = reset::take(&mut document);
        if self.request.interpolate {
            let lookup = |name: &str| variables.get(name);
            interpolate::tree(&mut document, &lookup, &mut self.warned, self.report);
        }
        let home = variables.get("HOME");
        let mut context = Context {
            directory,
            lookup: &|name| variables.get(name),
            home: home.as_deref(),
            interpolated: self.request.interpolate,
            report: self.report,
        };
        (canonical::document(document, &mut context), places)
    }

    /// A path as people would name it.
    pub(super) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.request.directory)
            .unwrap_or(path)
            .display()
            .to_string()
    }

    /// Whether no more files are read.
    pub(super) fn is_full(&self) -> bool {
        self.read.len() >= MAX_FILES
    }

    /// Reads a file that another one names at `span`; what goes wrong is reported there.
    pub(super) fn read(&mut self, path: &Path, span: Span) -> Option<File> {
        let shown = self.shown(path);
        if self.is_full() {
            self.report.error(
                Rule::File,
                span,
                format!("the project has more than {MAX_FILES} files"),
                "use fewer files in `include`, `extends` and `env_file`",
            );
            return None;
        }
        let text = match self.files.read(path) {
            Ok(text) => text,
            Err(error) => {
                self.report.cannot_read(span, &shown, &error, MISSING);
                return None;
            }
        };
        let source = SourceFile {
            path: path.to_owned(),
            text,
        };
        let file = self.report.add_file(path.to_owned());
        let documents = self.parse(&source, file);
        self.read.push(source);
        Some(File {
            path: path.to_owned(),
            documents,
        })
    }

    /// Whether so many more values are within the limit; if not, that is said at `span`.
    pub(super) fn afford(&mut self, nodes: usize, span: Span) -> bool {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            self.report.error(
                Rule::File,
                span,
                format!("the project has more than {MAX_NODES} values"),
                "include and extend less; an extended service counts each time",
            );
        }
        self.nodes <= MAX_NODES
    }

    /// Adds the variables of a `.env` file that was read.
    pub(super) fn add_variables(
        &mut self,
        path: PathBuf,
        text: String,
        variables: &mut Environment,
    ) {
        let file = self.report.add_file(path.clone());
        let source = SourceFile { path, text };
        if small_enough(&source, file, self.report) {
            variables.add_dotenv(&source.text, file, self.report);
        }
        self.read.push(source);
    }

    /// The documents of a text; none if it is too large, empty or not YAML.
    pub(super) fn parse(&mut self, source: &SourceFile, file: u32) -> Vec<Node> {
        if !small_enough(source, file, self.report) {
            return Vec::new();
        }
        let errors = self.report.errors();
        let documents = parse::parse(&source.text, file, self.report);
        if documents.is_empty() && self.report.errors() == errors {
            self.report.error(
                Rule::File,
                Span::of_file(file),
                "the file is empty",
                "start with `services:`, and put the services below it",
            );
        }
        let nodes = documents.iter().map(Node::count).sum();
        if self.afford(nodes, Span::of_file(file)) {
            documents
        } else {
            Vec::new()
        }
    }
}

/// Whether a file is within the limit; if not, that is said.
pub(super) fn small_enough(source: &SourceFile, file: u32, report: &mut Report) -> bool {
    if source.text.len() <= MAX_BYTES {
        return true;
    }
    let megabytes = MAX_BYTES >> 20;
    report.error(
        Rule::File,
        Span::of_file(file),
        format!("the file is larger than {megabytes} MB"),
        "check that this is the right file; no compose file is that large",
    );
    false
}

/// Gives every build its context: without one it is the directory itself.
fn complete_builds(tree: &mut Node, directory: &Path) {
    let services = tree.map_of_mut("services").into_iter().flatten();
    for (_, service) in services {
        let Some(build) = service
            .node
            .as_map_mut()
            .and_then(|map| map.get_mut("build"))
        else {
            continue;
        };
        let span = build.key;
        let Some(build) = build.node.as_map_mut() else {
            continue;
        };
        build.entry("context".into()).or_insert_with(|| {
            let here = canonical::clean(directory).to_string_lossy().into_owned();
            Entry::new(Value::Text(here), span)
        });
    }
}

/// A volume of the local driver that is a bind mount has a path of this computer, too.
fn resolve_devices(tree: &mut Node, directory: &Path, home: Option<&str>) {
    let volumes = tree.map_of_mut("volumes").into_iter().flatten();
    for (_, Entry { node: volume, .. }) in volumes {
        let option = |key: &str| volume.find(&["driver_opts", key]).and_then(Node::as_text);
        let is_bind = volume.get_text("driver") == Some("local") && option("o") == Some("bind");
        if is_bind
            && let Some(options) = volume.map_of_mut("driver_opts")
            && let Some(entry) = options.get_mut("device")
            && let Value::Text(device) = &mut entry.node.value
        {
            *device = canonical::absolute(device, directory, home);
        }
    }
}
