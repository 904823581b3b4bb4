//! From examinations of the machines to findings: a pure function of one or two looks at the
//! cluster. What can pass on its own within seconds (a lag, a session that is opened again) counts
//! as lasting only if all looks show it. The command prints the findings.

pub(crate) mod figures;
mod reach;
mod records;
pub(crate) mod replicas;
mod together;

use std::collections::BTreeMap;

use serde::Serialize;
use uc_api::v1::{Examination, ExaminedMachine, PeerFigures, StoreFigures};

/// A peer lags when it has not acknowledged more than this many versions. Peers report about once
/// a second, and a large deployment writes fewer versions in that time.
const LAG: u64 = 100;
/// Requests that wait for the writer; its queue has room for 1,024.
const WAITING: u64 = 512;
/// Clocks without a time server commonly differ by up to this much.
const CLOCK_WARNING_MS: i64 = 2_000;
/// Half of the difference at which the writes of the machine that is ahead are quarantined.
const CLOCK_PROBLEM_MS: i64 = 30_000;
/// Slower record writes make commands slow.
const SLOW_US: u64 = 50_000;
/// With fewer commits, the 99th percentile means nothing.
const COMMITS: u64 = 100;

/// The worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Something does not work, or data is at risk.
    Problem,
    /// Works, but not as it should, or not for long.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One thing that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// For programs; a kind never changes its meaning.
    pub(crate) kind: &'static str,
    /// Names of the machines it is about; empty: the whole cluster.
    pub(crate) machines: Vec<String>,
    pub(crate) message: String,
    pub(crate) hint: String,
}

fn finding<'a>(
    severity: Severity,
    kind: &'static str,
    machines: impl IntoIterator<Item = &'a str>,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Finding {
    let machines = machines.into_iter().map(ToOwned::to_owned).collect();
    Finding {
        severity,
        kind,
        machines,
        message: message.into(),
        hint: hint.into(),
    }
}

/// A machine that answered.
#[derive(Debug, Clone, Copy)]
struct Answered<'a> {
    id: &'a str,
    name: &'a str,
    said: &'a Examination,
    store: &'a StoreFigures,
}

/// All machines at one moment.
#[derive(Debug)]
struct Look<'a> {
    machines: &'a [ExaminedMachine],
    answered: Vec<Answered<'a>>,
}

impl<'a> Look<'a> {
    fn new(machines: &'a [ExaminedMachine]) -> Self {
        let answered = machines.iter().filter_map(|examined| {
            let record = examined.machine.as_ref()?;
            let said = examined.examination.as_ref()?;
            Some(Answered {
                id: &record.id,
                name: &record.name,
                said,
                store: said.store.as_ref()?,
            })
        });
        Self {
            machines,
            answered: answered.collect(),
        }
    }

    fn of(&self, id: &str) -> Option<Answered<'a>> {
        self.answered.iter().find(|one| one.id == id).copied()
    }
}

impl<'a> Answered<'a> {
    fn peer(self, id: &str) -> Option<&'a PeerFigures> {
        self.said.peers.iter().find(|peer| peer.machine_id == id)
    }

    /// How long its daemon runs: `2 hours`.
    fn uptime(self) -> String {
        crate::times::rough((self.said.clock_to_ms - self.said.started_at_ms).max(0) / 1000)
    }
}

/// The findings, the worst first. `looks` are the same machines at moments some seconds apart, the
/// latest last. With one look alone nothing is known to last, so what can pass is a note.
pub(crate) fn findings(looks: &[Vec<ExaminedMachine>]) -> Vec<Finding> {
    let looks: Vec<Look<'_>> = looks.iter().map(|machines| Look::new(machines)).collect();
    let Some((now, before)) = looks.split_last() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    reach::find(now, before, &mut found);
    together::find(now, &mut found);
    records::find(now, before, &mut found);
    found.sort_by_key(|finding| finding.severity);
    found
}

/// Whether this look shows something that can pass on its own, so that a second look some seconds
/// later is worth its time.
pub(crate) fn may_pass(look: &[ExaminedMachine]) -> bool {
    let look = Look::new(look);
    reach::may_pass(&look) || records::may_pass(&look)
}

/// How far a machine's clock is ahead of that of the machine that called it, in milliseconds, and
/// the error of that. The times of the call at both ends bound it: the request arrived after it was
/// sent, and the answer arrived after it was given.
pub(crate) fn clock(examined: &ExaminedMachine) -> Option<(i64, i64)> {
    let said = examined.examination.as_ref()?;
    let (one, other) = (
        said.clock_from_ms - examined.asked_at_ms,
        said.clock_to_ms - examined.heard_at_ms,
    );
    let (low, high) = (one.min(other), one.max(other));
    Some((i64::midpoint(low, high), (high - low + 1) / 2))
}

/// `m1`, `m1 and m2`, `m1, m2 and m3`.
fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

/// Names by key, in the order of the keys.
fn grouped<'a, K: Ord>(rows: impl IntoIterator<Item = (K, &'a str)>) -> BTreeMap<K, Vec<&'a str>> {
    let mut groups: BTreeMap<K, Vec<&str>> = BTreeMap::new();
    for (key, name) in rows {
        groups.entry(key).or_default().push(name);
    }
    groups
}

#[cfg(test)]
mod tests;
