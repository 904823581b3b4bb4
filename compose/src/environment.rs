//! Where variables come from: for the file itself, and for each service's containers.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::diagnostic::Rule;
use crate::dotenv;
use crate::node::{Entry, Map, Node, Span, Value};
use crate::parse::MAX_BYTES;
use crate::report::{Place, Report};
use crate::request::{ReadFile, SourceFile};

/// Variables of a load: those of the process, which come first, and those of `.env`.
#[derive(Debug, Default, Clone)]
pub(crate) struct Environment {
    process: BTreeMap<String, String>,
    dotenv: BTreeMap<String, String>,
}

impl Environment {
    pub(crate) fn new(process: &BTreeMap<String, String>) -> Self {
        Self {
            process: process.clone(),
            dotenv: BTreeMap::new(),
        }
    }

    /// Adds a `.env` file's variables, below the process's in rank and above those of files before
    /// it.
    pub(crate) fn add_dotenv(&mut self, text: &str, file: u32, report: &mut Report) {
        let read = dotenv::parse(
            text,
            file,
            &|name| self.process.get(name).cloned(),
            &|name| self.dotenv.get(name).cloned(),
            report,
        );
        self.dotenv.extend(
            read.into_iter()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    }

    /// The variables for an included file, whose own `.env` comes below all that are known.
    pub(crate) fn nested(&self) -> Self {
        Self {
            process: self.all(),
            dotenv: BTreeMap::new(),
        }
    }

    /// Every variable with its value.
    pub(crate) fn all(&self) -> BTreeMap<String, String> {
        let mut all = self.dotenv.clone();
        all.extend(self.process.clone());
        all
    }

    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.process
            .get(name)
            .or_else(|| self.dotenv.get(name))
            .cloned()
    }

    /// A variable that tells Compose something about the project.
    pub(crate) fn set_default(&mut self, name: &str, value: &str) {
        self.dotenv
            .entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    }
}

/// The process's variables, and below them those of `.env` files, of which later ones count. What
/// is wrong with the files is for
/// [`crate::load_with`] to say.
pub fn environment(
    process: &BTreeMap<String, String>,
    dotenv: &[SourceFile],
) -> BTreeMap<String, String> {
    let mut environment = Environment::new(process);
    for file in dotenv.iter().filter(|file| file.text.len() <= MAX_BYTES) {
        let mut report = Report::new(false);
        let index = report.add_file(file.path.clone());
        environment.add_dotenv(&file.text, index, &mut report);
    }
    environment.all()
}

/// Files that services name, read once for each mention.
pub(crate) struct Reader<'a> {
    pub(crate) files: &'a dyn ReadFile,
    pub(crate) read: &'a mut Vec<SourceFile>,
    pub(crate) report: &'a mut Report,
}

impl Place for Reader<'_> {
    fn report(&mut self) -> &mut Report {
        self.report
    }
}

impl Reader<'_> {
    /// The text of a file and its index in the report. Errors are reported at `span`. With
    /// `required` false the file can be missing.
    fn text(&mut self, path: &str, span: Span, required: Option<bool>) -> Option<(String, u32)> {
        let text = match self.files.read(Path::new(path)) {
            Ok(text) if text.len() > MAX_BYTES => {
                self.report.error(
                    Rule::File,
                    span,
                    format!("`{path}` is larger than {} MB", MAX_BYTES >> 20),
                    "check that this is the right file; no such file is that large",
                );
                return None;
            }
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && required == Some(false) => {
                return None;
            }
            Err(error) => {
                let missing = match required {
                    Some(_) => "create it, correct the path, or set `required: false`",
                    None => "create it, or correct the path",
                };
                self.report.cannot_read(span, path, &error, missing);
                return None;
            }
        };
        let file = self.report.add_file(path.into());
        self.read.push(SourceFile {
            path: path.into(),
            text: text.clone(),
        });
        Some((text, file))
    }
}

/// Gives every service its final `environment` (that of its files, then its own, names without
/// value from where `uc` runs) and `labels` (likewise).
pub(crate) fn resolve(services: &mut Map, environment: &Environment, reader: &mut Reader<'_>) {
    for (name, Entry { node: service, .. }) in services {
        let reader = &mut reader.at(name);
        if let Some(own) = service.map_of_mut("environment") {
            from_environment(own, environment);
        }
        env_files(service, environment, reader);
        label_files(service, reader);
        let build = service.get_mut("build");
        if let Some(args) = build.and_then(|build| build.map_of_mut("args")) {
            from_environment(args, environment);
        }
        of_pre_deploy(service, environment);
    }
}

fn env_files(service: &mut Node, environment: &Environment, reader: &mut Reader<'_>) {
    let own = service
        .map_of_mut("environment")
        .cloned()
        .unwrap_or_default();
    let files = service
        .as_map_mut()
        .and_then(|map| map.shift_remove("env_file"));
    let Some(files) = files else { return };
    let mut variables = Map::new();
    for item in files.node.items() {
        env_file(item, &mut variables, &own, environment, reader);
    }
    variables.extend(own);
    put(service, "environment", variables, files.key);
}

/// Gives names without a value in `x-pre_deploy.environment` the value that is set, in the form
/// that the file has: the key is not one of the table's, so it is not in long form.
fn of_pre_deploy(service: &mut Node, environment: &Environment) {
    let hook = service.get_mut("x-pre_deploy");
    let pairs = hook.and_then(|hook| hook.get_mut("environment"));
    match pairs.map(|pairs| &mut pairs.value) {
        Some(Value::Map(map)) => from_environment(map, environment),
        Some(Value::List(items)) => {
            for item in items {
                if let Value::Text(text) = &mut item.value
                    && !text.contains('=')
                    && let Some(value) = environment.get(text)
                {
                    *text = format!("{text}={value}");
                }
            }
        }
        _ => {}
    }
}

fn label_files(service: &mut Node, reader: &mut Reader<'_>) {
    let files = service.as_map().and_then(|map| map.get("label_file"));
    let Some(files) = files.cloned() else { return };
    let mut labels = Map::new();
    for item in files.node.items() {
        let Some(path) = item.as_text() else { continue };
        let Some((text, file)) = reader.text(path, item.span, None) else {
            continue;
        };
        let earlier = |name: &str| labels.get(name).and_then(value);
        let read = dotenv::parse(&text, file, &|_| None, &earlier, reader.report);
        add(&mut labels, read, item.span);
    }
    if let Some(own) = service.map_of_mut("labels") {
        labels.extend(std::mem::take(own));
    }
    put(service, "labels", labels, files.key);
}

fn env_file(
    item: &Node,
    variables: &mut Map,
    own: &Map,
    environment: &Environment,
    reader: &mut Reader<'_>,
) {
    let Some((Node { span, .. }, path)) = item.get_text_node("path") else {
        return;
    };
    let required = item.get("required").and_then(Node::as_bool).unwrap_or(true);
    let Some((text, file)) = reader.text(path, *span, Some(required)) else {
        return;
    };
    let known = |name: &str| {
        environment
            .get(name)
            .or_else(|| own.get(name).and_then(value))
    };
    let earlier = |name: &str| variables.get(name).and_then(value);
    let read = if item.get_text("format") == Some("raw") {
        dotenv::raw(&text, file, &known, reader.report)
    } else {
        dotenv::parse(&text, file, &known, &earlier, reader.report)
    };
    add(variables, read, *span);
}

fn add(map: &mut Map, read: dotenv::Variables, span: Span) {
    let given = read
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    map.extend(given.map(|(name, value)| (name, Entry::new(Value::Text(value), span))));
}

fn value(entry: &Entry) -> Option<String> {
    entry.node.as_text().map(str::to_owned)
}

fn from_environment(map: &mut Map, environment: &Environment) {
    for (name, entry) in map
        .iter_mut()
        .filter(|(_, entry)| entry.node.value == Value::Null)
    {
        if let Some(value) = environment.get(name) {
            entry.node.value = Value::Text(value);
        }
    }
}

/// Puts the pairs where a value of the wrong type does not stand.
fn put(service: &mut Node, key: &str, map: Map, span: Span) {
    let Some(service) = service.as_map_mut().filter(|_| !map.is_empty()) else {
        return;
    };
    let earlier = service
        .entry(key.to_owned())
        .or_insert_with(|| Entry::new(Value::Map(Map::new()), span));
    if let Some(earlier) = earlier.node.as_map_mut() {
        *earlier = map;
    }
}
