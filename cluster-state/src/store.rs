//! The handle: opens the store, passes work to the writer, and gives out snapshots, watches and
//! sessions.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, Hlc, SystemClock};
use crate::error::WriteError;
use crate::id::{Actor, ClusterId, MachineId};
use crate::kind::{self, Kind};
use crate::local::{self, Retention, Write};
use crate::metrics::{Metrics, Status};
use crate::session::heard::Heard;
use crate::session::throttle::Throttle;
use crate::session::{self, Session};
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::storage::{self, OpenError, Owner, Storage};
use crate::watch::{Recent, StoreClosed, Watch};
use crate::writer::{self, Commit, Done, Request, Work, Writer};

/// Maximum number of requests that wait for the writer.
const QUEUE: usize = 1_024;
/// Rounds of `MAINTAIN` without a peer to fetch everything from, after which a machine continues
/// with what it has. The peer that it needs may never return. A peer that has forgotten what this
/// machine lacks will report it again.
const GIVE_UP: u64 = 300;
/// How often quarantined records, and deletes that all members may have, are looked at again.
const MAINTAIN: Duration = Duration::from_secs(1);
/// Minimum time between acknowledgements for each member. With 1,000 members they are a minute
/// apart.
const ACKNOWLEDGE_PER_MEMBER_MS: u64 = 60;

/// How to open a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// The SQLite file. It is created if it does not exist. Its directory must exist and be on a
    /// local disk.
    pub path: PathBuf,
    /// The cluster that the store belongs to.
    pub cluster: ClusterId,
    /// The machine that the store belongs to.
    pub machine: MachineId,
    /// All kinds that this machine knows.
    pub kinds: &'static [Kind],
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Seed for jitter and for the stride of incarnations. It must be random, different at each
    /// start.
    pub seed: u64,
    /// Maximum size of the file in bytes. At the limit, writes fail with `DiskFull`. 0 means no
    /// limit.
    pub max_bytes: u64,
    /// Bytes per second that all replication may send together. Intents are sent even above it. 0
    /// means no limit.
    pub max_rate: u64,
}

/// The default of `Options::max_rate`: a quarter of a gigabit link.
pub const DEFAULT_MAX_RATE: u64 = 32 * 1024 * 1024;

impl Options {
    /// Options with the system's clock, a random seed and no size limit.
    pub fn new(
        path: PathBuf,
        cluster: ClusterId,
        machine: MachineId,
        kinds: &'static [Kind],
    ) -> Self {
        let seed = RandomState::new().build_hasher().finish();
        Self {
            path,
            cluster,
            machine,
            kinds,
            clock: Arc::new(SystemClock),
            seed,
            max_bytes: 0,
            max_rate: DEFAULT_MAX_RATE,
        }
    }
}

/// A finished backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupDone {
    pub bytes: u64,
}

/// Why a backup was not written. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// A file with that name exists.
    #[error("{path} already exists: choose another name")]
    Exists { path: PathBuf },
    /// The file cannot be created.
    #[error("cannot write {path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// SQLite cannot write the copy.
    #[error(transparent)]
    Store(#[from] WriteError),
}

/// A replicated record store. Clones share it. It stays open until `close`, or (uncleanly) until
/// the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) cluster: ClusterId,
    pub(crate) kinds: &'static [Kind],
    pub(crate) seed: u64,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) throttle: Throttle,
    pub(crate) metrics: Arc<Metrics>,
    /// The machines that sessions hear directly.
    pub(crate) heard: Heard,
    /// Only one session at a time fetches everything.
    pub(crate) fetching: Semaphore,
    /// Number of sessions in which a peer fetches everything.
    pub(crate) serving: AtomicUsize,
    set_aside: Option<PathBuf>,
    opened: u64,
    requests: mpsc::Sender<Request>,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    recent: Arc<Mutex<Recent>>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Store {
    /// Opens or creates the file and loads it. Starts a new incarnation unless the store was closed
    /// cleanly.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let path = options.path.clone();
        let opening = tokio::task::spawn_blocking(move || open(options));
        opening.await.map_err(|error| OpenError::Thread {
            path,
            source: std::io::Error::other(error),
        })?
    }

    /// Applies all of the writes or none, and returns when they are on the disk. Accepts at most
    /// `MAX_TRANSACTION` records.
    pub async fn write(&self, writes: Vec<Write>) -> Result<Commit, WriteError> {
        local::check_writes(self.shared.kinds, &writes)?;
        self.shared
            .work(Work::Write(writes))
            .await
            .map(|done| done.commit)
    }

    /// Makes `rows` the complete set of this machine's observations of a kind. Unchanged rows cost
    /// nothing. Rows that are not in the set are removed everywhere. Not fsynced, because the owner
    /// can always publish again.
    pub async fn publish(
        &self,
        kind: u16,
        rows: Vec<(String, Vec<u8>)>,
    ) -> Result<Commit, WriteError> {
        let rows = local::check_rows(self.shared.kinds, kind, rows)?;
        self.shared
            .work(Work::Publish { kind, rows })
            .await
            .map(|done| done.commit)
    }

    /// Appends entries to this machine's log of a kind, trims the log, and returns when that is on
    /// the disk. Accepts at most `MAX_TRANSACTION` entries.
    pub async fn append(
        &self,
        kind: u16,
        entries: Vec<Vec<u8>>,
        keep: Retention,
    ) -> Result<Commit, WriteError> {
        local::check_entries(self.shared.kinds, kind, &entries)?;
        self.shared
            .work(Work::Append {
                kind,
                entries,
                keep,
            })
            .await
            .map(|done| done.commit)
    }

    /// Writes a compact copy of the store, as of now, to a file that must not exist. A store that
    /// opens the copy continues as a new incarnation. It fetches everything again if the cluster
    /// has continued in the meantime. Writes wait until the copy is done: about 10 ms per MB.
    pub async fn backup(&self, to: &Path) -> Result<BackupDone, BackupError> {
        let path = to.to_owned();
        let io = |source| BackupError::Io {
            path: to.to_owned(),
            source,
        };
        // Reserves the name, because SQLite would write into a file that another process creates in
        // the meantime.
        match std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
        {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(BackupError::Exists { path });
            }
            Err(error) => return Err(io(error)),
        }
        let target = path.clone();
        let request = |reply| Request::Backup { to: target, reply };
        let written = self.shared.request(request).await;
        if let Err(error) = written {
            // Leave no incomplete file behind.
            std::fs::remove_file(&path).map_err(io)?;
            return Err(BackupError::Store(error));
        }
        let bytes = std::fs::metadata(&path).map_err(io)?.len();
        Ok(BackupDone { bytes })
    }

    /// Returns the store's figures.
    pub fn status(&self) -> Status {
        let snapshot = self.snapshot();
        let state = &snapshot.state;
        let waiting = self.shared.requests.max_capacity() - self.shared.requests.capacity();
        Status {
            changes: state.ops().count() as u64,
            actors: state.watermarks().count() as u64,
            tombstones: state.tombstones() as u64,
            conflicts: snapshot.conflicts().len() as u64,
            quarantined: state.quarantined().count() as u64,
            opaque: state.opaque() as u64,
            loose: state.above_gaps().count() as u64,
            waiting: waiting as u64,
            ..self.shared.metrics.status()
        }
    }

    /// Returns where a damaged file was moved when the store was opened.
    pub fn set_aside(&self) -> Option<&Path> {
        self.shared.set_aside.as_deref()
    }

    /// Returns the records of the newest commit.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shared.snapshots.borrow())
    }

    /// Watches the changes from now on.
    pub fn watch(&self) -> Watch {
        Watch::new(
            self.shared.snapshots.clone(),
            Arc::clone(&self.shared.recent),
        )
    }

    /// Returns this machine in its present incarnation.
    pub fn actor(&self) -> Actor {
        self.snapshot().state.me()
    }

    /// Returns the present incarnation. It can grow while the store is open (see
    /// `docs/replication.md`).
    pub fn incarnation(&self) -> u64 {
        self.actor().incarnation
    }

    /// Returns how often this file was opened. It grows with each start, clean or not, and
    /// membership uses it.
    pub fn starts(&self) -> u64 {
        self.shared.opened
    }

    /// Waits until this store has everything up to a version of an actor (read-your-writes on
    /// another machine). Waits forever if that never arrives. It is cancel-safe, so callers can use
    /// a timeout.
    pub async fn wait_for(&self, actor: Actor, version: u64) -> Result<Arc<Snapshot>, StoreClosed> {
        let mut snapshots = self.shared.snapshots.clone();
        let here = snapshots
            .wait_for(|snapshot| snapshot.watermark(actor) >= version)
            .await;
        here.map(|snapshot| Arc::clone(&snapshot))
            .map_err(|_| StoreClosed)
    }

    /// Starts a replication session with a peer. Must be called within a tokio runtime.
    pub fn session(&self, peer: MachineId) -> Session {
        session::run(&self.shared, peer)
    }

    /// Ends the sessions, marks a clean shutdown and closes the file. Other clones then return
    /// `Closed`.
    pub async fn close(self) -> Result<(), WriteError> {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.request(|reply| Request::Close { reply }).await
    }
}

impl Shared {
    /// Sends a request to the writer and waits for its answer.
    async fn request<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, WriteError>>) -> Request,
    ) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(make(reply))
            .await
            .map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)?
    }

    pub(crate) async fn replace(&self, fresh: State) -> Result<(), WriteError> {
        let fresh = Box::new(fresh);
        self.request(|reply| Request::Replace { fresh, reply })
            .await
    }

    pub(crate) async fn work(&self, work: Work) -> Result<Done, WriteError> {
        self.request(|reply| Request::Work { work, reply }).await
    }
}

fn open(options: Options) -> Result<Store, OpenError> {
    let Options {
        path,
        cluster,
        machine,
        kinds,
        clock,
        seed,
        max_bytes,
        max_rate,
    } = options;
    if let Some(kind) = kinds.iter().find(|kind| kind.id >= kind::FIRST_RESERVED) {
        return Err(OpenError::ReservedKind { kind: kind.id });
    }
    let stride = writer::stride(seed ^ clock.now_ms());
    let owner = Owner {
        cluster,
        machine,
        kinds,
    };
    let opening = || load(&path, owner, stride, max_bytes, clock.now_ms());
    let (set_aside, (storage, state, opened)) = match opening() {
        Err(OpenError::Corrupt { reason, .. }) => {
            let aside = storage::set_aside(&path)?;
            tracing::error!(
                path = %path.display(), aside = %aside.display(), reason,
                "the store is damaged and was moved aside: starting with an empty one, which the other machines fill"
            );
            (Some(aside), opening()?)
        }
        opened => (None, opened?),
    };
    let opened_at = state.own_version();
    let (snapshot_tx, snapshots) = watch::channel(Snapshot::shared(state, 0));
    let (requests, queue) = mpsc::channel(QUEUE);
    let recent = Arc::new(Mutex::new(Recent::default()));
    let metrics = Arc::new(Metrics::default());
    metrics.file_bytes.store(storage.bytes(), Ordering::Relaxed);
    let writer = Writer {
        storage,
        path: path.clone(),
        clock: Arc::clone(&clock),
        seed,
        opened_at,
        reincarnations: 0,
        metrics: Arc::clone(&metrics),
        snapshots: snapshot_tx,
        recent: Arc::clone(&recent),
    };
    std::thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || writer.run(queue))
        .map_err(|source| OpenError::Thread {
            path: path.clone(),
            source,
        })?;
    let shared = Arc::new(Shared {
        cluster,
        kinds,
        seed,
        clock,
        throttle: Throttle::new(max_rate, tokio::time::Instant::now()),
        metrics,
        heard: Heard::default(),
        fetching: Semaphore::new(1),
        serving: AtomicUsize::new(0),
        set_aside,
        opened,
        requests,
        snapshots,
        recent,
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    });
    shared
        .tasks
        .spawn(maintain(Arc::downgrade(&shared), shared.stop.clone(), path));
    Ok(Store { shared })
}

fn load(
    path: &Path,
    owner: Owner,
    stride: u64,
    max_bytes: u64,
    now_ms: u64,
) -> Result<(Storage, State, u64), OpenError> {
    let (mut storage, loaded) = Storage::open(path, owner, stride, max_bytes / 4_096)?;
    let hlc = Hlc::starting_at(loaded.hlc);
    let (state, changes) = State::load(
        loaded.me,
        hlc,
        &loaded.vector,
        &loaded.gc_watermarks,
        loaded.ops,
        now_ms,
    )
    .map_err(|error| OpenError::Corrupt {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    if !changes.ops.is_empty() {
        // Leftovers of a version that understood less. The store has the same content with or
        // without them.
        if let Err(error) = storage.commit(state.me(), state.hlc.last(), &changes, false) {
            tracing::warn!(?error, "cannot remove leftovers from the store");
        }
    }
    Ok((storage, state, loaded.opened))
}

/// Merges quarantined records when their time has come, acknowledges deletes and collects them.
/// Holds no handle, so that a dropped store ends.
async fn maintain(shared: std::sync::Weak<Shared>, stop: CancellationToken, path: PathBuf) {
    let mut round = 0_u64;
    let mut fetching = 0_u64;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(MAINTAIN) => {}
        }
        let Some(shared) = shared.upgrade() else {
            return;
        };
        round += 1;
        let bytes = std::fs::metadata(&path).map_or(0, |meta| meta.len());
        shared.metrics.file_bytes.store(bytes, Ordering::Relaxed);
        let snapshot = Arc::clone(&shared.snapshots.borrow());
        let state = &snapshot.state;
        fetching = if state.is_rejoining() && shared.fetching.available_permits() > 0 {
            fetching + 1
        } else {
            0
        };
        if fetching > GIVE_UP {
            tracing::warn!("no peer to fetch everything from: continuing with the present state");
            if let Err(error) = shared.work(Work::EndRejoin).await {
                tracing::warn!(%error, "cannot continue with the present state");
            }
        }
        // Every member writes an acknowledgement for a round of deletes, so more machines need
        // longer rounds.
        let every = (state.current_members().count() as u64 * ACKNOWLEDGE_PER_MEMBER_MS)
            .div_ceil(1_000)
            .max(2);
        let due = state.is_evicted() || state.due_acknowledgements().is_some();
        let acknowledge = round.is_multiple_of(every) && due;
        // Do not forget deletes while a peer fetches everything, or it would have to start again.
        let collect = state.tombstones() > 0 && shared.serving.load(Ordering::Relaxed) == 0;
        let idle = state.quarantined().next().is_none() && !collect && !acknowledge;
        if !idle
            && let Err(error) = shared
                .work(Work::Maintain {
                    acknowledge,
                    collect,
                })
                .await
        {
            tracing::warn!(%error, "cannot maintain the store");
        }
    }
}

#[cfg(test)]
mod tests;
