//! The handle: opens the store, hands work to the writer, gives out snapshots, watches and sessions.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, Hlc, SystemClock};
use crate::id::{Actor, ClusterId, MachineId};
use crate::kind::Kind;
use crate::local::{self, Write};
use crate::session::{self, Session};
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::storage::{OpenError, Owner, Storage};
use crate::vector::VersionVector;
use crate::watch::{Recent, StoreClosed, Watch};
use crate::writer::{self, Commit, Done, Request, Work, WriteError, Writer};

/// Requests that wait for the writer.
const QUEUE: usize = 1_024;
/// How often records that were stamped too far ahead are looked at again.
const RELEASE: Duration = Duration::from_secs(1);

/// How to open a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// The SQLite file; made if it is missing. Its directory must exist and be on a local disk.
    pub path: PathBuf,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// This machine.
    pub machine: MachineId,
    /// All kinds this machine knows.
    pub kinds: &'static [Kind],
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// For jitter and for the stride of incarnations: random, other at each start.
    pub seed: u64,
    /// The file grows to at most this many bytes, then writes fail with `DiskFull`; 0: no limit.
    pub max_bytes: u64,
}

impl Options {
    /// With the system's clock, a random seed and no limit.
    pub fn new(path: PathBuf, cluster: ClusterId, machine: MachineId, kinds: &'static [Kind]) -> Self {
        let seed = RandomState::new().build_hasher().finish();
        Self { path, cluster, machine, kinds, clock: Arc::new(SystemClock), seed, max_bytes: 0 }
    }
}

/// A replicated record store. Clones share it; it stays open until `close`, or (uncleanly) until the last is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) cluster: ClusterId,
    pub(crate) kinds: &'static [Kind],
    pub(crate) seed: u64,
    opened: u64,
    requests: mpsc::Sender<Request>,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    recent: Arc<Mutex<Recent>>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Store {
    /// Opens or makes the file and loads it. Takes a new incarnation unless the store was closed cleanly.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let path = options.path.clone();
        let opening = tokio::task::spawn_blocking(move || open(options));
        opening.await.map_err(|error| OpenError::Thread { path, source: std::io::Error::other(error) })?
    }

    /// Applies all of the writes or none and returns when they are on the disk. At most `MAX_TRANSACTION` records.
    pub async fn write(&self, writes: Vec<Write>) -> Result<Commit, WriteError> {
        local::check_writes(self.shared.kinds, &writes)?;
        self.shared.work(Work::Write(writes)).await.map(|done| done.commit)
    }

    /// Makes `rows` the complete set of this machine's observations of a kind. Rows that did not change cost
    /// nothing; rows that are not in the set vanish everywhere. Not fsynced: the owner can always say it again.
    pub async fn publish(&self, kind: u16, rows: Vec<(String, Vec<u8>)>) -> Result<Commit, WriteError> {
        let rows = local::check_rows(self.shared.kinds, kind, rows)?;
        self.shared.work(Work::Publish { kind, rows }).await.map(|done| done.commit)
    }

    /// The newest commit's records.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shared.snapshots.borrow())
    }

    /// From now on.
    pub fn watch(&self) -> Watch {
        Watch::new(self.shared.snapshots.clone(), Arc::clone(&self.shared.recent))
    }

    /// This machine, in this life.
    pub fn actor(&self) -> Actor {
        self.snapshot().state.me()
    }

    /// The number of this life. May grow while the store is open (see `docs/replication.md`).
    pub fn incarnation(&self) -> u64 {
        self.actor().incarnation
    }

    /// How often this file was opened: grows with each start, clean or not. What membership wants.
    pub fn starts(&self) -> u64 {
        self.shared.opened
    }

    /// Up to where each actor is known.
    pub fn version_vector(&self) -> VersionVector {
        self.snapshot().version_vector().clone()
    }

    /// Waits until everything up to a version of an actor is here: read-your-writes on another machine. Waits for
    /// ever if it never comes; cancel-safe, so put a timeout round it.
    pub async fn wait_for(&self, actor: Actor, version: u64) -> Result<Arc<Snapshot>, StoreClosed> {
        let mut snapshots = self.shared.snapshots.clone();
        let here = snapshots.wait_for(|snapshot| snapshot.version_vector().get(actor) >= version).await;
        here.map(|snapshot| Arc::clone(&snapshot)).map_err(|_| StoreClosed)
    }

    /// Starts a replication session with a peer. Must be called within a tokio runtime.
    pub fn session(&self, peer: MachineId) -> Session {
        session::run(&self.shared, peer)
    }

    /// Ends the sessions, marks a clean shutdown and closes the file. Other clones answer `Closed` from here on.
    pub async fn close(self) -> Result<(), WriteError> {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        let (reply, closed) = oneshot::channel();
        self.shared.requests.send(Request::Close { reply }).await.map_err(|_| WriteError::Closed)?;
        closed.await.map_err(|_| WriteError::Closed)?
    }
}

impl Shared {
    pub(crate) async fn work(&self, work: Work) -> Result<Done, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Work { work, reply }).await.map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)?
    }
}

fn open(options: Options) -> Result<Store, OpenError> {
    let Options { path, cluster, machine, kinds, clock, seed, max_bytes } = options;
    let stride = writer::stride(seed ^ clock.now_ms());
    let owner = Owner { cluster, machine, kinds };
    let (mut storage, loaded) = Storage::open(&path, owner, stride, max_bytes / 4_096)?;
    let hlc = Hlc::starting_at(loaded.hlc);
    let opened = loaded.opened;
    let (state, changes) = State::load(loaded.me, hlc, loaded.vector, loaded.ops, clock.now_ms())
        .map_err(|error| OpenError::Corrupt { path: path.clone(), reason: error.to_string() })?;
    if !changes.ops.is_empty() {
        // Leftovers of a version that understood less; without them the file is the same store.
        if let Err(error) = storage.commit(state.me(), state.hlc.last(), &changes, false) {
            tracing::warn!(?error, "leftovers stay in the store");
        }
    }
    let opened_at = state.own_version();
    let (snapshot_tx, snapshots) = watch::channel(Snapshot::shared(state, 0));
    let (requests, queue) = mpsc::channel(QUEUE);
    let recent = Arc::new(Mutex::new(Recent::default()));
    let writer = Writer {
        storage,
        path: path.clone(),
        clock,
        seed,
        opened_at,
        snapshots: snapshot_tx,
        recent: Arc::clone(&recent),
    };
    std::thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || writer.run(queue))
        .map_err(|source| OpenError::Thread { path, source })?;
    let shared = Arc::new(Shared {
        cluster,
        kinds,
        seed,
        opened,
        requests,
        snapshots,
        recent,
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    });
    shared.tasks.spawn(release(Arc::downgrade(&shared), shared.stop.clone()));
    Ok(Store { shared })
}

/// Lets quarantined records in when their time has come. Holds no handle, so that a dropped store ends.
async fn release(shared: std::sync::Weak<Shared>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RELEASE) => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        let waiting = shared.snapshots.borrow().quarantined().next().is_some();
        if waiting && let Err(error) = shared.work(Work::Release).await {
            tracing::warn!(%error, "records stamped ahead of time cannot be released");
        }
    }
}

#[cfg(test)]
mod tests;
