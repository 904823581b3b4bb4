//! What must hold after everything was exchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::world::{FACT, SPEC, World, is_delete, machine};
use crate::id::Dot;
use crate::kind::Slot;
use crate::op::Op;
use crate::register::Register;
use crate::state::State;

/// More rounds than the longest path to agreement needs: two returns, one after the other, and two
/// rounds of acknowledgements.
const ROUNDS: usize = 60;

impl World {
    /// All stores exchange with each other until nothing is left to send, with clocks that have
    /// caught up.
    pub(super) fn settle(&mut self) {
        let late = self.nodes.iter().map(|node| node.clock).max().unwrap() + 7_200_000;
        for node in &mut self.nodes {
            node.clock = late;
        }
        for _ in 0..ROUNDS {
            for a in 0..self.nodes.len() {
                for b in a + 1..self.nodes.len() {
                    self.pump(a, b, 9);
                }
            }
            for n in 0..self.nodes.len() {
                self.upkeep(n);
            }
        }
        self.nodes.iter_mut().for_each(super::world::Node::sync);
    }

    /// Computes by a fold over all intents ever written what is left of a key: the writes that no
    /// other has seen, and the visible value.
    fn expected(&self, key: &str) -> (Vec<&Arc<Op>>, Option<Bytes>) {
        let history: Vec<&Arc<Op>> = self.history.values().filter(|op| &*op.key == key).collect();
        let seen = |op: &Op, by: &Op| by.asked().is_some_and(|asked| asked.context.covers(op.dot));
        let left: Vec<_> = history
            .iter()
            .copied()
            .filter(|op| !history.iter().any(|by| seen(op, by)))
            .collect();
        let values = left.iter().filter(|op| !is_delete(op));
        let active = values
            .max_by_key(|op| (op.asked().map(|intent| intent.creation), op.stamp()))
            .and_then(|op| op.asked()?.group(0).map(|group| group.value.clone()));
        (left, active)
    }

    /// Checks that nothing is kept that should not be, and that nothing is lost except deletes that
    /// every store had.
    fn check_writes(&self, n: usize, key: &str) -> Result<(), TestCaseError> {
        let register = self.nodes[n]
            .state
            .register(Slot::Intent, SPEC, key)
            .cloned()
            .unwrap_or_default();
        let (left, active) = self.expected(key);
        let kept: BTreeSet<Dot> = register.items().iter().map(|op| op.dot).collect();
        let only_deletes = left.iter().all(|op| is_delete(op));
        if only_deletes && self.founded {
            prop_assert!(
                kept.is_empty(),
                "deletes of {} are left on node {}: {:?}",
                key,
                n,
                kept
            );
        } else if self.founded {
            let values: BTreeSet<Dot> = left
                .iter()
                .filter(|op| !is_delete(op))
                .map(|op| op.dot)
                .collect();
            let left: BTreeSet<Dot> = left.iter().map(|op| op.dot).collect();
            prop_assert!(
                kept.is_subset(&left),
                "{} on node {}: {:?} of {:?}",
                key,
                n,
                kept,
                left
            );
            prop_assert!(
                kept.is_superset(&values),
                "{} on node {}: {:?} of {:?}",
                key,
                n,
                kept,
                values
            );
        } else {
            let left: BTreeSet<Dot> = left.iter().map(|op| op.dot).collect();
            prop_assert_eq!(kept, left, "writes left of {} on node {}", key, n);
        }
        if key.starts_with('k') {
            prop_assert_eq!(
                Register::value(&register),
                active.as_deref(),
                "{} on node {}",
                key,
                n
            );
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<(), TestCaseError> {
        let first = &self.nodes[0].state;
        let dots = |state: &State| state.ops().map(|op| op.dot).collect::<Vec<_>>();
        for (n, node) in self.nodes.iter().enumerate() {
            prop_assert!(!node.state.is_rejoining(), "node {} has not come back", n);
            prop_assert_eq!(node.state.vector(), first.vector(), "vector of node {}", n);
            prop_assert_eq!(dots(&node.state), dots(first), "changes of node {}", n);
            prop_assert_eq!(node.state.digest(), first.digest(), "digest of node {}", n);
            prop_assert_eq!(node.state.above_gaps().count(), 0, "node {}", n);
            prop_assert!(
                !self.founded || node.state.tombstones() == 0,
                "tombstones on node {}",
                n
            );
            for key in (0..4)
                .map(|key| format!("k{key}"))
                .chain((0..3).map(|key| format!("e{key}")))
            {
                self.check_writes(n, &key)?;
            }
            for (owner, of) in self.nodes.iter().enumerate() {
                let facts = node.state.facts_of(FACT, machine(owner));
                let seen: BTreeMap<Arc<str>, Vec<u8>> = facts
                    .filter_map(|((_, _, key), fact)| {
                        Some((Arc::clone(key), fact.value.as_ref()?.to_vec()))
                    })
                    .collect();
                prop_assert_eq!(&seen, &of.truth, "facts of node {} on node {}", owner, n);
            }
            // A restart changes nothing.
            let ops = node.state.ops().cloned().collect();
            let vector = node.state.vector();
            let (again, changes) = State::load(
                node.state.me(),
                node.state.hlc,
                &vector,
                &node.state.gc_watermarks().collect(),
                ops,
                node.clock,
            )
            .unwrap();
            prop_assert!(changes.ops.is_empty());
            prop_assert_eq!(dots(&again), dots(first));
            prop_assert_eq!(again.digest(), first.digest());
            // The replaced changes left in the file make no difference either.
            let (disk, gc_watermarks) = (&node.disk, node.disk.gc_watermarks().collect());
            let (again, _) = State::load(
                disk.me(),
                disk.hlc,
                &disk.vector(),
                &gc_watermarks,
                node.file.rows(),
                node.clock,
            )
            .unwrap();
            prop_assert_eq!(dots(&again), dots(disk));
            prop_assert_eq!(again.digest(), disk.digest());
        }
        Ok(())
    }
}
