//! Findings from comparing machines: their clocks and versions.

use super::Severity::{Problem, Warning};
use super::{CLOCK_PROBLEM_MS, CLOCK_WARNING_MS, Finding, Look, clock, finding, grouped, list};

pub(super) fn find(now: &Look<'_>, found: &mut Vec<Finding>) {
    clocks(now, found);
    found.extend(versions(now));
}

/// Compares each clock with the median one, so that a single wrong clock is recognized among right
/// ones.
fn clocks(now: &Look<'_>, found: &mut Vec<Finding>) {
    let mut clocks: Vec<(i64, i64, &str)> = now
        .machines
        .iter()
        .filter_map(|examined| {
            let (ahead, error) = clock(examined)?;
            Some((ahead, error, examined.machine.as_ref()?.name.as_str()))
        })
        .collect();
    clocks.sort_unstable();
    let Some((middle, middle_error, reference)) =
        clocks.get(clocks.len().saturating_sub(1) / 2).copied()
    else {
        return;
    };
    for (ahead, error, name) in clocks {
        let (apart, error) = (ahead - middle, error + middle_error);
        // The delay of the call may explain this much of the difference.
        let certain = apart.abs() - error;
        if certain <= CLOCK_WARNING_MS {
            continue;
        }
        let severity = if certain > CLOCK_PROBLEM_MS {
            Problem
        } else {
            Warning
        };
        let direction = if apart > 0 { "ahead of" } else { "behind" };
        let message = format!(
            "the clock of {name} is {} (± {}) {direction} that of {reference}",
            seconds(apart.abs()),
            seconds(error)
        );
        let hint = "synchronize both with a time server: `timedatectl set-ntp true`; writes of a machine that is more than 60 s ahead are quarantined by the others";
        found.push(finding(severity, "clock", [name, reference], message, hint));
    }
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

fn versions(now: &Look<'_>) -> Option<Finding> {
    let versions = grouped(
        now.answered
            .iter()
            .map(|one| (one.said.uc_version.as_str(), one.name)),
    );
    if versions.len() < 2 {
        return None;
    }
    let lines: Vec<String> = versions
        .iter()
        .map(|(version, names)| format!("{version} on {}", list(names)))
        .collect();
    let names = now.answered.iter().map(|one| one.name);
    let message = format!(
        "the machines run different versions of ucd: {}",
        lines.join("; ")
    );
    Some(finding(
        Warning,
        "versions",
        names,
        message,
        "run install.sh of the newest version on the others",
    ))
}
