//! Checks that a file declares the names that it uses, and that no services depend on each other in
//! a circle.

mod resources;
mod service;

use std::collections::{BTreeSet, HashSet};

pub(crate) use resources::resources;
use uc_api::nearest;

use crate::diagnostic::Rule;
use crate::node::{Map, Node, Span};
use crate::report::{Place, Report};

/// Checks each active service: the names that it uses, and keys that exclude each other. `inactive`
/// are the services of inactive profiles, each with its first profile.
pub(crate) fn references(tree: &Node, inactive: &[(String, String)], report: &mut Report) {
    let Some(services) = tree.get("services").and_then(Node::as_map) else {
        return;
    };
    let report = &mut report.at("services");
    for (name, entry) in services {
        let report = &mut report.at(name);
        let service = &entry.node;
        dependencies(service, services, inactive, report);
        service::required(service, report);
        service::contradictions(service, report);
        for mount in service.items_of("volumes") {
            if mount.get_text("type") == Some("volume")
                && let Some((node, source)) = mount.get_text_node("source")
                && !source.is_empty()
            {
                declared(tree, "volumes", source, node.span, report);
            }
        }
        for key in ["networks", "models"] {
            for (name, entry) in service.entries_of(key) {
                if (key, name.as_str()) != ("networks", "default") {
                    declared(tree, key, name, entry.key, report);
                }
            }
        }
        for key in ["secrets", "configs"] {
            let of_build = service.find(&["build", key]);
            let grants = service.get(key).into_iter().chain(of_build);
            for grant in grants.flat_map(Node::items) {
                if let Some(source) = grant.get_text("source") {
                    declared(tree, key, source, grant.span, report);
                }
            }
        }
    }
    service::container_names(services, report);
    circles(services, report);
}

/// The volume, network, model, secret or config that is declared below `key` at the top level. One
/// that is not declared is reported.
pub(crate) fn declared<'a>(
    tree: &'a Node,
    key: &str,
    name: &str,
    span: Span,
    report: &mut Report,
) -> Option<&'a Node> {
    let declared = tree.find(&[key, name]);
    if declared.is_none() {
        let known = tree.entries_of(key).map(|(name, _)| name.as_str());
        let hint = nearest::did_you_mean(name, known).unwrap_or_else(|| {
            let path = if key == "volumes" {
                "; a host path begins with `/`"
            } else {
                ""
            };
            format!("declare it at the top level, `{key}:` with `{name}:` below it{path}")
        });
        let kind = key.trim_end_matches('s');
        report.error(
            Rule::Reference,
            span,
            format!("{kind} `{name}` is not declared"),
            hint,
        );
    }
    declared
}

/// Removes dependencies on services that do not exist; a required one has been reported.
pub(crate) fn drop_missing(document: &mut Node) {
    let services: BTreeSet<String> = document
        .entries_of("services")
        .map(|(name, _)| name.clone())
        .collect();
    for (_, entry) in document.map_of_mut("services").into_iter().flatten() {
        if let Some(dependencies) = entry.node.map_of_mut("depends_on") {
            dependencies.retain(|name, _| services.contains(name));
        }
    }
}

/// Reports a missing key that is required. A broken value or a short form lacks no key.
fn needs(span: Span, node: &Node, key: &str, what: &str, report: &mut Report) {
    if node.as_map().is_some_and(|map| !map.contains_key(key)) {
        report.invalid(
            span,
            format!("`{key}` is missing in `{}`", report.path()),
            format!("add `{key}:`, {what}"),
        );
    }
}

fn dependencies(
    service: &Node,
    services: &Map,
    inactive: &[(String, String)],
    report: &mut Report,
) {
    let report = &mut report.at("depends_on");
    for (name, entry) in service.entries_of("depends_on") {
        if services.contains_key(name) {
            continue;
        }
        let required = entry.node.get("required").and_then(Node::as_bool) != Some(false);
        let (message, hint) = match inactive.iter().find(|(inactive, _)| inactive == name) {
            Some(_) if !required => continue,
            Some((_, profile)) => (
                format!("service `{name}` belongs to a profile that is not active"),
                format!("activate it with `--profile {profile}`, or set `required: false`"),
            ),
            None => (
                format!("service `{name}` is not in this project"),
                nearest::did_you_mean(name, services.keys().map(String::as_str)).unwrap_or_else(
                    || "declare it below `services:`, or remove the dependency".to_owned(),
                ),
            ),
        };
        report.error(Rule::Reference, entry.key, message, hint);
    }
}

/// Reports each circle of `depends_on` once, at the dependency that closes it.
fn circles(services: &Map, report: &mut Report) {
    let mut done: HashSet<&str> = HashSet::new();
    for start in services.keys() {
        if done.contains(start.as_str()) {
            continue;
        }
        // Depth first, without recursion: a file can have a chain of thousands of services.
        let mut path = vec![(start.as_str(), edges(services, start))];
        let mut on_path = HashSet::from([start.as_str()]);
        while let Some((name, rest)) = path.last_mut() {
            let Some((next, span)) = rest.pop() else {
                done.insert(*name);
                on_path.remove(*name);
                path.pop();
                continue;
            };
            if on_path.contains(next) {
                let circle = path
                    .iter()
                    .map(|(name, _)| *name)
                    .skip_while(|name| *name != next)
                    .chain([next]);
                let circle: Vec<_> = circle.map(|name| format!("`{name}`")).collect();
                report.error(
                    Rule::Reference,
                    span,
                    format!(
                        "services depend on each other in a circle: {}",
                        circle.join(" → ")
                    ),
                    "remove one of these dependencies",
                );
            } else if !done.contains(next) {
                on_path.insert(next);
                path.push((next, edges(services, next)));
            }
        }
    }
}

/// Dependencies of a service in reverse order, so that `pop` gives the first one.
fn edges<'a>(services: &'a Map, name: &str) -> Vec<(&'a str, Span)> {
    let dependencies = services
        .get(name)
        .and_then(|entry| entry.node.get("depends_on"));
    let mut edges: Vec<_> = dependencies
        .into_iter()
        .flat_map(Node::entries)
        .filter_map(|(dependency, entry)| {
            let (dependency, _) = services.get_key_value(dependency)?;
            Some((dependency.as_str(), entry.key))
        })
        .collect();
    edges.reverse();
    edges
}
