//! Checks the keys of one service: required ones, and those that exclude each other.

use std::collections::{BTreeMap, BTreeSet};

use super::needs;
use crate::node::{Map, Node, Value};
use crate::report::{Place, Report};

/// Checks that parts of a service have their required keys.
pub(super) fn required(service: &Node, report: &mut Report) {
    let each = |path: &[&str]| service.find(path).into_iter().flat_map(Node::items);
    for watch in each(&["develop", "watch"]) {
        needs(watch.span, watch, "path", "what to watch", report);
        needs(
            watch.span,
            watch,
            "action",
            "what to do when it changes",
            report,
        );
        let copies = |action| !matches!(action, "" | "rebuild" | "restart");
        if watch.get_text("action").is_some_and(copies) {
            needs(
                watch.span,
                watch,
                "target",
                "where it goes in the container",
                report,
            );
        }
    }
    let requests = || each(&["deploy", "resources", "reservations", "devices"]);
    for request in requests() {
        let what = "what the devices can do, such as `[gpu]`";
        needs(request.span, request, "capabilities", what, report);
    }
    for request in requests().chain(each(&["gpus"])) {
        if let (Some(_), Some(ids)) = (request.get("count"), request.get("device_ids")) {
            report.invalid(
                ids.span,
                "`count` and `device_ids` exclude each other",
                "remove one of them",
            );
        }
    }
    for device in each(&["devices"]) {
        needs(
            device.span,
            device,
            "source",
            "the device on the machine",
            report,
        );
    }
    for file in each(&["env_file"]) {
        needs(file.span, file, "path", "the file", report);
    }
    if let Some(provider) = service.get("provider") {
        needs(provider.span, provider, "type", "the plug-in", report);
    }
    for limits in [service.get("ulimits"), service.find(&["build", "ulimits"])] {
        for (_, entry) in limits.into_iter().flat_map(Node::entries) {
            needs(
                entry.key,
                &entry.node,
                "soft",
                "what may be raised up to `hard`",
                report,
            );
            needs(
                entry.key,
                &entry.node,
                "hard",
                "what cannot be raised",
                report,
            );
        }
    }
}

/// Checks for keys of a service that exclude or contradict each other.
pub(super) fn contradictions(service: &Node, report: &mut Report) {
    if let (Some(mode), Some(_)) = (service.get("network_mode"), service.get("networks")) {
        report.invalid(
            mode.span,
            "`network_mode` and `networks` exclude each other",
            "remove one of them",
        );
    }
    container_name(service, report);
    ranges(service, report);
    limits(service, report);
    targets(service, report);
    if let (Some(platform), Some(platforms)) = (
        service.get_text("platform").filter(|text| !text.is_empty()),
        service
            .find(&["build", "platforms"])
            .filter(|list| !list.items().is_empty()),
    ) {
        let items = platforms.items().iter();
        let listed: Vec<&str> = items.filter_map(Node::as_text).collect();
        if !listed.contains(&platform) {
            let message = format!(
                "the service runs on `{platform}`, but is built for {}",
                listed.join(", ")
            );
            report.invalid(
                platforms.span,
                message,
                format!("add `{platform}` to `build.platforms`, or remove `platform`"),
            );
        }
    }
}

fn container_name(service: &Node, report: &mut Report) {
    let Some((node, name)) = service.get_text_node("container_name") else {
        return;
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.len() < 2
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !name.chars().all(allowed)
    {
        report.invalid(
            node.span,
            format!("`{name}` is not a valid container name"),
            "use letters, digits, `_`, `.` and `-`, beginning with a letter or digit",
        );
    }
    let replicas = service.find(&["deploy", "replicas"]);
    let scale = service.get("scale").or(replicas);
    if let Some(count) = scale.filter(|node| node.as_int().is_some_and(|count| count > 1)) {
        report.invalid(
            count.span,
            format!("several containers cannot share the name `{name}`"),
            "remove `container_name`, or run one replica",
        );
    }
}

/// Numbers that have bounds.
fn ranges(service: &Node, report: &mut Report) {
    for (key, range) in [
        ("cpu_percent", 0..=100),
        ("cpu_count", 0..=i128::from(u32::MAX)),
    ] {
        let Some(node) = service.get(key) else {
            continue;
        };
        if node.as_int().is_some_and(|number| !range.contains(&number)) {
            let (first, last) = range.into_inner();
            report.invalid(
                node.span,
                format!("`{key}` must be from {first} to {last}"),
                "correct the number",
            );
        }
    }
}

/// A limit that is written in two places must be equal.
fn limits(service: &Node, report: &mut Report) {
    let resources = service.find(&["deploy", "resources"]);
    for (key, group, name) in [
        ("cpus", "limits", "cpus"),
        ("mem_limit", "limits", "memory"),
        ("mem_reservation", "reservations", "memory"),
        ("pids_limit", "limits", "pids"),
    ] {
        let Some(node) = service.get(key) else {
            continue;
        };
        // A missing limit counts as 0.
        let Some(group_node) = resources.and_then(|resources| resources.get(group)) else {
            continue;
        };
        let (a, b) = (number(Some(node)), number(group_node.get(name)));
        if let (Some(a), Some(b)) = (a, b)
            && a != 0.0
            && (a - b).abs() > f64::EPSILON * a.abs()
        {
            let message = format!("`{key}` and `deploy.resources.{group}.{name}` differ");
            report.invalid(node.span, message, "remove one of them, or make them equal");
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no real size exceeds 2^53 bytes"
)]
fn number(node: Option<&Node>) -> Option<f64> {
    match node.map(|node| &node.value) {
        None => Some(0.0),
        Some(Value::Int(number)) => Some(*number as f64),
        Some(Value::Float(number)) => Some(*number),
        Some(Value::Text(text)) => text.parse().ok(),
        _ => None,
    }
}

/// Each target can have only one mount.
fn targets(service: &Node, report: &mut Report) {
    let mut seen = BTreeSet::new();
    let tmpfs = service.items_of("tmpfs").filter_map(|item| {
        let text = item.as_text()?;
        let path = text.split_once(':').map_or(text, |(path, _)| path);
        Some((path, item.span))
    });
    let mounts = service.items_of("volumes").filter_map(|mount| {
        let target = mount.get("target")?;
        Some((target.as_text()?, target.span))
    });
    for (target, span) in tmpfs.chain(mounts) {
        if !seen.insert(target.trim_end_matches('/')) {
            report.invalid(
                span,
                format!("two mounts have the target `{target}`"),
                "remove one of them",
            );
        }
    }
}

/// Two services cannot have the same container name.
pub(super) fn container_names(services: &Map, report: &mut Report) {
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    for (service, entry) in services {
        let Some((node, name)) = entry.node.get_text_node("container_name") else {
            continue;
        };
        if let Some(other) = known.insert(name, service) {
            report.at(service).invalid(
                node.span,
                format!("service `{other}` also has the container name `{name}`"),
                "choose another name",
            );
        }
    }
}
