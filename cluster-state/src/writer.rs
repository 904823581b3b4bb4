//! The one thread that changes the store. It takes the waiting requests, makes one transaction of
//! them, commits it, publishes the new snapshot, and only then answers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::error::WriteError;
use crate::id::Actor;
use crate::local::{self, Retention, Rows, Txn, Write};
use crate::metrics::{Metrics, add};
use crate::snapshot::Snapshot;
use crate::state::{Batch, Changes, State};
use crate::storage::{CommitError, Storage};
use crate::vector::VersionVector;
use crate::watch::Recent;

/// Maximum number of requests in one transaction.
const MAX_GROUP: usize = 256;
/// A new incarnation is above the last by a random stride of up to this. So two copies of one file
/// do not take the same incarnation when both are started.
pub(crate) const MAX_STRIDE: u64 = 1 << 20;
/// Maximum number of new incarnations in one run because peers knew more. An old copy needs one,
/// rarely two. Two processes with copies of one directory outbid each other until the first gives
/// up.
const MAX_REINCARNATIONS: u32 = 3;

/// A write that is on the local disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// This machine in its present incarnation.
    pub actor: Actor,
    /// The last version that the commit took. Other machines can wait for it.
    pub version: u64,
    /// The number of the local snapshot that contains the write.
    pub number: u64,
}

#[derive(Debug)]
pub(crate) enum Work {
    Write(Vec<Write>),
    Publish {
        kind: u16,
        rows: Rows,
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
    /// Start fetching everything again, from a peer that has at least this.
    BeginRejoin(VersionVector),
    EndRejoin,
    /// Merge quarantined records whose time has come, acknowledge deletes, and collect them.
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
    /// Continue with a state that was fetched as a whole.
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

/// The result of a piece of work.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) commit: Commit,
}

/// Everything that the thread owns.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) storage: Storage,
    pub(crate) path: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) seed: u64,
    /// The own version when the store was opened.
    pub(crate) opened_at: u64,
    /// New incarnations in this run.
    pub(crate) reincarnations: u32,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(crate) recent: Arc<Mutex<Recent>>,
}

type Waiting = (Work, oneshot::Sender<Result<Done, WriteError>>);

impl Writer {
    /// Runs until the store is closed or the last handle is dropped.
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
                // The caller may have given up waiting; the work is done anyway.
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
            // One of the requests may be at fault, so each is tried on its own.
            Err(_) => works
                .iter()
                .map(|work| self.transact_one(work))
                .collect::<Vec<_>>(),
        };
        for ((_, reply), outcome) in group.into_iter().zip(outcomes) {
            // The caller may have given up waiting; the commit stands.
            let _ = reply.send(outcome);
        }
    }

    fn transact_one(&mut self, work: &Work) -> Result<Done, WriteError> {
        let mut done = self.transact(&[work])?;
        done.pop().ok_or(WriteError::Closed)
    }

    /// Applies all of the works or none.
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
            // Other machines rely on these changes, so a power cut must not undo them.
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
            Work::Write(writes) => Txn::new(state, now_ms, changes).write(writes),
            Work::Append {
                kind,
                entries,
                keep,
            } => Txn::new(state, now_ms, changes).append(*kind, entries, *keep),
            Work::Publish { kind, rows } => Txn::new(state, now_ms, changes).publish(*kind, rows),
            Work::Maintain {
                acknowledge,
                collect,
            } => {
                state.release(now_ms, changes)?;
                if *acknowledge {
                    Txn::new(state, now_ms, changes).acknowledge()?;
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
                        "the cluster continued without this machine: fetching everything again"
                    );
                    state.begin_rejoin(wanted.clone());
                }
                Ok(())
            }
            Work::Apply(batch) => {
                let me = state.me();
                let dots = batch.ops.iter().map(|op| (op.dot.actor, op.dot.version));
                let ahead = dots
                    .chain(batch.watermarks.iter().copied())
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

    /// A peer knows changes of ours that we do not, so this file is an old copy. From here on we
    /// write as a new incarnation.
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
            tracing::error!(%machine, "another process writes as this machine: this store accepts no more writes");
            return Err(WriteError::Twin { machine });
        }
        let incarnation = above + stride(self.seed ^ now_ms ^ above);
        tracing::warn!(
            was = state.me().incarnation,
            now = incarnation,
            "peers know changes of this machine that its store does not: continuing as a new incarnation"
        );
        let opened_at = std::mem::take(&mut self.opened_at);
        Txn::new(state, now_ms, changes).reincarnate(incarnation, opened_at)
    }

    /// Continues with a state that was fetched as a whole. This is one transaction; until it is
    /// done, readers see the old state.
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

/// Returns how far a new incarnation is above the last: 1 to `MAX_STRIDE`.
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
