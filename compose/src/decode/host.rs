//! What a container shares with its machine or with other containers, and what it may do there.

use std::collections::BTreeMap;

use uc_api::v1;

use super::{list, strings, text};
use crate::node::{Node, Value};
use crate::report::Report;

/// Devices of the machine; those with a CDI name have no target.
pub(super) fn devices(service: &Node) -> Vec<v1::DeviceSpec> {
    let items = service.items_of("devices");
    items
        .filter(|item| item.as_map().is_some())
        .map(|item| {
            let source = text(item, "source");
            let cdi = !source.starts_with('/');
            let or = |value: String, default: &str| {
                if value.is_empty() {
                    default.to_owned()
                } else {
                    value
                }
            };
            v1::DeviceSpec {
                target: if cdi {
                    String::new()
                } else {
                    or(text(item, "target"), &source)
                },
                permissions: or(text(item, "permissions"), "rwm"),
                source,
            }
        })
        .collect()
}

/// Requests for devices by what they can do: `deploy.resources.reservations.devices` and `gpus`.
pub(super) fn device_requests(service: &Node) -> Vec<v1::DeviceRequest> {
    let reserved = service
        .get("deploy")
        .and_then(|deploy| deploy.get("resources")?.get("reservations")?.get("devices"))
        .into_iter()
        .flat_map(Node::items)
        .map(|item| request(item, &[]));
    let gpus = service.items_of("gpus").map(|item| request(item, &["gpu"]));
    reserved.chain(gpus).collect()
}

fn request(item: &Node, also: &[&str]) -> v1::DeviceRequest {
    let mut capabilities = list(item, "capabilities");
    for capability in also {
        if !capabilities.iter().any(|known| known == capability) {
            capabilities.push((*capability).to_owned());
        }
    }
    let device_ids = list(item, "device_ids");
    let count = item
        .get("count")
        .and_then(Node::as_int)
        .and_then(|count| i64::try_from(count).ok());
    v1::DeviceRequest {
        driver: text(item, "driver"),
        // All of them when nothing is said, as in Compose.
        count: count.unwrap_or(if device_ids.is_empty() { -1 } else { 0 }),
        device_ids,
        capabilities,
        options: strings(item.get("options")),
    }
}

/// A namespace of a container (`ipc`, `pid`, `uts`, `userns_mode`, `cgroup`): what it may be shared
/// with.
pub(super) fn namespace(service: &Node, key: &str, words: &[&str], report: &mut Report) -> String {
    let Some((node, value)) = service.get_text_node(key) else {
        return String::new();
    };
    let with = |kind: &str| {
        words.contains(&kind)
            && value
                .strip_prefix(kind)
                .is_some_and(|name| !name.is_empty())
    };
    if value.is_empty() || words.contains(&value) || with("service:") || with("container:") {
        // Its own is what it has anyway.
        let own = value == "private" && key != "cgroup";
        return if own { String::new() } else { value.to_owned() };
    }
    let possible: Vec<_> = words
        .iter()
        .map(|word| {
            if word.ends_with(':') {
                format!("`{word}NAME`")
            } else {
                format!("`{word}`")
            }
        })
        .collect();
    report.refuse(
        node.span,
        format!("`{key}` cannot be `{value}`"),
        format!("use {}", possible.join(", ")),
    );
    String::new()
}

/// Log driver and its options.
pub(super) fn logging(service: &Node) -> Option<v1::Logging> {
    let node = service
        .get("logging")
        .filter(|node| node.as_map().is_some_and(|map| !map.is_empty()))?;
    Some(v1::Logging {
        driver: text(node, "driver"),
        options: strings(node.get("options")),
    })
}

/// Options of security modules. A seccomp profile in a file cannot be named to a machine.
pub(super) fn security_opt(service: &Node, report: &mut Report) -> Vec<String> {
    let items = service.items_of("security_opt");
    items
        .filter_map(|item| {
            let option = item.as_text()?;
            let profile = option.strip_prefix("seccomp").and_then(|rest| rest.strip_prefix(['=', ':']));
            if let Some(profile) = profile.filter(|profile| !matches!(*profile, "unconfined" | "builtin"))
                && !profile.trim_start().starts_with('{')
            {
                report.refuse(
                    item.span,
                    format!("the seccomp profile `{profile}` is a file on this computer"),
                    "use `seccomp=unconfined`, or write the JSON of the profile in place of the path",
                );
                return None;
            }
            Some(option.to_owned())
        })
        .collect()
}

/// Kernel parameters; numbers are written as text.
pub(super) fn sysctls(service: &Node) -> BTreeMap<String, String> {
    let entries = service.entries_of("sysctls");
    entries
        .filter_map(|(name, entry)| {
            let value = match &entry.node.value {
                Value::Text(text) => text.clone(),
                Value::Int(number) => number.to_string(),
                Value::Bool(value) => i32::from(*value).to_string(),
                _ => return None,
            };
            Some((name.clone(), value))
        })
        .collect()
}
