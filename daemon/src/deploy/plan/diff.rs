//! What differs between two specs of a service, in the words of the compose file, fit to be shown to anybody.

use std::collections::{BTreeMap, BTreeSet};

use uc_api::v1::{
    Dependency, DependencyCondition, FieldChange, Healthcheck, MountKind, MountSpec, PortSpec, PullPolicy,
    RestartPolicy, ServiceMode, ServiceSpec, StringList, UpdateOrder,
};

use super::ports;

/// What stands in place of a value that must not be printed.
const MASK: &str = "***";
/// Variables and labels whose names contain one of these hold secrets.
const SECRET_WORDS: [&str; 8] =
    ["PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "PRIVATE"];

/// Every field that differs, in the order of the compose reference; an absent value is an empty text.
pub(crate) fn fields(old: &ServiceSpec, new: &ServiceSpec) -> Vec<FieldChange> {
    let mut changes = Changes(Vec::new());
    changes.add("image", &old.image, &new.image);
    changes.add("build", on(old.built), on(new.built));
    changes.add("command", command(old.command.as_ref()), command(new.command.as_ref()));
    changes.add("entrypoint", command(old.entrypoint.as_ref()), command(new.entrypoint.as_ref()));
    changes.map("environment", &old.environment, &new.environment);
    changes.add("ports", list(&old.ports, port), list(&new.ports, port));
    changes.add("volumes", list(&old.mounts, mount), list(&new.mounts, mount));
    changes.add("healthcheck", healthcheck(old), healthcheck(new));
    changes.add("depends_on", list(&old.depends_on, dependency), list(&new.depends_on, dependency));
    changes.add("deploy.mode", mode(old), mode(new));
    if old.mode() != ServiceMode::Global || new.mode() != ServiceMode::Global {
        changes.add("deploy.replicas", old.replicas.to_string(), new.replicas.to_string());
    }
    changes.add("user", &old.user, &new.user);
    changes.add("working_dir", &old.working_dir, &new.working_dir);
    changes.map("labels", &old.labels, &new.labels);
    changes.add("stop_grace_period", grace(old), grace(new));
    changes.add("stop_signal", &old.stop_signal, &new.stop_signal);
    changes.add("restart", restart(old), restart(new));
    changes.add("pull_policy", pull(old), pull(new));
    changes.add("init", on(old.init), on(new.init));
    changes.add("read_only", on(old.read_only), on(new.read_only));
    changes.add("tty", on(old.tty), on(new.tty));
    changes.add("stdin_open", on(old.stdin_open), on(new.stdin_open));
    changes.add("hostname", &old.hostname, &new.hostname);
    changes.add("cap_add", old.cap_add.join(", "), new.cap_add.join(", "));
    changes.add("cap_drop", old.cap_drop.join(", "), new.cap_drop.join(", "));
    changes.add("deploy.update_config.order", order(old), order(new));
    changes.add("x-machines", old.machines.join(", "), new.machines.join(", "));
    changes.0
}

/// In a few words, why a container is replaced.
pub(super) fn reason(fields: &[FieldChange]) -> String {
    const NOT_IN_CONTAINER: [&str; 6] = [
        "depends_on",
        "deploy.mode",
        "deploy.replicas",
        "pull_policy",
        "deploy.update_config.order",
        "x-machines",
    ];
    let mut names: Vec<&str> = Vec::new();
    for field in fields.iter().filter(|change| !NOT_IN_CONTAINER.contains(&change.field.as_str())) {
        let name = field.field.split('.').next().unwrap_or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    match names.as_slice() {
        // The spec is the one of last time: that deployment did not get this far.
        [] => "runs an older revision".into(),
        [one] => format!("{one} changed"),
        [one, two] => format!("{one} and {two} changed"),
        [one, rest @ ..] => format!("{one} and {} more changed", rest.len()),
    }
}

struct Changes(Vec<FieldChange>);

impl Changes {
    fn add(&mut self, field: &str, old: impl Into<String>, new: impl Into<String>) {
        let (old, new) = (old.into(), new.into());
        if old != new {
            self.0.push(FieldChange { field: field.to_owned(), old, new });
        }
    }

    fn map(&mut self, field: &str, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names.into_iter().filter(|name| old.get(*name) != new.get(*name)) {
            let show = |map: &BTreeMap<String, String>| match map.get(name) {
                None => String::new(),
                Some(value) => shown(name, value),
            };
            self.0.push(FieldChange { field: format!("{field}.{name}"), old: show(old), new: show(new) });
        }
    }
}

/// A value as it may be printed. An empty value is written `""`, so that it is not taken for an absent one.
fn shown(name: &str, value: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if SECRET_WORDS.iter().any(|word| upper.contains(word)) {
        return MASK.to_owned();
    }
    if value.is_empty() {
        return "\"\"".to_owned();
    }
    without_passwords(value)
}

/// `scheme://user:password@host` keeps the user and loses the password.
fn without_passwords(value: &str) -> String {
    let mut result = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("://") {
        result.push_str(before);
        result.push_str("://");
        let end = after.find(['/', '?', '#', ' ', ',']).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@').map(|(login, host)| (login.split_once(':'), host)) {
            Some((Some((user, _)), host)) => {
                result.extend([user, ":", MASK, "@", host]);
            }
            _ => result.push_str(authority),
        }
        rest = tail;
    }
    result.push_str(rest);
    result
}

fn list<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    items.iter().map(show).collect::<Vec<_>>().join(", ")
}

fn on(value: bool) -> &'static str {
    if value { "true" } else { "" }
}

/// As a JSON list: the only form in which spaces in arguments can be told from spaces between them.
fn command(list: Option<&StringList>) -> String {
    list.map(|list| serde_json::Value::from(list.values.clone()).to_string()).unwrap_or_default()
}

fn port(port: &PortSpec) -> String {
    let published = ports::show(port);
    let (address, protocol) = published.rsplit_once('/').unwrap_or((&published, "tcp"));
    let protocol = if protocol == "udp" { "/udp" } else { "" };
    if port.published_port == 0 && port.host_ip.is_empty() {
        format!("{}{protocol}", port.container_port)
    } else {
        format!("{address}:{}{protocol}", port.container_port)
    }
}

fn mount(mount: &MountSpec) -> String {
    let mode = if mount.read_only { ":ro" } else { "" };
    match mount.kind() {
        MountKind::Tmpfs => format!("tmpfs:{}{mode}", mount.target),
        _ => format!("{}:{}{mode}", mount.source, mount.target),
    }
}

fn milliseconds(value: u64) -> String {
    if value.is_multiple_of(1000) { format!("{}s", value / 1000) } else { format!("{value}ms") }
}

fn healthcheck(spec: &ServiceSpec) -> String {
    let Some(Healthcheck { test, interval_ms, timeout_ms, start_period_ms, retries, start_interval_ms }) =
        &spec.healthcheck
    else {
        return String::new();
    };
    let mut parts = vec![serde_json::Value::from(test.clone()).to_string()];
    for (name, value) in [
        ("interval", interval_ms),
        ("timeout", timeout_ms),
        ("start_period", start_period_ms),
        ("start_interval", start_interval_ms),
    ] {
        if let Some(value) = value {
            parts.push(format!("{name}={}", milliseconds(*value)));
        }
    }
    if let Some(retries) = retries {
        parts.push(format!("retries={retries}"));
    }
    parts.join(" ")
}

fn dependency(dependency: &Dependency) -> String {
    match dependency.condition() {
        DependencyCondition::Healthy => format!("{} (healthy)", dependency.service),
        DependencyCondition::Completed => format!("{} (completed)", dependency.service),
        DependencyCondition::Started | DependencyCondition::Unspecified => dependency.service.clone(),
    }
}

fn mode(spec: &ServiceSpec) -> &'static str {
    if spec.mode() == ServiceMode::Global { "global" } else { "replicated" }
}

fn grace(spec: &ServiceSpec) -> String {
    spec.stop_grace_period_ms.map(milliseconds).unwrap_or_default()
}

fn restart(spec: &ServiceSpec) -> &'static str {
    match spec.restart() {
        RestartPolicy::Unspecified => "",
        RestartPolicy::No => "no",
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::UnlessStopped => "unless-stopped",
    }
}

fn pull(spec: &ServiceSpec) -> &'static str {
    match spec.pull_policy() {
        PullPolicy::Unspecified => "",
        PullPolicy::Missing => "missing",
        PullPolicy::Always => "always",
        PullPolicy::Never => "never",
    }
}

fn order(spec: &ServiceSpec) -> &'static str {
    match spec.update_order() {
        UpdateOrder::Unspecified => "",
        UpdateOrder::StartFirst => "start-first",
        UpdateOrder::StopFirst => "stop-first",
    }
}
