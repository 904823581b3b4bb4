//! Decodes the merged, checked tree into service specs, which are sent to the machines.
//!
//! Keys that a spec cannot carry have been reported by the table already. What depends on a value
//! rather than a key (`on-failure:3`, a range of ports, a relative path) is reported here.

mod build;
mod container;
mod files;
mod host;
mod image;
mod mounts;
mod network;
mod resources;
mod rollout;
mod uncloud;

use std::collections::BTreeMap;

pub(crate) use image::templates as image_templates;
use network::Aliases;
use uc_api::{ProjectName, ServiceName, v1};

use crate::diagnostic::Rule;
use crate::node::{Entry, Node, Span, Value};
use crate::project::Service;
use crate::report::{Place, Report};
use crate::template::is_template;
use crate::{document, duration};

/// Prefix of labels that belong to the cluster.
const OWN_LABELS: &str = "uc.";

/// The services of a tree, in order of their names.
pub(crate) fn services(tree: &Node, project: &ProjectName, report: &mut Report) -> Vec<Service> {
    let mut services = Vec::new();
    let aliases = Aliases::collect(tree, report);
    let awaited = container::awaited(tree);
    for (name, entry) in tree.entries_of("services") {
        let mut report = report.at("services");
        let report = &mut report.at(name);
        services.push(service(
            name, entry, tree, project, &aliases, &awaited, report,
        ));
    }
    network::isolation(tree, report);
    services.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    services
}

/// The named volumes that services use, in order of their names.
pub(crate) fn volumes(
    tree: &Node,
    services: &[Service],
    project: &ProjectName,
) -> Vec<v1::VolumeSpec> {
    let used = |name: &str| {
        let mut mounts = services.iter().flat_map(|service| &service.spec.mounts);
        mounts.any(|mount| mount.kind == v1::MountKind::Volume as i32 && mount.source == name)
    };
    let mut volumes: BTreeMap<String, v1::VolumeSpec> = BTreeMap::new();
    for (key, entry) in tree.entries_of("volumes") {
        let node = Some(&entry.node);
        let name = document::outside_name(node, key, project.as_str());
        if used(&name) {
            let spec = v1::VolumeSpec {
                project: project.to_string(),
                name: name.clone(),
                driver: text(&entry.node, "driver"),
                driver_opts: strings(entry.node.get("driver_opts")),
                labels: strings(entry.node.get("labels")),
                external: document::is_external(node),
            };
            volumes.insert(name, spec);
        }
    }
    volumes.into_values().collect()
}

fn service(
    name: &str,
    entry: &Entry,
    tree: &Node,
    project: &ProjectName,
    aliases: &Aliases,
    awaited: &BTreeMap<&str, &str>,
    report: &mut Report,
) -> Service {
    let Entry { key: span, node } = entry;
    if let Err(error) = name.parse::<ServiceName>() {
        report.refuse(*span, error.to_string(), "rename the service");
    }
    let has = |key: &str| node.as_map().is_some_and(|map| map.contains_key(key));
    let missing = !has("image") && !has("build") && !has("provider") && node.value != Value::Broken;
    // The key may be misspelt, or be in a file that cannot be read; then that is reported.
    if missing && !report.may_hold(&["extends", "image", "build"]) {
        report.invalid(
            *span,
            format!("service `{name}` has neither `image` nor `build`"),
            "add `image:` with what to run, or `build:` with how to build it",
        );
    }
    let image = text(node, "image");
    if let Some(node) = node.get("image")
        && node.as_text().is_some_and(|image| {
            image.is_empty() || (image.contains(char::is_whitespace) && !is_template(image))
        })
        && (!has("build") || !image.is_empty())
    {
        let rule = if image.is_empty() {
            Rule::Value
        } else {
            Rule::Refused
        };
        report.error(
            rule,
            node.span,
            format!("`{image}` is not a valid image name"),
            "write `[registry/]name[:tag]`; check that its variables are not empty",
        );
    }
    let build = build::build(name, node, &image, tree, report);
    let (mode, replicas) = rollout::scale(node, report);
    rollout::endpoint_mode(node, report);
    let mut restart = container::restart(node, report);
    if let Some(waiter) = awaited.get(name) {
        restart = container::restart_of_job(restart, node, waiter, report);
    }
    let (restart, restart_attempts) = restart;
    let mut environment = strings(node.get("environment"));
    let local = files::local(node, tree, &mut environment, report);
    let mut ports = mounts::ports(node, report);
    ports.extend(uncloud::ports(node, report));
    uncloud::caddy(node, report);
    let shared = [
        "none",
        "host",
        "shareable",
        "private",
        "service:",
        "container:",
    ];
    let mut spec = v1::ServiceSpec {
        project: project.to_string(),
        name: name.to_owned(),
        image,
        built: build.is_some(),
        command: words(node.get("command")),
        entrypoint: words(node.get("entrypoint")),
        environment,
        ports,
        mounts: mounts::mounts(node, tree, project, report),
        healthcheck: container::healthcheck(node, report),
        depends_on: container::depends_on(node),
        mode: mode.into(),
        replicas,
        user: text(node, "user"),
        working_dir: text(node, "working_dir"),
        labels: labels(node, report),
        stop_grace_period_ms: container::milliseconds(node, "stop_grace_period", report),
        stop_signal: text(node, "stop_signal"),
        restart: restart.into(),
        restart_attempts,
        pull_policy: container::pull_policy(node, report).into(),
        init: flag(node, "init"),
        read_only: flag(node, "read_only"),
        tty: flag(node, "tty"),
        stdin_open: flag(node, "stdin_open"),
        hostname: text(node, "hostname"),
        cap_add: list(node, "cap_add"),
        cap_drop: list(node, "cap_drop"),
        update_order: rollout::order(node).into(),
        machines: uncloud::machines(node),
        reschedule_after_ms: reschedule_after_ms(node, report),
        ipc: host::namespace(node, "ipc", &shared, report),
        pid: host::namespace(node, "pid", &["host", "service:", "container:"], report),
        uts: host::namespace(node, "uts", &["host"], report),
        userns: host::namespace(node, "userns_mode", &["host"], report),
        cgroup: host::namespace(node, "cgroup", &["host", "private"], report),
        cgroup_parent: text(node, "cgroup_parent"),
        privileged: flag(node, "privileged"),
        group_add: list(node, "group_add"),
        security_opt: host::security_opt(node, report),
        device_cgroup_rules: list(node, "device_cgroup_rules"),
        devices: host::devices(node),
        device_requests: host::device_requests(node),
        sysctls: host::sysctls(node),
        storage_opt: strings(node.get("storage_opt")),
        annotations: strings(node.get("annotations")),
        ulimits: resources::ulimits(node, report),
        resources: resources::resources(node, report),
        logging: host::logging(node),
        runtime: text(node, "runtime"),
        platform: text(node, "platform"),
        shm_size: resources::shm_size(node, report),
        post_start: container::hooks(node, "post_start", report),
        pre_stop: container::hooks(node, "pre_stop", report),
        pre_deploy: uncloud::pre_deploy(node, report),
        update: rollout::update(node, report),
        placement: rollout::placement(node, report),
        service_labels: strings(node.find(&["deploy", "labels"])),
        ..v1::ServiceSpec::default()
    };
    network::fill(&mut spec, node, aliases, report);
    Service { spec, build, local }
}

/// The shortest `x-reschedule`: a machine that starts again or is cut off for a moment also counts
/// as down.
const SHORTEST_RESCHEDULE_MS: u64 = 10_000;

fn reschedule_after_ms(node: &Node, report: &mut Report) -> Option<u64> {
    const KEY: &str = "x-reschedule";
    let after = container::milliseconds(node, KEY, report)?;
    if after < SHORTEST_RESCHEDULE_MS {
        report.refuse(
            node.get(KEY).map_or(node.span, |value| value.span),
            "`x-reschedule` is shorter than 10s, in which a machine can start again",
            "write a longer time, such as `2m`",
        );
        return None;
    }
    Some(after)
}

fn labels(node: &Node, report: &mut Report) -> BTreeMap<String, String> {
    for (name, entry) in node.entries_of("labels") {
        if name.starts_with(OWN_LABELS) {
            report.refuse(
                entry.key,
                format!(
                    "label `{name}` is reserved: labels that begin with `uc.` belong to the cluster"
                ),
                "choose another name",
            );
        }
    }
    strings(node.get("labels"))
}

/// The text at a key. Empty where there is none: in a spec, that means "not set".
fn text(node: &Node, key: &str) -> String {
    text_at(node, &[key])
}

/// The text below several keys; empty where there is none.
fn text_at(node: &Node, path: &[&str]) -> String {
    let text = node.find(path).and_then(Node::as_text);
    text.unwrap_or_default().to_owned()
}

fn flag(node: &Node, key: &str) -> bool {
    node.get(key).and_then(Node::as_bool).unwrap_or(false)
}

fn list(node: &Node, key: &str) -> Vec<String> {
    node.items_of(key)
        .filter_map(Node::as_text)
        .map(str::to_owned)
        .collect()
}

/// A command. `None` means the command of the image; an empty list means no command.
fn words(node: Option<&Node>) -> Option<v1::StringList> {
    match &node?.value {
        Value::List(items) => {
            let values = items
                .iter()
                .filter_map(Node::as_text)
                .map(str::to_owned)
                .collect();
            Some(v1::StringList { values })
        }
        _ => None,
    }
}

/// Names and values, without the names that have no value.
fn strings(node: Option<&Node>) -> BTreeMap<String, String> {
    let entries = node.into_iter().flat_map(Node::entries);
    let named = entries.filter(|(name, _)| !name.is_empty());
    named
        .filter_map(|(name, entry)| Some((name.clone(), entry.node.as_text()?.to_owned())))
        .collect()
}

/// Nanoseconds of a duration in long form. `None` means that the key is missing.
fn nanoseconds(node: &Node, key: &str) -> Option<(i64, Span)> {
    let node = node.get(key)?;
    Some((duration::parse_duration(node.as_text()?)?, node.span))
}
