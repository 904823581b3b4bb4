//! Counters: commits with their durations, and for each peer what was sent and received. Counters
//! only grow and start with this run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::id::MachineId;

/// Upper ends of the buckets of commit durations, in microseconds. Longer commits are in one more
/// bucket.
pub const COMMIT_BUCKETS_US: [u64; 8] = [250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000];

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) commits: AtomicU64,
    pub(crate) durable_commits: AtomicU64,
    pub(crate) failed_commits: AtomicU64,
    pub(crate) commit_us: AtomicU64,
    pub(crate) commit_buckets: [AtomicU64; COMMIT_BUCKETS_US.len() + 1],
    pub(crate) collected: AtomicU64,
    pub(crate) rejoins: AtomicU64,
    pub(crate) file_bytes: AtomicU64,
    peers: Mutex<BTreeMap<MachineId, Arc<PeerMetrics>>>,
}

#[derive(Debug, Default)]
pub(crate) struct PeerMetrics {
    pub(crate) sessions: AtomicU64,
    pub(crate) open: AtomicU64,
    pub(crate) lag: AtomicU64,
    pub(crate) frames_in: AtomicU64,
    pub(crate) frames_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) differences: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Metrics {
    pub(crate) fn peer(&self, machine: MachineId) -> Arc<PeerMetrics> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(peers.entry(machine).or_default())
    }

    pub(crate) fn committed(&self, durable: bool, took: Duration) {
        let us = took.as_micros() as u64;
        add(&self.commits, 1);
        add(&self.durable_commits, u64::from(durable));
        add(&self.commit_us, us);
        let at = COMMIT_BUCKETS_US.partition_point(|end| *end < us);
        if let Some(bucket) = self.commit_buckets.get(at) {
            add(bucket, 1);
        }
    }

    pub(crate) fn peers(&self) -> Vec<PeerStatus> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers
            .iter()
            .map(|(machine, of)| PeerStatus {
                machine: *machine,
                connected: read(&of.open) > 0,
                sessions: read(&of.sessions),
                lag: read(&of.lag),
                frames_in: read(&of.frames_in),
                frames_out: read(&of.frames_out),
                bytes_in: read(&of.bytes_in),
                bytes_out: read(&of.bytes_out),
                differences: read(&of.differences),
            })
            .collect()
    }

    pub(crate) fn status(&self) -> Status {
        Status {
            commits: read(&self.commits),
            durable_commits: read(&self.durable_commits),
            failed_commits: read(&self.failed_commits),
            commit_us: read(&self.commit_us),
            commit_buckets: self.commit_buckets.iter().map(read).collect(),
            collected: read(&self.collected),
            rejoins: read(&self.rejoins),
            file_bytes: read(&self.file_bytes),
            peers: self.peers(),
            ..Status::default()
        }
    }
}

/// The store's figures at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Number of live changes, which are the content of the file.
    pub changes: u64,
    /// Number of actors: one for each machine and each of its unclean restarts.
    pub actors: u64,
    /// Deletes that wait until every member has them.
    pub tombstones: u64,
    /// Deletes that all members had and that were forgotten in this run.
    pub collected: u64,
    /// Records with unsettled concurrent values.
    pub conflicts: u64,
    /// Records whose stamp is too far ahead of our clock.
    pub quarantined: u64,
    /// Records of an unknown format.
    pub opaque: u64,
    /// Changes above a gap, so that some version below them is missing.
    pub loose: u64,
    /// Requests waiting for the writer, of at most 1,024.
    pub waiting: u64,
    /// Transactions in this run.
    pub commits: u64,
    /// The fsynced ones among them.
    pub durable_commits: u64,
    /// Transactions that failed, for example because of a full disk.
    pub failed_commits: u64,
    /// Total time of all transactions in microseconds.
    pub commit_us: u64,
    /// Transactions by duration: the buckets of `COMMIT_BUCKETS_US` and one more.
    pub commit_buckets: Vec<u64>,
    /// How often all records were fetched again.
    pub rejoins: u64,
    /// Size of the file without its log.
    pub file_bytes: u64,
    /// The peers with which there was a session.
    pub peers: Vec<PeerStatus>,
}

/// The figures of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    pub machine: MachineId,
    /// Whether a session is open.
    pub connected: bool,
    /// Sessions started.
    pub sessions: u64,
    /// Versions that we have and the peer has not acknowledged. Peers acknowledge about once a
    /// second.
    pub lag: u64,
    /// Frames received from it.
    pub frames_in: u64,
    /// Frames sent to it.
    pub frames_out: u64,
    /// Bytes received from it.
    pub bytes_in: u64,
    /// Bytes sent to it.
    pub bytes_out: u64,
    /// How often digests differed although the watermarks were equal. That is a bug; it was
    /// repaired.
    pub differences: u64,
}
