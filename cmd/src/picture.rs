//! Draws a plan as the user reads it before confirming it. Pure: a plan in, text with colours out.

use std::fmt::Write as _;

use anstyle::Style;
use uc_api::id::short;
use uc_api::v1::{
    FieldChange, Plan, ReplicaAction, ReplicaStep, Retirement, ServiceChange, ServiceMode,
    ServicePlan, UpdateOrder,
};

use crate::text;
use crate::ui::{BOLD, CYAN, DIM, GREEN, RED, YELLOW};
use crate::words::counted;

/// Values longer than this many characters are cut.
const MAX_VALUE: usize = 60;

/// Whether the plan changes nothing.
pub(crate) fn is_empty(plan: &Plan) -> bool {
    let unchanged = |service: &ServicePlan| {
        service.steps.is_empty()
            && matches!(
                service.change(),
                ServiceChange::None | ServiceChange::Unspecified
            )
    };
    plan.volumes.is_empty() && plan.retirements.is_empty() && plan.services.iter().all(unchanged)
}

/// Draws the whole plan: volumes, services in the order in which they change, what machines that
/// are down remove later, warnings, and a summary.
pub(crate) fn draw(plan: &Plan) -> String {
    let plan = &printable(plan);
    let mut text = String::new();
    let mut project = "";
    for step in &plan.volumes {
        let name = step
            .volume
            .as_ref()
            .map_or("", |volume| volume.name.as_str());
        _ = writeln!(
            text,
            "{GREEN}+{GREEN:#} volume {BOLD}{name}{BOLD:#} on {}",
            step.machine_name
        );
    }
    for service in &plan.services {
        if service.project != project {
            project = &service.project;
            _ = writeln!(text, "{DIM}project{DIM:#} {BOLD}{project}{BOLD:#}");
        }
        draw_service(&mut text, service);
    }
    for retirement in &plan.retirements {
        let Retirement {
            machine_name,
            container_name,
            reason,
            ..
        } = retirement;
        _ = writeln!(
            text,
            "{RED}-{RED:#} on {machine_name}, which is down: {container_name} is removed when {machine_name} is back  {DIM}{reason}{DIM:#}"
        );
    }
    for warning in &plan.warnings {
        _ = writeln!(text, "{YELLOW}warning{YELLOW:#}: {warning}");
    }
    _ = writeln!(text, "\n{}", sum(plan));
    text
}

/// The plan with every text that is drawn in one line without control characters. Names and reasons
/// come from other machines. Fields are cleaned by [`draw_fields`], commands by [`value`].
fn printable(plan: &Plan) -> Plan {
    let clean = |text: &mut String| *text = text::one_line(text);
    let mut plan = plan.clone();
    for step in &mut plan.volumes {
        clean(&mut step.machine_name);
        if let Some(volume) = &mut step.volume {
            clean(&mut volume.name);
        }
    }
    for service in &mut plan.services {
        clean(&mut service.project);
        clean(&mut service.service);
        if let Some(step) = &mut service.pre_deploy {
            clean(&mut step.machine_name);
        }
        for step in &mut service.steps {
            clean(&mut step.machine_name);
            clean(&mut step.container_id);
            clean(&mut step.reason);
        }
    }
    for retirement in &mut plan.retirements {
        clean(&mut retirement.machine_name);
        clean(&mut retirement.container_name);
        clean(&mut retirement.reason);
    }
    plan.warnings.iter_mut().for_each(clean);
    plan
}

fn draw_service(text: &mut String, service: &ServicePlan) {
    let changed = !service.steps.is_empty();
    let (mark, style, word) = match service.change() {
        ServiceChange::Create => ('+', GREEN, "create"),
        ServiceChange::Remove => ('-', RED, "remove"),
        ServiceChange::Update => ('~', YELLOW, "update"),
        ServiceChange::None | ServiceChange::Unspecified if changed => ('~', YELLOW, "repair"),
        ServiceChange::None | ServiceChange::Unspecified => ('=', DIM, "unchanged"),
    };
    let count = match (service.change(), service.mode()) {
        (ServiceChange::Remove, _) => String::new(),
        (_, ServiceMode::Global) => ", one on each machine".into(),
        _ => format!(", {}", counted(service.desired, "replica", "replicas")),
    };
    _ = writeln!(
        text,
        "  {style}{mark}{style:#} {BOLD}{}{BOLD:#} {DIM}{word}{count}{DIM:#}",
        service.service
    );
    text.push_str(&draw_fields(&service.fields));
    if let Some(step) = &service.pre_deploy {
        let command = value(&shell(&step.command));
        _ = writeln!(
            text,
            "      {CYAN}>{CYAN:#} {}  pre-deploy: {command}",
            step.machine_name
        );
    }
    let machine_width = service
        .steps
        .iter()
        .map(|step| step.machine_name.chars().count())
        .max()
        .unwrap_or(0);
    for step in &service.steps {
        draw_step(text, step, machine_width);
    }
    if service.kept > 0 && changed {
        let kept = counted(service.kept, "replica", "replicas");
        _ = writeln!(text, "      {DIM}= {kept} unchanged{DIM:#}");
    }
}

/// Draws old and new value of the fields in which two revisions differ, a line each.
pub(crate) fn draw_fields(fields: &[FieldChange]) -> String {
    let mut text = String::new();
    for field in fields {
        let name = text::one_line(&field.field);
        let change = match (field.old.as_str(), field.new.as_str()) {
            ("", new) => format!("{GREEN}{}{GREEN:#}", value(new)),
            (old, "") => format!("{RED}{}{RED:#} → none", value(old)),
            (old, new) => format!(
                "{RED}{}{RED:#} → {GREEN}{}{GREEN:#}",
                value(old),
                value(new)
            ),
        };
        _ = writeln!(text, "      {CYAN}{name}{CYAN:#}: {change}");
    }
    text
}

fn draw_step(text: &mut String, step: &ReplicaStep, machine_width: usize) {
    let (mark, style) = action_mark(step.action());
    let machine = format!("{:machine_width$}", step.machine_name);
    let old = short(&step.container_id);
    let what = match step.action() {
        ReplicaAction::Create | ReplicaAction::Unspecified => "create".to_owned(),
        ReplicaAction::Replace => {
            let order = match step.order() {
                UpdateOrder::StopFirst => "stop-first",
                UpdateOrder::StartFirst | UpdateOrder::Unspecified => "start-first",
            };
            let moved = !step.old_machine_id.is_empty() && step.old_machine_id != step.machine_id;
            format!(
                "replace {old}{}, {order}",
                if moved { " on another machine" } else { "" }
            )
        }
        ReplicaAction::Remove => format!("remove {old}"),
    };
    _ = write!(text, "      {style}{mark}{style:#} {machine}  {what}");
    if !step.reason.is_empty() {
        _ = write!(text, "  {DIM}{}{DIM:#}", step.reason);
    }
    text.push('\n');
}

fn action_mark(action: ReplicaAction) -> (char, Style) {
    match action {
        ReplicaAction::Create | ReplicaAction::Unspecified => ('+', GREEN),
        ReplicaAction::Replace => ('~', YELLOW),
        ReplicaAction::Remove => ('-', RED),
    }
}

/// The summary: `2 containers to create, 1 to replace`.
fn sum(plan: &Plan) -> String {
    let count = |action| {
        plan.services
            .iter()
            .flat_map(|service| &service.steps)
            .filter(|step| step.action() == action)
            .count() as u64
    };
    let parts = [
        (
            plan.volumes.len() as u64,
            "volume to create",
            "volumes to create",
        ),
        (
            count(ReplicaAction::Create),
            "container to create",
            "containers to create",
        ),
        (count(ReplicaAction::Replace), "to replace", "to replace"),
        (count(ReplicaAction::Remove), "to remove", "to remove"),
        (
            plan.retirements.len() as u64,
            "to remove when its machine is back",
            "to remove when their machines are back",
        ),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, one, many)| counted(count, one, many))
        .collect();
    if parts.is_empty() {
        "no container changes".into()
    } else {
        parts.join(", ")
    }
}

/// A command line. Words that a shell would split or expand are quoted.
fn shell(words: &[String]) -> String {
    let plain = |word: &str| {
        !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || "'\"\\$`".contains(c))
    };
    let quoted = |word: &String| {
        if plain(word) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// A value in one line of at most [`MAX_VALUE`] characters.
fn value(text: &str) -> String {
    let line = text::one_line(text);
    if line.chars().count() <= MAX_VALUE {
        return line;
    }
    let cut: String = line.chars().take(MAX_VALUE).collect();
    format!("{cut}…")
}

/// The label of a step while it is executed: `+ shop/web on m1`.
pub(crate) fn step_label(plan: &Plan, step_id: &str) -> Option<String> {
    let volume = plan
        .volumes
        .iter()
        .find(|step| step.id == step_id)
        .map(|step| {
            let name = step
                .volume
                .as_ref()
                .map_or("", |volume| volume.name.as_str());
            format!("volume {name} on {}", step.machine_name)
        });
    volume.or_else(|| {
        plan.services.iter().find_map(|service| {
            if let Some(step) = service
                .pre_deploy
                .as_ref()
                .filter(|step| step.id == step_id)
            {
                let (project, name, machine) =
                    (&service.project, &service.service, &step.machine_name);
                return Some(format!("> pre-deploy of {project}/{name} on {machine}"));
            }
            let step = service.steps.iter().find(|step| step.id == step_id)?;
            let (mark, _) = action_mark(step.action());
            Some(format!(
                "{mark} {}/{} on {}",
                service.project, service.service, step.machine_name
            ))
        })
    })
}

#[cfg(test)]
mod tests;
