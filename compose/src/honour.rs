//! Says what a file asks for and will not get: the table's statuses, applied to the merged tree.

use crate::diagnostic::Rule;
use crate::node::{Entry, Node, Value};
use crate::report::Report;
use crate::schema::{self, Key, Shape, Status};

/// Reports every key below `node` that is not honoured, and refuses those that are refused.
pub(crate) fn check(node: &Node, keys: &'static [Key], report: &mut Report) {
    for (name, entry) in node.entries() {
        let Some(key) = schema::find(keys, name) else {
            continue;
        };
        if says_nothing(name, &entry.node) {
            continue;
        }
        report.path_push(name);
        one(key, entry, report);
        report.path_pop();
    }
}

fn one(key: &'static Key, Entry { key: span, node }: &Entry, report: &mut Report) {
    match key.status {
        Status::Honoured(_) => below(node, key.shape, report),
        Status::Reported(reason) => {
            let _ = report
                .not_honoured(*span, format!("`{}` is not honoured: {reason}", key.name))
                .label("read, and without effect");
        }
        Status::Refused(reason) => {
            report
                .error(
                    Rule::Refused,
                    *span,
                    format!("`{}` is refused: {reason}", key.name),
                )
                .hint("remove it; `docs/compose.md` says what each key does");
        }
    }
}

fn below(node: &Node, shape: Shape, report: &mut Report) {
    match (shape, &node.value) {
        (Shape::Object(keys) | Shape::OrObject(_, keys), Value::Map(_)) => {
            check(node, keys, report)
        }
        (Shape::Named(item), Value::Map(map)) => {
            for (name, entry) in map {
                report.path_push(name);
                below(&entry.node, *item, report);
                report.path_pop();
            }
        }
        (Shape::Names(_, keys), Value::Map(map)) => {
            for (name, entry) in map {
                report.path_push(name);
                check(&entry.node, keys, report);
                report.path_pop();
            }
        }
        (Shape::Items(_, keys), Value::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                report.path_push_item(index);
                check(item, keys, report);
                report.path_pop();
            }
        }
        _ => {}
    }
}

/// A value that asks for what is so anyway.
fn says_nothing(name: &str, node: &Node) -> bool {
    match &node.value {
        Value::Broken | Value::Null | Value::Bool(false) => true,
        Value::Text(text) => {
            text.is_empty()
                || matches!(
                    (name, text.as_str()),
                    ("network_mode", "bridge" | "default") | ("ipc" | "cgroup", "private")
                )
        }
        Value::List(items) => items.is_empty(),
        Value::Map(map) if name == "networks" => map.iter().all(|(name, entry)| {
            name == "default"
                && (entry.node.value == Value::Null
                    || entry
                        .node
                        .as_map()
                        .is_some_and(indexmap::IndexMap::is_empty))
        }),
        Value::Map(map) => map.is_empty(),
        _ => false,
    }
}
