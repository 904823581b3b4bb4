//! Follows each change to every machine.

use std::collections::BTreeMap;

use super::report::Percentiles;
use crate::id::{Actor, Dot};

#[derive(Debug)]
struct Tracked {
    at: u64,
    /// By machine.
    seen: Vec<bool>,
    /// Microseconds from the commit, for each machine that was up all the time.
    delays: Vec<u64>,
}

/// All changes that were committed.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    changes: Vec<Tracked>,
    by_dot: BTreeMap<Dot, usize>,
}

impl Tracker {
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// A machine has committed its own change.
    pub(super) fn made(&mut self, dot: Dot, machine: usize, now: u64) {
        self.by_dot.insert(dot, self.changes.len());
        let mut seen = vec![false; machine + 1];
        seen[machine] = true;
        self.changes.push(Tracked {
            at: now,
            seen,
            delays: Vec::new(),
        });
    }

    /// A change is visible on a machine that has been up since `since`.
    pub(super) fn seen(&mut self, dot: Dot, machine: usize, since: u64, now: u64) {
        if let Some(change) = self
            .by_dot
            .get(&dot)
            .and_then(|at| self.changes.get_mut(*at))
        {
            change.seen_by(machine, since, now);
        }
    }

    /// All changes of an actor up to a version are visible, or were replaced by visible ones.
    pub(super) fn seen_up_to(
        &mut self,
        actor: Actor,
        version: u64,
        machine: usize,
        since: u64,
        now: u64,
    ) {
        let all = Dot { actor, version: 0 }..=Dot { actor, version };
        for (_, at) in self.by_dot.range(all) {
            if let Some(change) = self.changes.get_mut(*at) {
                change.seen_by(machine, since, now);
            }
        }
    }

    /// The times of all pairs of a change and a machine.
    pub(super) fn pairs(&self) -> Percentiles {
        Percentiles::of(
            self.changes
                .iter()
                .flat_map(|change| change.delays.iter().copied())
                .collect(),
        )
    }

    /// For each change, the time until it was visible on this share of the machines that saw it.
    pub(super) fn reached(&self, share: f64) -> Percentiles {
        let reached = self.changes.iter().filter_map(|change| {
            let mut delays = change.delays.clone();
            delays.sort_unstable();
            Percentiles::pick(&delays, share)
        });
        Percentiles::of(reached.collect())
    }
}

impl Tracked {
    fn seen_by(&mut self, machine: usize, since: u64, now: u64) {
        if self.seen.len() <= machine {
            self.seen.resize(machine + 1, false);
        }
        if !std::mem::replace(&mut self.seen[machine], true) && since <= self.at {
            self.delays.push(now - self.at);
        }
    }
}
