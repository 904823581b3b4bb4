//! How a container is reached and finds others: its network, names, DNS servers and published
//! ports.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, NetworkingConfig, PortBinding,
};
use uc_api::layout::{DOCKER_NETWORK, DOMAIN};
use uc_api::name::MAX_LABEL;
use uc_api::v1;

use super::check::is_shared;
use super::{Placement, SpecError, list, namespaces, some_if, text};

/// Fills in the network's part of `body` and `host`.
pub(super) fn fill(
    spec: &v1::ServiceSpec,
    name: &str,
    placement: &Placement<'_>,
    body: &mut ContainerCreateBody,
    host: &mut HostConfig,
) -> Result<(), SpecError> {
    let own = spec.network_mode.is_empty();
    host.network_mode = if own {
        Some(DOCKER_NETWORK.to_owned())
    } else {
        namespaces::joined(spec, "network_mode", &spec.network_mode, placement.shared)?
    };
    if is_shared(&spec.network_mode) {
        // Names, DNS, hosts and ports belong to the other container.
        return Ok(());
    }
    body.hostname = hostname(spec, name);
    body.domainname = text(&spec.domainname);
    host.extra_hosts = list(&extra_hosts(spec, placement));
    if spec.network_mode == "none" {
        return Ok(());
    }
    // A container in the machine's network can also resolve the cluster's names, because the
    // machine reaches its own bridge. Resolvers of the service come after our DNS server, which
    // refuses other names for a container that has its own resolvers.
    let servers = [placement.bridge.to_string()]
        .into_iter()
        .chain(spec.dns.iter().cloned())
        .collect();
    let domains = [format!("{}.{DOMAIN}", spec.project), DOMAIN.to_owned()];
    host.dns = Some(servers);
    host.dns_search = Some(spec.dns_search.iter().cloned().chain(domains).collect());
    host.dns_options = Some(dns_options(spec));
    if !own {
        return Ok(());
    }
    let endpoint = EndpointSettings {
        mac_address: text(&spec.mac_address),
        ..Default::default()
    };
    body.networking_config = Some(NetworkingConfig {
        endpoints_config: Some(HashMap::from([(DOCKER_NETWORK.to_owned(), endpoint)])),
    });
    body.exposed_ports = some_if(!spec.ports.is_empty(), || exposed(&spec.ports));
    host.port_bindings = some_if(!spec.ports.is_empty(), || port_bindings(&spec.ports));
    Ok(())
}

/// Returns the host name inside the container: the user's choice, or else the container's name. Of
/// a name that is too long for Linux, its end is used, because that part is unique. A container
/// that shares the machine's network or UTS namespace keeps the machine's name.
pub(super) fn hostname(spec: &v1::ServiceSpec, name: &str) -> Option<String> {
    if !spec.hostname.is_empty() {
        return Some(spec.hostname.clone());
    }
    if !spec.uts.is_empty() || spec.network_mode == "host" {
        return None;
    }
    let from = name.len().saturating_sub(MAX_LABEL);
    Some(
        name.get(from..)
            .unwrap_or(name)
            .trim_start_matches(['-', '_', '.'])
            .to_owned(),
    )
}

/// Sets `ndots:1` unless the user sets another value. Service names have no dots, or they are
/// complete.
fn dns_options(spec: &v1::ServiceSpec) -> Vec<String> {
    let mut options = spec.dns_options.clone();
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:1".to_owned());
    }
    options
}

/// Converts to the engine's notation. The engine's own `host-gateway` is the address of the default
/// bridge, which many machines do not have. Ours is the address of the container's bridge.
fn extra_hosts(spec: &v1::ServiceSpec, placement: &Placement<'_>) -> Vec<String> {
    let entry = |entry: &String| {
        let (host, address) = entry.split_once('=').unwrap_or((entry, ""));
        match address.trim_matches(['[', ']']) {
            "host-gateway" => format!("{host}:{}", placement.bridge),
            address => format!("{host}:{address}"),
        }
    };
    spec.extra_hosts.iter().map(entry).collect()
}

/// Returns `80/tcp`, as the engine writes it.
pub(crate) fn port_key(port: u32, protocol: v1::Protocol) -> String {
    let protocol = match protocol {
        v1::Protocol::Udp => "udp",
        v1::Protocol::Sctp => "sctp",
        v1::Protocol::Tcp | v1::Protocol::Unspecified => "tcp",
    };
    format!("{port}/{protocol}")
}

fn exposed(ports: &[v1::PortSpec]) -> Vec<String> {
    let mut exposed: Vec<String> = ports
        .iter()
        .map(|port| port_key(port.container_port, port.protocol()))
        .collect();
    exposed.sort();
    exposed.dedup();
    exposed
}

/// Keeps all published ports of a container port. From a range the engine chooses one.
fn port_bindings(ports: &[v1::PortSpec]) -> HashMap<String, Option<Vec<PortBinding>>> {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in ports {
        let host_port = match (port.published_port, port.published_last) {
            (0, _) => String::new(),
            (first, last) if last > first => format!("{first}-{last}"),
            (one, _) => one.to_string(),
        };
        bindings
            .entry(port_key(port.container_port, port.protocol()))
            .or_default()
            .get_or_insert_with(Vec::new)
            .push(PortBinding {
                host_ip: Some(port.host_ip.clone()),
                host_port: Some(host_port),
            });
    }
    bindings
}
