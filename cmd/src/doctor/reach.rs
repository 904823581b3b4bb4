//! Who is there: machines that do not answer, whom the others do not see, that have no session,
//! whose parts do not work.

use uc_api::v1::{ExaminedMachine, Liveness};

use super::Severity::{Note, Problem, Warning};
use super::{Answered, Finding, Look, finding, list};

pub(super) fn find(now: &Look<'_>, before: &[Look<'_>], found: &mut Vec<Finding>) {
    found.extend(now.machines.iter().filter_map(unanswered));
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

fn unanswered(examined: &ExaminedMachine) -> Option<Finding> {
    let name = examined.machine.as_ref()?.name.as_str();
    let there = examined.examination.is_some();
    if examined.evicted {
        let gone = format!(
            "switched on again it catches up by itself; gone for good: `uc machine rm {name}`"
        );
        return Some(if there {
            let message =
                format!("{name} counts as evicted although it answers: it is coming back");
            finding(
                Note,
                "evicted",
                [name],
                message,
                "wait a moment, then `uc machine ls`",
            )
        } else {
            let message = format!(
                "{name} is evicted: it was silent for 72 h, nothing waits for it any more and its containers are not shown"
            );
            finding(Problem, "evicted", [name], message, gone)
        });
    }
    if there {
        return None;
    }
    let why = if examined.failure.is_empty() {
        "it says nothing"
    } else {
        &examined.failure
    };
    let look = format!(
        "is it on and does `ssh` reach it? there, `systemctl status ucd uc-mesh` and `journalctl -u ucd`; gone for good: `uc machine rm {name}`"
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

/// It answers, and others hold it for dead: they probe each other over UDP in the mesh.
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
        "{} answers, and is seen as {}",
        machine.name,
        views.join(" and ")
    );
    Some(finding(
        Warning,
        kind,
        names,
        message,
        "the way between these machines loses packets or is cut: check firewalls for UDP 51820, and that `uc machine ls` has endpoints they can reach",
    ))
}

/// Pairs that answered, should have a session with each other, and of which one says that there is
/// none; by name.
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
        (Note, "have no session with each other right now")
    } else {
        (Problem, "have no session with each other")
    };
    let message = format!(
        "{} and {} {now}: changes reach one from the other only by way of others, if at all",
        one.name, other.name
    );
    let hint = format!(
        "check firewalls between them for UDP 51820 (WireGuard), and `journalctl -u ucd -u uc-mesh` on {} and {}",
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
        let message = format!(
            "{name}: Docker does not answer: {}",
            machine.said.docker_failure
        );
        found.push(finding(
            Problem,
            "docker",
            [name],
            message,
            format!("on {name}: `systemctl status docker`"),
        ));
    }
    for part in &machine.said.unready {
        let message = format!("{name}: {} does not work: {}", part.part, part.reason);
        let hint = format!("it is tried again; on {name}: `journalctl -u ucd -u uc-mesh`");
        found.push(finding(Problem, "unready", [name], message, hint));
    }
    found
}
