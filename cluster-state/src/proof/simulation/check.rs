//! Checks whether all machines agree, on the right content and with nothing missing, and makes the
//! report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::machine::{FACT, Rows, SPEC, Work};
use super::report::Report;
use super::us;
use super::world::{Event, Node, Origin, WARM_UP, World};
use crate::id::Dot;
use crate::kind::Slot;
use crate::op::Op;
use crate::register::Register;

/// Time between two checks for agreement, in microseconds.
const EVERY: u64 = 1_000_000;

impl World<'_> {
    /// Ends the run when all machines agree, or when the time for that is over.
    pub(super) fn check(&mut self) {
        let disagreement = self.disagreement();
        let waited = self.now - us(self.scenario.duration).max(WARM_UP);
        match disagreement {
            None if self.repeat_declarations() => self.after(EVERY, Event::Check),
            None => {
                self.settled = Some(waited);
                if let Some(wrong) = self.wrong() {
                    self.fail(&wrong);
                }
            }
            Some(disagreement) if waited >= us(self.scenario.patience) => {
                self.fail(&format!("no agreement: {disagreement}"));
                // No further event has an effect.
                self.settled = Some(u64::MAX);
            }
            Some(_) => self.after(EVERY, Event::Check),
        }
    }

    /// Repeats declarations of machines that joined or left. The declaring machine may have crashed
    /// while it did so, or another machine may have overruled it without knowing. Returns whether
    /// one was repeated.
    fn repeat_declarations(&mut self) -> bool {
        let Some(first) = self.nodes.iter().position(|node| node.member) else {
            return false;
        };
        let members: BTreeSet<_> = self.nodes[first]
            .machine
            .state()
            .current_members()
            .collect();
        let forgotten: Vec<Work> = self
            .nodes
            .iter()
            .filter(|node| node.member != members.contains(&node.id))
            .map(|node| Work::declare(node.id, node.member))
            .collect();
        let any = !forgotten.is_empty();
        for work in forgotten {
            self.enqueue(first, work, Origin::Own);
        }
        any
    }

    /// Returns how two machines differ, or what one still waits for.
    fn disagreement(&self) -> Option<String> {
        let mut members = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.member);
        let (_, first) = members.clone().next()?;
        let digest = first.machine.state().digest();
        let watermarks = first.machine.state().watermarks_hash();
        members.find_map(|(n, node)| {
            let state = node.machine.state();
            if !node.up || !node.queue.is_empty() || !node.committing.is_empty() {
                return Some(format!("machine {n} is busy"));
            }
            if let Some(op) = state.quarantined().next() {
                return Some(format!("machine {n} has {} in quarantine", op.dot));
            }
            if let Some(dot) = state.above_gaps().next() {
                return Some(format!("machine {n} has {dot} above a gap"));
            }
            if state.watermarks_hash() != watermarks {
                return Some(format!(
                    "machine {n} has different watermarks: {}",
                    differing(node, first)
                ));
            }
            if state.digest() != digest {
                return Some(format!(
                    "machine {n} has different records: {}",
                    differing(node, first)
                ));
            }
            None
        })
    }

    /// Returns in what the machines are all wrong, although they agree.
    fn wrong(&self) -> Option<String> {
        let members = || {
            self.nodes
                .iter()
                .enumerate()
                .filter(|(_, node)| node.member)
        };
        let (_, first) = members().next()?;
        // Digests leave out tombstones that nothing contradicts. Some machines may have collected
        // more of them.
        let values = |node: &Node| -> BTreeSet<Dot> {
            let is_delete = |op: &Op| op.asked().is_some_and(|asked| asked.groups.is_none());
            node.machine
                .state()
                .ops()
                .filter(|op| !is_delete(op))
                .map(|op| op.dot)
                .collect()
        };
        let expected = values(first);
        let differs = members().skip(1).find(|(_, node)| values(node) != expected);
        if let Some((n, node)) = differs {
            return Some(format!(
                "machine {n} has equal digests but different records: {}",
                differing(node, first)
            ));
        }
        self.wrong_intents(first)
            .or_else(|| self.wrong_facts(first))
    }

    /// Compares with a fold over all intents ever written, which computes what should be left of
    /// each key.
    fn wrong_intents(&self, node: &Node) -> Option<String> {
        let state = node.machine.state();
        let gone: BTreeSet<_> = self
            .nodes
            .iter()
            .filter(|node| !node.member)
            .map(|node| node.id)
            .collect();
        let mut keys: BTreeMap<&str, Vec<&Arc<Op>>> = BTreeMap::new();
        for op in &self.history {
            // What a machine that left had sent to no other machine is lost with it.
            let told = op.dot.version <= state.watermark(op.dot.actor) || state.has_op(op.dot);
            if told || !gone.contains(&op.dot.actor.machine) {
                keys.entry(&*op.key).or_default().push(op);
            }
        }
        for (key, history) in keys {
            let covers =
                |other: &Op, dot| other.asked().is_some_and(|asked| asked.context.covers(dot));
            let left: Vec<&&Arc<Op>> = history
                .iter()
                .filter(|op| !history.iter().any(|other| covers(other, op.dot)))
                .collect();
            let is_value = |op: &Op| op.asked().is_some_and(|asked| asked.groups.is_some());
            let items = state
                .register(Slot::Intent, SPEC, key)
                .map(Register::items)
                .unwrap_or_default();
            let kept: BTreeSet<Dot> = items.iter().map(|op| op.dot).collect();
            let all: BTreeSet<Dot> = left.iter().map(|op| op.dot).collect();
            // Deletes that all machines had may have been collected.
            if !kept.is_subset(&all)
                || left
                    .iter()
                    .any(|op| is_value(op) && !kept.contains(&op.dot))
            {
                let tell = |op: &&Arc<Op>| {
                    let what = if is_value(op) { "value" } else { "delete" };
                    let kept = if kept.contains(&op.dot) {
                        ""
                    } else {
                        ", missing"
                    };
                    let left = if all.contains(&op.dot) {
                        ""
                    } else {
                        ", replaced"
                    };
                    format!(
                        "{} ({what} at {:?}{left}{kept}) ",
                        op.dot,
                        op.hlc().map(|hlc| (hlc >> 16, hlc & 0xffff))
                    )
                };
                let history: String = history.iter().map(tell).collect();
                return Some(format!("the wrong writes of {key} are left: {history}"));
            }
        }
        None
    }

    fn wrong_facts(&self, node: &Node) -> Option<String> {
        for (owner, of) in self.nodes.iter().enumerate() {
            let seen: Rows = node
                .machine
                .state()
                .facts_of(FACT, of.id)
                .filter_map(|((_, _, key), fact)| {
                    Some((Arc::clone(key), fact.value.as_ref()?.to_vec()))
                })
                .collect();
            if seen != of.truth {
                let (seen, truth) = (seen.len(), of.truth.len());
                return Some(format!(
                    "machine {owner} published {truth} rows, {seen} or others are known"
                ));
            }
        }
        None
    }

    pub(super) fn report(self) -> Report {
        let changes = self.tracker.len();
        let machines = self.nodes.len();
        let seconds = (us(self.scenario.duration).max(WARM_UP) - WARM_UP) as f64 / 1e6;
        let each = |count: u64| count as f64 / (changes.max(1) * machines.max(1)) as f64;
        let settled = self
            .settled
            .filter(|waited| *waited < u64::MAX)
            .map(Duration::from_micros);
        let differences = self.differences();
        let mut failures = self.failures;
        if differences > 0 {
            failures.push(format!(
                "digests differed {differences} times although the watermarks were equal"
            ));
        }
        if settled.is_none() && failures.is_empty() {
            failures.push("the machines never agreed".to_owned());
        }
        Report {
            scenario: self.scenario.clone(),
            changes,
            visible: self.tracker.pairs(),
            half: self.tracker.reached(0.5),
            most: self.tracker.reached(0.99),
            all: self.tracker.reached(1.0),
            messages: each(self.counters.messages),
            bytes: each(self.counters.bytes),
            watermarks: each(self.counters.watermarks),
            control: self.counters.control as f64 / (machines as f64 * seconds.max(1e-6)).max(1e-6),
            settled,
            sessions: self.counters.sessions,
            commits: self.counters.commits,
            events: self.counters.events,
            failures,
        }
    }
}

/// Returns the first few differences between two machines.
fn differing(one: &Node, other: &Node) -> String {
    let (one, other) = (one.machine.state(), other.machine.state());
    let watermarks = one
        .vector()
        .above(&other.vector())
        .chain(other.vector().above(&one.vector()))
        .count();
    let only = |here: &crate::state::State, there: &crate::state::State| -> Vec<Dot> {
        here.ops()
            .map(|op| op.dot)
            .filter(|dot| !there.has_op(*dot))
            .take(3)
            .collect()
    };
    format!(
        "{watermarks} watermarks, here only {:?}, there only {:?}",
        only(one, other),
        only(other, one)
    )
}
