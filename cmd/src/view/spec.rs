//! The JSON of a service's spec and its parts.

mod container;
mod rollout;

use std::collections::BTreeMap;

use container::{Content, Device, DeviceRequest, Hook, Logging, Mount, Resources, Ulimit};
use rollout::{Placement, PreDeploy, Update};
use uc_api::v1;

use super::shape::{Show, shape};
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

macro_rules! json {
    (
        identity $project:ident: identity($project_key:literal);
        identity $name:ident: identity($name_key:literal);
        $($place:ident $field:ident: $kind:ident($key:literal);)*
    ) => {
        shape! {
            /// A spec without project and name, which stand beside it.
            pub(crate) struct Spec of v1::ServiceSpec {
                $($field: kind!($kind) = value!($kind $field),)*
            }
        }
    };
}

/// The type in JSON of a kind of field. Null means "not set".
macro_rules! kind {
    (required) => { String };
    (text) => { Option<String> };
    // Null: the image is not pinned.
    (digest) => { Option<String> };
    (texts) => { Vec<String> };
    (flag) => { bool };
    (map) => { BTreeMap<String, String> };
    // Hashes of values, by name of the variable.
    (secrets) => { BTreeMap<String, String> };
    (command) => { Option<Vec<String>> };
    (milliseconds) => { Option<u64> };
    (bytes) => { Option<u64> };
    (enumeration) => { String };
    // Null for a global service.
    (replicas) => { Option<u32> };
    // Null: without limit, where `restart` is `on-failure`.
    (restart_attempts) => { Option<u32> };
    (security) => { Vec<String> };
    (revisions) => { Vec<String> };
    (ports) => { Vec<Port> };
    (mounts) => { Vec<Mount> };
    (healthcheck) => { Option<Healthcheck> };
    (dependencies) => { Vec<Dependency> };
    (devices) => { Vec<Device> };
    (device_requests) => { Vec<DeviceRequest> };
    (ulimits) => { BTreeMap<String, Ulimit> };
    (resources) => { Option<Resources> };
    (logging) => { Option<Logging> };
    (contents) => { Vec<Content> };
    (hooks) => { Vec<Hook> };
    (pre_deploy) => { Option<PreDeploy> };
    (update) => { Option<Update> };
    (placement) => { Option<Placement> };
}

/// How a field's value is made. Only enumerations and `replicas` need more than the field.
macro_rules! value {
    (enumeration mode) => {
        |spec| mode(spec.mode())
    };
    (enumeration restart) => {
        |spec| {
            word_or(
                spec.restart().as_str_name(),
                "RESTART_POLICY_",
                "unless-stopped",
            )
        }
    };
    (enumeration pull_policy) => {
        |spec| word_or(spec.pull_policy().as_str_name(), "PULL_POLICY_", "missing")
    };
    (enumeration update_order) => {
        |spec| word_or(spec.update_order().as_str_name(), "UPDATE_ORDER_", "auto")
    };
    (replicas replicas) => {
        |spec| (spec.mode() != v1::ServiceMode::Global).then_some(spec.replicas)
    };
    ($kind:ident $field:ident) => {
        |spec| Show::show(&spec.$field)
    };
}

uc_api::service_fields!(json);

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
