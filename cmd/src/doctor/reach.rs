//! Machines that do not answer, that the others do not see, that have no session, or of which a
//! part does not work.

use uc_api::v1::{ExaminedMachine, Liveness};

use super::Severity::{Note, Problem, Warning};
use super::{Answered, Finding, Look, finding, list};
use crate::words;

pub(super) fn find(now: &Look<'_>, before: &[Look<'_>], found: &mut Vec<Finding>) {
    found.extend(now.machines.iter().filter_map(unanswered));
    found.extend(now.machines.iter().filter_map(cordoned));
    found.extend(
        now.answered
            .iter()
            .filter_map(|machine| unseen(now, *machine)),
    );
    for (one, other) in apart(now) {
        let lasting = before.iter().all(|look| {
            apart(look)
                .iter()
                .any(|(a, b)| a.id == one.id && b.id == other.id)
        });
        if lasting {
            found.push(no_session(one, other, before.is_empty()));
        }
    }
    for machine in &now.answered {
        found.extend(parts(*machine));
    }
}

pub(super) fn may_pass(look: &Look<'_>) -> bool {
    !apart(look).is_empty()
}

/// Worth knowing, because a machine that was forgotten takes no replicas.
fn cordoned(examined: &ExaminedMachine) -> Option<Finding> {
    let machine = examined.machine.as_ref()?;
    let name = machine.name.as_str();
    (machine.cordoned_at_ms != 0).then(|| {
        finding(
            Note,
            "cordoned",
            [name],
            format!("{name} is cordoned: it gets no new replicas"),
            format!("after its maintenance: `uc machine uncordon {name}`"),
        )
    })
}

fn unanswered(examined: &ExaminedMachine) -> Option<Finding> {
    let name = examined.machine.as_ref()?.name.as_str();
    let there = examined.examination.is_some();
    if examined.evicted {
        let gone = format!(
            "switch it on and it catches up on its own; if it no longer exists: `uc machine rm {name}`"
        );
        return Some(if there {
            let message =
                format!("{name} is evicted but answers again: it is rejoining the cluster");
            finding(
                Note,
                "evicted",
                [name],
                message,
                "wait a moment, then run `uc machine ls`",
            )
        } else {
            let message = format!(
                "{name} is evicted: it was silent for 72 h. Nothing waits for it now, and its containers are not shown"
            );
            finding(Problem, "evicted", [name], message, gone)
        });
    }
    if there {
        return None;
    }
    let why = if examined.failure.is_empty() {
        "no reason is known"
    } else {
        &examined.failure
    };
    let look = format!(
        "check that it is on and reachable by ssh; on it, run `systemctl status ucd uc-mesh` and `journalctl -u ucd`; if it no longer exists: `uc machine rm {name}`"
    );
    Some(match examined.liveness() {
        Liveness::Down => finding(
            Problem,
            "down",
            [name],
            format!("{name} is down: {why}"),
            look,
        ),
        Liveness::Suspect => {
            let message = format!("{name} does not answer and is suspected to be down: {why}");
            finding(Problem, "suspect", [name], message, look)
        }
        Liveness::Up | Liveness::Unspecified => finding(
            Problem,
            "unanswered",
            [name],
            format!("{name} does not answer: {why}"),
            look,
        ),
    })
}

/// A machine that answers calls (TCP) while others see it as down: they probe it over UDP in the
/// mesh.
fn unseen(now: &Look<'_>, machine: Answered<'_>) -> Option<Finding> {
    let by = |liveness| -> Vec<&str> {
        let sees = |one: &&Answered<'_>| {
            one.peer(machine.id)
                .is_some_and(|peer| peer.liveness() == liveness)
        };
        now.answered
            .iter()
            .filter(sees)
            .map(|one| one.name)
            .collect()
    };
    let (down, suspect) = (by(Liveness::Down), by(Liveness::Suspect));
    let mut views = Vec::new();
    if !down.is_empty() {
        views.push(format!("down by {}", list(&down)));
    }
    if !suspect.is_empty() {
        views.push(format!("suspect by {}", list(&suspect)));
    }
    if views.is_empty() {
        return None;
    }
    let kind = if down.is_empty() {
        "seen-suspect"
    } else {
        "seen-down"
    };
    let names = std::iter::once(machine.name).chain(down).chain(suspect);
    let message = format!(
        "{} answers, but is seen as {}",
        machine.name,
        views.join(" and ")
    );
    Some(finding(
        Warning,
        kind,
        names,
        message,
        "packets are lost between these machines: check firewalls for UDP 51820, and that they can reach the endpoints in `uc machine ls -o wide`",
    ))
}

/// Pairs of neighbours that answered and of which at least one reports no session with the other.
fn apart<'a>(look: &Look<'a>) -> Vec<(Answered<'a>, Answered<'a>)> {
    let mut pairs = Vec::new();
    for (index, one) in look.answered.iter().enumerate() {
        for other in look.answered.iter().skip(index + 1) {
            let (Some(there), Some(back)) = (one.peer(other.id), other.peer(one.id)) else {
                continue;
            };
            if there.neighbour && back.neighbour && !(there.connected && back.connected) {
                pairs.push((*one, *other));
            }
        }
    }
    pairs
}

fn no_session(one: Answered<'_>, other: Answered<'_>, only_look: bool) -> Finding {
    let (severity, now) = if only_look {
        (Note, "have no session with each other at the moment")
    } else {
        (Problem, "have no session with each other")
    };
    let message = format!(
        "{} and {} {now}: changes pass between them only through other machines, if at all",
        one.name, other.name
    );
    let hint = format!(
        "check firewalls between them for UDP 51820 (WireGuard), and run `journalctl -u ucd -u uc-mesh` on {} and {}",
        one.name, other.name
    );
    finding(
        severity,
        "no-session",
        [one.name, other.name],
        message,
        hint,
    )
}

fn parts(machine: Answered<'_>) -> Vec<Finding> {
    let name = machine.name;
    let mut found = Vec::new();
    if !machine.said.docker_failure.is_empty() {
        let said = machine.said;
        let away = words::engine_away(name, said.engine_away_since_ms, said.clock_to_ms);
        let away = away.unwrap_or_else(|| format!("{name}: Docker does not answer"));
        let message = format!("{away}: {}", said.docker_failure);
        found.push(finding(
            Problem,
            "docker",
            [name],
            message,
            format!("on {name}, run `systemctl status docker`"),
        ));
    }
    for part in &machine.said.unready {
        let message = format!("{name}: {} does not work: {}", part.part, part.reason);
        let hint = format!("ucd keeps trying; on {name}, run `journalctl -u ucd -u uc-mesh`");
        found.push(finding(Problem, "unready", [name], message, hint));
    }
    found
}
