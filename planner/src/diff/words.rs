//! Values of a spec as a person would write them. Two values that differ are written differently,
//! unless they are secrets.

use std::collections::BTreeMap;

use uc_api::v1::{
    Dependency, DependencyCondition, DeviceRequest, DeviceSpec, DeviceValue, FailureAction,
    FileSpec, Healthcheck, Hook, MountKind, MountSpec, PortSpec, PreDeploy, PullPolicy,
    RestartPolicy, ServiceMode, ServiceSpec, StringList, Ulimit, UpdateOrder, UpdatePolicy,
};

use super::super::ports;
use super::shown;

/// Of a hash, for people.
const SHORT: usize = 8;
/// Characters of a security option that are shown; a whole seccomp profile has thousands.
const SECURITY: usize = 80;
const BYTE_UNITS: [(&str, u32); 4] = [("t", 40), ("g", 30), ("m", 20), ("k", 10)];

/// As a JSON list: the only form in which spaces in arguments can be told from spaces between them.
pub(super) fn command(list: &StringList) -> String {
    serde_json::Value::from(list.values.clone()).to_string()
}

pub(super) fn port(port: &PortSpec) -> String {
    let published = ports::show(port);
    let (address, protocol) = published.rsplit_once('/').unwrap_or((&published, "tcp"));
    let protocol = if protocol == "tcp" {
        String::new()
    } else {
        format!("/{protocol}")
    };
    if port.published_port == 0 && port.host_ip.is_empty() {
        format!("{}{protocol}", port.container_port)
    } else {
        format!("{address}:{}{protocol}", port.container_port)
    }
}

pub(super) fn mount(mount: &MountSpec) -> String {
    let place = match mount.kind() {
        MountKind::Tmpfs => format!("tmpfs:{}", mount.target),
        MountKind::Image => format!("image:{}:{}", mount.source, mount.target),
        _ => format!("{}:{}", mount.source, mount.target),
    };
    let said = |name: &str, value: &str| (!value.is_empty()).then(|| format!("{name}={value}"));
    let options: Vec<String> = [
        mount.read_only.then(|| "ro".to_owned()),
        said("propagation", &mount.propagation),
        mount
            .create_host_path
            .map(|create| format!("create_host_path={create}")),
        said("recursive", &mount.recursive),
        (!mount.selinux.is_empty()).then(|| mount.selinux.clone()),
        mount.nocopy.then(|| "nocopy".to_owned()),
        said("subpath", &mount.subpath),
        said("labels", &pairs(&mount.labels)),
        mount.tmpfs_size.map(|size| format!("size={}", bytes(size))),
        mount.tmpfs_mode.map(|mode| format!("mode={mode:o}")),
        (!mount.tmpfs_options.is_empty()).then(|| mount.tmpfs_options.join(",")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let colon = if options.is_empty() { "" } else { ":" };
    format!("{place}{colon}{}", options.join(","))
}

pub(super) fn milliseconds(value: u64) -> String {
    if value.is_multiple_of(1000) {
        format!("{}s", value / 1000)
    } else {
        format!("{value}ms")
    }
}

pub(super) fn healthcheck(check: &Healthcheck) -> String {
    let Healthcheck {
        test,
        interval_ms,
        timeout_ms,
        start_period_ms,
        retries,
        start_interval_ms,
    } = check;
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

pub(super) fn dependency(dependency: &Dependency) -> String {
    let condition = match dependency.condition() {
        DependencyCondition::Healthy => " (healthy)",
        DependencyCondition::Completed => " (completed)",
        DependencyCondition::Started | DependencyCondition::Unspecified => "",
    };
    let restart = if dependency.restart { " (restart)" } else { "" };
    format!("{}{condition}{restart}", dependency.service)
}

pub(super) fn mode(spec: &ServiceSpec) -> &'static str {
    if spec.mode() == ServiceMode::Global {
        "global"
    } else {
        "replicated"
    }
}

pub(super) fn restart(spec: &ServiceSpec) -> String {
    let policy = match spec.restart() {
        RestartPolicy::Unspecified => "",
        RestartPolicy::No => "no",
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::UnlessStopped => "unless-stopped",
    };
    match spec.restart_attempts {
        0 => policy.to_owned(),
        attempts => format!("{policy}:{attempts}"),
    }
}

/// A digest's algorithm and its first digits.
pub(super) fn digest(digest: &str) -> String {
    match digest.split_once(':') {
        Some((algorithm, digits)) => format!("{algorithm}:{}", short(digits)),
        None => digest.to_owned(),
    }
}

pub(super) fn pull_policy(spec: &ServiceSpec) -> &'static str {
    match spec.pull_policy() {
        PullPolicy::Unspecified => "",
        PullPolicy::Missing => "missing",
        PullPolicy::Always => "always",
        PullPolicy::Never => "never",
    }
}

pub(super) fn update_order(spec: &ServiceSpec) -> &'static str {
    match spec.update_order() {
        UpdateOrder::Unspecified => "",
        UpdateOrder::StartFirst => "start-first",
        UpdateOrder::StopFirst => "stop-first",
    }
}

/// The beginning of a hash.
pub(super) fn short(hash: &str) -> &str {
    hash.get(..SHORT).unwrap_or(hash)
}

pub(super) fn number(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// With the largest unit that leaves a whole number.
pub(super) fn bytes(value: u64) -> String {
    let unit = BYTE_UNITS
        .iter()
        .find(|(_, bits)| value != 0 && value.trailing_zeros() >= *bits);
    match unit {
        Some((unit, bits)) => format!("{}{unit}", value >> bits),
        None => value.to_string(),
    }
}

/// Billionths of a CPU as CPUs, without losing one.
pub(super) fn cores(nanos: u64) -> String {
    const WHOLE: u64 = 1_000_000_000;
    let text = format!("{}.{:09}", nanos / WHOLE, nanos % WHOLE);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(super) fn unless_zero(ms: u64) -> String {
    if ms == 0 {
        String::new()
    } else {
        milliseconds(ms)
    }
}

pub(super) fn ulimit(limit: &Ulimit) -> String {
    if limit.soft == limit.hard {
        limit.soft.to_string()
    } else {
        format!("{}:{}", limit.soft, limit.hard)
    }
}

pub(super) fn device(device: &DeviceSpec) -> String {
    let parts = [&device.source, &device.target, &device.permissions];
    let parts: Vec<&str> = parts
        .into_iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(":")
}

pub(super) fn device_request(request: &DeviceRequest) -> String {
    let said = |name: &str, value: String| (!value.is_empty()).then(|| format!("{name}={value}"));
    let count = match request.count {
        -1 => "all".to_owned(),
        0 => String::new(),
        count => count.to_string(),
    };
    let parts = [
        said("driver", request.driver.clone()),
        said("count", count),
        said("device_ids", request.device_ids.join("+")),
        said("capabilities", request.capabilities.join("+")),
        said("options", pairs(&request.options)),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

pub(super) fn device_value(device: &DeviceValue) -> String {
    format!("{}:{}", device.path, device.value)
}

/// A profile in full is told by its hash.
pub(super) fn security(option: &str) -> String {
    if option.len() <= SECURITY {
        return option.to_owned();
    }
    let key = option.split_once('=').map_or("", |(key, _)| key);
    let hash = blake3::hash(option.as_bytes()).to_hex();
    format!("{key}=({} {} bytes)", short(&hash), option.len())
}

pub(super) fn hook(hook: &Hook) -> String {
    let command = serde_json::Value::from(hook.command.clone()).to_string();
    let said = |name: &str, value: &str| (!value.is_empty()).then(|| format!("{name}={value}"));
    let parts = [
        Some(command),
        said("user", &hook.user),
        hook.privileged.then(|| "privileged".to_owned()),
        said("working_dir", &hook.working_dir),
        said("environment", &pairs(&hook.environment)),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// A content that travels, by its hash.
pub(super) fn file(file: &FileSpec) -> String {
    let mode = if file.secret { " (secret)" } else { "" };
    format!("{}:{}{mode}", short(&file.hash), file.target)
}

/// The one-off run before a deployment, without its environment.
pub(super) fn run_before(run: &PreDeploy) -> String {
    let parts = [
        Some(serde_json::Value::from(run.command.clone()).to_string()),
        (!run.user.is_empty()).then(|| format!("user={}", run.user)),
        run.privileged
            .map(|privileged| format!("privileged={privileged}")),
        (run.timeout_ms != 0).then(|| format!("timeout={}", milliseconds(run.timeout_ms))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

pub(super) fn failure_action(policy: &UpdatePolicy) -> String {
    let action = match policy.failure_action() {
        FailureAction::Unspecified => "",
        FailureAction::Rollback => "rollback",
        FailureAction::Pause => "pause",
        FailureAction::Continue => "continue",
    };
    action.to_owned()
}

/// Values as they may be printed.
fn pairs(map: &BTreeMap<String, String>) -> String {
    map.iter()
        .map(|(name, value)| format!("{name}:{}", shown(name, value)))
        .collect::<Vec<_>>()
        .join("+")
}
