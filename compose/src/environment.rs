//! Where variables come from: for the file itself, and for each service's containers.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::diagnostic::Rule;
use crate::dotenv;
use crate::node::{Entry, Map, Node, Value};
use crate::parse::MAX_BYTES;
use crate::report::Report;
use crate::request::{ReadFile, SourceFile};

/// Variables of a load: the process's, then those of `.env`.
#[derive(Debug, Default, Clone)]
pub(crate) struct Environment {
    process: BTreeMap<String, String>,
    dotenv: BTreeMap<String, String>,
}

impl Environment {
    pub(crate) fn new(process: &BTreeMap<String, String>) -> Self {
        Self { process: process.clone(), dotenv: BTreeMap::new() }
    }

    /// Adds a `.env` file's variables, below the process's in rank and above those of files before it.
    pub(crate) fn add_dotenv(&mut self, text: &str, file: u32, report: &mut Report) {
        let read = dotenv::parse(text, file, &|name| self.get(name), report);
        self.dotenv.extend(read.into_iter().filter_map(|(name, value)| Some((name, value?))));
    }

    /// For an included file: what is known stays, its own `.env` comes below.
    pub(crate) fn nested(&self) -> Self {
        Self { process: self.all(), dotenv: BTreeMap::new() }
    }

    /// Every variable with its value.
    pub(crate) fn all(&self) -> BTreeMap<String, String> {
        let mut all = self.dotenv.clone();
        all.extend(self.process.clone());
        all
    }

    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.process.get(name).or_else(|| self.dotenv.get(name)).cloned()
    }

    /// A variable that tells Compose something about the project.
    pub(crate) fn set_default(&mut self, name: &str, value: &str) {
        self.dotenv.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
}

/// The process's variables, and below them those of `.env` files, of which later ones count. What is wrong with the files is for
/// [`crate::load_with`] to say.
pub fn environment(process: &BTreeMap<String, String>, dotenv: &[SourceFile]) -> BTreeMap<String, String> {
    let mut environment = Environment::new(process);
    for file in dotenv.iter().filter(|file| file.text.len() <= MAX_BYTES) {
        environment.add_dotenv(&file.text, 0, &mut Report::new(false));
    }
    environment.all()
}

/// Gives every service its final `environment`: that of its files, then its own, names without value from `environment`.
pub(crate) fn resolve(
    services: &mut Map,
    environment: &Environment,
    files: &dyn ReadFile,
    read: &mut Vec<SourceFile>,
    report: &mut Report,
) {
    for (name, service) in services {
        let Value::Map(service) = &mut service.node.value else { continue };
        report.path_push(name);
        let mut variables = Map::new();
        if let Some(list) = service.shift_remove("env_file") {
            for item in list.node.items() {
                env_file(item, &mut variables, environment, files, read, report);
            }
        }
        if let Some(own) = service.get_mut("environment")
            && let Value::Map(map) = &mut own.node.value
        {
            for (name, entry) in std::mem::take(map) {
                let Entry { key, mut node } = entry;
                if node.value == Value::Null
                    && let Some(value) = environment.get(&name)
                {
                    node.value = Value::Text(value);
                }
                variables.insert(name, Entry { key, node });
            }
            *map = variables;
        } else if !variables.is_empty() {
            let span = variables.values().next().map(|entry| entry.key).unwrap_or_default();
            let node = Node::new(Value::Map(variables), span);
            service.insert("environment".into(), Entry { key: span, node });
        }
        if let Some(build) = service.get_mut("build")
            && let Value::Map(build) = &mut build.node.value
            && let Some(args) = build.get_mut("args")
            && let Value::Map(args) = &mut args.node.value
        {
            for (name, entry) in args {
                if entry.node.value == Value::Null
                    && let Some(value) = environment.get(name)
                {
                    entry.node.value = Value::Text(value);
                }
            }
        }
        report.path_pop();
    }
}

fn env_file(
    item: &Node,
    variables: &mut Map,
    environment: &Environment,
    files: &dyn ReadFile,
    read: &mut Vec<SourceFile>,
    report: &mut Report,
) {
    let Some(path) = item.get_text("path") else { return };
    let span = item.get("path").map_or(item.span, |node| node.span);
    let required = item.get("required").and_then(Node::as_bool).unwrap_or(true);
    let text = match files.read(Path::new(path)) {
        Ok(text) if text.len() > MAX_BYTES => {
            report
                .error(Rule::File, span, format!("`{path}` is larger than {} MB", MAX_BYTES >> 20))
                .hint("a file of variables is not that large: is it the right one?");
            return;
        }
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => return,
        Err(error) => {
            report
                .error(Rule::File, span, format!("cannot read `{path}`: {error}"))
                .hint("create it, correct the path, or say `required: false`");
            return;
        }
    };
    let file = report.add_file(path.into());
    let read_variables: dotenv::Variables = if item.get_text("format") == Some("raw") {
        raw(&text)
    } else {
        let earlier = |name: &str| variables.get(name)?.node.as_text().map(str::to_owned);
        dotenv::parse(&text, file, &|name| environment.get(name).or_else(|| earlier(name)), report)
    };
    read.push(SourceFile { path: path.into(), text });
    for (name, value) in read_variables {
        if let Some(value) = value {
            variables.insert(name, Entry { key: span, node: Node::text(value, span) });
        }
    }
}

/// `NAME=value` lines, taken as they are.
fn raw(text: &str) -> dotenv::Variables {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), Some(value.to_owned())))
        .collect()
}
