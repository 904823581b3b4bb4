//! Applies the statuses of the table to the merged tree: reports the keys that are not honoured.

use crate::node::{Entry, Node, Value};
use crate::report::{Place, Report};
use crate::schema::{self, Key, Shape, Status};

/// Reports every key below `node` that is not honoured: a warning, or an error where the table
/// refuses it.
pub(crate) fn check(node: &Node, keys: &'static [Key], report: &mut Report) {
    for (name, entry) in node.entries() {
        let Some(key) = schema::find(keys, name) else {
            continue;
        };
        if asks_for_nothing(name, &entry.node) {
            continue;
        }
        one(key, entry, &mut report.at(name));
    }
}

fn one(key: &'static Key, Entry { key: span, node }: &Entry, report: &mut Report) {
    match key.status {
        Status::Honoured(_) => below(node, key.shape, report),
        Status::NoEffect(_) => report.no_effect(),
        Status::Reported(reason) => report.not_honoured(
            *span,
            format!("`{}` is ignored: {}", key.name, reason.why),
            reason.instead,
        ),
        Status::Refused(reason) => report.refuse(
            *span,
            format!("`{}` is not supported: {}", key.name, reason.why),
            reason.instead,
        ),
    }
}

fn below(node: &Node, shape: Shape, report: &mut Report) {
    match (shape, &node.value) {
        (Shape::Object(keys) | Shape::OrObject(_, keys), Value::Map(_)) => {
            check(node, keys, report);
        }
        (Shape::Named(item), Value::Map(map)) => {
            for (name, entry) in map {
                below(&entry.node, *item, &mut report.at(name));
            }
        }
        (Shape::Names(_, keys), Value::Map(map)) => {
            for (name, entry) in map {
                check(&entry.node, keys, &mut report.at(name));
            }
        }
        (Shape::List(item) | Shape::Set(item) | Shape::Distinct(item), Value::List(items)) => {
            for (index, node) in items.iter().enumerate() {
                below(node, *item, &mut report.at_item(index));
            }
        }
        (Shape::Items(_, keys), Value::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                check(item, keys, &mut report.at_item(index));
            }
        }
        _ => {}
    }
}

/// Whether a value asks only for what happens anyway, so that there is nothing to report.
fn asks_for_nothing(name: &str, node: &Node) -> bool {
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
