//! Normalises the tree of a file to the long form of each value, by the shapes of the table, and
//! reports values that do not fit.
//!
//! Runs on each file by itself, before files are merged: every value is checked where it was
//! written, and the merge sees one form only. What cannot be read becomes [`Value::Broken`], so
//! that one error makes no others.

mod items;
mod pairs;
mod port;
mod single;
mod volume;
mod whole;

use std::path::{Component, Path, PathBuf};

use indexmap::IndexMap;
pub(crate) use items::without_repeats;
pub(crate) use port::range as port_range;
use uc_api::nearest;
pub(crate) use whole::whole;

use crate::diagnostic::Rule;
use crate::duration;
use crate::node::{self, Entry, Map, Node, Span, Value, insert_default};
use crate::report::{Place, Report};
use crate::schema::{self, Key, Names, Scalar, Shape};

/// Inputs of normalising beside the tree.
pub(crate) struct Context<'a> {
    /// Relative paths start here.
    pub(crate) directory: &'a Path,
    /// What `~` stands for.
    pub(crate) home: Option<&'a str>,
    /// Values of variables, for names without a value in lists.
    pub(crate) lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Whether variables have been replaced. If not, a string with a variable can become a value
    /// of any type.
    pub(crate) interpolated: bool,
    pub(crate) report: &'a mut Report,
}

impl Place for Context<'_> {
    fn report(&mut self) -> &mut Report {
        self.report
    }
}

impl Context<'_> {
    /// An absolute path: as it is, or below the directory, then without `.` and `..`.
    fn absolute(&self, path: &str) -> String {
        absolute(path, self.directory, self.home)
    }

    /// A build context: a path becomes absolute, a URL or another service's image stays.
    fn context(&self, context: &str) -> String {
        let is_path = !is_remote(context) && !context.starts_with("service:");
        if is_path {
            self.absolute(context)
        } else {
            context.to_owned()
        }
    }
}

/// An absolute path as it is, another one below the directory, then without `.` and `..`. Nothing
/// stays nothing.
pub(crate) fn absolute(path: &str, directory: &Path, home: Option<&str>) -> String {
    if path.starts_with('/') || path.is_empty() {
        return path.to_owned();
    }
    let path = match (path.strip_prefix('~'), home) {
        // Even `~other` is below the home directory, as in Docker Compose.
        (Some(rest), Some(home)) => format!("{home}/{rest}"),
        _ => path.to_owned(),
    };
    clean(&directory.join(path)).to_string_lossy().into_owned()
}

/// A Git or archive URL, as Docker recognises one.
pub(crate) fn is_remote(context: &str) -> bool {
    context.contains("://") || context.starts_with("git@") || context.starts_with("github.com/")
}

/// `path` without `.` and `..`, by its text alone.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// One document of a compose file in long form.
pub(crate) fn document(node: Node, cx: &mut Context<'_>) -> Node {
    match node.value {
        Value::Map(_) => canonical(node, Shape::Object(schema::TOP), cx),
        _ => {
            let message = format!("a compose file is a mapping, not {}", node.kind());
            cx.report.invalid(
                node.span,
                message,
                "start with `services:`, and put the services below it",
            );
            Node::new(Value::Map(Map::new()), node.span)
        }
    }
}

/// `node` in the long form of `shape`.
fn canonical(node: Node, shape: Shape, cx: &mut Context<'_>) -> Node {
    if node.value == Value::Broken || keeps_variable(&node, shape, cx) {
        return node;
    }
    let span = node.span;
    let value = match (shape, node.value) {
        (Shape::Any, value) => value,
        (Shape::Text, value @ Value::Text(_)) => value,
        (Shape::OneOf(words), Value::Text(text)) => single::one_of(text, words, span, cx),
        (Shape::Path, Value::Text(text)) => Value::Text(cx.absolute(&text)),
        (Shape::Context, Value::Text(text)) => Value::Text(cx.context(&text)),
        (Shape::Files, Value::Text(text)) => {
            Value::List(vec![Node::text(cx.absolute(&text), span)])
        }
        (Shape::Files, Value::List(items)) => Value::List(each(items, Shape::Path, cx)),
        (
            Shape::NumberOrText,
            value @ (Value::Text(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_)),
        ) => Value::Text(pairs::text_of(&value)),
        (Shape::Count, Value::Text(text)) if text == "all" => Value::Int(-1),
        (Shape::Mode, Value::Text(text)) => {
            match i128::from_str_radix(text.trim_start_matches("0o"), 8) {
                Ok(mode) => Value::Int(mode),
                Err(_) => invalid(
                    format!("`{text}` is not an octal number"),
                    "write permissions in octal, as in `0444`",
                    span,
                    cx,
                ),
            }
        }
        (Shape::Mode, value) => single::typed(value, Shape::Int, span, cx),
        (Shape::Keys, value) => pairs::keys(value, span, cx),
        (Shape::Microseconds, Value::Text(text))
            if text.parse::<i64>().is_err() && duration::parse_duration(&text).is_some() =>
        {
            Value::Text(text)
        }
        (Shape::Microseconds, value @ (Value::Text(_) | Value::Int(_) | Value::Float(_))) => {
            single::typed(value, Shape::Int, span, cx)
        }
        (Shape::Count, value) => single::typed(value, Shape::Int, span, cx),
        (Shape::Bool | Shape::Int | Shape::Number | Shape::Duration | Shape::Size, value) => {
            single::typed(value, shape, span, cx)
        }
        (Shape::List(item) | Shape::Distinct(item), Value::List(items)) => {
            Value::List(each(items, *item, cx))
        }
        (Shape::Set(item), Value::List(items)) => Value::List(unique(each(items, *item, cx))),
        (Shape::TextOrList, value @ Value::Text(_)) => Value::List(vec![Node::new(value, span)]),
        (Shape::TextOrList, Value::List(items)) => {
            Value::List(unique(each(items, Shape::Text, cx)))
        }
        (Shape::Command, value) => single::command(value, span, cx),
        (Shape::Test, value) => single::test(value, span, cx),
        (Shape::Pairs(unset), value) => pairs::pairs(value, unset, span, cx),
        (Shape::Options, value) => pairs::options(value, span, cx),
        (Shape::Contexts, value) => pairs::contexts(value, span, cx),
        (Shape::Hosts, value) => pairs::hosts(value, span, cx),
        (Shape::Named(item), Value::Map(map)) => Value::Map(named(map, *item, cx)),
        (Shape::Object(keys), Value::Map(map)) => Value::Map(object(map, keys, cx)),
        (Shape::Items(short, keys), value) => items::items(value, short, keys, span, cx),
        (Shape::OrObject(scalar, keys), value) => or_object(value, scalar, keys, span, cx),
        (Shape::Names(names, keys), value) => by_name(value, names, keys, span, cx),
        (_, value) => wrong(&value, shape, span, cx),
    };
    Node::new(value, span)
}

/// Whether a value is kept as it is, because it contains a variable that is not replaced yet.
fn keeps_variable(node: &Node, shape: Shape, cx: &Context<'_>) -> bool {
    match &node.value {
        Value::Text(text) => {
            !cx.interpolated
                && text.contains('$')
                && matches!(
                    shape,
                    Shape::OneOf(_)
                        | Shape::Bool
                        | Shape::Int
                        | Shape::Number
                        | Shape::Count
                        | Shape::Duration
                        | Shape::Microseconds
                        | Shape::Size
                        | Shape::OrObject(Scalar::Number | Scalar::Flag | Scalar::All, _)
                )
        }
        _ => false,
    }
}

/// Reports a value of the wrong type and returns a broken one.
fn wrong(value: &Value, shape: Shape, span: Span, cx: &mut Context<'_>) -> Value {
    wrong_type(value, shape, span, cx.report)
}

fn wrong_type(value: &Value, shape: Shape, span: Span, report: &mut Report) -> Value {
    let kind = Node::new(value.clone(), span).kind();
    let expected = shape.expected();
    let path = report.path();
    let name = if path.is_empty() {
        "the file".to_owned()
    } else {
        format!("`{path}`")
    };
    let hint = match (value, shape) {
        (Value::Null, Shape::Named(_)) => {
            "write its entries below it, indented by two spaces".to_owned()
        }
        (Value::Null, _) => "give it a value, or remove the key".to_owned(),
        (Value::List(_), Shape::Named(_)) => "write `name:` in place of `- name:`".to_owned(),
        (Value::Int(_) | Value::Float(_), Shape::Duration) => {
            "add a unit, as in `30s` or `1m30s`".to_owned()
        }
        (
            Value::Int(_) | Value::Float(_) | Value::Bool(_),
            Shape::Text | Shape::OneOf(_) | Shape::Path,
        ) => "put the value in quotes".to_owned(),
        (_, Shape::List(_) | Shape::Set(_) | Shape::Items(..)) => {
            "write each item on its own line, after `- `".to_owned()
        }
        (_, Shape::Object(keys) | Shape::Names(_, keys) | Shape::OrObject(_, keys))
            if !keys.is_empty() =>
        {
            let names: Vec<_> = keys
                .iter()
                .take(4)
                .map(|key| format!("`{}`", key.name))
                .collect();
            format!("write its keys below it, indented: {}, …", names.join(", "))
        }
        _ => format!("write {expected}"),
    };
    report.labelled(
        Rule::Value,
        span,
        format!("{name} must be {expected}, not {kind}"),
        format!("expected {expected}"),
        hint,
    );
    Value::Broken
}

/// Reports an invalid value and returns a broken one.
fn invalid(
    message: impl Into<String>,
    hint: impl Into<String>,
    span: Span,
    cx: &mut Context<'_>,
) -> Value {
    cx.report.invalid(span, message, hint);
    Value::Broken
}

fn each(items: Vec<Node>, item: Shape, cx: &mut Context<'_>) -> Vec<Node> {
    let mut out = Vec::with_capacity(items.len());
    for (index, node) in items.into_iter().enumerate() {
        out.push(canonical(node, item, &mut cx.at_item(index)));
    }
    out
}

/// Later items replace earlier ones with the same text before `=`.
pub(crate) fn unique(items: Vec<Node>) -> Vec<Node> {
    let mut places: IndexMap<String, Node> = IndexMap::with_capacity(items.len());
    let mut others = Vec::new();
    for item in items {
        match item.as_text() {
            Some(text) => {
                let name = text
                    .split_once('=')
                    .map_or(text, |(name, _)| name)
                    .to_owned();
                places.insert(name, item);
            }
            None => others.push(item),
        }
    }
    places.into_values().chain(others).collect()
}

fn named(map: Map, item: Shape, cx: &mut Context<'_>) -> Map {
    let path = cx.report.path();
    let bare = matches!(path.as_str(), "networks" | "volumes");
    for (name, entry) in map.iter().filter(|_| !path.contains('.')) {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || !name.chars().all(fits) {
            let hint = "use letters, digits, `.`, `_` and `-`";
            cx.report.invalid(
                entry.key,
                format!("invalid name `{name}` in `{path}`"),
                hint,
            );
        }
    }
    map.into_iter()
        .map(|(name, Entry { key, node })| {
            let node = match node.value {
                // Volumes and networks often say nothing more than their name.
                Value::Null if bare => Node::new(Value::Map(Map::new()), node.span),
                Value::Null => node,
                _ => canonical(node, item, &mut cx.at(&name)),
            };
            (name, Entry { key, node })
        })
        .collect()
}

fn object(map: Map, keys: &'static [Key], cx: &mut Context<'_>) -> Map {
    let mut out = Map::with_capacity(map.len());
    for (name, Entry { key, node }) in map {
        let node = match schema::find(keys, &name) {
            // `deploy:` with nothing below it means the same as no `deploy`.
            Some(known)
                if matches!(known.name, "deploy" | "develop") && node.value == Value::Null =>
            {
                continue;
            }
            // An earlier file can have a value.
            Some(known) if node.value == Value::Null && !whole::may_be(known.shape) => node,
            Some(known) => canonical(node, known.shape, &mut cx.at(&name)),
            None if name.starts_with("x-") => node,
            None => {
                unknown(&name, key, &node, keys, cx);
                continue;
            }
        };
        out.insert(name, Entry { key, node });
    }
    out
}

fn unknown(name: &str, span: Span, node: &Node, keys: &'static [Key], cx: &mut Context<'_>) {
    let path = cx.report.path();
    let place = if path.is_empty() {
        "at the top level".to_owned()
    } else {
        format!("in `{path}`")
    };
    let deeper = || {
        let parent = keys.iter().find(|key| {
            !matches!(key.shape, Shape::Named(_))
                && key
                    .shape
                    .keys()
                    .is_some_and(|inner| schema::find(inner, name).is_some())
        })?;
        Some(format!("it belongs below `{}`", parent.name))
    };
    let service_key = || {
        (path.is_empty() && schema::find(schema::SERVICE, name).is_some())
            .then(|| "it belongs to a service, below `services:`; check the indentation".to_owned())
    };
    let service = || {
        (path.is_empty() && (node.get("image").is_some() || node.get("build").is_some()))
            .then(|| "it looks like a service: indent it, and put it below `services:`".to_owned())
    };
    let outside = || {
        schema::find(schema::TOP, name)
            .filter(|_| !path.is_empty())
            .map(|_| "it belongs at the top level; check the indentation".to_owned())
    };
    let hint = deeper()
        .or_else(service_key)
        .or_else(service)
        .or_else(outside)
        .or_else(|| nearest::did_you_mean(name, keys.iter().map(|key| key.name)))
        .unwrap_or_else(|| {
            format!("remove it, or rename it to `x-{name}`: such keys can have any value")
        });
    cx.report.error(
        Rule::UnknownKey,
        span,
        format!("unknown key `{name}` {place}"),
        hint,
    );
}

fn or_object(
    value: Value,
    scalar: Scalar,
    keys: &'static [Key],
    span: Span,
    cx: &mut Context<'_>,
) -> Value {
    match (scalar, value) {
        (_, Value::Map(map)) => Value::Map(object(map, keys, cx)),
        (Scalar::Key(name), value @ Value::Text(_)) => {
            let key = schema::find(keys, name).expect("a scalar stands for a key of the table");
            let node = canonical(Node::new(value, span), key.shape, cx);
            Value::Map(Map::from([(name.to_owned(), Entry { key: span, node })]))
        }
        (Scalar::Number, value @ (Value::Int(_) | Value::Text(_))) => {
            single::typed(value, Shape::Int, span, cx)
        }
        (Scalar::Flag, value @ (Value::Bool(_) | Value::Text(_))) => {
            single::typed(value, Shape::Bool, span, cx)
        }
        (Scalar::All, Value::Text(text)) if text == "all" => {
            Value::List(vec![node::map(span, [("count", Value::Int(-1))])])
        }
        (Scalar::All, Value::List(list)) => {
            let mut list = each(list, Shape::Object(keys), cx);
            for item in &mut list {
                if let Value::Map(entries) = &mut item.value {
                    items::all_devices(entries, item.span);
                }
            }
            Value::List(list)
        }
        (scalar, value) => wrong(&value, Shape::OrObject(scalar, keys), span, cx),
    }
}

fn by_name(
    value: Value,
    names: Names,
    keys: &'static [Key],
    span: Span,
    cx: &mut Context<'_>,
) -> Value {
    let mut seen = std::collections::HashSet::new();
    let entries: Vec<(String, Entry)> = match value {
        Value::List(items) => each(items, Shape::Text, cx)
            .into_iter()
            .filter_map(|item| {
                let name = item.as_text()?.to_owned();
                if !seen.insert(name.clone()) {
                    whole::repeats(&name, item.span, cx.report);
                }
                let value = match names {
                    Names::Dependency => {
                        let mut entries = Map::new();
                        dependency_defaults(&mut entries, item.span);
                        Value::Map(entries)
                    }
                    Names::Bare => Value::Null,
                };
                Some((name, Entry::new(value, item.span)))
            })
            .collect(),
        Value::Map(map) => map
            .into_iter()
            .map(|(name, Entry { key, node })| {
                let cx = &mut cx.at(&name);
                let bare = names == Names::Bare && node.value == Value::Null;
                let mut node = if bare {
                    node
                } else {
                    canonical(node, Shape::Object(keys), cx)
                };
                if let (Names::Dependency, Value::Map(entries)) = (names, &mut node.value) {
                    if !entries.contains_key("condition") {
                        let hint =
                            "add `condition: service_started` or `condition: service_healthy`";
                        cx.report
                            .invalid(key, "a dependency in long form needs `condition`", hint);
                    }
                    dependency_defaults(entries, key);
                }
                (name, Entry { key, node })
            })
            .collect(),
        other => return wrong(&other, Shape::Names(names, keys), span, cx),
    };
    Value::Map(entries.into_iter().collect())
}

/// The defaults of a dependency that is only a name.
pub(crate) fn dependency_defaults(entries: &mut Map, span: Span) {
    insert_default(
        entries,
        "condition",
        Value::Text("service_started".into()),
        span,
    );
    insert_default(entries, "required", Value::Bool(true), span);
}
