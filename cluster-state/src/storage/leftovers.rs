//! Replaced changes that are still in the file.
//!
//! Removing each row in the transaction that replaces it would write a page somewhere in the middle
//! of the file for every change. That is most of the cost of a small commit. So the rows are kept,
//! and many adjacent ones are removed together. A store that loads the file merges them like any
//! other change and ends up with the same state, on one condition: the changes that replaced them
//! must also be in the file. So all leftovers are removed no later than the transaction that
//! removes anything for good.

use std::collections::BTreeSet;

use crate::id::Dot;
use crate::state::{Changes, Fate};

/// Maximum number of leftover rows.
const MAX_ROWS: usize = 2_048;
/// Maximum bytes of leftover keys and bodies.
const MAX_BYTES: usize = 1 << 20;

/// The leftover rows, and their limits.
#[derive(Debug)]
pub(crate) struct Leftovers {
    rows: BTreeSet<Dot>,
    bytes: usize,
    max_rows: usize,
    max_bytes: usize,
}

impl Default for Leftovers {
    fn default() -> Self {
        Self::at_most(MAX_ROWS, MAX_BYTES)
    }
}

impl Leftovers {
    /// Starts without leftovers, with these limits.
    pub(crate) fn at_most(max_rows: usize, max_bytes: usize) -> Self {
        Self {
            rows: BTreeSet::new(),
            bytes: 0,
            max_rows,
            max_bytes,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Reports whether the transaction must remove the leftovers and what it replaces itself.
    pub(crate) fn are_due(&self, changes: &Changes) -> bool {
        let (mut rows, mut bytes) = (self.rows.len(), self.bytes);
        for fate in changes.ops.values() {
            match fate {
                Fate::Kept(_) => {}
                Fate::Gone => return true,
                Fate::Replaced { bytes: more } => {
                    rows += 1;
                    bytes += more;
                }
            }
        }
        rows > self.max_rows || bytes > self.max_bytes
    }

    /// Returns the leftovers as runs of one actor's versions: first dot and last version.
    pub(crate) fn runs(&self) -> Vec<(Dot, u64)> {
        runs(self.rows.iter().copied())
    }

    /// Notes a committed transaction. With `removed`, the leftovers are no longer in the file.
    pub(crate) fn committed(&mut self, changes: &Changes, removed: bool) {
        if removed {
            self.clear();
            return;
        }
        for (dot, fate) in &changes.ops {
            match fate {
                Fate::Replaced { bytes } => {
                    if self.rows.insert(*dot) {
                        self.bytes += bytes;
                    }
                }
                // It was stored again, so it is no longer a leftover.
                Fate::Kept(_) | Fate::Gone => drop(self.rows.remove(dot)),
            }
        }
    }

    /// Notes that the file was written from scratch.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.bytes = 0;
    }
}

/// Groups ascending dots into runs of consecutive versions.
pub(crate) fn runs(dots: impl Iterator<Item = Dot>) -> Vec<(Dot, u64)> {
    let mut runs: Vec<(Dot, u64)> = Vec::new();
    for dot in dots {
        match runs.last_mut() {
            Some((first, last)) if first.actor == dot.actor && *last + 1 == dot.version => {
                *last = dot.version;
            }
            _ => runs.push((dot, dot.version)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Actor, MachineId};

    fn dot(machine: u8, version: u64) -> Dot {
        Dot {
            actor: Actor {
                machine: MachineId([machine; 16]),
                incarnation: 1,
            },
            version,
        }
    }

    fn replaced(dots: &[Dot]) -> Changes {
        let ops = dots
            .iter()
            .map(|dot| (*dot, Fate::Replaced { bytes: 100 }))
            .collect();
        Changes {
            ops,
            ..Changes::default()
        }
    }

    #[test]
    fn leftovers_are_kept_up_to_the_row_limit() {
        let mut left = Leftovers::at_most(3, 1_000);
        let first = replaced(&[dot(1, 1), dot(1, 2)]);
        assert!(!left.are_due(&first));
        left.committed(&first, false);
        assert!(!left.are_due(&replaced(&[dot(2, 3)])));
        assert!(left.are_due(&replaced(&[dot(2, 3), dot(2, 4)])));
        left.committed(&replaced(&[dot(2, 3), dot(2, 4)]), true);
        assert!(left.is_empty());
    }

    #[test]
    fn leftovers_are_kept_up_to_the_size_limit() {
        let mut left = Leftovers::at_most(100, 250);
        left.committed(&replaced(&[dot(1, 1), dot(1, 2)]), false);
        assert!(left.are_due(&replaced(&[dot(1, 3)])));
        assert!(!left.are_due(&Changes::default()));
    }

    #[test]
    fn leftovers_are_removed_with_any_final_removal() {
        let mut left = Leftovers::default();
        left.committed(&replaced(&[dot(1, 1)]), false);
        let gone = Changes {
            ops: [(dot(1, 9), Fate::Gone)].into(),
            ..Changes::default()
        };
        assert!(left.are_due(&gone));
    }

    #[test]
    fn runs_group_consecutive_versions() {
        let mut left = Leftovers::default();
        left.committed(
            &replaced(&[dot(2, 1), dot(1, 4), dot(1, 2), dot(1, 3), dot(1, 6)]),
            false,
        );
        assert_eq!(
            left.runs(),
            [(dot(1, 2), 4), (dot(1, 6), 6), (dot(2, 1), 1)]
        );
    }
}
