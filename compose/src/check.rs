//! Checks that a file declares the names that it uses, and that no services depend on each other in
//! a circle.

mod resources;
mod service;

use std::collections::{BTreeSet, HashSet};

pub(crate) use resources::resources;
use uc_api::nearest;

use crate::diagnostic::Rule;
use crate::node::{Map, Node, Span, Value};
use crate::report::{Place, Report};

/// What else is known about the file, for better hints.
#[derive(Debug)]
pub(crate) struct Known {
    /// Services of inactive profiles, each with its first profile.
    pub(crate) inactive: Vec<(String, String)>,
}

/// Checks each active service: the names that it uses, and keys that exclude each other.
pub(crate) fn references(document: &Node, known: &Known, report: &mut Report) {
    let declared = |key: &str| -> BTreeSet<String> {
        document
            .entries_of(key)
            .map(|(name, _)| name.clone())
            .collect()
    };
    let services = declared("services");
    let volumes = declared("volumes");
    let networks = declared("networks");
    let secrets = declared("secrets");
    let configs = declared("configs");
    let models = declared("models");
    let Some(Value::Map(map)) = document.get("services").map(|node| &node.value) else {
        return;
    };
    let report = &mut report.at("services");
    for (name, entry) in map {
        let report = &mut report.at(name);
        let service = &entry.node;
        dependencies(service, &services, known, report);
        service::required(service, report);
        service::contradictions(service, report);
        for mount in service.items_of("volumes") {
            if mount.get_text("type") == Some("volume")
                && let Some(source) = mount.get_text("source").filter(|source| !source.is_empty())
            {
                let span = mount.get("source").map_or(mount.span, |node| node.span);
                let hint = format!(
                    "declare it at the top level, `volumes:` with `{source}:` below it; a host path begins with `/`"
                );
                declared_or_error("volume", source, span, &volumes, &hint, report);
            }
        }
        for (key, kind, declared) in [
            ("networks", "network", &networks),
            ("models", "model", &models),
        ] {
            for (name, entry) in service.entries_of(key) {
                if (key, name.as_str()) != ("networks", "default") {
                    let hint =
                        format!("declare it at the top level, `{key}:` with `{name}:` below it");
                    declared_or_error(kind, name, entry.key, declared, &hint, report);
                }
            }
        }
        for (key, kind, declared) in [
            ("secrets", "secret", &secrets),
            ("configs", "config", &configs),
        ] {
            let build = service.find(&["build", key]);
            for grant in service
                .get(key)
                .into_iter()
                .chain(build)
                .flat_map(Node::items)
            {
                if let Some(source) = grant.get_text("source") {
                    let hint =
                        format!("declare it at the top level, `{key}:` with `{source}:` below it");
                    declared_or_error(kind, source, grant.span, declared, &hint, report);
                }
            }
        }
    }
    service::container_names(map.iter().map(|(name, entry)| (name, &entry.node)), report);
    circles(map, report);
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

fn declared_or_error(
    kind: &str,
    name: &str,
    span: Span,
    declared: &BTreeSet<String>,
    hint: &str,
    report: &mut Report,
) {
    if declared.contains(name) {
        return;
    }
    let hint = nearest::did_you_mean(name, declared.iter().map(String::as_str))
        .unwrap_or_else(|| hint.to_owned());
    report.error(
        Rule::Reference,
        span,
        format!("{kind} `{name}` is not declared"),
        hint,
    );
}

fn dependencies(service: &Node, services: &BTreeSet<String>, known: &Known, report: &mut Report) {
    let report = &mut report.at("depends_on");
    for (name, entry) in service.entries_of("depends_on") {
        if services.contains(name) {
            continue;
        }
        let required = entry.node.get("required").and_then(Node::as_bool) != Some(false);
        let inactive = known.inactive.iter().find(|(inactive, _)| inactive == name);
        let (message, hint) = match inactive {
            Some(_) if !required => continue,
            Some((_, profile)) => (
                format!("service `{name}` belongs to a profile that is not active"),
                format!("activate it with `--profile {profile}`, or set `required: false`"),
            ),
            None => (
                format!("service `{name}` is not in this project"),
                nearest::did_you_mean(name, services.iter().map(String::as_str)).unwrap_or_else(
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
