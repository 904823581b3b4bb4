//! A replication session with one peer, as a state machine without I/O.
//!
//! There is no queue of changes: `sent` is a cursor into the peer's knowledge, and the next frame is made, when
//! there is room for one, from whatever the newest state has above it. A slow peer costs nothing but its lag, a
//! record that was replaced meanwhile is not sent, and catching up, live push and relaying are one mechanism.
//! Once a second each side tells what is new in its version vector and how many frames it has dealt with; when it
//! has dealt with all of ours, its vector is the truth and the cursor goes back to it: that heals any loss.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::id::{Actor, ClusterId, MachineId};
use crate::kind::Kind;
use crate::state::{Range, Reception, State};
use crate::vector::VersionVector;
use crate::wire::{self, FRAME_TARGET, FrameError, Hello, Message, Refusal, VECTOR_CHUNK, Vector};

mod driver;
pub(crate) use driver::run;
pub use driver::{Session, SessionEnd};

/// The protocol this version speaks, and the oldest it understands.
const PROTOCOL: u16 = 1;
const OLDEST: u16 = 1;
/// Most actors a peer may name: machines times their unclean restarts.
const MAX_ACTORS: usize = 65_536;

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer belongs to another cluster. Do not try again before the configuration has changed.
    #[error("peer {peer} belongs to cluster {theirs}, we belong to {ours}")]
    OtherCluster {
        /// Who was meant.
        peer: MachineId,
        /// Its cluster.
        theirs: ClusterId,
        /// Our cluster.
        ours: ClusterId,
    },
    /// Another machine than expected answers.
    #[error("expected machine {expected}, but {found} answers")]
    OtherMachine {
        /// Who was meant.
        expected: MachineId,
        /// Who answers.
        found: MachineId,
    },
    /// No protocol in common.
    #[error(
        "peer {peer} speaks replication protocol {theirs}, this machine {PROTOCOL}: upgrade the older one"
    )]
    Protocol {
        /// Who was meant.
        peer: MachineId,
        /// The newest protocol it speaks.
        theirs: u16,
    },
    /// The peer refused us.
    #[error("peer {peer} refused the session: {why}")]
    Refused {
        /// Who was meant.
        peer: MachineId,
        /// Its reason.
        why: &'static str,
    },
    /// The peer sent what no sound peer sends.
    #[error("peer {peer} sent a bad frame: {source}")]
    BadFrame {
        /// Who sent it.
        peer: MachineId,
        /// What is wrong with it.
        source: FrameError,
    },
    /// Nothing came from the peer for too long.
    #[error("nothing from peer {peer} for {seconds} s")]
    Silent {
        /// Who was meant.
        peer: MachineId,
        /// How long.
        seconds: u64,
    },
    /// More records of unknown form than are kept.
    #[error("peer {peer} has more than {limit} records of unknown form: upgrade this machine")]
    TooManyUnknown {
        /// Who sent them.
        peer: MachineId,
        /// The limit.
        limit: usize,
    },
    /// This machine goes on as a new incarnation, because peers knew more of its past than its store. Start again.
    #[error("this machine has a new incarnation: start the session again")]
    NewIncarnation,
    /// Our store was closed.
    #[error("the store is closed")]
    Closed,
}

/// What the driver has to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Hand these to the writer; afterwards call `applied`.
    Apply(Vec<Range>),
    /// The peer knows more of this machine's past than this machine: go on as an incarnation above this one.
    Reincarnate(u64),
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has come yet.
    Hello,
    /// Its vector is coming.
    Vector,
    /// Changes flow.
    Live,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Core {
    kinds: &'static [Kind],
    cluster: ClusterId,
    peer: MachineId,
    phase: Phase,
    /// What the peer has, once everything on the stream has arrived.
    sent: VersionVector,
    /// What the peer said it has.
    told: VersionVector,
    /// What we said we have.
    telling: VersionVector,
    /// Hello, vectors, refusals: a handful, ahead of changes.
    control: VecDeque<Bytes>,
    changes_sent: u64,
    handled: u64,
}

impl Core {
    pub(crate) fn new(cluster: ClusterId, kinds: &'static [Kind], peer: MachineId, state: &State) -> Self {
        let hello = Hello {
            protocol: PROTOCOL,
            oldest: OLDEST,
            cluster,
            machine: state.me().machine,
            incarnation: state.me().incarnation,
        };
        let mut core = Self {
            kinds,
            cluster,
            peer,
            phase: Phase::Hello,
            sent: VersionVector::default(),
            told: VersionVector::default(),
            telling: VersionVector::default(),
            control: VecDeque::from([wire::encode_hello(&hello)]),
            changes_sent: 0,
            handled: 0,
        };
        core.tell(state);
        core
    }

    /// Takes one frame of the peer.
    pub(crate) fn handle(&mut self, frame: &Bytes, state: &State) -> Result<Option<Effect>, SessionError> {
        let message = wire::decode(frame, self.kinds).map_err(|source| self.bad_frame(source))?;
        match (&self.phase, message) {
            (_, Message::Refuse(refusal)) => Err(self.refused(refusal)),
            (Phase::Hello, Message::Hello(hello)) => {
                self.greet(&hello, state)?;
                self.phase = Phase::Vector;
                Ok(None)
            }
            (Phase::Vector | Phase::Live, Message::Vector(vector)) => self.learn(&vector, state),
            (Phase::Live, Message::Changes(ranges)) => Ok(self.receive(ranges, state)),
            (Phase::Vector | Phase::Live, Message::Unknown) => Ok(None),
            (Phase::Hello, _) => Err(self.bad_frame(FrameError::Senseless("no hello"))),
            (Phase::Vector | Phase::Live, Message::Hello(_)) => {
                Err(self.bad_frame(FrameError::Senseless("a second hello")))
            }
            (Phase::Vector, Message::Changes(_)) => {
                Err(self.bad_frame(FrameError::Senseless("changes before the version vector")))
            }
        }
    }

    /// The writer has dealt with what `Effect::Apply` carried.
    pub(crate) fn applied(&mut self, receptions: &[Reception]) {
        self.handled += 1;
        if receptions.contains(&Reception::Gap) {
            tracing::debug!(peer = %self.peer, "changes arrived before their predecessors");
        }
    }

    /// Tells what is new; call it about once a second.
    pub(crate) fn tick(&mut self, state: &State) {
        // While the peer does not read, the last word still waits; another would only queue up.
        if self.phase == Phase::Live && self.control.is_empty() {
            self.tell(state);
        }
    }

    /// Whether `next_frame` has something.
    pub(crate) fn has_frame(&self, state: &State) -> bool {
        !self.control.is_empty()
            || (self.phase == Phase::Live && state.vector().above(&self.sent).next().is_some())
    }

    /// The next frame for the peer.
    pub(crate) fn next_frame(&mut self, state: &State) -> Option<Bytes> {
        if let Some(frame) = self.control.pop_front() {
            return Some(frame);
        }
        if self.phase != Phase::Live {
            return None;
        }
        let ranges = self.missing(state);
        if ranges.is_empty() {
            return None;
        }
        for range in &ranges {
            self.sent.raise(range.actor, range.to);
        }
        self.changes_sent += 1;
        Some(wire::encode_changes(&ranges))
    }

    /// What to tell the peer before hanging up, for the errors it should know of.
    pub(crate) fn refusal(error: &SessionError) -> Option<Bytes> {
        let refusal = match error {
            SessionError::OtherCluster { .. } => Refusal::OtherCluster,
            SessionError::OtherMachine { .. } => Refusal::WrongMachine,
            SessionError::Protocol { .. } => Refusal::Protocol,
            SessionError::BadFrame { .. } => Refusal::BadFrame,
            _ => return None,
        };
        Some(wire::encode_refusal(refusal))
    }

    fn greet(&self, hello: &Hello, state: &State) -> Result<(), SessionError> {
        let peer = self.peer;
        if hello.cluster != self.cluster {
            return Err(SessionError::OtherCluster { peer, theirs: hello.cluster, ours: self.cluster });
        }
        if hello.machine != peer || hello.machine == state.me().machine {
            return Err(SessionError::OtherMachine { expected: peer, found: hello.machine });
        }
        if hello.oldest > PROTOCOL || hello.protocol < OLDEST {
            return Err(SessionError::Protocol { peer, theirs: hello.protocol });
        }
        Ok(())
    }

    fn learn(&mut self, vector: &Vector, state: &State) -> Result<Option<Effect>, SessionError> {
        let me = state.me();
        let mut ahead: Option<u64> = None;
        for (actor, version) in &vector.entries {
            self.told.set(*actor, *version);
            self.sent.raise(*actor, *version);
            let unknown_past = actor.incarnation > me.incarnation
                || (actor.incarnation == me.incarnation && *version > state.own_version());
            if actor.machine == me.machine && unknown_past {
                ahead = ahead.max(Some(actor.incarnation));
            }
        }
        if self.told.len() > MAX_ACTORS {
            return Err(self.bad_frame(FrameError::Senseless("too many actors")));
        }
        if vector.handled == self.changes_sent {
            self.rewind();
        }
        if vector.complete {
            self.phase = Phase::Live;
        }
        Ok(ahead.map(Effect::Reincarnate))
    }

    /// Nothing is on its way: the peer's word is the truth.
    fn rewind(&mut self) {
        if self.sent.above(&self.told).next().is_some() {
            tracing::debug!(peer = %self.peer, "peer lacks what was sent: sending again");
        }
        self.sent.clone_from(&self.told);
    }

    fn receive(&mut self, ranges: Vec<Range>, state: &State) -> Option<Effect> {
        for range in &ranges {
            // Who says what is left up to `to` has it.
            self.sent.raise(range.actor, range.to);
        }
        let new: Vec<Range> =
            ranges.into_iter().filter(|range| range.to > state.vector().get(range.actor)).collect();
        if new.is_empty() {
            self.handled += 1;
            return None;
        }
        Some(Effect::Apply(new))
    }

    /// One frame's worth of what the peer lacks, oldest first for each actor.
    fn missing(&self, state: &State) -> Vec<Range> {
        let mut ranges = Vec::new();
        // The tag and the number of ranges.
        let mut room = FRAME_TARGET - 8;
        for (actor, from, to) in state.vector().above(&self.sent) {
            let mut range = Range { actor, from, to, ops: Vec::new() };
            // A range's own fields.
            room = room.saturating_sub(48);
            for op in state.ops_after(actor, from).take_while(|op| op.dot.version <= to) {
                let weight = wire::weight(op);
                let first = ranges.is_empty() && range.ops.is_empty();
                if weight > room && !first {
                    range.to = range.ops.last().map_or(from, |last| last.dot.version);
                    room = 0;
                    break;
                }
                room = room.saturating_sub(weight);
                range.ops.push(std::sync::Arc::clone(op));
            }
            if range.to > range.from {
                ranges.push(range);
            }
            if room == 0 {
                break;
            }
        }
        ranges
    }

    fn tell(&mut self, state: &State) {
        let entries: Vec<(Actor, u64)> =
            state.vector().above(&self.telling).map(|(actor, _, here)| (actor, here)).collect();
        self.telling.clone_from(state.vector());
        let mut chunks = entries.chunks(VECTOR_CHUNK).peekable();
        loop {
            let entries = chunks.next().map(<[_]>::to_vec).unwrap_or_default();
            let complete = chunks.peek().is_none();
            self.control.push_back(wire::encode_vector(&Vector { handled: self.handled, entries, complete }));
            if complete {
                break;
            }
        }
    }

    fn bad_frame(&self, source: FrameError) -> SessionError {
        SessionError::BadFrame { peer: self.peer, source }
    }

    fn refused(&self, refusal: Refusal) -> SessionError {
        let why = match refusal {
            Refusal::OtherCluster => "we belong to another cluster than it",
            Refusal::WrongMachine => "it expected another machine",
            Refusal::Protocol => "it speaks no replication protocol that we speak",
            Refusal::BadFrame => "it could not read a frame of ours",
        };
        SessionError::Refused { peer: self.peer, why }
    }
}

#[cfg(test)]
mod tests;
