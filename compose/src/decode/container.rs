//! How a container starts, is checked, and stops.

use std::collections::BTreeMap;

use uc_api::v1;

use super::{flag, list, nanoseconds, strings, text};
use crate::node::{Node, Value};
use crate::report::{Place, Report};

const NANOSECONDS_PER_MS: i64 = 1_000_000;

/// A duration in milliseconds; a negative one is an error. Below a millisecond it counts as one, so
/// that "very short" does not become "not set".
pub(super) fn milliseconds(node: &Node, key: &str, report: &mut Report) -> Option<u64> {
    let (nanoseconds, span) = nanoseconds(node, key)?;
    if nanoseconds < 0 {
        report.refuse(
            span,
            format!("`{key}` cannot be negative"),
            "write a duration such as `10s`",
        );
        return None;
    }
    let rounded = nanoseconds / NANOSECONDS_PER_MS;
    u64::try_from(if nanoseconds > 0 { rounded.max(1) } else { 0 }).ok()
}

pub(super) fn healthcheck(service: &Node, report: &mut Report) -> Option<v1::Healthcheck> {
    let node = service
        .get("healthcheck")
        .filter(|node| node.as_map().is_some_and(|map| !map.is_empty()))?;
    let disabled = node.get("disable").and_then(Node::as_bool) == Some(true);
    let test = if disabled {
        vec!["NONE".to_owned()]
    } else {
        list(node, "test")
    };
    let retries = node.get("retries").and_then(|retries| {
        let number = match retries.value {
            Value::Int(number) => u32::try_from(number).ok(),
            Value::Float(number) if number.fract() == 0.0 => u32::try_from(number as i64).ok(),
            _ => return None,
        };
        number.or_else(|| {
            report.invalid(
                retries.span,
                "`retries` must be a whole number, 0 or more",
                "write `retries: 3`",
            );
            None
        })
    });
    Some(v1::Healthcheck {
        test,
        interval_ms: milliseconds(node, "interval", report),
        timeout_ms: milliseconds(node, "timeout", report),
        start_period_ms: milliseconds(node, "start_period", report),
        retries,
        start_interval_ms: milliseconds(node, "start_interval", report),
    })
}

pub(super) fn depends_on(service: &Node) -> Vec<v1::Dependency> {
    let entries = service.entries_of("depends_on");
    let mut dependencies: Vec<_> = entries
        .map(|(name, entry)| {
            let condition = match entry.node.get_text("condition") {
                Some("service_healthy") => v1::DependencyCondition::Healthy,
                Some("service_completed_successfully") => v1::DependencyCondition::Completed,
                _ => v1::DependencyCondition::Started,
            };
            let restart = entry
                .node
                .get("restart")
                .and_then(Node::as_bool)
                .unwrap_or(false);
            v1::Dependency {
                service: name.clone(),
                condition: condition.into(),
                restart,
            }
        })
        .collect();
    dependencies.sort_by(|a, b| a.service.cmp(&b.service));
    dependencies
}

/// The services for whose completion another one waits, with the one that waits.
pub(super) fn awaited(tree: &Node) -> BTreeMap<&str, &str> {
    let mut awaited = BTreeMap::new();
    for (waiter, entry) in tree.entries_of("services") {
        for (name, dependency) in entry.node.entries_of("depends_on") {
            let condition = dependency.node.get_text("condition");
            if condition == Some("service_completed_successfully") {
                awaited.entry(name.as_str()).or_insert(waiter.as_str());
            }
        }
    }
    awaited
}

/// The policy of a service for whose completion `waiter` waits. One that is restarted after it
/// succeeded never completes, so it is restarted after a failure at most.
pub(super) fn restart_of_job(
    (policy, attempts): (v1::RestartPolicy, u32),
    service: &Node,
    waiter: &str,
    report: &mut Report,
) -> (v1::RestartPolicy, u32) {
    match policy {
        v1::RestartPolicy::Unspecified => (v1::RestartPolicy::No, 0),
        v1::RestartPolicy::No | v1::RestartPolicy::OnFailure => (policy, attempts),
        v1::RestartPolicy::Always | v1::RestartPolicy::UnlessStopped => {
            let policy = service.find(&["deploy", "restart_policy"]);
            if let Some(node) = policy.or_else(|| service.get("restart")) {
                report.not_honoured(
                    node.span,
                    format!(
                        "it is restarted only after a failure, because `{waiter}` waits for its completion"
                    ),
                    "write `restart: on-failure` or `restart: \"no\"`",
                );
            }
            (v1::RestartPolicy::OnFailure, 0)
        }
    }
}

/// When the engine starts it again by itself, and how often; 0: without limit.
/// `deploy.restart_policy` wins, as in Compose.
pub(super) fn restart(service: &Node, report: &mut Report) -> (v1::RestartPolicy, u32) {
    if let Some(policy) = service.find(&["deploy", "restart_policy"]) {
        let attempts = max_attempts(policy, report);
        let condition = policy.get_text_node("condition");
        return match condition {
            None | Some((_, "" | "any" | "always")) => (v1::RestartPolicy::Always, 0),
            Some((_, "none" | "no")) => (v1::RestartPolicy::No, 0),
            Some((_, "on-failure")) => (v1::RestartPolicy::OnFailure, attempts.unwrap_or(0)),
            Some((_, "unless-stopped")) => (v1::RestartPolicy::UnlessStopped, 0),
            Some((node, other)) => {
                report.refuse(
                    node.span,
                    format!("`{other}` is not a restart condition"),
                    "use `none`, `on-failure` or `any`",
                );
                (v1::RestartPolicy::Unspecified, 0)
            }
        };
    }
    let Some((node, text)) = service.get_text_node("restart") else {
        return (v1::RestartPolicy::Unspecified, 0);
    };
    let (policy, attempts) = match text.split_once(':') {
        Some((policy, attempts)) => (policy, Some(attempts.parse::<u32>())),
        None => (text, None),
    };
    match (policy, attempts) {
        ("", None) => (v1::RestartPolicy::Unspecified, 0),
        ("no", None) => (v1::RestartPolicy::No, 0),
        ("always", None) => (v1::RestartPolicy::Always, 0),
        ("unless-stopped", None) => (v1::RestartPolicy::UnlessStopped, 0),
        ("on-failure", None) => (v1::RestartPolicy::OnFailure, 0),
        ("on-failure", Some(Ok(attempts))) => (v1::RestartPolicy::OnFailure, attempts),
        _ => {
            report.refuse(
                node.span,
                format!("`{text}` is not a restart policy"),
                "use `no`, `always`, `on-failure`, `on-failure:3` or `unless-stopped`; put `no` in quotes",
            );
            (v1::RestartPolicy::Unspecified, 0)
        }
    }
}

/// `max_attempts` of a restart policy. Docker counts restarts only with `on-failure`.
fn max_attempts(policy: &Node, report: &mut Report) -> Option<u32> {
    let node = policy.get("max_attempts")?;
    let number = node.as_int()?;
    if policy.get_text("condition") != Some("on-failure") && number >= 0 {
        report.not_honoured(
            node.span,
            "`max_attempts` is ignored: Docker counts restarts only with `condition: on-failure`",
            "add `condition: on-failure`, or remove `max_attempts`",
        );
        return None;
    }
    let attempts = u32::try_from(number).ok();
    if attempts.is_none() {
        report.invalid(
            node.span,
            format!(
                "invalid `max_attempts` `{number}`: it must be between 0 and {}",
                u32::MAX
            ),
            "write `max_attempts: 3`",
        );
    }
    attempts
}

/// Commands run inside the container after its start or before its stop.
pub(super) fn hooks(service: &Node, key: &str, report: &mut Report) -> Vec<v1::Hook> {
    let Some(node) = service.get(key) else {
        return Vec::new();
    };
    let report = &mut report.at(key);
    let mut hooks = Vec::new();
    for item in node.items() {
        let command = list(item, "command");
        if command.is_empty() {
            report.invalid(
                item.span,
                format!("a hook in `{key}` has no `command`"),
                "add `command:` with what to run in the container",
            );
            continue;
        }
        hooks.push(v1::Hook {
            command,
            user: text(item, "user"),
            privileged: flag(item, "privileged"),
            working_dir: text(item, "working_dir"),
            environment: strings(item.get("environment")),
        });
    }
    hooks
}

pub(super) fn pull_policy(service: &Node, report: &mut Report) -> v1::PullPolicy {
    let Some((node, text)) = service.get_text_node("pull_policy") else {
        return v1::PullPolicy::Unspecified;
    };
    match text {
        // What is built is carried to the machines; there is nothing to pull.
        "" | "build" => v1::PullPolicy::Unspecified,
        "always" | "refresh" | "daily" | "weekly" => v1::PullPolicy::Always,
        "missing" | "if_not_present" => v1::PullPolicy::Missing,
        "never" => v1::PullPolicy::Never,
        every if every.strip_prefix("every_").is_some_and(is_period) => v1::PullPolicy::Always,
        _ => {
            report.invalid(
                node.span,
                format!("`{text}` is not a pull policy"),
                "use `always`, `missing`, `never` or `build`",
            );
            v1::PullPolicy::Unspecified
        }
    }
}

/// `([0-9]+[wdhms])+`
fn is_period(text: &str) -> bool {
    let mut digits = 0;
    for c in text.chars() {
        match c {
            '0'..='9' => digits += 1,
            'w' | 'd' | 'h' | 'm' | 's' if digits > 0 => digits = 0,
            _ => return false,
        }
    }
    digits == 0 && !text.is_empty()
}
