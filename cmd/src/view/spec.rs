//! The JSON of a service's spec and its parts.

mod container;
mod rollout;

use std::collections::BTreeMap;

use container::{Content, Device, DeviceRequest, Hook, Logging, Mount, Resources, Ulimit};
use rollout::{Placement, PreDeploy, Update};
use uc_api::v1;

use super::shape::shape;
use crate::words::{mode, word};

shape! {
    /// A published port.
    pub(crate) struct Port of v1::PortSpec {
        container_port: u32,
        /// Null: the machine chooses a port.
        published_port: Option<u32>,
        /// End of the range in which the machine chooses a port; null: no range.
        published_last: Option<u32>,
        host_ip: Option<String>,
        protocol: String = protocol,
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

shape! {
    /// A named volume.
    pub(crate) struct Volume of v1::VolumeSpec {
        name: String,
        project: String,
        driver: String = |volume| driver(&volume.driver),
        driver_opts: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
        external: bool,
    }
}

/// The driver of a volume or of logs; `local` is the default.
fn driver(name: &str) -> String {
    if name.is_empty() { "local" } else { name }.to_owned()
}

/// The word for an enumeration's value, or for its default if it is not set.
fn word_or(name: &str, prefix: &str, default: &str) -> String {
    match word(name, prefix).as_str() {
        "unknown" => default.to_owned(),
        word => word.to_owned(),
    }
}

shape! {
    pub(crate) struct Spec of v1::ServiceSpec {
        image: String,
        built: bool,
        command: Option<Vec<String>>,
        entrypoint: Option<Vec<String>>,
        environment: BTreeMap<String, String>,
        ports: Vec<Port>,
        mounts: Vec<Mount>,
        healthcheck: Option<Healthcheck>,
        depends_on: Vec<Dependency>,
        mode: String = |spec| mode(spec.mode()),
        replicas: Option<u32> = |spec| {
            (spec.mode() != v1::ServiceMode::Global).then_some(spec.replicas)
        },
        machines: Vec<String>,
        user: Option<String>,
        working_dir: Option<String>,
        hostname: Option<String>,
        labels: BTreeMap<String, String>,
        stop_grace_period_ms: Option<u64>,
        stop_signal: Option<String>,
        restart: String = |spec| {
            word_or(spec.restart().as_str_name(), "RESTART_POLICY_", "unless-stopped")
        },
        pull_policy: String = |spec| {
            word_or(spec.pull_policy().as_str_name(), "PULL_POLICY_", "missing")
        },
        update_order: String = |spec| {
            word_or(spec.update_order().as_str_name(), "UPDATE_ORDER_", "auto")
        },
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
}

shape! {
    struct Healthcheck of v1::Healthcheck {
        test: Vec<String>,
        interval_ms: Option<u64>,
        timeout_ms: Option<u64>,
        start_period_ms: Option<u64>,
        retries: Option<u32>,
        start_interval_ms: Option<u64>,
    }
}

shape! {
    struct Dependency of v1::Dependency {
        service: String,
        condition: String = |dependency| {
            word_or(dependency.condition().as_str_name(), "DEPENDENCY_CONDITION_", "started")
        },
        restart: bool,
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
