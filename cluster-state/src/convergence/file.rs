//! What a replica's file holds: what `Storage` writes, without SQLite. Replaced changes stay in it for a while.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::Dot;
use crate::op::Op;
use crate::state::{Changes, Fate, State};
use crate::storage::Leftovers;

/// Few, so that a short history has both: rows that stay and rows that are removed.
const ROWS: usize = 4;

pub(super) struct File {
    rows: BTreeMap<Dot, Arc<Op>>,
    leftovers: Leftovers,
}

impl File {
    pub(super) fn of(state: &State) -> Self {
        let rows = state.ops().map(|op| (op.dot, Arc::clone(op))).collect();
        Self { rows, leftovers: Leftovers::at_most(ROWS, usize::MAX) }
    }

    pub(super) fn commit(&mut self, changes: &Changes) {
        let remove = self.leftovers.are_due(changes);
        for (first, last) in self.leftovers.runs().into_iter().filter(|_| remove) {
            self.rows.retain(|dot, _| *dot < first || *dot > Dot { version: last, ..first });
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
