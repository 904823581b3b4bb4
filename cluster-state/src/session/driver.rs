//! Runs a session: frames in, frames out, the writer and the clock. One task for each session.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Core, Effect, SessionError};
use crate::id::MachineId;
use crate::state::{MAX_OPAQUE, Range};
use crate::store::Shared;
use crate::writer::{Done, Work, WriteError};

/// Frames that wait between the session and whoever moves them, each way.
const QUEUE: usize = 16;
/// How often each side tells what is new, before jitter of 20 %.
const TELL_MS: u64 = 1_000;
/// A peer that says nothing for this long is gone; it would speak each second.
const SILENCE: Duration = Duration::from_secs(15);
/// First and longest wait before changes that could not be written are tried again.
const RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// A running session. Move frames from the peer into `incoming` and from `outgoing` to the peer, in order and
/// whole; at most `MAX_FRAME` bytes each. Dropping either ends the session.
#[derive(Debug)]
pub struct Session {
    /// Frames that came from the peer.
    pub incoming: mpsc::Sender<Bytes>,
    /// Frames for the peer.
    pub outgoing: mpsc::Receiver<Bytes>,
    /// How it ended.
    pub end: SessionEnd,
}

/// Resolves when the session has ended: `Ok` when one of its sides was dropped.
#[derive(Debug)]
pub struct SessionEnd(oneshot::Receiver<Result<(), SessionError>>);

impl Future for SessionEnd {
    type Output = Result<(), SessionError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|end| end.unwrap_or(Err(SessionError::Closed)))
    }
}

/// Starts a session; its task ends with the store.
pub(crate) fn run(shared: &Arc<Shared>, peer: MachineId) -> Session {
    let (incoming, frames_in) = mpsc::channel(QUEUE);
    let (frames_out, outgoing) = mpsc::channel(QUEUE);
    let (ended, end) = oneshot::channel();
    let task = Task { shared: Arc::clone(shared), peer, frames_out };
    shared.tasks.spawn(async move {
        let outcome = task.run(frames_in).await;
        // Nobody has to listen.
        let _ = ended.send(outcome);
    });
    Session { incoming, outgoing, end: SessionEnd(end) }
}

struct Task {
    shared: Arc<Shared>,
    peer: MachineId,
    frames_out: mpsc::Sender<Bytes>,
}

type Applying = Pin<Box<dyn Future<Output = Result<Option<Done>, WriteError>> + Send>>;

impl Task {
    async fn run(self, frames_in: mpsc::Receiver<Bytes>) -> Result<(), SessionError> {
        let stop = self.shared.stop.clone();
        let outcome = tokio::select! {
            () = stop.cancelled() => return Err(SessionError::Closed),
            outcome = self.exchange(frames_in) => outcome,
        };
        if let Err(error) = &outcome
            && let Some(frame) = Core::refusal(error)
        {
            // A courtesy: a peer that does not read will find out by itself.
            let _ = self.frames_out.try_send(frame);
        }
        outcome
    }

    async fn exchange(&self, mut frames_in: mpsc::Receiver<Bytes>) -> Result<(), SessionError> {
        let shared = &self.shared;
        let mut snapshots = shared.snapshots.clone();
        let mut snapshot = Arc::clone(&snapshots.borrow_and_update());
        let mut core = Core::new(shared.cluster, shared.kinds, self.peer, &snapshot.state);
        let mut jitter = SmallRng::seed_from_u64(shared.seed ^ u64::from_le_bytes(first_half(self.peer)));
        let mut applying: Option<Applying> = None;
        let mut heard = Instant::now();
        let mut tell = Instant::now() + tell_after(&mut jitter);
        let me = snapshot.state.me();
        loop {
            if snapshot.state.me() != me {
                // What was told of our past was wrong; only a new greeting takes it back.
                return Err(SessionError::NewIncarnation);
            }
            let ready = core.has_frame(&snapshot.state);
            tokio::select! {
                permit = self.frames_out.reserve(), if ready => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(frame) = core.next_frame(&snapshot.state) {
                        permit.send(frame);
                    }
                }
                () = self.frames_out.closed(), if !ready => return Ok(()),
                frame = frames_in.recv(), if applying.is_none() => {
                    let Some(frame) = frame else { return Ok(()) };
                    heard = Instant::now();
                    if let Some(effect) = core.handle(&frame, &snapshot.state)? {
                        applying = Some(self.start(effect));
                    }
                }
                outcome = poll_option(&mut applying), if applying.is_some() => {
                    applying = None;
                    heard = Instant::now();
                    snapshot = Arc::clone(&snapshots.borrow_and_update());
                    match outcome {
                        Ok(Some(done)) => core.applied(&done.receptions),
                        Ok(None) => {}
                        Err(WriteError::TooManyOpaque(_)) => {
                            return Err(SessionError::TooManyUnknown { peer: self.peer, limit: MAX_OPAQUE });
                        }
                        Err(_) => return Err(SessionError::Closed),
                    }
                }
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return Err(SessionError::Closed);
                    }
                    snapshot = Arc::clone(&snapshots.borrow_and_update());
                }
                () = tokio::time::sleep_until(tell) => {
                    tell = Instant::now() + tell_after(&mut jitter);
                    core.tick(&snapshot.state);
                }
                () = tokio::time::sleep_until(heard + SILENCE), if applying.is_none() => {
                    return Err(SessionError::Silent { peer: self.peer, seconds: SILENCE.as_secs() });
                }
            }
        }
    }

    fn start(&self, effect: Effect) -> Applying {
        let shared = Arc::clone(&self.shared);
        let peer = self.peer;
        match effect {
            Effect::Apply(ranges) => Box::pin(async move { apply(&shared, peer, ranges).await.map(Some) }),
            Effect::Reincarnate(above) => {
                Box::pin(async move { shared.work(Work::Reincarnate { above }).await.map(|_| None) })
            }
        }
    }
}

/// Hands changes to the writer until it takes them: a full disk holds this peer's stream, and nothing else.
async fn apply(shared: &Shared, peer: MachineId, ranges: Vec<Range>) -> Result<Done, WriteError> {
    let mut wait = RETRY;
    loop {
        match shared.work(Work::Apply(ranges.clone())).await {
            Err(error @ (WriteError::DiskFull { .. } | WriteError::Storage { .. })) => {
                tracing::warn!(%peer, %error, "changes of a peer cannot be stored; trying again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(MAX_RETRY);
            }
            outcome => return outcome,
        }
    }
}

async fn poll_option(applying: &mut Option<Applying>) -> Result<Option<Done>, WriteError> {
    match applying {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

fn tell_after(jitter: &mut SmallRng) -> Duration {
    Duration::from_millis(jitter.random_range(TELL_MS * 8 / 10..=TELL_MS * 12 / 10))
}

fn first_half(machine: MachineId) -> [u8; 8] {
    let mut half = [0; 8];
    half.iter_mut().zip(machine.0).for_each(|(to, from)| *to = from);
    half
}
