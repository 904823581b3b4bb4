//! Decodes names and networks. All services join the cluster's one network and find each other by
//! name. Files written for several networks work there; what cannot work is reported.

use std::collections::{BTreeMap, BTreeSet};

use uc_api::v1;

use super::{list, text};
use crate::diagnostic::Rule;
use crate::node::{Node, Span, Value};
use crate::report::{Place, Report};

/// Drivers whose networks behave like the cluster's: containers reach each other.
const LIKE_OURS: [&str; 4] = ["", "bridge", "overlay", "default"];

/// Fills the fields of a spec that are about its network and names.
pub(super) fn fill(
    spec: &mut v1::ServiceSpec,
    service: &Node,
    aliases: &Aliases,
    report: &mut Report,
) {
    spec.network_mode = mode(service, report);
    spec.domainname = text(service, "domainname");
    spec.extra_hosts = list(service, "extra_hosts");
    spec.dns = list(service, "dns");
    spec.dns_search = list(service, "dns_search");
    spec.dns_options = list(service, "dns_opt");
    spec.mac_address = text(service, "mac_address");
    for (name, entry) in service.entries_of("networks") {
        let mac = text(&entry.node, "mac_address");
        if !mac.is_empty() && (spec.mac_address.is_empty() || name == "default") {
            spec.mac_address = mac;
        }
    }
    spec.aliases = aliases.of(&spec.name);
    let outside =
        matches!(spec.network_mode.as_str(), "host" | "none") || spec.network_mode.contains(':');
    if outside
        && !spec.ports.is_empty()
        && let Some(node) = service.get("ports")
    {
        let said = match spec.network_mode.as_str() {
            "host" => "the service listens on the ports of the machine anyway",
            "none" => "the service has no network",
            _ => "the service uses the network of another container; publish the ports there",
        };
        let span = node.items().first().map_or(node.span, |item| item.span);
        report.warning(
            Rule::Value,
            span,
            format!(
                "`ports` have no effect with `network_mode: {}`",
                spec.network_mode
            ),
            format!("remove them: {said}"),
        );
        spec.ports.clear();
    }
}

/// The network mode; empty means the cluster's network.
fn mode(service: &Node, report: &mut Report) -> String {
    let Some((node, mode)) = service.get_text_node("network_mode") else {
        return String::new();
    };
    match mode {
        mode if LIKE_OURS.contains(&mode) => String::new(),
        "host" | "none" => mode.to_owned(),
        mode if mode
            .strip_prefix("service:")
            .or_else(|| mode.strip_prefix("container:"))
            .is_some_and(|name| !name.is_empty()) =>
        {
            mode.to_owned()
        }
        other => {
            report.refuse(
                node.span,
                format!(
                    "`network_mode: {other}` names a Docker network, and machines share no networks but the cluster's"
                ),
                "remove `network_mode` to join the cluster's network, or use `host`, `none`, `service:NAME` or `container:NAME`",
            );
            String::new()
        }
    }
}

/// More names of services: aliases on networks, `container_name`, and aliases of `links`.
#[derive(Debug, Default)]
pub(super) struct Aliases(BTreeMap<String, BTreeSet<String>>);

impl Aliases {
    fn of(&self, service: &str) -> Vec<String> {
        self.0.get(service).into_iter().flatten().cloned().collect()
    }

    /// Collects the aliases of all services; reports those that are the name of another service.
    pub(super) fn collect(tree: &Node, report: &mut Report) -> Self {
        let services = || tree.entries_of("services");
        let names: BTreeSet<String> = services()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect();
        let mut aliases = Self::default();
        let mut add = |service: &str, alias: &str, span: Span, report: &mut Report| {
            let alias = alias.to_ascii_lowercase();
            if alias.is_empty() || alias == service.to_ascii_lowercase() {
                return;
            }
            if names.contains(&alias) {
                report.not_honoured(
                    span,
                    format!(
                        "alias `{alias}` of `{service}` is ignored: another service of the project has this name"
                    ),
                    "choose another alias",
                );
            } else if !is_domain_name(&alias) {
                report.not_honoured(
                    span,
                    format!("alias `{alias}` is ignored: it is not a valid DNS name"),
                    "use letters, digits, `-` and `_`, with dots between labels",
                );
            } else {
                aliases
                    .0
                    .entry(service.to_owned())
                    .or_default()
                    .insert(alias);
            }
        };
        let report = &mut report.at("services");
        for (name, entry) in services() {
            let report = &mut report.at(name);
            let service = &entry.node;
            if let Some((node, container)) = service.get_text_node("container_name") {
                add(name, container, node.span, report);
            }
            for (_, network) in service.entries_of("networks") {
                for node in network.node.items_of("aliases") {
                    if let Some(alias) = node.as_text() {
                        add(name, alias, node.span, report);
                    }
                }
            }
            for link in service.items_of("links") {
                if let Some((target, alias)) = link.as_text().and_then(|link| link.split_once(':'))
                {
                    add(target, alias, link.span, report);
                }
            }
        }
        aliases
    }
}

/// Labels of letters, digits, `-` and `_`, with dots between them (RFC 1035 section 2.3.1 and, for
/// `_`, what is in use).
fn is_domain_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 200 && name.split('.').all(label)
}

/// Reports services that the file separates by networks, although they can reach each other.
pub(super) fn isolation(tree: &Node, report: &mut Report) {
    let services: Vec<(&String, BTreeSet<&str>, Span)> = tree
        .entries_of("services")
        .filter(|(_, entry)| entry.node.get("network_mode").is_none())
        .map(|(name, entry)| {
            let named: BTreeSet<&str> = entry
                .node
                .entries_of("networks")
                .map(|(name, _)| name.as_str())
                .collect();
            let networks = if named.is_empty() {
                BTreeSet::from(["default"])
            } else {
                named
            };
            let span = entry
                .node
                .as_map()
                .and_then(|map| map.get("networks"))
                .map_or(entry.key, |entry| entry.key);
            (name, networks, span)
        })
        .collect();
    let apart = services
        .iter()
        .enumerate()
        .find_map(|(index, (one, networks, _))| {
            let (other, _, span) = services
                .iter()
                .skip(index + 1)
                .find(|(_, others, _)| networks.is_disjoint(others))?;
            Some((one, other, *span))
        });
    if let Some((one, other, span)) = apart {
        report.not_honoured(
            span,
            format!(
                "networks do not separate services: `{one}` and `{other}` share none, but can reach each other"
            ),
            "every service joins the cluster's one network; protect services with passwords",
        );
    }
    for (name, entry) in tree.entries_of("networks") {
        let driver = entry.node.get("driver");
        if let Some((node, driver)) = driver.and_then(|node| Some((node, node.as_text()?)))
            && !LIKE_OURS.contains(&driver)
        {
            let report = &mut report.at("networks");
            let report = &mut report.at(name);
            report.not_honoured(
                node.span,
                format!("driver `{driver}` is ignored: every service joins the cluster's network"),
                "remove it; `network_mode: host` gives a service the network of its machine",
            );
        }
        if entry.node.get("internal").map(|node| &node.value) == Some(&Value::Bool(true)) {
            let span = entry
                .node
                .get("internal")
                .map_or(entry.key, |node| node.span);
            report.not_honoured(
                span,
                format!(
                    "`internal` of network `{name}` is ignored: its services can reach the internet"
                ),
                "remove it, or restrict the traffic with a firewall on the machines",
            );
        }
    }
}
