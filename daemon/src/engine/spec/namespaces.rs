//! Namespaces that a container shares with its machine or with another container.

use std::collections::BTreeMap;

use bollard::models::{HostConfig, HostConfigCgroupnsModeEnum};
use uc_api::v1;

use super::{Placement, SpecError, text};

/// Fills in all namespaces except the network.
pub(super) fn fill(
    spec: &v1::ServiceSpec,
    placement: &Placement<'_>,
    host: &mut HostConfig,
) -> Result<(), SpecError> {
    host.ipc_mode = joined(spec, "ipc", &spec.ipc, placement.shared)?;
    host.pid_mode = joined(spec, "pid", &spec.pid, placement.shared)?;
    host.uts_mode = text(&spec.uts);
    host.userns_mode = text(&spec.userns);
    host.cgroupns_mode = match spec.cgroup.as_str() {
        "host" => Some(HostConfigCgroupnsModeEnum::HOST),
        "private" => Some(HostConfigCgroupnsModeEnum::PRIVATE),
        _ => None,
    };
    host.cgroup_parent = text(&spec.cgroup_parent);
    Ok(())
}

/// Returns the services of the project whose namespaces a spec shares.
pub(crate) fn shared_services(spec: &v1::ServiceSpec) -> Vec<&str> {
    let mut services: Vec<&str> = [&spec.network_mode, &spec.ipc, &spec.pid]
        .into_iter()
        .filter_map(|mode| mode.strip_prefix("service:"))
        .collect();
    services.sort_unstable();
    services.dedup();
    services
}

/// Refuses a spec that shares with a service without a container in `shared`.
pub(crate) fn check_shared(
    spec: &v1::ServiceSpec,
    shared: &BTreeMap<String, String>,
) -> Result<(), SpecError> {
    for (key, mode) in [
        ("network_mode", &spec.network_mode),
        ("ipc", &spec.ipc),
        ("pid", &spec.pid),
    ] {
        joined(spec, key, mode, shared)?;
    }
    Ok(())
}

/// Converts the mode to the engine's notation, which knows only containers.
pub(super) fn joined(
    spec: &v1::ServiceSpec,
    key: &'static str,
    mode: &str,
    shared: &BTreeMap<String, String>,
) -> Result<Option<String>, SpecError> {
    let Some(other) = mode.strip_prefix("service:") else {
        return Ok(text(mode));
    };
    match shared.get(other) {
        Some(container) => Ok(Some(format!("container:{container}"))),
        None => Err(SpecError::NoReplica {
            service: spec.name.clone(),
            key,
            other: other.to_owned(),
        }),
    }
}
