//! Checks volumes, networks, secrets, configs and models at the top level: their source, and keys
//! that exclude each other.

use crate::node::{Entry, Node, Value};
use crate::report::{Place, Report};

/// Checks everything that is declared, used or not.
pub(crate) fn resources(tree: &Node, report: &mut Report) {
    for kind in ["volumes", "networks", "secrets", "configs", "models"] {
        let report = &mut report.at(kind);
        for (name, entry) in tree.entries_of(kind) {
            let report = &mut report.at(name);
            match kind {
                "volumes" => check_external_volume(name, entry, report),
                "secrets" => sources("secret", name, entry, &["file", "environment"], report),
                "configs" => sources(
                    "config",
                    name,
                    entry,
                    &["file", "environment", "content"],
                    report,
                ),
                "models" => {
                    super::needs(entry.key, &entry.node, "model", "the model's name", report);
                }
                _ => {}
            }
            two_names(name, entry, report);
        }
    }
}

fn is_external(node: &Node) -> bool {
    matches!(
        node.get("external").map(|node| &node.value),
        Some(Value::Bool(true) | Value::Map(_))
    )
}

/// An external volume exists already, so it cannot have a driver or labels here.
fn check_external_volume(name: &str, Entry { node, .. }: &Entry, report: &mut Report) {
    if !is_external(node) {
        return;
    }
    for (key, entry) in node.entries().filter(|(key, _)| !key.starts_with("x-")) {
        if !matches!(key.as_str(), "name" | "external") {
            report.invalid(
                entry.key,
                format!("`{name}` is external, so it cannot have `{key}`"),
                "remove this key, or `external`",
            );
        }
    }
}

/// Checks that there is exactly one source of the content.
fn sources(
    kind: &str,
    name: &str,
    Entry { key, node }: &Entry,
    keys: &[&str],
    report: &mut Report,
) {
    if matches!(node.value, Value::Broken | Value::Null) {
        return;
    }
    let entries = |key: &&str| node.as_map().and_then(|map| map.get_key_value(*key));
    let mut given = keys.iter().filter_map(entries);
    let list: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
    if let (Some((first, _)), Some((second, entry))) = (given.next(), given.next()) {
        report.invalid(
            entry.key,
            format!("{kind} `{name}` has two sources: `{first}` and `{second}`"),
            "remove one of them",
        );
        return;
    }
    let elsewhere = is_external(node)
        || node.get("x-command").is_some()
        || node.get("driver").is_some()
        || kind == "config" && node.get("external").is_some();
    if !elsewhere && !keys.iter().any(|key| node.get(key).is_some()) {
        report.invalid(
            *key,
            format!("{kind} `{name}` has no source"),
            format!("add {} or `external: true`", list.join(", ")),
        );
    }
}

/// `external: {name: …}` is the obsolete form of `name`.
fn two_names(name: &str, Entry { node, .. }: &Entry, report: &mut Report) {
    if let (Some(own), Some(inner)) = (node.get("name"), node.find(&["external", "name"]))
        && own.value != inner.value
    {
        report.invalid(
            inner.span,
            format!("`{name}` has two different names outside the project"),
            "write `name` once, and `external: true`",
        );
    }
}
