//! How much of a machine a container may use, and how much must be left there for it.

use std::collections::BTreeMap;

use uc_api::v1;

use super::{flag, text};
use crate::duration;
use crate::node::{Node, Value};
use crate::report::Report;

const NANO: f64 = 1e9;

/// Limits and reservations; nothing when the service says nothing of them. `deploy.resources` wins
/// over the service's own keys, as in Compose.
pub(super) fn resources(service: &Node, report: &mut Report) -> Option<v1::Resources> {
    let deploy = service.find(&["deploy", "resources"]);
    let limits = deploy.and_then(|resources| resources.get("limits"));
    let reservations = deploy.and_then(|resources| resources.get("reservations"));
    let of = |node: Option<&Node>, key: &str| node.and_then(|node| node.get(key)).cloned();
    let first = |key: &str, own: &str| of(limits, key).or_else(|| service.get(own).cloned());
    let resources = v1::Resources {
        nano_cpus: nano_cpus(first("cpus", "cpus").as_ref(), report),
        memory: bytes(first("memory", "mem_limit").as_ref(), report),
        pids: first("pids", "pids_limit")
            .as_ref()
            .and_then(|node| whole(node, report)),
        reserved_nano_cpus: nano_cpus(of(reservations, "cpus").as_ref(), report),
        reserved_memory: bytes(
            of(reservations, "memory")
                .or_else(|| service.get("mem_reservation").cloned())
                .as_ref(),
            report,
        ),
        memory_swap: signed_bytes(service.get("memswap_limit"), report),
        memory_swappiness: service
            .get("mem_swappiness")
            .and_then(|node| bounded(node, 0, 100, report)),
        cpu_period: microseconds(service, "cpu_period", report),
        cpu_quota: microseconds(service, "cpu_quota", report),
        cpu_realtime_period: microseconds(service, "cpu_rt_period", report),
        cpu_realtime_runtime: microseconds(service, "cpu_rt_runtime", report),
        cpu_shares: service
            .get("cpu_shares")
            .and_then(|node| whole(node, report)),
        cpuset: text(service, "cpuset"),
        oom_kill_disable: flag(service, "oom_kill_disable").then_some(true),
        oom_score_adj: service
            .get("oom_score_adj")
            .and_then(|node| bounded(node, -1000, 1000, report)),
        block_io: service
            .get("blkio_config")
            .map(|node| block_io(node, report)),
    };
    (resources != v1::Resources::default()).then_some(resources)
}

/// The size of `/dev/shm`.
pub(super) fn shm_size(service: &Node, report: &mut Report) -> Option<u64> {
    bytes(service.get("shm_size"), report)
}

/// Limits per process.
pub(super) fn ulimits(service: &Node, report: &mut Report) -> BTreeMap<String, v1::Ulimit> {
    let mut ulimits = BTreeMap::new();
    for (name, entry) in service.entries_of("ulimits") {
        let node = &entry.node;
        let both = node
            .as_map()
            .is_none()
            .then(|| whole(node, report))
            .flatten();
        let mut part = |key: &str| node.get(key).and_then(|node| whole(node, report));
        let (soft, hard) = (both.or_else(|| part("soft")), both.or_else(|| part("hard")));
        let Some(soft_or_hard) = soft.or(hard) else {
            continue;
        };
        let limit = v1::Ulimit {
            soft: soft.unwrap_or(soft_or_hard),
            hard: hard.unwrap_or(soft_or_hard),
        };
        if limit.hard >= 0 && (limit.soft > limit.hard || limit.soft < 0) {
            refuse(
                node,
                format!(
                    "the soft limit {} is above the hard limit {}",
                    limit.soft, limit.hard
                ),
                report,
            );
        }
        ulimits.insert(name.clone(), limit);
    }
    ulimits
}

fn block_io(node: &Node, report: &mut Report) -> v1::BlockIo {
    let mut devices = |key: &str, value_key: &str| -> Vec<v1::DeviceValue> {
        let items = node.items_of(key);
        items
            .filter_map(|item| {
                let value = item.get(value_key)?;
                let value = match &value.value {
                    Value::Text(_) => bytes(Some(value), report)?,
                    _ => u64::try_from(whole(value, report)?).ok()?,
                };
                Some(v1::DeviceValue {
                    path: text(item, "path"),
                    value,
                })
            })
            .collect()
    };
    v1::BlockIo {
        weight_devices: devices("weight_device", "weight"),
        read_bps: devices("device_read_bps", "rate"),
        write_bps: devices("device_write_bps", "rate"),
        read_iops: devices("device_read_iops", "rate"),
        write_iops: devices("device_write_iops", "rate"),
        weight: node
            .get("weight")
            .and_then(|node| bounded(node, 0, 1000, report)),
    }
}

fn nano_cpus(node: Option<&Node>, report: &mut Report) -> Option<u64> {
    let node = node?;
    let cpus = match &node.value {
        Value::Int(number) => *number as f64,
        Value::Float(number) => *number,
        Value::Text(text) => text.parse().ok()?,
        _ => return None,
    };
    // The engine has no fewer than a hundredth of a CPU; 0 is "no limit".
    if !(0.0..=1e6).contains(&cpus) {
        refuse(
            node,
            format!("{cpus} is not a valid number of CPUs"),
            report,
        );
        return None;
    }
    #[expect(clippy::cast_sign_loss, reason = "checked above: it is not negative")]
    let nano = (cpus * NANO).round() as u64;
    (nano > 0).then_some(nano)
}

/// Bytes in long form; 0 is "not said".
pub(super) fn bytes(node: Option<&Node>, report: &mut Report) -> Option<u64> {
    let bytes = signed_bytes(node, report)?;
    if bytes < 0
        && let Some(node) = node
    {
        refuse(node, format!("a size cannot be negative: {bytes}"), report);
    }
    u64::try_from(bytes).ok().filter(|bytes| *bytes > 0)
}

fn signed_bytes(node: Option<&Node>, report: &mut Report) -> Option<i64> {
    let node = node?;
    match &node.value {
        Value::Int(number) => i64::try_from(*number).ok(),
        Value::Text(text) if text.is_empty() => None,
        Value::Text(text) => {
            let parsed = duration::parse_size(text);
            if parsed.is_none() {
                refuse(node, format!("`{text}` is not a size"), report);
            }
            parsed
        }
        _ => None,
    }
}

/// A number of microseconds, or a duration (`50ms`), as the engine takes both.
fn microseconds(service: &Node, key: &str, report: &mut Report) -> Option<i64> {
    let node = service.get(key)?;
    let text = match &node.value {
        Value::Text(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        _ => return None,
    };
    let number = text.parse::<i64>().ok();
    let value =
        number.or_else(|| duration::parse_duration(&text).map(|nanoseconds| nanoseconds / 1000));
    if value.is_none() {
        refuse(
            node,
            format!("`{text}` is neither a number of microseconds nor a duration"),
            report,
        );
    }
    value.filter(|value| *value != 0)
}

fn whole(node: &Node, report: &mut Report) -> Option<i64> {
    let number = match &node.value {
        Value::Int(number) => i64::try_from(*number).ok(),
        Value::Float(number) if number.fract() == 0.0 => Some(*number as i64),
        Value::Text(text) => text.parse().ok(),
        _ => return None,
    };
    if number.is_none() {
        refuse(node, "this value must be a whole number".to_owned(), report);
    }
    number
}

fn bounded<T: TryFrom<i64>>(node: &Node, least: i64, most: i64, report: &mut Report) -> Option<T> {
    let number = whole(node, report)?;
    if !(least..=most).contains(&number) {
        refuse(
            node,
            format!("{number} is not between {least} and {most}"),
            report,
        );
        return None;
    }
    T::try_from(number).ok()
}

/// Docker Compose reads it; no engine would run it.
fn refuse(node: &Node, message: String, report: &mut Report) {
    report.refuse(
        node.span,
        message,
        "correct the value; Docker would refuse to create the container",
    );
}
