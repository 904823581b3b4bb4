//! The resolved file in compose's own words, as `docker compose config` prints it.

mod plain;

use std::collections::BTreeSet;

pub(crate) use plain::plain;
use serde_json::{Map as JsonMap, Number, Value as Json};

use crate::node::{Node, Value};

/// Kinds of top-level things that services use by name, and that have a name outside the project.
pub(crate) const NAMED: [&str; 4] = ["networks", "volumes", "secrets", "configs"];

/// Keys that have done their work when everything is resolved.
const RESOLVED: [&str; 4] = ["version", "include", "extends", "env_file"];

/// Keys of a service that are not printed when they say what is so anyway.
const QUIET: [&str; 10] = [
    "privileged",
    "read_only",
    "tty",
    "stdin_open",
    "oom_kill_disable",
    "use_api_socket",
    "cpu_shares",
    "oom_score_adj",
    "pids_limit",
    "mem_swappiness",
];

/// Sizes of a service that are not printed when they are 0.
const SIZES: [&str; 5] = [
    "mem_limit",
    "mem_reservation",
    "memswap_limit",
    "shm_size",
    "mem_swappiness",
];

/// The document of a merged and checked tree. Where variables have been put in, literal dollar
/// signs are doubled, so that it can be read again.
pub(crate) fn document(tree: &Node, project: &str, interpolated: bool) -> Json {
    let mut out = JsonMap::new();
    out.insert("name".into(), Json::from(project));
    let mut used = BTreeSet::new();
    let mut services = JsonMap::new();
    for (name, entry) in tree.entries_of("services") {
        let service = Json::Object(service(&entry.node));
        used.extend(self::used(&service));
        services.insert(name.clone(), service);
    }
    out.insert("services".into(), Json::Object(services));
    for kind in NAMED {
        let declared = tree.get(kind);
        let mut entries = JsonMap::new();
        for (_, name) in used.iter().filter(|(used_kind, _)| *used_kind == kind) {
            let node = declared.and_then(|declared| declared.get(name));
            entries.insert(name.clone(), Json::Object(resource(node, name, project)));
        }
        if !entries.is_empty() {
            out.insert(kind.into(), Json::Object(entries));
        }
    }
    for (name, entry) in tree.entries() {
        if name == "models" || name.starts_with("x-") {
            out.insert(name.clone(), json(&entry.node));
        }
    }
    sorted(Json::Object(out), interpolated)
}

/// The name outside the project of a top-level volume, network, secret or config.
pub(crate) fn outside_name(node: Option<&Node>, key: &str, project: &str) -> String {
    let external = node.and_then(|node| node.get("external"));
    let named = node
        .and_then(|node| node.get_text("name"))
        .or_else(|| external.and_then(|external| external.get_text("name")));
    match named {
        Some(name) => name.to_owned(),
        None if is_external(node) => key.to_owned(),
        None => format!("{project}_{key}"),
    }
}

/// Whether it is made by others.
pub(crate) fn is_external(node: Option<&Node>) -> bool {
    match node
        .and_then(|node| node.get("external"))
        .map(|node| &node.value)
    {
        Some(Value::Bool(external)) => *external,
        Some(Value::Map(_)) => true,
        _ => false,
    }
}

fn resource(node: Option<&Node>, key: &str, project: &str) -> JsonMap<String, Json> {
    let mut out = match node.map(json) {
        Some(Json::Object(map)) => map,
        _ => JsonMap::new(),
    };
    quieten(&mut out, &["internal", "attachable", "external"]);
    out.insert("name".into(), outside_name(node, key, project).into());
    if is_external(node) {
        out.insert("external".into(), Json::Bool(true));
    }
    out
}

fn service(node: &Node) -> JsonMap<String, Json> {
    let mut out = match json(node) {
        Json::Object(map) => map,
        _ => JsonMap::new(),
    };
    for key in RESOLVED {
        out.shift_remove(key);
    }
    quieten(&mut out, &QUIET);
    for key in ["command", "entrypoint"] {
        if out.get(key).is_some_and(Json::is_null) {
            out.shift_remove(key);
        }
    }
    // An empty `network_mode` is one: there is no default network then.
    out.retain(|key, value| *value != "" || key == "network_mode");
    for key in SIZES {
        if out.get(key).is_some_and(|size| *size == "0") {
            out.shift_remove(key);
        }
    }
    if object(&mut out, &["networks"]).is_some_and(|networks| networks.is_empty()) {
        out.shift_remove("networks");
    }
    // An empty variable gives no server.
    if let Some(Json::Array(servers)) = out.get_mut("dns") {
        servers.retain(|server| *server != "");
    }
    for key in ["secrets", "configs"] {
        for grant in objects(&mut out, key) {
            if let Some(mode) = grant.get("mode").and_then(Json::as_i64) {
                grant.insert("mode".into(), format!("0{mode:o}").into());
            }
        }
    }
    if let Some(healthcheck) = object(&mut out, &["healthcheck"]) {
        quieten(healthcheck, &["disable"]);
    }
    for (key, quiet) in [("volumes", "read_only"), ("ports", "published")] {
        for item in objects(&mut out, key) {
            quieten(item, &[quiet]);
            // Docker Compose prints it only where it is not the default.
            if let Some(bind) = object(item, &["bind"]) {
                bind.retain(|key, value| key != "create_host_path" || *value != true);
            }
        }
    }
    if let Some(build) = object(&mut out, &["build"]) {
        self::build(build);
    }
    if let Some(deploy) = object(&mut out, &["deploy"]) {
        rollout(deploy);
    }
    if out
        .get("pull_policy")
        .is_some_and(|policy| policy == "if_not_present")
    {
        out.insert("pull_policy".into(), "missing".into());
    }
    // Docker Compose takes it for a size.
    if let Some(Json::Number(number)) = out.get("mem_swappiness") {
        let text = number.to_string();
        out.insert("mem_swappiness".into(), text.into());
    }
    if let Some(options) = object(&mut out, &["provider", "options"]) {
        for value in options.values_mut().filter(|value| !value.is_array()) {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            *value = vec![Json::from(text)].into();
        }
    }
    let says = |key: &&str| {
        node.get(key)
            .is_some_and(|node| node.as_map().is_none_or(|map| !map.is_empty()))
    };
    let on_default = !["networks", "network_mode", "provider"].iter().any(says);
    if on_default {
        out.insert(
            "networks".into(),
            Json::Object(JsonMap::from_iter([("default".to_owned(), Json::Null)])),
        );
    }
    for secret in objects(&mut out, "secrets") {
        if let Some(source) = secret.get("source").and_then(Json::as_str) {
            let target = format!("/run/secrets/{source}");
            secret.entry("target").or_insert_with(|| target.into());
        }
    }
    out
}

/// What a service of the document uses of what the file declares, as kind and name.
pub(crate) fn used(service: &Json) -> Vec<(&'static str, String)> {
    let mut used = Vec::new();
    let networks = service.get("networks").and_then(Json::as_object);
    for (network, _) in networks.into_iter().flatten() {
        used.push(("networks", network.clone()));
    }
    let source = |item: &Json| Some(item.get("source")?.as_str()?.to_owned());
    for mount in items(service.get("volumes")) {
        if mount.get("type").and_then(Json::as_str) == Some("volume") {
            let named = source(mount).filter(|source| !source.is_empty());
            used.extend(named.map(|source| ("volumes", source)));
        }
    }
    for kind in ["secrets", "configs"] {
        let of_build = service.get("build").and_then(|build| build.get(kind));
        let grants = items(service.get(kind)).chain(items(of_build));
        used.extend(grants.filter_map(|grant| Some((kind, source(grant)?))));
    }
    used
}

fn items(list: Option<&Json>) -> impl Iterator<Item = &Json> {
    list.and_then(Json::as_array).into_iter().flatten()
}

fn build(build: &mut JsonMap<String, Json>) {
    quieten(build, &["no_cache", "pull", "privileged"]);
    build.retain(|_, value| *value != "");
    if !build.contains_key("dockerfile_inline") {
        build
            .entry("dockerfile")
            .or_insert_with(|| "Dockerfile".into());
    }
    if let Some(args) = object(build, &["args"]) {
        args.retain(|_, value| !value.is_null());
    }
    if let Some(ssh) = object(build, &["ssh"]) {
        let key = |(name, path): (&String, &Json)| match path.as_str() {
            None | Some("") => name.clone(),
            Some(path) => format!("{name}={path}"),
        };
        let keys: Vec<_> = ssh.iter().map(key).map(Json::from).collect();
        build.insert("ssh".into(), keys.into());
    }
}

/// Of `deploy`, what says zero is not printed where zero is the default.
fn rollout(deploy: &mut JsonMap<String, Json>) {
    for key in ["update_config", "rollback_config"] {
        if let Some(pace) = object(deploy, &[key]) {
            quieten(pace, &["failure_action", "max_failure_ratio", "order"]);
            pace.retain(|key, value| {
                !(matches!(key.as_str(), "delay" | "monitor") && *value == "0s")
            });
        }
    }
    if let Some(placement) = object(deploy, &["placement"]) {
        quieten(placement, &["max_replicas_per_node"]);
    }
    if let Some(limits) = object(deploy, &["resources", "limits"]) {
        quieten(limits, &["cpus", "pids"]);
        limits.retain(|key, value| !(key == "memory" && *value == "0"));
    }
}

/// The mapping below several keys.
fn object<'a>(
    map: &'a mut JsonMap<String, Json>,
    path: &[&str],
) -> Option<&'a mut JsonMap<String, Json>> {
    path.iter()
        .try_fold(map, |map, key| map.get_mut(*key)?.as_object_mut())
}

/// The mappings of the list at a key.
fn objects<'a>(
    map: &'a mut JsonMap<String, Json>,
    key: &str,
) -> impl Iterator<Item = &'a mut JsonMap<String, Json>> {
    let list = map.get_mut(key).and_then(Json::as_array_mut);
    list.into_iter().flatten().filter_map(Json::as_object_mut)
}

/// Removes those of the keys whose value is false, zero or empty.
fn quieten(map: &mut JsonMap<String, Json>, keys: &[&str]) {
    let says_nothing =
        |value: &Json| matches!(value, Json::Bool(false)) || *value == 0 || *value == "";
    map.retain(|key, value| !(keys.contains(&key.as_str()) && says_nothing(value)));
}

/// A value as JSON.
fn json(node: &Node) -> Json {
    match &node.value {
        Value::Broken | Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => i64::try_from(*value)
            .map(Json::from)
            .or_else(|_| u64::try_from(*value).map(Json::from))
            .unwrap_or_else(|_| Json::from(value.to_string())),
        Value::Float(value) => Number::from_f64(*value).map_or(Json::Null, Json::Number),
        Value::Text(text) => Json::from(text.as_str()),
        Value::List(items) => Json::Array(items.iter().map(json).collect()),
        Value::Map(map) => Json::Object(
            map.iter()
                .map(|(key, entry)| (key.clone(), json(&entry.node)))
                .collect(),
        ),
    }
}

/// Keys in order of their names, on all levels.
fn sorted(value: Json, doubled: bool) -> Json {
    let text = |text: String| {
        if doubled {
            text.replace('$', "$$")
        } else {
            text
        }
    };
    match value {
        Json::Object(map) => {
            let mut entries: Vec<_> = map
                .into_iter()
                .map(|(key, value)| (text(key), sorted(value, doubled)))
                .collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Json::Object(entries.into_iter().collect())
        }
        Json::Array(items) => Json::Array(
            items
                .into_iter()
                .map(|item| sorted(item, doubled))
                .collect(),
        ),
        Json::String(string) => Json::String(text(string)),
        other => other,
    }
}
