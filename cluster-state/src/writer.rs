//! The one thread that changes the store. It takes the requests that wait, makes one transaction of
//! them, commits, publishes the new snapshot, and only then answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::id::{Actor, MachineId};
use crate::kind::{Class, MAX_RECORD, MAX_TRANSACTION};
use crate::local::{self, Retention, Write};
use crate::metrics::{Metrics, add};
use crate::op::MAX_CONTEXT;
use crate::snapshot::Snapshot;
use crate::state::{Batch, Changes, Rejected, State};
use crate::storage::{CommitError, Storage};
use crate::vector::VersionVector;
use crate::watch::Recent;

/// Most requests in one transaction.
const MAX_GROUP: usize = 256;
/// A new incarnation is up to this far above the last, at random: two copies of one file that are
/// both started do not take the same one.
pub(crate) const MAX_STRIDE: u64 = 1 << 20;
/// New incarnations in one run because peers knew more. An old copy needs one, seldom two; two
/// processes with copies of one directory outbid each other until the first gives up.
const MAX_REINCARNATIONS: u32 = 3;

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
    #[error(
        "key of {bytes} bytes in kind {kind}: 1 to {} are allowed",
        crate::kind::MAX_KEY
    )]
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
    #[error(
        "record `{key}` of kind {kind} was written by more than {MAX_CONTEXT} lives of machines"
    )]
    TooManyWriters {
        /// The kind.
        kind: u16,
        /// The key.
        key: String,
    },
    /// A record of too many groups of fields.
    #[error(
        "record `{key}` of kind {kind} has {groups} groups of fields, at most {} are allowed",
        crate::op::MAX_GROUPS
    )]
    TooManyGroups {
        /// The kind.
        kind: u16,
        /// The key.
        key: String,
        /// How many.
        groups: usize,
    },
    /// A conflict is not the one that was to be settled. Look at it again.
    #[error("the values of `{key}` of kind {kind} have changed meanwhile")]
    Changed {
        /// The kind.
        kind: u16,
        /// The key.
        key: String,
    },
    /// Another machine has claimed the key. Choose another one, or wait until it is released.
    #[error("`{key}` of kind {kind} is claimed by machine {by}")]
    Claimed {
        /// The kind.
        kind: u16,
        /// The key.
        key: String,
        /// Who has it.
        by: MachineId,
    },
    /// A registry record only goes up. Read it again and decide anew.
    #[error("record `{key}` of kind {kind} is at epoch {known}, {epoch} is not above it")]
    EpochTooLow {
        /// The kind.
        kind: u16,
        /// The key.
        key: String,
        /// Its epoch.
        known: u64,
        /// The epoch that was wanted.
        epoch: u64,
    },
    /// Another process goes on with a copy of this machine's store, under this machine's id. Only
    /// one of the two may.
    #[error(
        "another process writes as this machine, {machine}: a copy of its data directory is in use; stop one of the two"
    )]
    Twin {
        /// This machine.
        machine: MachineId,
    },
    /// A peer has an acknowledgement of ours that this store does not remember: it is an old copy,
    /// and everything is fetched anew. Never the answer to a write.
    #[error("this store is an old copy: everything is fetched anew")]
    Forgotten,
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
#[error(
    "more than {} records of unknown form: upgrade this machine",
    crate::state::MAX_OPAQUE
)]
pub struct TooManyOpaqueRecords;

impl From<Rejected> for WriteError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::TooManyOpaque => Self::TooManyOpaque(TooManyOpaqueRecords),
            Rejected::Forgotten => Self::Forgotten,
        }
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
    Publish {
        kind: u16,
        rows: BTreeMap<Arc<str>, Vec<u8>>,
    },
    Append {
        kind: u16,
        entries: Vec<Vec<u8>>,
        keep: Retention,
    },
    Apply(Arc<Batch>),
    Reincarnate {
        above: u64,
    },
    /// Fetch everything anew, from a peer that has at least this.
    BeginRejoin(VersionVector),
    EndRejoin,
    /// Lets quarantined records in, acknowledges deletes, collects them.
    Maintain {
        acknowledge: bool,
        collect: bool,
    },
}

#[derive(Debug)]
pub(crate) enum Request {
    Work {
        work: Work,
        reply: oneshot::Sender<Result<Done, WriteError>>,
    },
    /// Go on from a state that was fetched whole.
    Replace {
        fresh: Box<State>,
        reply: oneshot::Sender<Result<(), WriteError>>,
    },
    Backup {
        to: PathBuf,
        reply: oneshot::Sender<Result<(), WriteError>>,
    },
    Close {
        reply: oneshot::Sender<Result<(), WriteError>>,
    },
}

/// What came of a piece of work.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) commit: Commit,
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
    /// New incarnations in this run.
    pub(crate) reincarnations: u32,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(crate) recent: Arc<Mutex<Recent>>,
}

type Waiting = (Work, oneshot::Sender<Result<Done, WriteError>>);

impl Writer {
    /// Runs until the store is closed or everybody let go of it.
    pub(crate) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut held: Option<Request> = None;
        let closing = loop {
            let first = match held.take() {
                Some(request) => request,
                None => match requests.blocking_recv() {
                    Some(request) => request,
                    None => return,
                },
            };
            match first {
                Request::Work { work, reply } => {
                    let mut group = vec![(work, reply)];
                    while group.len() < MAX_GROUP {
                        match requests.try_recv() {
                            Ok(Request::Work { work, reply }) => group.push((work, reply)),
                            Ok(other) => {
                                held = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.serve(group);
                }
                // Who asked may have gone; what was asked for is done all the same.
                Request::Replace { fresh, reply } => drop(reply.send(self.replace(*fresh))),
                Request::Backup { to, reply } => drop(reply.send(self.backup(&to))),
                Request::Close { reply } => break reply,
            }
        };
        let state = &self.snapshots.borrow().state.clone();
        let closed = self.storage.close(state.me(), state.hlc.last());
        drop(closing.send(closed.map_err(|error| write_error(&self.path, error))));
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
            Err(_) => works
                .iter()
                .map(|work| self.transact_one(work))
                .collect::<Vec<_>>(),
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
            let before = (state.me().incarnation, state.own_version());
            self.execute(&mut state, work, now_ms, &mut changes)?;
            let after = (state.me().incarnation, state.own_version());
            // What others rely on must not be taken back by a power cut.
            let relied_on = !matches!(work, Work::Publish { .. } | Work::Apply(_));
            durable |= before.0 != after.0 || relied_on && before != after;
            let commit = Commit {
                actor: state.me(),
                version: after.1,
                number: current.number,
            };
            done.push(Done { commit });
        }
        let same = state.me() == current.state.me()
            && state.is_rejoining() == current.state.is_rejoining();
        if changes.is_empty() && same {
            return Ok(done);
        }
        let started = Instant::now();
        let committed = self
            .storage
            .commit(state.me(), state.hlc.last(), &changes, durable);
        if let Err(error) = committed {
            add(&self.metrics.failed_commits, 1);
            return Err(write_error(&self.path, error));
        }
        self.metrics.committed(durable, started.elapsed());
        add(&self.metrics.collected, changes.collected as u64);
        let number = current.number + 1;
        for done in &mut done {
            done.commit.number = number;
        }
        self.show(state, number, &changes);
        Ok(done)
    }

    fn show(&mut self, state: State, number: u64, changes: &Changes) {
        self.recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(number, &changes.records);
        self.snapshots.send_replace(Snapshot::shared(state, number));
    }

    fn execute(
        &mut self,
        state: &mut State,
        work: &Work,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Result<(), WriteError> {
        if self.reincarnations > MAX_REINCARNATIONS {
            return Err(WriteError::Twin {
                machine: state.me().machine,
            });
        }
        match work {
            Work::Write(writes) => local::write(state, writes, now_ms, changes),
            Work::Append {
                kind,
                entries,
                keep,
            } => local::append(state, *kind, entries, *keep, now_ms, changes),
            Work::Publish { kind, rows } => local::publish(state, *kind, rows, now_ms, changes),
            Work::Maintain {
                acknowledge,
                collect,
            } => {
                state.release(now_ms, changes)?;
                if *acknowledge {
                    local::acknowledge(state, now_ms, changes)?;
                }
                if *collect {
                    state.collect(changes);
                }
                Ok(())
            }
            Work::Reincarnate { above } => self.reincarnate(state, *above, now_ms, changes),
            Work::EndRejoin => {
                state.end_rejoin();
                Ok(())
            }
            Work::BeginRejoin(wanted) => {
                if !state.is_rejoining() {
                    tracing::warn!(
                        "the cluster went on without this machine: fetching everything anew"
                    );
                    state.begin_rejoin(wanted.clone());
                }
                Ok(())
            }
            Work::Apply(batch) => {
                let me = state.me();
                let dots = batch.ops.iter().map(|op| (op.dot.actor, op.dot.version));
                let ahead = dots
                    .chain(batch.heights.iter().copied())
                    .filter(|(actor, version)| {
                        actor.machine == me.machine
                            && (actor.incarnation > me.incarnation
                                || *actor == me && *version > state.own_version())
                    })
                    .map(|(actor, _)| actor.incarnation)
                    .max();
                if let Some(incarnation) = ahead {
                    self.reincarnate(state, incarnation, now_ms, changes)?;
                }
                Ok(state.apply_batch(batch, now_ms, changes)?)
            }
        }
    }

    /// A peer knows changes of ours that we do not: this file is an old copy. What we say from here
    /// on is said by a new incarnation.
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
        self.reincarnations += 1;
        if self.reincarnations > MAX_REINCARNATIONS {
            let machine = state.me().machine;
            tracing::error!(%machine, "another process writes as this machine: this store takes no more writes");
            return Err(WriteError::Twin { machine });
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

    /// Goes on from what was fetched whole. One transaction; until it is done, readers see what was
    /// there.
    fn replace(&mut self, fresh: State) -> Result<(), WriteError> {
        let current = Arc::clone(&self.snapshots.borrow());
        if !current.state.is_rejoining() {
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        let stride = stride(self.seed ^ now_ms);
        let mut changes = Changes::default();
        let state = local::rejoin(&current.state, fresh, stride, now_ms, &mut changes)?;
        self.storage
            .replace(&state)
            .map_err(|error| write_error(&self.path, error))?;
        self.opened_at = 0;
        add(&self.metrics.rejoins, 1);
        let number = current.number + 1;
        self.recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .forget(number);
        self.snapshots.send_replace(Snapshot::shared(state, number));
        Ok(())
    }

    fn backup(&self, to: &Path) -> Result<(), WriteError> {
        self.storage
            .backup(to)
            .map_err(|error| write_error(to, error))
    }
}

/// How far above the last a new incarnation lies: 1 to `MAX_STRIDE`.
pub(crate) fn stride(seed: u64) -> u64 {
    SmallRng::seed_from_u64(seed).random_range(1..=MAX_STRIDE)
}

fn write_error(path: &std::path::Path, error: CommitError) -> WriteError {
    match error {
        CommitError::DiskFull => WriteError::DiskFull {
            path: path.to_owned(),
        },
        CommitError::Other(source) => WriteError::Storage {
            path: path.to_owned(),
            reason: source.to_string(),
        },
    }
}
