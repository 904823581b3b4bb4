//! Watching: which records changed since the last look.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::kind::RecordId;
use crate::snapshot::Snapshot;

/// Maximum number of record ids remembered for watchers that are behind. Beyond that, a watcher
/// gets "everything changed".
const MAX_REMEMBERED: usize = 65_536;

/// The ids that recent commits changed, by commit number.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    commits: VecDeque<(u64, Vec<RecordId>)>,
    ids: usize,
    /// Commits up to this number are forgotten.
    forgotten: u64,
}

impl Recent {
    /// Notes a commit before it becomes visible.
    pub(crate) fn push(&mut self, number: u64, records: &BTreeSet<RecordId>) {
        // An empty commit counts as well, or the queue could grow without limit.
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

    /// Notes that commit `number` changed more records than can be listed.
    pub(crate) fn forget(&mut self, number: u64) {
        self.commits.clear();
        self.ids = 0;
        self.forgotten = number;
    }

    /// Returns what changed after commit `since` and up to `until`. Returns `None` if that is no
    /// longer known.
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
    /// These records, each of them once, however often it changed.
    Records(BTreeSet<RecordId>),
    /// More records than are remembered. The watcher must look at everything.
    Everything,
}

/// The store was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store is closed")]
pub struct StoreClosed;

/// A position in the sequence of commits.
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

    /// Starts again after commit `number`, which must come from `Snapshot::number` of this run.
    pub fn resume_after(mut self, number: u64) -> Self {
        self.seen = number;
        self
    }

    /// Waits until a record has changed since the last call, or since the watch was made. Returns
    /// the changed records and the snapshot that contains the changes. Cancel-safe.
    pub async fn changed(&mut self) -> Result<(Changed, Arc<Snapshot>), StoreClosed> {
        loop {
            let seen = self.seen;
            self.snapshots
                .wait_for(|snapshot| snapshot.number > seen)
                .await
                .map_err(|_| StoreClosed)?;
            if let Some(changed) = self.take() {
                return Ok(changed);
            }
        }
    }

    /// Returns what has changed since the last call, without waiting. `None` if nothing has.
    pub fn take(&mut self) -> Option<(Changed, Arc<Snapshot>)> {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let records = recent.since(self.seen, snapshot.number);
        drop(recent);
        self.seen = snapshot.number;
        match records {
            None => Some((Changed::Everything, snapshot)),
            // A commit can change nothing visible, such as a peer's watermark.
            Some(records) if records.is_empty() => None,
            Some(records) => Some((Changed::Records(records), snapshot)),
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
    fn watch_coalesces_commits() {
        let mut recent = Recent::default();
        recent.push(1, &ids(&["a"]));
        recent.push(2, &ids(&["b", "a"]));
        recent.push(3, &ids(&["c"]));
        assert_eq!(recent.since(0, 2), Some(ids(&["a", "b"])));
        assert_eq!(recent.since(2, 3), Some(ids(&["c"])));
        assert_eq!(recent.since(3, 3), Some(ids(&[])));
    }

    #[test]
    fn watch_far_behind_gets_everything() {
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
