//! Names that a file uses must be names that it declares, and services must not wait for each other in a circle.

use std::collections::{BTreeSet, HashSet};

use crate::diagnostic::Rule;
use crate::node::{Map, Node, Span, Value};
use crate::report::Report;
use uc_api::nearest;

/// What else the file knows, for better answers.
#[derive(Debug)]
pub(crate) struct Known {
    /// Services that are there, but of inactive profiles, with the first of these.
    pub(crate) inactive: Vec<(String, String)>,
}

/// Checks references of active services; drops dependencies that are not required and not there.
pub(crate) fn references(document: &mut Node, known: &Known, report: &mut Report) {
    let declared = |document: &Node, key: &str| -> BTreeSet<String> {
        document.get(key).into_iter().flat_map(Node::entries).map(|(name, _)| name.clone()).collect()
    };
    let services = declared(document, "services");
    let volumes = declared(document, "volumes");
    let networks = declared(document, "networks");
    let secrets = declared(document, "secrets");
    let configs = declared(document, "configs");
    let Some(map) = services_mut(document) else { return };
    report.path_push("services");
    for (name, entry) in map.iter_mut() {
        report.path_push(name);
        dependencies(&mut entry.node, &services, known, report);
        let service = &entry.node;
        contradictions(service, report);
        for mount in service.get("volumes").into_iter().flat_map(Node::items) {
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
        for (network, entry) in service.get("networks").into_iter().flat_map(Node::entries) {
            if network != "default" {
                let hint = format!("declare it at the top level, `networks:` with `{network}:` below it");
                declared_or_error("network", network, entry.key, &networks, &hint, report);
            }
        }
        for (key, kind, declared) in [("secrets", "secret", &secrets), ("configs", "config", &configs)] {
            for grant in service.get(key).into_iter().flat_map(Node::items) {
                if let Some(source) = grant.get_text("source") {
                    let hint = format!("declare it at the top level, `{key}:` with `{source}:` below it");
                    declared_or_error(kind, source, grant.span, declared, &hint, report);
                }
            }
        }
        report.path_pop();
    }
    circles(map, report);
    report.path_pop();
}

fn services_mut(document: &mut Node) -> Option<&mut Map> {
    let Value::Map(top) = &mut document.value else { return None };
    match &mut top.get_mut("services")?.node.value {
        Value::Map(services) => Some(services),
        _ => None,
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
    let hint =
        nearest::did_you_mean(name, declared.iter().map(String::as_str)).unwrap_or_else(|| hint.to_owned());
    report.error(Rule::Reference, span, format!("{kind} `{name}` is not declared")).hint(hint);
}

fn dependencies(service: &mut Node, services: &BTreeSet<String>, known: &Known, report: &mut Report) {
    let Value::Map(service) = &mut service.value else { return };
    let Some(dependencies) = service.get_mut("depends_on") else { return };
    let Value::Map(map) = &mut dependencies.node.value else { return };
    report.path_push("depends_on");
    map.retain(|name, entry| {
        if services.contains(name) {
            return true;
        }
        if entry.node.get("required").and_then(Node::as_bool) == Some(false) {
            return false;
        }
        let inactive = known.inactive.iter().find(|(inactive, _)| inactive == name);
        let (message, hint) = match inactive {
            Some((_, profile)) => (
                format!("service `{name}` belongs to a profile that is not active"),
                format!("activate it with `--profile {profile}`, or say `required: false`"),
            ),
            None => (
                format!("service `{name}` is not in this project"),
                nearest::did_you_mean(name, services.iter().map(String::as_str))
                    .unwrap_or_else(|| "declare it below `services:`, or remove the dependency".to_owned()),
            ),
        };
        report.error(Rule::Reference, entry.key, message).hint(hint);
        true
    });
    report.path_pop();
}

/// What cannot be said together, or not in this way.
fn contradictions(service: &Node, report: &mut Report) {
    if let (Some(mode), Some(_)) = (service.get("network_mode"), service.get("networks")) {
        report
            .error(Rule::Value, mode.span, "`network_mode` and `networks` exclude each other")
            .hint("remove one of them");
    }
    if let Some((node, name)) = service.get("container_name").and_then(|node| Some((node, node.as_text()?))) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.len() < 2
            || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !name.chars().all(allowed)
        {
            report
                .error(Rule::Value, node.span, format!("`{name}` is not the name of a container"))
                .hint("use letters, digits, `_`, `.` and `-`, beginning with a letter or digit");
        }
    }
}

/// One error for each circle of `depends_on`, at the dependency that closes it.
fn circles(services: &Map, report: &mut Report) {
    let mut done: HashSet<&str> = HashSet::new();
    for start in services.keys() {
        if done.contains(start.as_str()) {
            continue;
        }
        // Depth first, without recursion: a file may have thousands of services in a row.
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
                let circle =
                    path.iter().map(|(name, _)| *name).skip_while(|name| *name != next).chain([next]);
                let circle: Vec<_> = circle.map(|name| format!("`{name}`")).collect();
                report
                    .error(
                        Rule::Reference,
                        span,
                        format!("services wait for each other: {}", circle.join(" → ")),
                    )
                    .hint("remove one of these dependencies");
            } else if !done.contains(next) {
                on_path.insert(next);
                path.push((next, edges(services, next)));
            }
        }
    }
}

/// Dependencies of a service, the first last.
fn edges<'a>(services: &'a Map, name: &str) -> Vec<(&'a str, Span)> {
    let dependencies = services.get(name).and_then(|entry| entry.node.get("depends_on"));
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
