//! The JSON of a service's spec and its parts.

mod container;
mod rollout;

use std::collections::BTreeMap;

use container::{Content, Device, DeviceRequest, Hook, Logging, Mount, Resources, Ulimit};
use rollout::{Placement, PreDeploy, Update};
use serde::Serialize;
use uc_api::v1;

use super::some;
use crate::words::{mode, word};

/// A published port.
#[derive(Debug, Serialize)]
pub(crate) struct Port {
    container_port: u32,
    /// Null: the machine chooses a port.
    published_port: Option<u32>,
    /// End of the range in which the machine chooses a port; null: no range.
    published_last: Option<u32>,
    host_ip: Option<String>,
    protocol: String,
}

impl From<&v1::PortSpec> for Port {
    fn from(port: &v1::PortSpec) -> Self {
        Self {
            container_port: port.container_port,
            published_port: (port.published_port != 0).then_some(port.published_port),
            published_last: (port.published_last != 0).then_some(port.published_last),
            host_ip: some(&port.host_ip),
            protocol: protocol(port),
        }
    }
}

/// `tcp` is the default.
fn protocol(port: &v1::PortSpec) -> String {
    match port.protocol() {
        v1::Protocol::Udp => "udp".into(),
        v1::Protocol::Sctp => "sctp".into(),
        v1::Protocol::Tcp | v1::Protocol::Unspecified => "tcp".into(),
    }
}

/// `8080→80/tcp`, for tables.
pub(crate) fn port_text(port: &v1::PortSpec) -> String {
    let published = match (port.published_port, port.published_last) {
        (0, _) => "*".to_owned(),
        (first, last) if last > first => format!("{first}-{last}"),
        (one, _) => one.to_string(),
    };
    let ip = match port.host_ip.as_str() {
        "" => String::new(),
        ip if ip.contains(':') => format!("[{ip}]:"),
        ip => format!("{ip}:"),
    };
    format!("{ip}{published}→{}/{}", port.container_port, protocol(port))
}

/// A named volume.
#[derive(Debug, Serialize)]
pub(crate) struct Volume {
    name: String,
    project: String,
    driver: String,
    driver_opts: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    external: bool,
}

impl From<&v1::VolumeSpec> for Volume {
    fn from(volume: &v1::VolumeSpec) -> Self {
        Self {
            name: volume.name.clone(),
            project: volume.project.clone(),
            driver: some(&volume.driver).unwrap_or_else(|| "local".into()),
            driver_opts: volume.driver_opts.clone(),
            labels: volume.labels.clone(),
            external: volume.external,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Spec {
    image: String,
    built: bool,
    command: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    environment: BTreeMap<String, String>,
    ports: Vec<Port>,
    mounts: Vec<Mount>,
    healthcheck: Option<Healthcheck>,
    depends_on: Vec<Dependency>,
    mode: String,
    replicas: Option<u32>,
    machines: Vec<String>,
    user: Option<String>,
    working_dir: Option<String>,
    hostname: Option<String>,
    labels: BTreeMap<String, String>,
    stop_grace_period_ms: Option<u64>,
    stop_signal: Option<String>,
    restart: String,
    pull_policy: String,
    update_order: String,
    init: bool,
    read_only: bool,
    tty: bool,
    stdin_open: bool,
    cap_add: Vec<String>,
    cap_drop: Vec<String>,
    aliases: Vec<String>,
    domainname: Option<String>,
    extra_hosts: Vec<String>,
    dns: Vec<String>,
    dns_search: Vec<String>,
    dns_options: Vec<String>,
    network_mode: Option<String>,
    mac_address: Option<String>,
    ipc: Option<String>,
    pid: Option<String>,
    uts: Option<String>,
    userns: Option<String>,
    cgroup: Option<String>,
    cgroup_parent: Option<String>,
    privileged: bool,
    group_add: Vec<String>,
    security_opt: Vec<String>,
    device_cgroup_rules: Vec<String>,
    devices: Vec<Device>,
    device_requests: Vec<DeviceRequest>,
    sysctls: BTreeMap<String, String>,
    storage_opt: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    ulimits: BTreeMap<String, Ulimit>,
    resources: Option<Resources>,
    logging: Option<Logging>,
    runtime: Option<String>,
    platform: Option<String>,
    shm_size: Option<u64>,
    /// Null: without limit, where `restart` is `on-failure`.
    restart_attempts: Option<u32>,
    files: Vec<Content>,
    /// Hashes of values, by name of the variable.
    secret_environment: BTreeMap<String, String>,
    post_start: Vec<Hook>,
    pre_stop: Vec<Hook>,
    pre_deploy: Option<PreDeploy>,
    update: Option<Update>,
    placement: Option<Placement>,
    service_labels: BTreeMap<String, String>,
    shared_revisions: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Healthcheck {
    test: Vec<String>,
    interval_ms: Option<u64>,
    timeout_ms: Option<u64>,
    start_period_ms: Option<u64>,
    retries: Option<u32>,
    start_interval_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Dependency {
    service: String,
    condition: String,
    restart: bool,
}

impl From<&v1::ServiceSpec> for Spec {
    fn from(spec: &v1::ServiceSpec) -> Self {
        let list = |list: &Option<v1::StringList>| list.as_ref().map(|list| list.values.clone());
        let or = |text: String, default: &str| {
            if text == "unknown" {
                default.to_owned()
            } else {
                text
            }
        };
        Self {
            image: spec.image.clone(),
            built: spec.built,
            command: list(&spec.command),
            entrypoint: list(&spec.entrypoint),
            environment: spec.environment.clone(),
            ports: spec.ports.iter().map(Port::from).collect(),
            mounts: spec.mounts.iter().map(Mount::from).collect(),
            healthcheck: spec.healthcheck.as_ref().map(|check| Healthcheck {
                test: check.test.clone(),
                interval_ms: check.interval_ms,
                timeout_ms: check.timeout_ms,
                start_period_ms: check.start_period_ms,
                retries: check.retries,
                start_interval_ms: check.start_interval_ms,
            }),
            depends_on: spec
                .depends_on
                .iter()
                .map(|dependency| Dependency {
                    service: dependency.service.clone(),
                    condition: or(
                        word(
                            dependency.condition().as_str_name(),
                            "DEPENDENCY_CONDITION_",
                        ),
                        "started",
                    ),
                    restart: dependency.restart,
                })
                .collect(),
            mode: mode(spec.mode()),
            replicas: (spec.mode() != v1::ServiceMode::Global).then_some(spec.replicas),
            machines: spec.machines.clone(),
            user: some(&spec.user),
            working_dir: some(&spec.working_dir),
            hostname: some(&spec.hostname),
            labels: spec.labels.clone(),
            stop_grace_period_ms: spec.stop_grace_period_ms,
            stop_signal: some(&spec.stop_signal),
            restart: or(
                word(spec.restart().as_str_name(), "RESTART_POLICY_"),
                "unless-stopped",
            ),
            pull_policy: or(
                word(spec.pull_policy().as_str_name(), "PULL_POLICY_"),
                "missing",
            ),
            update_order: or(
                word(spec.update_order().as_str_name(), "UPDATE_ORDER_"),
                "auto",
            ),
            init: spec.init,
            read_only: spec.read_only,
            tty: spec.tty,
            stdin_open: spec.stdin_open,
            cap_add: spec.cap_add.clone(),
            cap_drop: spec.cap_drop.clone(),
            aliases: spec.aliases.clone(),
            domainname: some(&spec.domainname),
            extra_hosts: spec.extra_hosts.clone(),
            dns: spec.dns.clone(),
            dns_search: spec.dns_search.clone(),
            dns_options: spec.dns_options.clone(),
            network_mode: some(&spec.network_mode),
            mac_address: some(&spec.mac_address),
            ipc: some(&spec.ipc),
            pid: some(&spec.pid),
            uts: some(&spec.uts),
            userns: some(&spec.userns),
            cgroup: some(&spec.cgroup),
            cgroup_parent: some(&spec.cgroup_parent),
            privileged: spec.privileged,
            group_add: spec.group_add.clone(),
            security_opt: spec.security_opt.clone(),
            device_cgroup_rules: spec.device_cgroup_rules.clone(),
            devices: spec.devices.iter().map(Device::from).collect(),
            device_requests: spec
                .device_requests
                .iter()
                .map(DeviceRequest::from)
                .collect(),
            sysctls: spec.sysctls.clone(),
            storage_opt: spec.storage_opt.clone(),
            annotations: spec.annotations.clone(),
            ulimits: spec
                .ulimits
                .iter()
                .map(|(name, limit)| (name.clone(), limit.into()))
                .collect(),
            resources: spec.resources.as_ref().map(Resources::from),
            logging: spec.logging.as_ref().map(Logging::from),
            runtime: some(&spec.runtime),
            platform: some(&spec.platform),
            shm_size: spec.shm_size,
            restart_attempts: (spec.restart_attempts != 0).then_some(spec.restart_attempts),
            files: spec.files.iter().map(Content::from).collect(),
            secret_environment: spec.secret_environment.clone(),
            post_start: spec.post_start.iter().map(Hook::from).collect(),
            pre_stop: spec.pre_stop.iter().map(Hook::from).collect(),
            pre_deploy: spec.pre_deploy.as_ref().map(PreDeploy::from),
            update: spec.update.as_ref().map(Update::from),
            placement: spec.placement.as_ref().map(Placement::from),
            service_labels: spec.service_labels.clone(),
            shared_revisions: spec.shared_revisions.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_for_people() {
        let port = |published_port, host_ip: &str, udp| {
            port_text(&v1::PortSpec {
                container_port: 80,
                published_port,
                host_ip: host_ip.into(),
                protocol: if udp { v1::Protocol::Udp.into() } else { 0 },
                ..Default::default()
            })
        };
        assert_eq!(port(8080, "", false), "8080→80/tcp");
        assert_eq!(port(0, "127.0.0.1", true), "127.0.0.1:*→80/udp");
        assert_eq!(port(53, "::1", true), "[::1]:53→80/udp");
        let range = v1::PortSpec {
            container_port: 80,
            published_port: 8000,
            published_last: 8010,
            protocol: v1::Protocol::Sctp.into(),
            ..Default::default()
        };
        assert_eq!(port_text(&range), "8000-8010→80/sctp");
    }

    #[test]
    fn no_field_is_left_out() {
        let json = |spec: &v1::ServiceSpec| serde_json::to_value(Spec::from(spec)).unwrap();
        let whole = json(&uc_api::every_field::spec());
        for (path, changed) in uc_api::every_field::changes() {
            // These two are beside the spec.
            let beside = ["project", "name"].contains(&path.as_str());
            assert_eq!(json(&changed) == whole, beside, "{path}");
        }
    }

    #[test]
    fn defaults_are_said_in_words() {
        let json = serde_json::to_value(Spec::from(&v1::ServiceSpec::default())).unwrap();
        assert_eq!(json["restart"], "unless-stopped");
        assert_eq!(json["pull_policy"], "missing");
        assert_eq!(json["update_order"], "auto");
        assert_eq!(json["command"], serde_json::Value::Null);
    }
}
