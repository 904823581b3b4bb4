//! Runs a session: moves frames in and out, and connects the state machine with writer and clock.
//! Each session has its own task.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Core, Effect, SessionError};
use crate::error::WriteError;
use crate::id::MachineId;
use crate::metrics::{PeerMetrics, add};
use crate::state::{Batch, Changes, MAX_OPAQUE, State};
use crate::store::Shared;
use crate::vector::VersionVector;
use crate::writer::Work;

/// Maximum number of frames that wait between the session and the transport, in each direction.
const QUEUE: usize = 16;
/// How long after a frame the next changes wait for each other, unless they fill a frame. Each
/// frame is a transaction on the peer.
const COALESCE: Duration = Duration::from_millis(2);
/// How often each side reports what is new, before jitter of 20 %.
const TELL_MS: u64 = 1_000;
/// A peer that was silent for this long is not relied on to send what it writes to other machines.
const FRESH: Duration = Duration::from_millis(2_500);
/// Minimum time for which a change is held back that the peer may receive from its writer. The
/// maximum is twice as long.
const HOLD: Duration = Duration::from_millis(50);
/// A peer that is silent for this long is gone, because it would send something each second.
const SILENCE: Duration = Duration::from_secs(15);
/// First and longest wait before changes that could not be stored are tried again.
const RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// A running session. Its user moves frames from the peer into `incoming`, and from `outgoing` to
/// the peer, in order and unchanged. A frame has at most `MAX_FRAME` bytes. Dropping either end
/// ends the session.
#[derive(Debug)]
pub struct Session {
    /// Frames from the peer.
    pub incoming: mpsc::Sender<Bytes>,
    /// Frames for the peer.
    pub outgoing: mpsc::Receiver<Bytes>,
    /// Resolves when the session has ended.
    pub end: SessionEnd,
}

/// Resolves when the session has ended, with `Ok` if one of its ends was dropped.
#[derive(Debug)]
pub struct SessionEnd(oneshot::Receiver<Result<(), SessionError>>);

impl Future for SessionEnd {
    type Output = Result<(), SessionError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|end| end.unwrap_or(Err(SessionError::Closed)))
    }
}

/// Starts a session. Its task ends with the store.
pub(crate) fn run(shared: &Arc<Shared>, peer: MachineId) -> Session {
    let (incoming, frames_in) = mpsc::channel(QUEUE);
    let (frames_out, outgoing) = mpsc::channel(QUEUE);
    let (ended, end) = oneshot::channel();
    let metrics = shared.metrics.peer(peer);
    let task = Task {
        shared: Arc::clone(shared),
        peer,
        metrics,
        frames_out,
    };
    shared.tasks.spawn(async move {
        let outcome = task.run(frames_in).await;
        // The receiver may have been dropped.
        let _ = ended.send(outcome);
    });
    Session {
        incoming,
        outgoing,
        end: SessionEnd(end),
    }
}

struct Task {
    shared: Arc<Shared>,
    peer: MachineId,
    metrics: Arc<PeerMetrics>,
    frames_out: mpsc::Sender<Bytes>,
}

/// Counts a session in which the peer fetches everything, for as long as it lasts.
struct Serving(Arc<Shared>);

impl Serving {
    fn of(shared: &Arc<Shared>) -> Self {
        shared.serving.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.serving.fetch_sub(1, Ordering::Relaxed);
    }
}

type Applying = Pin<Box<dyn Future<Output = Result<Applied, WriteError>> + Send>>;

/// What the writer has done.
enum Applied {
    Changes,
    Incarnation,
    Rejoin,
}

impl Task {
    async fn run(self, frames_in: mpsc::Receiver<Bytes>) -> Result<(), SessionError> {
        let stop = self.shared.stop.clone();
        add(&self.metrics.sessions, 1);
        add(&self.metrics.open, 1);
        let outcome = tokio::select! {
            () = stop.cancelled() => Err(SessionError::Closed),
            outcome = self.exchange(frames_in) => outcome,
        };
        self.metrics.open.fetch_sub(1, Ordering::Relaxed);
        if let Err(error) = &outcome
            && let Some(frame) = Core::refusal(error)
        {
            // A courtesy: a peer that does not read finds out on its own.
            let _ = self.frames_out.try_send(frame);
        }
        outcome
    }

    async fn exchange(&self, mut frames_in: mpsc::Receiver<Bytes>) -> Result<(), SessionError> {
        let shared = &self.shared;
        let mut snapshots = shared.snapshots.clone();
        let mut snapshot = Arc::clone(&snapshots.borrow_and_update());
        let me = snapshot.state.me();
        let rejoining = snapshot.state.is_rejoining();
        // Only one peer at a time is fetched from, because the new state is held in memory until it
        // is complete.
        let _turn = if rejoining {
            Some(
                shared
                    .fetching
                    .try_acquire()
                    .map_err(|_| SessionError::Rejoining)?,
            )
        } else {
            None
        };
        let mut fresh = rejoining.then(|| State::fetched(me));
        let mut core = Core::new(shared.cluster, shared.kinds, self.peer, &snapshot.state);
        let half = self.peer.0.first_chunk().expect("an id has 16 bytes");
        let mut jitter = SmallRng::seed_from_u64(shared.seed ^ u64::from_le_bytes(*half));
        let mut applying: Option<Applying> = None;
        let mut serving: Option<Serving> = None;
        let mut heard = Instant::now();
        let mut tell = Instant::now() + tell_after(&mut jitter);
        // When the next frame with changes can be sent, if one was sent just now.
        let mut paced: Option<Instant> = None;
        let mut hearing = shared.heard.session(self.peer);
        // When the changes numbered up to `u64` are no longer held back.
        let mut hold: Option<(Instant, u64)> = None;
        loop {
            if snapshot.state.me() != me {
                // What was sent about this machine's past is wrong. Only a new greeting corrects
                // it.
                return Err(SessionError::NewIncarnation);
            }
            if snapshot.state.is_rejoining() != rejoining {
                return Err(SessionError::Rejoin);
            }
            if core.is_outgrown() {
                return Err(SessionError::Outgrown { peer: self.peer });
            }
            if serving.is_none() && core.serves() {
                serving = Some(Serving::of(shared));
            }
            // Hearing a peer requires a recent frame from it, not only an open session.
            let now = Instant::now();
            hearing.set(core.is_live() && now < heard + FRESH);
            if core.is_holding() && hold.is_none() {
                hold = Some((now + HOLD, snapshot.state.seq()));
            }
            let held = shared.throttle.wait(now).map(|wait| now + wait);
            let bulk = held.is_none();
            // Control frames are sent even in the pause after a frame with changes.
            let ready = match paced {
                Some(_) => core.has_control(),
                None => core.has_frame(&snapshot.state, bulk),
            };
            tokio::select! {
                permit = self.frames_out.reserve(), if ready => {
                    let Ok(permit) = permit else { return Ok(()) };
                    let changes = !core.has_control();
                    if let Some(frame) = core.next_frame(&snapshot.state, bulk) {
                        if changes {
                            // Changes that did not fit are sent immediately.
                            let more = core.has_frame(&snapshot.state, bulk);
                            paced = (!more).then(|| Instant::now() + COALESCE);
                        }
                        shared.throttle.charge(frame.len());
                        add(&self.metrics.frames_out, 1);
                        add(&self.metrics.bytes_out, frame.len() as u64);
                        permit.send(frame);
                    }
                }
                () = self.frames_out.closed(), if !ready => return Ok(()),
                () = sleep_until_option(held), if held.is_some() => {}
                () = sleep_until_option(paced), if paced.is_some() => paced = None,
                () = sleep_until_option(hold.map(|(until, _)| until)), if hold.is_some() => {
                    if let Some((_, seq)) = hold.take() {
                        core.hold_no_longer(seq);
                    }
                }
                frame = frames_in.recv(), if applying.is_none() => {
                    let Some(frame) = frame else { return Ok(()) };
                    heard = Instant::now();
                    add(&self.metrics.frames_in, 1);
                    add(&self.metrics.bytes_in, frame.len() as u64);
                    // Into a state that is being fetched, changes are merged here. Otherwise the
                    // writer merges them, and no further frame is read until it is done.
                    match (core.handle(&frame, &snapshot.state)?, &mut fresh) {
                        (None, _) => {}
                        (Some(Effect::Apply(batch)), Some(fresh)) => {
                            let mut changes = Changes::default();
                            fresh
                                .apply_batch(&batch, shared.clock.now_ms(), &mut changes)
                                .map_err(|_| self.too_many_unknown())?;
                            core.applied();
                        }
                        (Some(effect), _) => applying = Some(self.start(effect)),
                    }
                    if let Some(complete) = fresh.take_if(|fresh| core.has_fetched(fresh)) {
                        return self.go_on_from(complete).await;
                    }
                }
                outcome = poll_option(&mut applying), if applying.is_some() => {
                    applying = None;
                    heard = Instant::now();
                    snapshot = Arc::clone(&snapshots.borrow_and_update());
                    core.look_for_news(&snapshot.state);
                    match outcome {
                        Ok(Applied::Changes) => core.applied(),
                        Ok(Applied::Incarnation) => {}
                        Ok(Applied::Rejoin) => return Err(SessionError::Rejoin),
                        Err(WriteError::TooManyOpaque(_)) => return Err(self.too_many_unknown()),
                        Err(WriteError::Twin { .. }) => return Err(SessionError::Twin),
                        Err(_) => return Err(SessionError::Closed),
                    }
                }
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return Err(SessionError::Closed);
                    }
                    snapshot = Arc::clone(&snapshots.borrow_and_update());
                    core.look_for_news(&snapshot.state);
                }
                () = tokio::time::sleep_until(tell) => {
                    tell = Instant::now() + tell_after(&mut jitter);
                    core.hear(shared.heard.except(self.peer));
                    core.tick(&snapshot.state);
                    self.metrics.lag.store(core.lag(&snapshot.state), Ordering::Relaxed);
                    self.metrics.differences.store(core.differences(), Ordering::Relaxed);
                }
                () = tokio::time::sleep_until(heard + SILENCE), if applying.is_none() => {
                    return Err(SessionError::Silent { peer: self.peer, seconds: SILENCE.as_secs() });
                }
            }
        }
    }

    async fn go_on_from(&self, fresh: State) -> Result<(), SessionError> {
        match self.shared.replace(fresh).await {
            Ok(()) => Err(SessionError::NewIncarnation),
            Err(error) => {
                tracing::warn!(peer = %self.peer, %error, "cannot store the fetched state");
                Err(SessionError::Closed)
            }
        }
    }

    fn too_many_unknown(&self) -> SessionError {
        SessionError::TooManyUnknown {
            peer: self.peer,
            limit: MAX_OPAQUE,
        }
    }

    fn start(&self, effect: Effect) -> Applying {
        let shared = Arc::clone(&self.shared);
        let peer = self.peer;
        let (work, done) = match effect {
            Effect::Apply(batch) => {
                return Box::pin(async move { apply(&shared, peer, batch).await });
            }
            Effect::Reincarnate(above) => (Work::Reincarnate { above }, Applied::Incarnation),
            Effect::GoOn => (Work::EndRejoin, Applied::Rejoin),
            Effect::Rejoin(wanted) => (Work::BeginRejoin(wanted), Applied::Rejoin),
        };
        Box::pin(async move { shared.work(work).await.map(|_| done) })
    }
}

/// Passes changes to the writer until it accepts them. A full disk stops this peer's stream and
/// nothing else.
async fn apply(shared: &Shared, peer: MachineId, batch: Batch) -> Result<Applied, WriteError> {
    let mut wait = RETRY;
    let batch = Arc::new(batch);
    loop {
        match shared.work(Work::Apply(Arc::clone(&batch))).await {
            Ok(_) => return Ok(Applied::Changes),
            Err(WriteError::Forgotten) => {
                shared
                    .work(Work::BeginRejoin(VersionVector::default()))
                    .await?;
                return Ok(Applied::Rejoin);
            }
            Err(error @ (WriteError::DiskFull { .. } | WriteError::Storage { .. })) => {
                tracing::warn!(%peer, %error, "cannot store a peer's changes; trying again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(MAX_RETRY);
            }
            Err(error) => return Err(error),
        }
    }
}

async fn sleep_until_option(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

async fn poll_option(applying: &mut Option<Applying>) -> Result<Applied, WriteError> {
    match applying {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

fn tell_after(jitter: &mut SmallRng) -> Duration {
    Duration::from_millis(jitter.random_range(TELL_MS * 8 / 10..=TELL_MS * 12 / 10))
}
