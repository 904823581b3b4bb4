//! The record store of each machine, and its figures about its peers.

use std::collections::BTreeMap;

use uc_api::v1::{Liveness, StoreFigures, UnusableRecord};

use super::Severity::{Note, Problem, Warning};
use super::{Answered, COMMITS, Finding, LAG, Look, SLOW_US, WAITING, finding, list};
use crate::words::counted;

pub(super) fn find(now: &Look<'_>, before: &[Look<'_>], found: &mut Vec<Finding>) {
    for machine in &now.answered {
        let earlier: Vec<Answered<'_>> = before
            .iter()
            .filter_map(|look| look.of(machine.id))
            .collect();
        found.extend(writes(*machine, &earlier));
        found.extend(busy(*machine, &earlier));
        found.extend(slow(*machine));
        found.extend(history(*machine));
        found.extend(lags(*machine, &earlier));
        found.extend(differences(*machine));
        found.extend(quarantined(now, *machine));
        found.extend(unknown_form(*machine));
    }
    found.extend(faulty(now));
    found.extend(conflicts(now));
    found.extend(deletes(now));
}

pub(super) fn may_pass(look: &Look<'_>) -> bool {
    look.answered.iter().any(|machine| {
        let store = machine.store;
        let lags = machine
            .said
            .peers
            .iter()
            .any(|peer| peer.connected && peer.lag > LAG);
        lags || store.waiting > WAITING || store.failed_commits > 0
    })
}

/// Every machine reports the same records, but for those that it has not received yet.
fn faulty(now: &Look<'_>) -> Vec<Finding> {
    let reported: BTreeMap<(&str, &str), &UnusableRecord> = now
        .answered
        .iter()
        .flat_map(|machine| &machine.said.unusable_records)
        .map(|faulty| ((faulty.record.as_str(), faulty.reason.as_str()), faulty))
        .collect();
    let found = reported.into_values().map(|faulty| {
        let UnusableRecord {
            machine_name,
            machine_id,
            record,
            reason,
            changes_itself,
        } = faulty;
        // By id: another machine can have the name.
        let remove = format!("`uc machine rm {machine_id}`");
        let hint = if machine_id.is_empty() {
            "it is ignored; a newer version of uc on another machine may have written it".to_owned()
        } else if *changes_itself {
            format!(
                "{machine_name} takes another one within a minute when it is up; if it does not come back, remove it: {remove}"
            )
        } else {
            format!("remove it and add it again: {remove}")
        };
        let machines = Some(machine_name.as_str()).filter(|name| !name.is_empty());
        let message = format!("the record of {record} is faulty: {reason}");
        finding(Problem, "faulty-record", machines, message, hint)
    });
    found.collect()
}

fn writes(machine: Answered<'_>, earlier: &[Answered<'_>]) -> Option<Finding> {
    let name = machine.name;
    let failed = machine.store.failed_commits;
    let so_far = format!(
        "{} failed since its ucd started {} ago",
        counted(failed, "record write", "record writes"),
        machine.uptime()
    );
    let free = format!(
        "free some space on {name} (`docker image prune` often helps); no acknowledged write is lost"
    );
    let disk = machine.said.disk_failure.as_str();
    if !disk.is_empty() {
        let count = if failed > 0 {
            format!("; {so_far}")
        } else {
            String::new()
        };
        return Some(finding(
            Problem,
            "writes",
            [name],
            format!("{name} cannot write to its disk: {disk}{count}"),
            free,
        ));
    }
    if failed == 0 {
        return None;
    }
    let growing = earlier
        .iter()
        .any(|look| look.store.failed_commits < failed);
    Some(if growing {
        finding(
            Problem,
            "writes",
            [name],
            format!("{name}: {so_far}, some of them just now"),
            free,
        )
    } else {
        let hint = format!(
            "its disk accepts writes now; on {name}, run `df -h /var/lib/uc` and `journalctl -u ucd`"
        );
        finding(Warning, "writes", [name], format!("{name}: {so_far}"), hint)
    })
}

fn busy(machine: Answered<'_>, earlier: &[Answered<'_>]) -> Option<Finding> {
    let waiting = machine.store.waiting;
    if waiting <= WAITING || earlier.iter().any(|look| look.store.waiting <= WAITING) {
        return None;
    }
    let severity = if earlier.is_empty() { Note } else { Warning };
    let name = machine.name;
    let message = format!("{name}: {waiting} of at most 1024 requests wait for the store's writer");
    Some(finding(
        severity,
        "waiting",
        [name],
        message,
        format!("its disk is too slow for this many writes; on {name}, run `iostat -x 1`"),
    ))
}

/// The upper end of the bucket of the 99th percentile, in microseconds; `u64::MAX` for the last,
/// open one. `None`: too few commits.
pub(super) fn p99_us(store: &StoreFigures) -> Option<u64> {
    let all: u64 = store.commit_buckets.iter().sum();
    if all < COMMITS {
        return None;
    }
    let wanted = all - all / 100;
    let mut so_far = 0;
    let at = store.commit_buckets.iter().position(|count| {
        so_far += count;
        so_far >= wanted
    })?;
    Some(
        store
            .commit_bucket_ends_us
            .get(at)
            .copied()
            .unwrap_or(u64::MAX),
    )
}

fn slow(machine: Answered<'_>) -> Option<Finding> {
    if p99_us(machine.store)? <= SLOW_US {
        return None;
    }
    let name = machine.name;
    let message = format!(
        "{name}: 1 in 100 record writes takes more than {} ms",
        SLOW_US / 1000
    );
    Some(finding(
        Warning,
        "slow",
        [name],
        message,
        format!("its disk is slow or busy; on {name}, run `iostat -x 1`"),
    ))
}

fn history(machine: Answered<'_>) -> Vec<Finding> {
    let (name, said) = (machine.name, machine.said);
    let mut found = Vec::new();
    if !said.set_aside.is_empty() {
        let message = format!(
            "{name}: its store was damaged when its ucd started {} ago. It was moved to {}, and its records were fetched again from other machines",
            machine.uptime(),
            said.set_aside
        );
        let hint = format!(
            "check the disk of {name} (`dmesg`, `smartctl -a`), then remove the file and restart ucd to clear this finding"
        );
        found.push(finding(Problem, "damaged", [name], message, hint));
    }
    if said.rejoining {
        let message =
            format!("{name} is fetching all records again and shows its old ones until then");
        let hint = "this usually takes seconds; if it lasts, check that it has sessions: `uc doctor --figures`";
        found.push(finding(Warning, "rejoining", [name], message, hint));
    }
    found
}

/// Peers without a session are another finding, so their lag is not reported.
fn lags(machine: Answered<'_>, earlier: &[Answered<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    for peer in machine
        .said
        .peers
        .iter()
        .filter(|peer| peer.connected && peer.lag > LAG)
    {
        let lags: Vec<u64> = earlier
            .iter()
            .map(|look| {
                look.peer(&peer.machine_id)
                    .filter(|peer| peer.connected)
                    .map_or(0, |peer| peer.lag)
            })
            .collect();
        if lags.iter().any(|lag| *lag <= LAG) {
            continue;
        }
        let behind = format!(
            "{} is {} changes behind {}",
            peer.machine_name, peer.lag, machine.name
        );
        let (severity, message) = match lags.last() {
            Some(lag) if peer.lag < *lag => (
                Note,
                format!("{behind} and catching up: it was {lag} a moment ago"),
            ),
            Some(_) => (Warning, format!("{behind} and not catching up")),
            None => (Note, format!("{behind} at the moment")),
        };
        let hint = "the connection between them or the disk of the one behind is slow; `uc doctor --figures` shows their traffic";
        found.push(finding(
            severity,
            "lag",
            [peer.machine_name.as_str(), machine.name],
            message,
            hint,
        ));
    }
    found
}

fn differences(machine: Answered<'_>) -> Vec<Finding> {
    let differing = machine
        .said
        .peers
        .iter()
        .filter(|peer| peer.differences > 0);
    let message = |peer: &uc_api::v1::PeerFigures| {
        format!(
            "{} found and repaired {} in the records of {} since its ucd started {} ago",
            machine.name,
            counted(peer.differences, "difference", "differences"),
            peer.machine_name,
            machine.uptime()
        )
    };
    let hint = "this is a bug in uc: please report it with the output of `uc doctor -o json` and of `journalctl -u ucd` on both machines";
    differing
        .map(|peer| {
            finding(
                Warning,
                "differences",
                [machine.name, peer.machine_name.as_str()],
                message(peer),
                hint,
            )
        })
        .collect()
}

fn quarantined(now: &Look<'_>, machine: Answered<'_>) -> Option<Finding> {
    let count = machine.store.quarantined;
    if count == 0 {
        return None;
    }
    let name_of = |id: &'_ String| {
        let known = now
            .machines
            .iter()
            .filter_map(|one| one.machine.as_ref())
            .find(|one| one.id == *id);
        known.map_or_else(
            || uc_api::id::short(id).to_owned(),
            |record| record.name.clone(),
        )
    };
    let writers: Vec<String> = machine
        .said
        .quarantined_writers
        .iter()
        .map(name_of)
        .collect();
    let writers: Vec<&str> = writers.iter().map(String::as_str).collect();
    let by = if writers.is_empty() {
        String::new()
    } else {
        format!(" by {}", list(&writers))
    };
    let name = machine.name;
    let message = format!(
        "{name} ignores {} for now: written{by} with a clock more than 60 s ahead of its own",
        counted(count, "record", "records")
    );
    let hint =
        "set the clocks (`timedatectl`); the records take effect once the clock reaches their time";
    Some(finding(Warning, "quarantined", [name], message, hint))
}

fn unknown_form(machine: Answered<'_>) -> Option<Finding> {
    let (name, count) = (machine.name, machine.store.opaque);
    if count == 0 {
        return None;
    }
    let message = format!(
        "{name} has {} in a format that its ucd {} does not know",
        counted(count, "record", "records"),
        machine.said.uc_version
    );
    Some(finding(
        Warning,
        "unknown-form",
        [name],
        message,
        format!("upgrade {name}: run install.sh of the newest version on it"),
    ))
}

fn conflicts(now: &Look<'_>) -> Option<Finding> {
    let count = now
        .answered
        .iter()
        .map(|machine| machine.store.conflicts)
        .max()
        .filter(|count| *count > 0)?;
    let message = format!(
        "{} not resolved",
        counted(count, "conflict is", "conflicts are")
    );
    Some(finding(
        Warning,
        "conflicts",
        [],
        message,
        "`uc conflicts ls` lists them",
    ))
}

/// Tombstones are kept until all members have acknowledged them. A member that is down holds them
/// up; an evicted one does not.
fn deletes(now: &Look<'_>) -> Option<Finding> {
    let most = now
        .answered
        .iter()
        .max_by_key(|machine| machine.store.tombstones)?;
    let count = most.store.tombstones;
    let down = most
        .said
        .peers
        .iter()
        .filter(|peer| !peer.evicted && peer.liveness() == Liveness::Down);
    let names: Vec<&str> = down.map(|peer| peer.machine_name.as_str()).collect();
    if count == 0 || names.is_empty() {
        return None;
    }
    let message = format!(
        "{} until {} {} back",
        counted(count, "delete is kept", "deletes are kept"),
        list(&names),
        if names.len() == 1 { "is" } else { "are" }
    );
    let hint = format!(
        "nothing waits longer than 72 h; if it no longer exists: `uc machine rm {}`",
        names[0]
    );
    Some(finding(Note, "deletes", names, message, hint))
}
