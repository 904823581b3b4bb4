//! The content of a store's file, as `Storage` writes it, without SQLite. Replaced changes stay in
//! it for a while.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::Dot;
use crate::op::Op;
use crate::state::{Changes, Fate, State};
use crate::storage::Leftovers;

/// Limits of leftover rows. With the low limit, even a short history has rows that stay and rows
/// that are removed. With the high limit, rows stay until something is removed for good. Half of
/// the stores use each.
const ROWS: [usize; 2] = [4, 1_000];

pub(super) struct File {
    rows: BTreeMap<Dot, Arc<Op>>,
    leftovers: Leftovers,
}

impl File {
    pub(super) fn of(state: &State) -> Self {
        let rows = state.ops().map(|op| (op.dot, Arc::clone(op))).collect();
        let [few, many] = ROWS;
        let at_most = if state.me().machine.0[0].is_multiple_of(2) {
            few
        } else {
            many
        };
        Self {
            rows,
            leftovers: Leftovers::at_most(at_most, usize::MAX),
        }
    }

    pub(super) fn commit(&mut self, changes: &Changes) {
        let remove = self.leftovers.are_due(changes);
        for (first, last) in self.leftovers.runs().into_iter().filter(|_| remove) {
            self.rows.retain(|dot, _| {
                *dot < first
                    || *dot
                        > Dot {
                            version: last,
                            ..first
                        }
            });
        }
        for (dot, fate) in &changes.ops {
            match fate {
                Fate::Kept(op) => drop(self.rows.insert(*dot, Arc::clone(op))),
                _ if remove => drop(self.rows.remove(dot)),
                _ => {}
            }
        }
        self.leftovers.committed(changes, remove);
    }

    pub(super) fn rows(&self) -> Vec<Arc<Op>> {
        self.rows.values().cloned().collect()
    }
}
