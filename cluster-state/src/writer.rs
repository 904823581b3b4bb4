//! The one thread that changes the store. It takes the requests that wait, makes one transaction of them, commits,
//! publishes the new snapshot, and only then answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::id::Actor;
use crate::kind::{Class, MAX_RECORD, MAX_TRANSACTION};
use crate::local::{self, Write};
use crate::op::MAX_CONTEXT;
use crate::snapshot::Snapshot;
use crate::state::{Changes, Range, Reception, State, TooManyOpaque};
use crate::storage::{CommitError, Storage};
use crate::watch::Recent;

/// Most requests in one transaction.
const MAX_GROUP: usize = 256;
/// A new incarnation is up to this far above the last, at random: two copies of one file that are both started do
/// not take the same one.
pub(crate) const MAX_STRIDE: u64 = 1 << 20;

/// A write that did not happen. Nothing of it is stored anywhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Not a declared kind.
    #[error("kind {kind} is not declared")]
    UnknownKind {
        /// The kind.
        kind: u16,
    },
    /// `write` is for intent, `publish` for observations.
    #[error("kind {kind} ({name}) is of class {class:?}")]
    WrongClass {
        /// The kind.
        kind: u16,
        /// Its name.
        name: &'static str,
        /// Its class.
        class: Class,
    },
    /// A key of no or too many bytes.
    #[error("key of {bytes} bytes in kind {kind}: 1 to {} are allowed", crate::kind::MAX_KEY)]
    BadKey {
        /// The kind.
        kind: u16,
        /// The key's length.
        bytes: usize,
    },
    /// The same key twice in one set.
    #[error("key `{key}` of kind {kind} is given twice")]
    DuplicateKey {
        /// The kind.
        kind: u16,
        /// The key.
        key: String,
    },
    /// Key and value are too large. Large bodies belong outside, by content hash.
    #[error("record `{key}` of kind {kind} has {bytes} bytes, at most {MAX_RECORD} are allowed")]
    RecordTooLarge {
        /// The kind.
        kind: u16,
        /// The key.
        key: String,
        /// Key and value.
        bytes: usize,
    },
    /// Too many records at once. Split it into parts that are valid alone.
    #[error("transaction of {records} records, at most {MAX_TRANSACTION} are allowed")]
    TransactionTooLarge {
        /// How many.
        records: usize,
    },
    /// A record's causal context is full.
    #[error("record `{key}` of kind {kind} was written by more than {MAX_CONTEXT} lives of machines")]
    TooManyWriters {
        /// The kind.
        kind: u16,
        /// The key.
        key: String,
    },
    /// No room on the disk. Reading and receiving membership go on.
    #[error("no space left for store {path}: free some and try again")]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The disk or SQLite failed.
    #[error("cannot write to store {path}: {reason}")]
    Storage {
        /// The file.
        path: PathBuf,
        /// SQLite's word.
        reason: String,
    },
    /// More records of unknown form than are kept.
    #[error(transparent)]
    TooManyOpaque(#[from] TooManyOpaqueRecords),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// More records of unknown form than the store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {} records of unknown form: upgrade this machine", crate::state::MAX_OPAQUE)]
pub struct TooManyOpaqueRecords;

impl From<TooManyOpaque> for WriteError {
    fn from(_: TooManyOpaque) -> Self {
        Self::TooManyOpaque(TooManyOpaqueRecords)
    }
}

/// A write that is on the local disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// This machine, in this life.
    pub actor: Actor,
    /// The last version the commit took; what other machines wait for.
    pub version: u64,
    /// The number of the local snapshot that shows it.
    pub number: u64,
}

#[derive(Debug)]
pub(crate) enum Work {
    Write(Vec<Write>),
    Publish { kind: u16, rows: BTreeMap<Arc<str>, Vec<u8>> },
    Apply(Vec<Range>),
    Reincarnate { above: u64 },
    Release,
}

#[derive(Debug)]
pub(crate) enum Request {
    Work { work: Work, reply: oneshot::Sender<Result<Done, WriteError>> },
    Close { reply: oneshot::Sender<Result<(), WriteError>> },
}

/// What came of a piece of work.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) commit: Commit,
    /// For `Apply`: how each range met the state.
    pub(crate) receptions: Vec<Reception>,
}

/// Everything the thread owns.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) storage: Storage,
    pub(crate) path: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) seed: u64,
    /// Own version when the store was opened.
    pub(crate) opened_at: u64,
    pub(crate) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(crate) recent: Arc<Mutex<Recent>>,
}

type Waiting = (Work, oneshot::Sender<Result<Done, WriteError>>);

impl Writer {
    /// Runs until the store is closed or everybody let go of it.
    pub(crate) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut closing = None;
        while closing.is_none() {
            let Some(first) = requests.blocking_recv() else { return };
            let mut group = Vec::new();
            let mut next = Some(first);
            while let Some(request) = next {
                match request {
                    Request::Work { work, reply } => group.push((work, reply)),
                    Request::Close { reply } => {
                        closing = Some(reply);
                        break;
                    }
                }
                next = if group.len() < MAX_GROUP { requests.try_recv().ok() } else { None };
            }
            self.serve(group);
        }
        let state = &self.snapshots.borrow().state.clone();
        let closed = self.storage.close(state.me(), state.hlc.last());
        if let Some(reply) = closing {
            // Who asked may have gone; the store is closed all the same.
            let _ = reply.send(closed.map_err(|error| write_error(&self.path, error)));
        }
    }

    fn serve(&mut self, group: Vec<Waiting>) {
        if group.is_empty() {
            return;
        }
        let works: Vec<&Work> = group.iter().map(|(work, _)| work).collect();
        let outcomes = match self.transact(&works) {
            Ok(done) => done.into_iter().map(Ok).collect(),
            Err(error) if group.len() == 1 => vec![Err(error)],
            // One of them may be at fault: each for itself.
            Err(_) => works.iter().map(|work| self.transact_one(work)).collect::<Vec<_>>(),
        };
        for ((_, reply), outcome) in group.into_iter().zip(outcomes) {
            // Who asked may have gone; the commit stands.
            let _ = reply.send(outcome);
        }
    }

    fn transact_one(&mut self, work: &Work) -> Result<Done, WriteError> {
        let mut done = self.transact(&[work])?;
        done.pop().ok_or(WriteError::Closed)
    }

    /// All or none.
    fn transact(&mut self, works: &[&Work]) -> Result<Vec<Done>, WriteError> {
        let current = Arc::clone(&self.snapshots.borrow());
        let mut state = current.state.clone();
        let mut changes = Changes::default();
        let now_ms = self.clock.now_ms();
        let mut done = Vec::new();
        let mut durable = false;
        for work in works {
            let incarnation = state.me().incarnation;
            let receptions = self.execute(&mut state, work, now_ms, &mut changes)?;
            durable |= matches!(work, Work::Write(_)) || state.me().incarnation != incarnation;
            let commit = Commit { actor: state.me(), version: state.own_version(), number: current.number };
            done.push(Done { commit, receptions });
        }
        if changes.is_empty() && state.me() == current.state.me() {
            return Ok(done);
        }
        self.storage
            .commit(state.me(), state.hlc.last(), &changes, durable)
            .map_err(|error| write_error(&self.path, error))?;
        let number = current.number + 1;
        for done in &mut done {
            done.commit.number = number;
        }
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).push(number, &changes.records);
        self.snapshots.send_replace(Snapshot::shared(state, number));
        Ok(done)
    }

    fn execute(
        &mut self,
        state: &mut State,
        work: &Work,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Result<Vec<Reception>, WriteError> {
        match work {
            Work::Write(writes) => local::write(state, writes, now_ms, changes)?,
            Work::Publish { kind, rows } => local::publish(state, *kind, rows, now_ms, changes)?,
            Work::Release => state.release(now_ms, changes)?,
            Work::Reincarnate { above } => self.reincarnate(state, *above, now_ms, changes)?,
            Work::Apply(ranges) => {
                let mut receptions = Vec::new();
                for range in ranges {
                    let me = state.me();
                    if range.actor == me && range.to > state.own_version()
                        || range.actor.machine == me.machine && range.actor.incarnation > me.incarnation
                    {
                        self.reincarnate(state, range.actor.incarnation, now_ms, changes)?;
                    }
                    receptions.push(state.apply_range(range, now_ms, changes)?);
                }
                return Ok(receptions);
            }
        }
        Ok(Vec::new())
    }

    /// A peer knows changes of ours that we do not: this file is an old copy. What we say from here on is said by a
    /// new incarnation.
    fn reincarnate(
        &mut self,
        state: &mut State,
        above: u64,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Result<(), WriteError> {
        if above < state.me().incarnation {
            return Ok(());
        }
        let incarnation = above + stride(self.seed ^ now_ms ^ above);
        tracing::warn!(
            was = state.me().incarnation,
            now = incarnation,
            "peers know more of this machine's past than its store: going on as a new incarnation"
        );
        let opened_at = std::mem::take(&mut self.opened_at);
        local::reincarnate(state, incarnation, opened_at, now_ms, changes)
    }
}

/// How far above the last a new incarnation lies: 1 to `MAX_STRIDE`.
pub(crate) fn stride(seed: u64) -> u64 {
    SmallRng::seed_from_u64(seed).random_range(1..=MAX_STRIDE)
}

fn write_error(path: &std::path::Path, error: CommitError) -> WriteError {
    match error {
        CommitError::DiskFull => WriteError::DiskFull { path: path.to_owned() },
        CommitError::Other(source) => {
            WriteError::Storage { path: path.to_owned(), reason: source.to_string() }
        }
    }
}
