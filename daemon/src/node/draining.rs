//! Draining replicas: alive, but no longer given to new clients. The marks are kept in memory only.
//! After a restart of the daemon, the deployment that removes the replicas marks them again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use uc_api::v1;

/// The set of marked containers, and the marks that are already published. Cheap to clone; all
/// clones share the same sets.
#[derive(Debug, Clone)]
pub(crate) struct Draining {
    marks: Arc<watch::Sender<BTreeSet<String>>>,
    published: Arc<watch::Sender<BTreeSet<String>>>,
}

impl Default for Draining {
    fn default() -> Self {
        Self {
            marks: Arc::new(watch::Sender::new(BTreeSet::new())),
            published: Arc::new(watch::Sender::new(BTreeSet::new())),
        }
    }
}

impl Draining {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Marks a container by its full id.
    pub(crate) fn mark(&self, container_id: &str) {
        self.marks
            .send_if_modified(|marks| marks.insert(container_id.to_owned()));
    }

    /// Removes the mark: the container serves again, or it no longer exists.
    pub(crate) fn clear(&self, container_id: &str) {
        self.marks
            .send_if_modified(|marks| marks.remove(container_id));
    }

    pub(crate) fn contains(&self, container_id: &str) -> bool {
        self.marks.borrow().contains(container_id)
    }

    /// Sets the record's `draining` field.
    pub(crate) fn marked(&self, mut record: v1::ReplicaRecord) -> v1::ReplicaRecord {
        record.draining = self.contains(&record.container_id);
        record
    }

    /// Waits until the observer has published the mark. Returns false if that takes longer than
    /// `limit`.
    pub(crate) async fn published(&self, container_id: &str, limit: Duration) -> bool {
        let mut published = self.published.subscribe();
        let known = published.wait_for(|published| published.contains(container_id));
        matches!(tokio::time::timeout(limit, known).await, Ok(Ok(_)))
    }

    /// Subscribes to changes of the marks.
    pub(crate) fn changes(&self) -> watch::Receiver<BTreeSet<String>> {
        self.marks.subscribe()
    }

    /// Notes which marks the published records contain.
    pub(crate) fn note_published<'a>(&self, records: impl Iterator<Item = &'a v1::ReplicaRecord>) {
        let now: BTreeSet<String> = records
            .filter(|record| record.draining)
            .map(|record| record.container_id.clone())
            .collect();
        self.published.send_if_modified(|published| {
            let changed = *published != now;
            *published = now;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_marks_can_be_set_and_cleared() {
        let draining = Draining::new();
        let same = draining.clone();
        draining.mark("a");
        assert!(same.contains("a") && !same.contains("b"));
        let record = v1::ReplicaRecord {
            container_id: "a".into(),
            ..Default::default()
        };
        assert!(same.marked(record.clone()).draining);
        same.clear("a");
        assert!(!draining.marked(record).draining);
    }

    #[tokio::test(start_paused = true)]
    async fn draining_published_waits_for_the_observer() {
        let draining = Draining::new();
        draining.mark("a");
        assert!(!draining.published("a", Duration::from_secs(1)).await);
        let waiting = tokio::spawn({
            let draining = draining.clone();
            async move { draining.published("a", Duration::from_mins(1)).await }
        });
        let record = v1::ReplicaRecord {
            container_id: "a".into(),
            draining: true,
            ..Default::default()
        };
        draining.note_published([record].iter());
        assert!(waiting.await.unwrap());
    }
}
