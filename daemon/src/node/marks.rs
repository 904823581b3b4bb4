//! What the engine does not know of the containers: which of them are starting (alive, but it is
//! not known yet whether they serve), which are draining (alive, but no longer given to new
//! clients) and which are only kept. The observer publishes the marks together
//! with what the engine reports, and tells here what it has published.
//!
//! The marks are kept in memory only. After a restart of the daemon, the journal of changes sets
//! them again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use uc_api::v1::{self, Health, Kept, ReplicaState};

/// All marks of this machine's containers, by full id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MarkSet {
    starting: BTreeSet<String>,
    draining: BTreeSet<String>,
    kept: BTreeMap<String, Kept>,
}

/// What the observer last published of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Published {
    /// It runs, and its healthcheck, if it has one, succeeds.
    serving: bool,
    draining: bool,
}

/// The marks, and what is already published. Cheap to clone; all clones share the same state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    marks: Arc<watch::Sender<MarkSet>>,
    published: Arc<watch::Sender<BTreeMap<String, Published>>>,
    /// Containers that the observer should inspect at once.
    looks: Arc<watch::Sender<BTreeSet<String>>>,
}

impl Marks {
    /// Marks a container as starting. It is published as one whose healthcheck has not succeeded
    /// yet, also if it has none, so that DNS gives the addresses of other replicas.
    pub(crate) fn starting(&self, container_id: &str) {
        self.marks
            .send_if_modified(|marks| marks.starting.insert(container_id.to_owned()));
    }

    /// Removes the starting mark: the container serves, or its start has failed.
    pub(crate) fn started(&self, container_id: &str) {
        self.marks
            .send_if_modified(|marks| marks.starting.remove(container_id));
    }

    /// Marks a container as draining.
    pub(crate) fn drain(&self, container_id: &str) {
        self.marks
            .send_if_modified(|marks| marks.draining.insert(container_id.to_owned()));
    }

    /// Removes the draining mark: the container serves again, or it no longer exists.
    pub(crate) fn clear(&self, container_id: &str) {
        self.marks
            .send_if_modified(|marks| marks.draining.remove(container_id));
    }

    /// Marks a container as kept; `None` removes the mark.
    pub(crate) fn keep(&self, container_id: &str, kept: Option<Kept>) {
        self.marks.send_if_modified(|marks| {
            let before = match kept {
                Some(kept) => marks.kept.insert(container_id.to_owned(), kept),
                None => marks.kept.remove(container_id),
            };
            before != kept
        });
    }

    #[cfg(test)]
    pub(crate) fn is_draining(&self, container_id: &str) -> bool {
        self.marks.borrow().draining.contains(container_id)
    }

    /// Sets the record's fields that come from marks.
    pub(crate) fn marked(&self, mut record: v1::ReplicaRecord) -> v1::ReplicaRecord {
        let marks = self.marks.borrow();
        if marks.starting.contains(&record.container_id) && record.health() == Health::None {
            record.set_health(Health::Starting);
        }
        record.draining = marks.draining.contains(&record.container_id);
        let kept = marks.kept.get(&record.container_id).copied();
        record.kept = kept.unwrap_or(Kept::Unspecified).into();
        record
    }

    /// Waits until the observer has published that the container is draining. Returns false if that
    /// takes longer than `limit`.
    pub(crate) async fn published_draining(&self, container_id: &str, limit: Duration) -> bool {
        self.until_published(container_id, limit, |published| published.draining)
            .await
    }

    /// Has the observer inspect the container at once, and waits until it has published that the
    /// container serves. Returns false if that takes longer than `limit`.
    pub(crate) async fn published_serving(&self, container_id: &str, limit: Duration) -> bool {
        self.looks.send_modify(|looks| {
            looks.insert(container_id.to_owned());
        });
        self.until_published(container_id, limit, |published| {
            published.serving && !published.draining
        })
        .await
    }

    async fn until_published(
        &self,
        container_id: &str,
        limit: Duration,
        wanted: impl Fn(&Published) -> bool,
    ) -> bool {
        let mut published = self.published.subscribe();
        let known =
            published.wait_for(|published| published.get(container_id).is_some_and(&wanted));
        matches!(tokio::time::timeout(limit, known).await, Ok(Ok(_)))
    }

    /// Subscribes to changes of the marks.
    pub(crate) fn changes(&self) -> watch::Receiver<MarkSet> {
        self.marks.subscribe()
    }

    /// Subscribes to requests to look at containers ([`take_looks`](Self::take_looks)).
    pub(crate) fn looks(&self) -> watch::Receiver<BTreeSet<String>> {
        self.looks.subscribe()
    }

    /// Takes the containers that should be inspected at once.
    pub(crate) fn take_looks(&self) -> BTreeSet<String> {
        let mut taken = BTreeSet::new();
        self.looks.send_if_modified(|looks| {
            taken = std::mem::take(looks);
            false
        });
        taken
    }

    /// Notes what was published.
    pub(crate) fn note_published<'a>(&self, records: impl Iterator<Item = &'a v1::ReplicaRecord>) {
        let now: BTreeMap<String, Published> = records
            .map(|record| {
                let serving = record.state() == ReplicaState::Running
                    && !matches!(record.health(), Health::Starting | Health::Unhealthy);
                let published = Published {
                    serving,
                    draining: record.draining,
                };
                (record.container_id.clone(), published)
            })
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

    fn record(draining: bool, health: Health) -> v1::ReplicaRecord {
        v1::ReplicaRecord {
            container_id: "a".into(),
            state: ReplicaState::Running.into(),
            health: health.into(),
            draining,
            ..Default::default()
        }
    }

    #[test]
    fn marks_can_be_set_and_cleared() {
        let marks = Marks::default();
        let same = marks.clone();
        marks.drain("a");
        marks.keep("b", Some(Kept::Failed));
        assert!(same.is_draining("a") && !same.is_draining("b"));
        assert!(same.marked(record(false, Health::None)).draining);
        let kept = v1::ReplicaRecord {
            container_id: "b".into(),
            ..Default::default()
        };
        assert_eq!(same.marked(kept.clone()).kept(), Kept::Failed);
        marks.starting("a");
        let health = |reported| same.marked(record(false, reported)).health();
        assert_eq!(health(Health::None), Health::Starting);
        assert_eq!(health(Health::Healthy), Health::Healthy);
        same.started("a");
        assert_eq!(health(Health::None), Health::None);
        same.clear("a");
        same.keep("b", None);
        assert!(!marks.marked(record(false, Health::None)).draining);
        assert_eq!(marks.marked(kept).kept(), Kept::Unspecified);
    }

    #[tokio::test(start_paused = true)]
    async fn published_waits_for_the_observer() {
        let marks = Marks::default();
        let mut looks = marks.looks();
        assert!(!marks.published_draining("a", Duration::from_secs(1)).await);
        let waiting = |serving| {
            let marks = marks.clone();
            tokio::spawn(async move {
                let limit = Duration::from_mins(1);
                if serving {
                    marks.published_serving("a", limit).await
                } else {
                    marks.published_draining("a", limit).await
                }
            })
        };
        let serving = waiting(true);
        looks.changed().await.unwrap();
        assert_eq!(marks.take_looks(), BTreeSet::from(["a".to_owned()]));
        marks.note_published([record(false, Health::Starting)].iter());
        tokio::task::yield_now().await;
        assert!(!serving.is_finished(), "it is only starting");
        marks.note_published([record(false, Health::Healthy)].iter());
        assert!(serving.await.unwrap());
        let draining = waiting(false);
        marks.note_published([record(true, Health::Healthy)].iter());
        assert!(draining.await.unwrap());
    }
}
