//! Uncloud's extensions, under its names, so that its files work.

use std::collections::BTreeMap;
use std::net::IpAddr;

use uc_api::{nearest, v1};

use super::files::words;
use super::list;
use crate::diagnostic::Rule;
use crate::node::{Node, Span, Value};
use crate::report::{Place, Report};
use crate::{duration, scalar};

const NANOSECONDS_PER_MS: i64 = 1_000_000;
const HOOK_KEYS: [&str; 5] = ["command", "environment", "privileged", "timeout", "user"];

/// `x-machines`: a list, each item a name or several with commas between.
pub(super) fn machines(node: &Node) -> Vec<String> {
    let parts = list(node, "x-machines");
    let mut machines: Vec<String> = Vec::new();
    for name in parts
        .iter()
        .flat_map(|part| part.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        if !machines.iter().any(|known| known == name) {
            machines.push(name.to_owned());
        }
    }
    machines
}

/// `x-ports`: `[host_ip:]host_port:container_port[/protocol]@host` publishes on the machine. The
/// other form is for an ingress and is reported.
pub(super) fn ports(service: &Node, report: &mut Report) -> Vec<v1::PortSpec> {
    let Some(node) = service.get("x-ports") else {
        return Vec::new();
    };
    if let Some(ports) = service
        .get("ports")
        .filter(|ports| !ports.items().is_empty() && !node.items().is_empty())
    {
        report.refuse(
            ports.span,
            "`ports` and `x-ports` exclude each other",
            "write all ports in one of them",
        );
    }
    let report = &mut report.at("x-ports");
    let mut ports = Vec::new();
    for (index, item) in node.items().iter().enumerate() {
        let report = &mut report.at_item(index);
        ports.extend(item.as_text().and_then(|text| port(text, item, report)));
    }
    ports
}

fn port(text: &str, item: &Node, report: &mut Report) -> Option<v1::PortSpec> {
    let Some(published) = text.strip_suffix("@host") else {
        if is_ingress(text, item, report) {
            report.not_honoured(
                item.span,
                format!("`{text}` is not published: there is no ingress yet"),
                "write `HOST_PORT:CONTAINER_PORT@host` to publish the port on the machine",
            );
        }
        return None;
    };
    let (ports, protocol) = published.split_once('/').unwrap_or((published, "tcp"));
    let parsed = (|| {
        let (rest, container) = ports.rsplit_once(':')?;
        let (address, host) = rest.rsplit_once(':').unwrap_or(("", rest));
        let address = address
            .strip_prefix('[')
            .and_then(|ip| ip.strip_suffix(']'))
            .unwrap_or(address);
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let protocol = match protocol {
            "tcp" => v1::Protocol::Tcp,
            "udp" => v1::Protocol::Udp,
            _ => return None,
        };
        Some((address, number(host)?, number(container)?, protocol))
    })();
    let Some((address, host, container, protocol)) = parsed else {
        report.refuse(
            item.span,
            format!("`{text}` is not a valid port of the machine"),
            "write `[IP:]HOST_PORT:CONTAINER_PORT[/tcp|udp]@host`",
        );
        return None;
    };
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        report.refuse(
            item.span,
            format!("`{address}` is not an IP address"),
            "write one address of the machine, or leave it out for all addresses",
        );
        return None;
    }
    Some(v1::PortSpec {
        container_port: container.into(),
        published_port: host.into(),
        host_ip: address.to_owned(),
        protocol: protocol.into(),
        ..v1::PortSpec::default()
    })
}

/// Whether `text` is a valid port for the ingress, `[hostname:]container_port[/http|https]`. Errors
/// are reported.
fn is_ingress(text: &str, item: &Node, report: &mut Report) -> bool {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "https"));
    let (hostname, container) = ports.rsplit_once(':').unwrap_or(("", ports));
    if container.parse::<u16>().is_ok_and(|port| port > 0) && !hostname.contains(':') {
        let wrong = match protocol {
            "http" | "https" if hostname.is_empty() || hostname.contains('.') => return true,
            "http" | "https" => (
                format!("`{hostname}` is not a full host name"),
                "write it with its domain, as in `app.example.com`",
            ),
            "tcp" | "udp" => (
                format!(
                    "`{text}`: an ingress serves HTTP, not {}",
                    protocol.to_ascii_uppercase()
                ),
                "publish it on the machine: `HOST_PORT:CONTAINER_PORT@host`",
            ),
            _ => (
                format!("`{text}`: unknown protocol `{protocol}`"),
                "use `http` or `https`",
            ),
        };
        report.refuse(item.span, wrong.0, wrong.1);
        return false;
    }
    report.refuse(
        item.span,
        format!("`{text}` is not a port"),
        "write `[HOSTNAME:]CONTAINER_PORT[/http|https]` or `[IP:]HOST_PORT:CONTAINER_PORT[/tcp|udp]@host`",
    );
    false
}

/// Checks `x-caddy`: the text of a Caddyfile, a line with the path of one, or `{config: …}`. It
/// excludes ports for the ingress, as in Uncloud. The table reports that the key is ignored.
pub(super) fn caddy(service: &Node, report: &mut Report) {
    let Some(node) = service
        .get("x-caddy")
        .filter(|node| node.value != Value::Null)
    else {
        return;
    };
    let report = &mut report.at("x-caddy");
    let config = if node.as_map().is_some() {
        node.get("config")
    } else {
        Some(node)
    };
    refuse_unknown_keys(node, "x-caddy", &["config"], report);
    if config
        .and_then(Node::as_text)
        .is_none_or(|text| text.trim().is_empty())
    {
        report.refuse(
            node.span,
            format!(
                "`x-caddy` must be the text of a Caddyfile, not {}",
                node.kind()
            ),
            "write it after `x-caddy: |`, or name a file: `x-caddy: ./Caddyfile`",
        );
    }
    let ingress = service.items_of("x-ports");
    let mut ingress =
        ingress.filter(|item| item.as_text().is_some_and(|text| !text.ends_with("@host")));
    if let Some(port) = ingress.next() {
        report.refuse(
            port.span,
            "`x-caddy` and ports of the ingress exclude each other",
            "serve the host name in `x-caddy`, or remove `x-caddy`; ports with `@host` are allowed",
        );
    }
}

fn refuse_unknown_keys(node: &Node, name: &str, known: &[&str], report: &mut Report) {
    for (key, entry) in node.entries() {
        if !known.contains(&key.as_str()) {
            let hint = nearest::did_you_mean(key, known.iter().copied());
            report.refuse(
                entry.key,
                format!("unknown key `{key}` in `{name}`"),
                hint.unwrap_or_else(|| "remove it".to_owned()),
            );
        }
    }
}

/// `x-pre_deploy`: a command run once before a deployment changes the service.
pub(super) fn pre_deploy(service: &Node, report: &mut Report) -> Option<v1::PreDeploy> {
    let node = service
        .get("x-pre_deploy")
        .filter(|node| node.value != Value::Null)?;
    hook(node, &mut report.at("x-pre_deploy"))
}

fn hook(node: &Node, report: &mut Report) -> Option<v1::PreDeploy> {
    if node.as_map().is_none() {
        report.refuse(
            node.span,
            format!("`x-pre_deploy` must be a mapping, not {}", node.kind()),
            "write `command:` below it",
        );
        return None;
    }
    refuse_unknown_keys(node, "x-pre_deploy", &HOOK_KEYS, report);
    let Some(command) = node.get("command") else {
        report.refuse(
            node.span,
            "`x-pre_deploy` has no `command`",
            "add `command:` with what to run before the deployment",
        );
        return None;
    };
    Some(v1::PreDeploy {
        command: words(command, report)?,
        environment: hook_environment(node.get("environment"), report),
        privileged: node
            .get("privileged")
            .and_then(|node| hook_flag(node, report)),
        timeout_ms: node
            .get("timeout")
            .and_then(|node| timeout(node, report))
            .unwrap_or(0),
        user: node
            .get("user")
            .filter(|node| node.value != Value::Null)
            .and_then(|node| hook_text(node, "user", report))
            .unwrap_or_default(),
    })
}

fn timeout(node: &Node, report: &mut Report) -> Option<u64> {
    let parsed = node
        .as_text()
        .and_then(duration::parse_duration)
        .filter(|nanoseconds| *nanoseconds > 0);
    if parsed.is_none() {
        report.refuse(
            node.span,
            "`timeout` must be a duration",
            "write a duration such as `5m`",
        );
    }
    u64::try_from(parsed? / NANOSECONDS_PER_MS)
        .ok()
        .map(|milliseconds| milliseconds.max(1))
}

/// A boolean, or a string that spells one.
fn hook_flag(node: &Node, report: &mut Report) -> Option<bool> {
    let flag = match &node.value {
        Value::Null => return None,
        Value::Bool(flag) => Some(*flag),
        Value::Text(text) => scalar::cast_bool(text).map(|(flag, _)| flag),
        _ => None,
    };
    if flag.is_none() {
        report.refuse(
            node.span,
            "`privileged` must be `true` or `false`",
            "write `privileged: true`",
        );
    }
    flag
}

/// A mapping, or a list of `NAME=value`. [`mod@crate::environment`] has put in the values of names
/// without one, as far as they are set.
fn hook_environment(node: Option<&Node>, report: &mut Report) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    let Some(node) = node else { return environment };
    match &node.value {
        Value::Null | Value::Broken => {}
        Value::Map(map) => {
            for (name, entry) in map {
                if entry.node.value == Value::Null {
                    report_unset(name, entry.key, report);
                } else if let Some(value) = hook_text(&entry.node, name, report) {
                    environment.insert(name.clone(), value);
                }
            }
        }
        Value::List(items) => {
            for item in items {
                match item.as_text().map(|text| (text, text.split_once('='))) {
                    Some((_, Some((name, value)))) => {
                        environment.insert(name.to_owned(), value.to_owned());
                    }
                    Some((name, None)) => report_unset(name, item.span, report),
                    None => report.refuse(
                        item.span,
                        format!("a variable must be a string, not {}", item.kind()),
                        "write `NAME=value`",
                    ),
                }
            }
        }
        _ => report.refuse(
            node.span,
            format!(
                "`environment` must be a mapping or a list, not {}",
                node.kind()
            ),
            "write `NAME: value` below it",
        ),
    }
    environment
}

fn report_unset(name: &str, span: Span, report: &mut Report) {
    report.warning(
        Rule::Variable,
        span,
        format!("the variable `{name}` has no value and is not set on this computer"),
        format!("write `{name}=value`, or set {name}"),
    );
}

/// A string, number or boolean as text.
fn hook_text(node: &Node, name: &str, report: &mut Report) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Float(number) => Some(scalar::go_float(*number)),
        Value::Bool(value) => Some(value.to_string()),
        _ => {
            report.refuse(
                node.span,
                format!("`{name}` must be a string, not {}", node.kind()),
                "put the value in quotes",
            );
            None
        }
    }
}
