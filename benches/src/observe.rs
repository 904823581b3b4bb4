//! Sees stamped records become visible through a watch, and how late.

use std::collections::HashMap;

use uc_cluster_state::{Changed, Snapshot, Store, Watch};

use crate::record::{RECORD, now_ns};

/// A watch that looks for records whose keys begin with a prefix.
#[derive(Debug)]
pub(crate) struct Observer {
    watch: Watch,
    prefix: String,
}

impl Observer {
    /// From now on.
    pub(crate) fn new(store: &Store, prefix: &str) -> Self {
        Self {
            watch: store.watch(),
            prefix: prefix.to_owned(),
        }
    }

    /// Waits for `count` records, and how long after its write began each was told of, in
    /// nanoseconds.
    pub(crate) async fn see(mut self, count: usize) -> anyhow::Result<HashMap<String, u64>> {
        let mut seen = HashMap::new();
        while seen.len() < count {
            let (changed, snapshot) = self.watch.changed().await?;
            let now = now_ns();
            match changed {
                Changed::Records(ids) => {
                    for id in ids.iter().filter(|id| id.kind == RECORD) {
                        self.note(&snapshot, &id.key, now, &mut seen);
                    }
                }
                Changed::Everything => {
                    for (key, _) in snapshot.intents(RECORD) {
                        self.note(&snapshot, key, now, &mut seen);
                    }
                }
            }
        }
        Ok(seen)
    }

    fn note(&self, snapshot: &Snapshot, key: &str, now: u64, seen: &mut HashMap<String, u64>) {
        if !key.starts_with(&self.prefix) || seen.contains_key(key) {
            return;
        }
        if let Some(stamp) = snapshot
            .get(RECORD, key)
            .and_then(|value| value.first_chunk())
        {
            seen.insert(
                key.to_owned(),
                now.saturating_sub(u64::from_le_bytes(*stamp)),
            );
        }
    }
}
