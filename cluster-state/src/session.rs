//! A replication session with one peer, as a state machine without I/O.
//!
//! There is no queue of changes. Cursors into the order of sending tell what the peer was sent.
//! When there is room for a frame, it is made from what the newest state has after the cursors:
//! first intents, then observations, and watermarks only when nothing else is left. A slow peer
//! costs nothing but its lag, and a record replaced in the meantime is not sent. Catching up, live
//! push and relaying are one mechanism.
//!
//! Once a second each side reports its watermarks and the number of frames it has processed. If it
//! has processed all of them and a change below an announced watermark is missing, the cursors go
//! back to the start. Once a minute digests are compared.
//!
//! What another machine wrote is relayed immediately, unless the peer reports that it hears that
//! machine directly. Then the change is held back for a moment, and left out if the peer reports in
//! that time that it has it. Nothing overtakes a held-back change: if a later change must be sent,
//! the held-back one is sent first.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet, VecDeque};

use bytes::Bytes;

use crate::id::{Actor, ClusterId, Dot, MachineId};
use crate::kind::Kind;
use crate::state::{Batch, Standing, State};
use crate::vector::VersionVector;
use crate::wire::{
    self, BucketSums, Digest, FrameError, Hello, Message, Refusal, WATERMARKS_CHUNK, Watermarks,
};

mod driver;
mod error;
mod filling;
pub(crate) mod heard;
mod judge;
pub(crate) mod throttle;
pub(crate) use driver::run;
pub use driver::{Session, SessionEnd};
pub use error::SessionError;

/// The protocol that this version uses, and the oldest that it supports.
const PROTOCOL: u16 = 2;
const OLDEST: u16 = 2;
/// Maximum number of actors that a peer can name: one for each machine and each of its unclean
/// restarts.
const MAX_ACTORS: usize = 65_536;
/// Maximum number of the peer's changes that are remembered, so as not to send them back before
/// their watermarks arrive.
const MAX_ECHO: usize = 65_536;
/// Ticks between two comparisons of digests.
const DIGEST_TICKS: u32 = 60;

/// What the driver must do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Pass this to the writer, and call `applied` when it is done.
    Apply(Batch),
    /// The peer knows changes of this machine that its store does not have. Continue as an
    /// incarnation above this one.
    Reincarnate(u64),
    /// The cluster continued without this machine. Fetch everything again, from a peer that has at
    /// least this.
    Rejoin(VersionVector),
    /// Stop fetching everything: the peer does the same, and it is the one to give way.
    GoOn,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has arrived yet.
    Hello,
    /// The peer's watermarks are arriving.
    Watermarks,
    /// Changes are exchanged.
    Live,
}

/// What the peer has reported about itself.
#[derive(Debug, Default)]
struct Theirs {
    /// Its store was empty when the session started.
    new: bool,
    /// It is fetching everything.
    fetching: bool,
    /// Its gc watermarks at the start of the session.
    gc_watermarks: VersionVector,
    /// Its watermarks.
    has: VersionVector,
    /// Its watermarks at the start of the session.
    first: VersionVector,
    /// The machines that it hears directly.
    hears: BTreeSet<MachineId>,
}

/// Numbers in the order of sending: up to which everything was sent.
#[derive(Debug, Default)]
struct Cursors {
    intents: u64,
    facts: u64,
    watermarks: u64,
    /// Up to which watermarks were reported.
    told: u64,
}

/// What is needed to leave out changes that the peer receives from their writer.
#[derive(Debug, Default)]
struct Relay {
    /// Machines that this one hears directly, as reported to the peer.
    hears: BTreeSet<MachineId>,
    /// `hears` changed and must be reported.
    hears_due: bool,
    /// The peer may be holding back changes that have arrived here, so their arrival must be
    /// reported.
    news: bool,
    /// Changes with a number up to this one were held back for long enough.
    overdue: u64,
    /// Whether a change is held back.
    holding: bool,
}

/// The state machine of one session.
#[derive(Debug)]
pub(crate) struct Core {
    kinds: &'static [Kind],
    cluster: ClusterId,
    peer: MachineId,
    phase: Phase,
    theirs: Theirs,
    cursors: Cursors,
    relay: Relay,
    /// This machine is fetching everything, so it sends no changes.
    fetching: bool,
    /// This store was empty when the session started.
    new: bool,
    /// This machine's standing, as sent in the greeting.
    standing: Standing,
    /// Whether this machine gives way if each side lacks deletes that the other has forgotten.
    weaker: bool,
    /// This store's gc watermarks at the start of a session with an empty peer.
    baseline: VersionVector,
    /// `State::gc_number` when the peer was last found to lack nothing.
    gc_number: u64,
    outgrown: bool,
    /// The peer must fetch everything again, so it is sent nothing.
    parted: bool,
    /// The watermarks that were sent to the peer.
    closed: VersionVector,
    /// Changes that the peer sent and that its watermarks do not cover yet.
    echo: HashSet<Dot>,
    /// The state's number at which nothing was left to send except what is held back. The flag is
    /// true if that included what counts towards the bandwidth limit.
    idle: Option<(u64, bool)>,
    /// Changes to send again because digests differ. Each is sent once, however often the peer
    /// asks.
    repairs: BTreeSet<Dot>,
    /// Greetings, watermarks, digests and refusals. There are few of them, and they are sent
    /// before changes.
    control: VecDeque<Bytes>,
    /// Frames with changes that were sent.
    changes_sent: u64,
    /// Frames of the peer that were processed.
    handled: u64,
    ticks: u32,
    /// The tick of the last comparison of digests. A peer that asks again without reading gets no
    /// second answer.
    compared: Option<u32>,
    differences: u64,
}

impl Core {
    pub(crate) fn new(
        cluster: ClusterId,
        kinds: &'static [Kind],
        peer: MachineId,
        state: &State,
    ) -> Self {
        let me = state.me();
        let fetching = state.is_rejoining();
        let hello = Hello {
            protocol: PROTOCOL,
            oldest: OLDEST,
            cluster,
            machine: me.machine,
            incarnation: me.incarnation,
            rejoin: fetching,
            new: state.is_new(),
            standing: state.standing(),
        };
        let mut core = Self {
            kinds,
            cluster,
            peer,
            phase: Phase::Hello,
            theirs: Theirs::default(),
            cursors: Cursors::default(),
            relay: Relay::default(),
            fetching,
            new: hello.new,
            standing: hello.standing,
            weaker: false,
            baseline: VersionVector::default(),
            gc_number: 0,
            outgrown: false,
            parted: false,
            closed: VersionVector::default(),
            echo: HashSet::new(),
            idle: None,
            repairs: BTreeSet::new(),
            control: VecDeque::from([wire::encode_hello(&hello)]),
            changes_sent: 0,
            handled: 0,
            ticks: 0,
            compared: None,
            differences: 0,
        };
        core.tell(state);
        core
    }

    /// Processes one frame of the peer.
    pub(crate) fn handle(
        &mut self,
        frame: &Bytes,
        state: &State,
    ) -> Result<Option<Effect>, SessionError> {
        let message = wire::decode(frame, self.kinds).map_err(|source| self.bad_frame(source))?;
        self.idle = None;
        match (&self.phase, message) {
            (_, Message::Refuse(Refusal::Behind)) if !self.fetching => {
                Ok(Some(Effect::Rejoin(self.theirs.gc_watermarks.clone())))
            }
            (_, Message::Refuse(refusal)) => Err(self.refused(refusal)),
            (Phase::Hello, Message::Hello(hello)) => self.greet(&hello, state),
            (Phase::Watermarks | Phase::Live, Message::Watermarks(watermarks)) => {
                self.learn(&watermarks, state)
            }
            (Phase::Live, Message::Changes(batch)) => {
                let apply = self.receive(batch, state);
                if self.theirs.has.len() > MAX_ACTORS {
                    return Err(self.bad_frame(FrameError::Senseless("too many actors")));
                }
                Ok(apply)
            }
            (Phase::Live, Message::Digest(digest)) => {
                self.compare(&digest, state);
                Ok(None)
            }
            (Phase::Live, Message::Buckets(sums)) => {
                self.repair(&sums, state);
                Ok(None)
            }
            (Phase::Watermarks | Phase::Live, Message::Hears(machines)) => {
                self.theirs.hears = machines.into_iter().collect();
                Ok(None)
            }
            (Phase::Watermarks | Phase::Live, Message::Unknown) => Ok(None),
            (Phase::Hello, _) => Err(self.bad_frame(FrameError::Senseless("no hello"))),
            (Phase::Watermarks | Phase::Live, Message::Hello(_)) => {
                Err(self.bad_frame(FrameError::Senseless("a second hello")))
            }
            (Phase::Watermarks, _) => {
                Err(self.bad_frame(FrameError::Senseless("changes before the watermarks")))
            }
        }
    }

    /// The writer has finished what `Effect::Apply` carried.
    pub(crate) fn applied(&mut self) {
        self.handled += 1;
    }

    /// Reports what is new. Must be called about once a second.
    pub(crate) fn tick(&mut self, state: &State) {
        // While the peer does not read, the last report is still waiting. Another one would only be
        // queued behind it.
        if self.phase != Phase::Live || !self.control.is_empty() {
            return;
        }
        self.outgrown |= self.parted;
        self.tell(state);
        self.ticks += 1;
        if self.ticks.is_multiple_of(DIGEST_TICKS) && !self.fetching {
            self.say_digest(state);
        }
    }

    /// Returns the number of versions that we have and the peer has not acknowledged.
    pub(crate) fn lag(&self, state: &State) -> u64 {
        let lacking = state
            .watermarks()
            .map(|(actor, version)| version.saturating_sub(self.theirs.has.get(actor)));
        // The numbers that a peer reports for other machines need not be consistent.
        lacking.fold(0, u64::saturating_add)
    }

    /// Returns how often digests differed although the watermarks were equal.
    pub(crate) fn differences(&self) -> u64 {
        self.differences
    }

    /// Reports whether changes are exchanged in both directions.
    pub(crate) fn is_live(&self) -> bool {
        self.phase == Phase::Live && !self.fetching
    }

    /// Sets the machines that this one hears directly, without the peer. The peer need not relay
    /// immediately what they write.
    pub(crate) fn hear(&mut self, machines: Vec<MachineId>) {
        let hears = machines.into_iter().collect();
        self.relay.hears_due |= hears != self.relay.hears;
        self.relay.hears = hears;
    }

    /// Called when the state has changed. Notes whether the peer must be informed soon, because it
    /// may be holding back what has arrived.
    pub(crate) fn look_for_news(&mut self, state: &State) {
        if self.is_live() && !self.relay.news {
            let mut grown = state
                .watermarks_after(self.cursors.told)
                .map(|next| next.item.0.machine);
            self.relay.news = grown.any(|machine| self.relay.hears.contains(&machine));
        }
    }

    /// Reports whether a change is held back because the peer may receive it from its writer.
    pub(crate) fn is_holding(&self) -> bool {
        self.relay.holding
    }

    /// Releases held-back changes with a number up to `seq`.
    pub(crate) fn hold_no_longer(&mut self, seq: u64) {
        self.relay.overdue = seq;
        self.idle = None;
    }

    /// Reports whether `fresh` has everything that the peer had when the session started.
    pub(crate) fn has_fetched(&self, fresh: &State) -> bool {
        self.phase == Phase::Live
            && self
                .theirs
                .first
                .iter()
                .all(|(actor, version)| fresh.watermark(actor) >= version)
    }

    /// Returns the frame that gives the peer the reason for the end of the session, if it should
    /// know it.
    pub(crate) fn refusal(error: &SessionError) -> Option<Bytes> {
        let refusal = match error {
            SessionError::OtherCluster { .. } => Refusal::OtherCluster,
            SessionError::OtherMachine { .. } => Refusal::WrongMachine,
            SessionError::Protocol { .. } => Refusal::Protocol,
            SessionError::BadFrame { .. } => Refusal::BadFrame,
            SessionError::PeerBehind { .. } => Refusal::Behind,
            _ => return None,
        };
        Some(wire::encode_refusal(refusal))
    }

    fn greet(&mut self, hello: &Hello, state: &State) -> Result<Option<Effect>, SessionError> {
        let peer = self.peer;
        if hello.cluster != self.cluster {
            return Err(SessionError::OtherCluster {
                peer,
                theirs: hello.cluster,
                ours: self.cluster,
            });
        }
        if hello.machine != peer || hello.machine == state.me().machine {
            return Err(SessionError::OtherMachine {
                expected: peer,
                found: hello.machine,
            });
        }
        if hello.oldest > PROTOCOL || hello.protocol < OLDEST {
            return Err(SessionError::Protocol {
                peer,
                theirs: hello.protocol,
            });
        }
        self.phase = Phase::Watermarks;
        self.theirs.fetching = hello.rejoin;
        self.theirs.new = hello.new;
        let me = state.me().machine;
        // If each lacks deletes that the other has forgotten, one of them gives way. Both ends
        // compute the same one.
        self.weaker = (self.standing, Reverse(me)) < (hello.standing, Reverse(peer));
        match (self.fetching, hello.rejoin) {
            (true, true) if self.weaker => Err(SessionError::Rejoining),
            // Without another machine to fetch from, both would wait forever.
            (true, true) => Ok(Some(Effect::GoOn)),
            _ => Ok(None),
        }
    }

    fn learn(
        &mut self,
        watermarks: &Watermarks,
        state: &State,
    ) -> Result<Option<Effect>, SessionError> {
        let me = state.me();
        let mut ahead: Option<u64> = None;
        for (actor, version) in &watermarks.entries {
            if !self.theirs.fetching {
                self.theirs.has.raise(*actor, *version);
            }
            // The peer knows an incarnation or a version of this machine that this store never
            // made. So the store is an older copy of itself.
            let unknown_past = actor.incarnation > me.incarnation
                || (actor.incarnation == me.incarnation && *version > state.own_version());
            if actor.machine == me.machine && unknown_past {
                ahead = ahead.max(Some(actor.incarnation));
            }
        }
        // Gc watermarks count only at the start: later ones are compared by `peer_lacks`.
        if self.phase == Phase::Watermarks {
            for (actor, gc_watermark) in &watermarks.gc_watermarks {
                self.theirs.gc_watermarks.raise(*actor, *gc_watermark);
            }
        }
        if self.theirs.has.len().max(self.theirs.gc_watermarks.len()) > MAX_ACTORS {
            return Err(self.bad_frame(FrameError::Senseless("too many actors")));
        }
        // The peer has sent all its watermarks: from here on changes are exchanged.
        if watermarks.complete && self.phase == Phase::Watermarks {
            self.phase = Phase::Live;
            self.theirs.first.clone_from(&self.theirs.has);
            if let Some(effect) = self.judge(state)? {
                return Ok(Some(effect));
            }
        } else if watermarks.complete
            && watermarks.handled == self.changes_sent
            && !self.theirs.fetching
        {
            // The peer has processed every frame sent so far, so what it lacks is really missing.
            self.rewind();
        }
        if self.fetching {
            return Ok(None);
        }
        Ok(ahead.map(Effect::Reincarnate))
    }

    /// Called when no frame is in transit, so that the peer's report is complete. If the peer lacks
    /// what was sent, everything is sent again.
    fn rewind(&mut self) {
        let lacking = self.closed.above(&self.theirs.has).next().is_some();
        if lacking {
            tracing::debug!(peer = %self.peer, "the peer lacks changes that were sent: sending again");
            self.cursors = Cursors {
                told: self.cursors.told,
                ..Cursors::default()
            };
            self.closed = VersionVector::default();
            // The peer may lack what it was sent, so gc watermarks must be checked again.
            self.gc_number = u64::MAX;
            self.echo.clear();
        }
    }

    fn receive(&mut self, mut batch: Batch, state: &State) -> Option<Effect> {
        for (actor, version) in &batch.watermarks {
            // A peer has what its watermarks announce.
            self.theirs.has.raise(*actor, *version);
        }
        if !batch.watermarks.is_empty() {
            let has = &self.theirs.has;
            self.echo.retain(|dot| !has.includes(*dot));
        }
        // Do not send these changes back to the peer.
        for op in &batch.ops {
            if !self.theirs.has.includes(op.dot) && self.echo.len() < MAX_ECHO {
                self.echo.insert(op.dot);
            }
        }
        if !self.fetching {
            let known = |dot: Dot| dot.version <= state.watermark(dot.actor) || state.has_op(dot);
            batch.ops.retain(|op| batch.repair || !known(op.dot));
            batch
                .watermarks
                .retain(|(actor, version)| *version > state.watermark(*actor));
            // A gc watermark matters only for actors whose watermark grows.
            let grows: HashSet<Actor> = batch.watermarks.iter().map(|(actor, _)| *actor).collect();
            batch
                .gc_watermarks
                .retain(|(actor, _)| grows.contains(actor));
        }
        if batch.ops.is_empty() && batch.watermarks.is_empty() {
            self.handled += 1;
            return None;
        }
        Some(Effect::Apply(batch))
    }

    fn say_digest(&mut self, state: &State) {
        if state.quarantined().next().is_none() {
            let digest = Digest {
                watermarks: state.watermarks_hash(),
                records: state.digest(),
            };
            self.control.push_back(wire::encode_digest(&digest));
        }
    }

    fn compare(&mut self, digest: &Digest, state: &State) {
        let comparable =
            state.quarantined().next().is_none() && digest.watermarks == state.watermarks_hash();
        let busy = !self.repairs.is_empty() || self.compared == Some(self.ticks);
        if busy || !comparable || digest.records == state.digest() {
            return;
        }
        self.compared = Some(self.ticks);
        self.differences += 1;
        tracing::error!(peer = %self.peer, "records differ although the watermarks are equal: this is a bug; repairing");
        let kinds: Vec<_> = state
            .bucket_sums()
            .map(|(kind, sums)| (kind, sums.clone()))
            .collect();
        let count = kinds.len();
        for (at, (kind, sums)) in kinds.into_iter().enumerate() {
            self.control.push_back(wire::encode_buckets(&BucketSums {
                kind,
                sums,
                last: at + 1 == count,
            }));
        }
        if count == 0 {
            self.control.push_back(wire::encode_buckets(&BucketSums {
                kind: 0,
                sums: Vec::new(),
                last: true,
            }));
        }
    }

    /// Sends the changes of the differing buckets again.
    fn repair(&mut self, theirs: &BucketSums, state: &State) {
        let zero = vec![0; theirs.sums.len()];
        let ours = state
            .bucket_sums()
            .find(|(kind, _)| *kind == theirs.kind)
            .map_or(&zero, |(_, sums)| sums);
        let differing: BTreeSet<usize> = (0..theirs.sums.len())
            .filter(|at| ours.get(*at) != theirs.sums.get(*at))
            .collect();
        if !differing.is_empty() {
            self.repairs.retain(|dot| state.has_op(*dot));
            self.repairs.extend(
                state
                    .ops_in_buckets(theirs.kind, &differing)
                    .iter()
                    .map(|op| op.dot),
            );
        }
    }

    fn tell(&mut self, state: &State) {
        let entries: Vec<(Actor, u64)> = if self.fetching {
            Vec::new()
        } else {
            state
                .watermarks_after(self.cursors.told)
                .map(|next| next.item)
                .collect()
        };
        // The first report also contains the gc watermarks.
        let first = self.phase == Phase::Hello;
        self.cursors.told = state.seq();
        self.relay.news = false;
        let gc_watermark = |(actor, _): &(Actor, u64)| {
            Some((*actor, state.gc_watermark(*actor)))
                .filter(|(_, gc_watermark)| first && *gc_watermark > 0)
        };
        let mut rest = entries.as_slice();
        loop {
            let (entries, after) = rest.split_at(rest.len().min(WATERMARKS_CHUNK));
            self.control.push_back(wire::encode_watermarks(&Watermarks {
                handled: self.handled,
                gc_watermarks: entries.iter().filter_map(gc_watermark).collect(),
                entries: entries.to_vec(),
                complete: after.is_empty(),
            }));
            if after.is_empty() {
                break;
            }
            rest = after;
        }
    }

    fn bad_frame(&self, source: FrameError) -> SessionError {
        SessionError::BadFrame {
            peer: self.peer,
            source,
        }
    }

    fn refused(&self, refusal: Refusal) -> SessionError {
        let why = match refusal {
            Refusal::OtherCluster => "this machine belongs to another cluster",
            Refusal::WrongMachine => "it expected another machine",
            Refusal::Protocol => "there is no common replication protocol",
            Refusal::BadFrame => "it received an invalid frame",
            Refusal::Behind => "this machine was away too long",
        };
        SessionError::Refused {
            peer: self.peer,
            why,
        }
    }
}

#[cfg(test)]
mod tests;
