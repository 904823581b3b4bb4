//! Watching: which records changed since one last looked.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::kind::RecordId;
use crate::snapshot::Snapshot;

/// Record ids remembered for watchers that are behind; beyond that they are told "everything".
const MAX_REMEMBERED: usize = 65_536;

/// The ids that recent commits changed, by commit number.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    commits: VecDeque<(u64, Vec<RecordId>)>,
    ids: usize,
    /// Commits up to this one are forgotten.
    forgotten: u64,
}

impl Recent {
    /// Takes note of a commit before it becomes visible.
    pub(crate) fn push(&mut self, number: u64, records: &BTreeSet<RecordId>) {
        // An empty commit takes a place too, or the queue could grow without ids.
        self.ids += records.len() + 1;
        self.commits
            .push_back((number, records.iter().cloned().collect()));
        while self.ids > MAX_REMEMBERED {
            let Some((number, records)) = self.commits.pop_front() else {
                break;
            };
            self.ids -= records.len() + 1;
            self.forgotten = number;
        }
    }

    /// Commit `number` changed more than can be told.
    pub(crate) fn forget(&mut self, number: u64) {
        self.commits.clear();
        self.ids = 0;
        self.forgotten = number;
    }

    /// What changed after commit `since` up to `until`; none if that is not known any more.
    fn since(&self, since: u64, until: u64) -> Option<BTreeSet<RecordId>> {
        if since < self.forgotten {
            return None;
        }
        let start = self.commits.partition_point(|(number, _)| *number <= since);
        let commits = self
            .commits
            .iter()
            .skip(start)
            .take_while(|(number, _)| *number <= until);
        Some(
            commits
                .flat_map(|(_, records)| records.iter().cloned())
                .collect(),
        )
    }
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// These records; each at most once, however often it changed.
    Records(BTreeSet<RecordId>),
    /// More than is remembered: look at everything.
    Everything,
}

/// The store was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store is closed")]
pub struct StoreClosed;

/// A place in the sequence of commits.
#[derive(Debug, Clone)]
pub struct Watch {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    recent: Arc<Mutex<Recent>>,
    seen: u64,
}

impl Watch {
    pub(crate) fn new(
        snapshots: watch::Receiver<Arc<Snapshot>>,
        recent: Arc<Mutex<Recent>>,
    ) -> Self {
        let seen = snapshots.borrow().number;
        Self {
            snapshots,
            recent,
            seen,
        }
    }

    /// Starts again after commit `number`, as read from `Snapshot::number` of this run.
    pub fn resume_after(mut self, number: u64) -> Self {
        self.seen = number;
        self
    }

    /// Waits until a record has changed since the last call (or since the watch was made) and says
    /// which, with the snapshot in which they have changed. Cancel-safe.
    pub async fn changed(&mut self) -> Result<(Changed, Arc<Snapshot>), StoreClosed> {
        loop {
            let seen = self.seen;
            let snapshot = self
                .snapshots
                .wait_for(|snapshot| snapshot.number > seen)
                .await
                .map(|snapshot| Arc::clone(&snapshot))
                .map_err(|_| StoreClosed)?;
            let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            let records = recent.since(seen, snapshot.number);
            drop(recent);
            self.seen = snapshot.number;
            match records {
                None => return Ok((Changed::Everything, snapshot)),
                Some(records) if !records.is_empty() => {
                    return Ok((Changed::Records(records), snapshot));
                }
                // A commit that changed nothing visible, such as a peer's height.
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(keys: &[&str]) -> BTreeSet<RecordId> {
        keys.iter()
            .map(|key| RecordId {
                kind: 1,
                owner: None,
                key: Arc::from(*key),
            })
            .collect()
    }

    #[test]
    fn commits_are_coalesced() {
        let mut recent = Recent::default();
        recent.push(1, &ids(&["a"]));
        recent.push(2, &ids(&["b", "a"]));
        recent.push(3, &ids(&["c"]));
        assert_eq!(recent.since(0, 2), Some(ids(&["a", "b"])));
        assert_eq!(recent.since(2, 3), Some(ids(&["c"])));
        assert_eq!(recent.since(3, 3), Some(ids(&[])));
    }

    #[test]
    fn who_is_too_far_behind_is_told_everything() {
        let mut recent = Recent::default();
        for number in 1..=MAX_REMEMBERED as u64 {
            recent.push(number, &ids(&["a"]));
        }
        assert_eq!(recent.since(0, 10), None);
        assert!(
            recent
                .since(MAX_REMEMBERED as u64 - 5, MAX_REMEMBERED as u64)
                .is_some()
        );
        assert!(recent.commits.len() <= MAX_REMEMBERED / 2);
    }
}
