//! How many replicas, where, and how a change reaches them.

use uc_api::v1;

use super::container::milliseconds;
use super::{list, text};
use crate::diagnostic::Rule;
use crate::node::{Node, Value};
use crate::report::Report;

/// Mode and number of replicas. A global service has one on each machine.
pub(super) fn scale(node: &Node, report: &mut Report) -> (v1::ServiceMode, u32) {
    let deploy = node.get("deploy");
    let mode = deploy.and_then(|deploy| deploy.get("mode"));
    let scale = node.get("scale");
    let replicas = deploy.and_then(|deploy| deploy.get("replicas"));
    let mut number = |node: Option<&Node>| {
        let (node, value) = node.and_then(|node| Some((node, node.as_int()?)))?;
        u32::try_from(value).ok().or_else(|| {
            report.invalid(
                node.span,
                format!("{value} is not a number of replicas"),
                "write 0 or more",
            );
            None
        })
    };
    let (by_scale, by_deploy) = (number(scale), number(replicas));
    if let (Some(a), Some(b), Some(scale)) = (by_scale, by_deploy, scale)
        && a != b
    {
        report.invalid(
            scale.span,
            format!("`scale` is {a}, but `deploy.replicas` is {b}"),
            "remove one of them, or make them equal",
        );
    }
    match mode.and_then(|mode| Some((mode, mode.as_text()?))) {
        Some((mode, "global")) => {
            if let Some(count) = by_deploy.or(by_scale) {
                report.warning(
                    Rule::Value,
                    mode.span,
                    format!(
                        "a global service runs one replica on every machine, so the number {count} is ignored"
                    ),
                    "remove the number, or `mode: global`",
                );
            }
            (v1::ServiceMode::Global, 1)
        }
        Some((mode, job @ ("replicated-job" | "global-job"))) => {
            report.refuse(
                mode.span,
                format!("mode `{job}` is not supported: a service runs until it is removed"),
                "run it before the deployment with `x-pre_deploy`, or as a service that others depend on with `condition: service_completed_successfully`",
            );
            (v1::ServiceMode::Replicated, 1)
        }
        _ => (
            v1::ServiceMode::Replicated,
            by_deploy.or(by_scale).unwrap_or(1),
        ),
    }
}

/// Reports `endpoint_mode: vip`, Swarm's fixed address of a service: names resolve to the addresses
/// of the replicas, as with `dnsrr`.
pub(super) fn endpoint_mode(service: &Node, report: &mut Report) {
    let mode = service.find(&["deploy", "endpoint_mode"]);
    if let Some(node) = mode.filter(|node| node.as_text() == Some("vip")) {
        report.not_honoured(
            node.span,
            "`endpoint_mode: vip` is ignored: the service's name resolves to the addresses of its replicas, which change when they are replaced",
            "write `dnsrr`, and let clients look the name up again (nginx: `resolver 127.0.0.11 valid=5s;` and a variable in `proxy_pass`)",
        );
    }
}

/// Which of the two comes first when a replica is replaced.
pub(super) fn order(service: &Node) -> v1::UpdateOrder {
    match update_config(service).and_then(|update| update.get_text("order")) {
        Some("start-first") => v1::UpdateOrder::StartFirst,
        Some("stop-first") => v1::UpdateOrder::StopFirst,
        _ => v1::UpdateOrder::Unspecified,
    }
}

fn update_config(service: &Node) -> Option<&Node> {
    service.get("deploy")?.get("update_config")
}

/// Pace of a change, and what becomes of it when a replica fails.
pub(super) fn update(service: &Node, report: &mut Report) -> Option<v1::UpdatePolicy> {
    let node = update_config(service)?;
    let parallelism = number_of_replicas(
        node.get("parallelism"),
        "write 1 or more, or 0 for all at once",
        report,
    );
    let action = node.get_text_node("failure_action");
    let failure_action = match action {
        None | Some((_, "")) => v1::FailureAction::Unspecified,
        Some((_, "rollback")) => v1::FailureAction::Rollback,
        Some((_, "pause")) => v1::FailureAction::Pause,
        Some((_, "continue")) => v1::FailureAction::Continue,
        Some((node, other)) => {
            report.refuse(
                node.span,
                format!("`failure_action` cannot be `{other}`"),
                "use `rollback`, `pause` or `continue`",
            );
            v1::FailureAction::Unspecified
        }
    };
    let ratio = node.get("max_failure_ratio").and_then(|node| {
        let ratio = match node.value {
            Value::Int(number) => number as f64,
            Value::Float(number) => number,
            _ => return None,
        };
        if !(0.0..=1.0).contains(&ratio) {
            report.refuse(
                node.span,
                format!("`max_failure_ratio` must be between 0 and 1, not {ratio}"),
                "write a number between 0 and 1",
            );
            return None;
        }
        Some(ratio)
    });
    let policy = v1::UpdatePolicy {
        parallelism,
        delay_ms: milliseconds(node, "delay", report).unwrap_or(0),
        monitor_ms: milliseconds(node, "monitor", report),
        failure_action: failure_action.into(),
        max_failure_ratio: ratio.unwrap_or(0.0),
    };
    (policy != v1::UpdatePolicy::default()).then_some(policy)
}

fn number_of_replicas(node: Option<&Node>, hint: &str, report: &mut Report) -> Option<u32> {
    let node = node?;
    let number = node.as_int()?;
    let parsed = u32::try_from(number).ok();
    if parsed.is_none() {
        report.refuse(
            node.span,
            format!("{number} is not a number of replicas"),
            hint,
        );
    }
    parsed
}

/// Where replicas may run.
pub(super) fn placement(service: &Node, report: &mut Report) -> Option<v1::Placement> {
    let node = service.get("deploy")?.get("placement")?;
    let most = number_of_replicas(
        node.get("max_replicas_per_node"),
        "write 1 or more, or 0 for no limit",
        report,
    );
    let preferences = node.items_of("preferences");
    let placement = v1::Placement {
        constraints: list(node, "constraints"),
        spread: preferences
            .map(|item| text(item, "spread"))
            .filter(|label| !label.is_empty())
            .collect(),
        max_replicas_per_machine: most.unwrap_or(0),
    };
    (placement != v1::Placement::default()).then_some(placement)
}
