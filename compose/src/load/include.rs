//! `include`: other projects' files, each read with its own directory and variables, below what the
//! including file says.

use std::path::{Path, PathBuf};

use super::model::{File, Loader, MISSING, Scope};
use crate::diagnostic::Rule;
use crate::environment::Environment;
use crate::node::{Entry, Map, Node, Span, Value};
use crate::report::Place;
use crate::reset::{self, Places};
use crate::schema::{self, Shape};
use crate::{canonical, merge};

/// What a file gives to those that include it.
const IMPORTED: [&str; 6] = [
    "services", "volumes", "networks", "secrets", "configs", "models",
];

/// Deepest nesting of includes: bounds recursion.
const MAX_NESTING: usize = 50;

impl Loader<'_> {
    /// Brings everything that the document includes into it. What it says itself counts more.
    pub(super) fn include(
        &mut self,
        document: &mut Node,
        path: &Path,
        places: &Places,
        scope: &Scope<'_>,
    ) {
        let Value::Map(map) = &mut document.value else {
            return;
        };
        let Some(include) = map.shift_remove("include") else {
            return;
        };
        let mut including = scope.including.clone();
        including.push(path);
        if including.len() > MAX_NESTING {
            self.report.error(
                Rule::Reference,
                include.key,
                format!("files include one another more than {MAX_NESTING} levels deep"),
                "include the files side by side",
            );
            return;
        }
        let mut loader = self.at("include");
        for (index, item) in include.node.items().iter().enumerate() {
            let loader = &mut loader.at_item(index);
            if let Some(imported) = loader.included(item, &including, scope) {
                import(imported, document, places);
            }
        }
    }

    /// What one item includes. `None`: why has been reported.
    fn included(&mut self, item: &Node, including: &[&Path], scope: &Scope<'_>) -> Option<Node> {
        let paths: Vec<(&str, Span)> = item
            .get("path")
            .map_or(&[][..], Node::items)
            .iter()
            .filter_map(text)
            .collect();
        let Some((first, _)) = paths.first() else {
            if item.value != Value::Broken
                && item
                    .get("path")
                    .is_none_or(|node| node.value != Value::Broken)
            {
                self.report.invalid(
                    item.span,
                    "an included file needs `path`",
                    "add `path:`, the file to include",
                );
            }
            return None;
        };
        let first = inside(&scope.directory, first);
        let directory = match item
            .get_text("project_directory")
            .filter(|directory| !directory.is_empty())
        {
            Some(directory) => inside(&scope.directory, directory),
            None => first.parent().unwrap_or(Path::new("/")).to_owned(),
        };
        let mut files = Vec::new();
        for (index, (path, span)) in paths.iter().enumerate() {
            if is_remote(path) {
                self.report.refuse(
                    *span,
                    format!("`{path}` is not a file on this computer"),
                    "download it, and include the local copy",
                );
                continue;
            }
            let path = inside(&scope.directory, path);
            if index == 0 && including.contains(&path.as_path()) {
                self.circle_of_files(&path, including, *span);
                return None;
            }
            files.extend(self.read(&path, *span));
        }
        let variables = self.variables(item, &directory, scope)?;
        if files.iter().all(|file: &File| file.documents.is_empty()) {
            return None;
        }
        let inner = Scope {
            directory,
            variables,
            including: including.to_vec(),
        };
        Some(self.at_top().model(files, &inner))
    }

    /// The variables for an included file: those of the including one count more than its own
    /// `.env`.
    fn variables(
        &mut self,
        item: &Node,
        directory: &Path,
        scope: &Scope<'_>,
    ) -> Option<Environment> {
        let mut variables = scope.variables.nested();
        if self.is_full() {
            return Some(variables);
        }
        let named = item.get("env_file").map_or(&[][..], Node::items);
        if named.is_empty() {
            let path = directory.join(".env");
            // Most directories have none.
            if let Ok(text) = self.files.read(&path) {
                self.add_variables(path, text, &mut variables);
            }
            return Some(variables);
        }
        for (name, span) in named
            .iter()
            .filter_map(text)
            .filter(|(name, _)| *name != "/dev/null")
        {
            let path = inside(&scope.directory, name);
            match self.files.read(&path) {
                Ok(text) => self.add_variables(path, text, &mut variables),
                Err(error) => {
                    let shown = self.shown(&path);
                    self.report.cannot_read(span, &shown, &error, MISSING);
                    return None;
                }
            }
        }
        Some(variables)
    }

    fn circle_of_files(&mut self, path: &Path, including: &[&Path], span: Span) {
        let circle = including
            .iter()
            .copied()
            .skip_while(|file| *file != path)
            .chain([path]);
        let circle: Vec<_> = circle
            .map(|path| format!("`{}`", self.shown(path)))
            .collect();
        self.report.error(
            Rule::Reference,
            span,
            format!(
                "files include each other in a circle: {}",
                circle.join(" → ")
            ),
            "remove one of these `include`",
        );
    }
}

fn text(node: &Node) -> Option<(&str, Span)> {
    Some((node.as_text()?, node.span))
}

fn inside(directory: &Path, path: &str) -> PathBuf {
    canonical::clean(&directory.join(path))
}

/// What Docker Compose would fetch from elsewhere.
fn is_remote(path: &str) -> bool {
    [
        "https://",
        "http://",
        "git://",
        "ssh://",
        "github.com/",
        "git@",
        "oci://",
    ]
    .iter()
    .any(|prefix| path.starts_with(prefix))
}

/// Puts what was included below the document.
fn import(imported: Node, document: &mut Node, places: &Places) {
    let Value::Map(mut imported) = imported.value else {
        return;
    };
    let Value::Map(own) = &mut document.value else {
        return;
    };
    for kind in IMPORTED {
        let Some(Entry { key, node }) = imported.shift_remove(kind) else {
            continue;
        };
        let Value::Map(map) = node.value else {
            continue;
        };
        let target = own.entry(kind.to_owned()).or_insert_with(|| Entry {
            key,
            node: Node::new(Value::Map(Map::new()), node.span),
        });
        let Value::Map(target) = &mut target.node.value else {
            continue;
        };
        let shape = item_shape(kind);
        for (name, mut entry) in map {
            match target.get_mut(&name) {
                None => {
                    target.insert(name, entry);
                }
                Some(known) => {
                    reset::apply(places, &mut entry.node, &[kind, &name]);
                    let own = std::mem::replace(&mut known.node, Node::new(Value::Null, known.key));
                    known.node = merge::merge(entry.node, own, shape);
                }
            }
        }
    }
}

/// The shape of one service, volume, ….
fn item_shape(kind: &str) -> Shape {
    match schema::find(schema::TOP, kind).map(|key| key.shape) {
        Some(Shape::Named(item)) => *item,
        _ => Shape::Any,
    }
}
