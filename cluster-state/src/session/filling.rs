//! Fills the next frame.

use std::sync::Arc;

use bytes::Bytes;

use super::{Core, Phase};
use crate::op::{Lane, Op};
use crate::state::{Batch, Next, State};
use crate::wire::{self, FRAME_TARGET, WATERMARK_WEIGHT};

/// Maximum number of changes held back. The next change releases all of them.
const MAX_HELD: usize = 1_024;

/// How far a lane was put into a frame.
#[derive(Debug, Clone, Copy, Default)]
struct Filled {
    /// There are more changes than fit.
    full: bool,
    /// The remaining changes are held back.
    held: bool,
}

impl Core {
    /// Reports whether `next_frame` has something other than changes.
    pub(crate) fn has_control(&self) -> bool {
        !self.control.is_empty() || self.relay.hears_due && self.phase == Phase::Live
    }

    /// Reports whether `next_frame` may have something. Without `bulk`, considers only what is
    /// exempt from the bandwidth limit.
    pub(crate) fn has_frame(&self, state: &State, bulk: bool) -> bool {
        if self.has_control() {
            return true;
        }
        if self.is_silent() {
            return false;
        }
        let idle = self
            .idle
            .is_some_and(|(seq, all)| seq == state.seq() && (all || !bulk));
        self.relay.news
            || !idle
                && (state
                    .lane_after(Lane::Intent, self.cursors.intents)
                    .next()
                    .is_some()
                    || bulk
                        && (!self.repairs.is_empty()
                            || state
                                .lane_after(Lane::Fact, self.cursors.facts)
                                .next()
                                .is_some()
                            || state
                                .watermarks_after(self.cursors.watermarks)
                                .next()
                                .is_some()))
    }

    /// Reports whether the peer is sent no changes.
    fn is_silent(&self) -> bool {
        self.phase != Phase::Live || self.fetching || self.outgrown || self.parted
    }

    /// Returns the next frame for the peer.
    pub(crate) fn next_frame(&mut self, state: &State, bulk: bool) -> Option<Bytes> {
        if let Some(frame) = self.control.pop_front() {
            return Some(frame);
        }
        if self.relay.hears_due && self.phase == Phase::Live {
            self.relay.hears_due = false;
            return Some(wire::encode_hears(&self.relay.hears));
        }
        if self.is_silent() {
            return None;
        }
        if self.relay.news {
            self.tell(state);
            return self.control.pop_front();
        }
        // Reserve room for the tag, the counts and the flag.
        let mut room = FRAME_TARGET - 16;
        let mut batch = Batch::default();
        let intents = self.fill(Lane::Intent, state, &mut batch, &mut room);
        self.relay.holding = intents.held;
        if !intents.full && bulk && batch.ops.is_empty() && !self.repairs.is_empty() {
            self.fill_repairs(state, &mut batch, &mut room);
        } else if !intents.full && bulk {
            let facts = self.fill(Lane::Fact, state, &mut batch, &mut room);
            self.relay.holding |= facts.held;
            if !facts.full && !self.relay.holding {
                if self.gc_number != state.gc_number() && self.peer_lacks(state) {
                    self.outgrown = true;
                    return None;
                }
                self.gc_number = state.gc_number();
                self.fill_watermarks(state, &mut batch, &mut room);
            }
        }
        if batch.ops.is_empty() && batch.watermarks.is_empty() {
            self.idle = Some((state.seq(), bulk));
            return None;
        }
        self.changes_sent += 1;
        Some(wire::encode_changes(&batch))
    }

    /// Reports whether the peer is likely to receive a change from the machine that wrote it.
    fn may_wait(&self, next: &Next<&Arc<Op>>, state: &State) -> bool {
        let writer = next.item.dot.actor.machine;
        next.seq > self.relay.overdue
            && !self.theirs.fetching
            && writer != state.me().machine
            && self.theirs.hears.contains(&writer)
    }

    /// Adds what the peer lacks of a lane.
    fn fill(&mut self, lane: Lane, state: &State, batch: &mut Batch, room: &mut usize) -> Filled {
        let mut cursor = match lane {
            Lane::Intent => self.cursors.intents,
            Lane::Fact => self.cursors.facts,
        };
        let mut filled = Filled::default();
        let mut held: Vec<Next<&Arc<Op>>> = Vec::new();
        // The cursor only moves past changes that were sent or that the peer has. It stops at the
        // first change held back.
        'lane: for next in state.lane_after(lane, cursor) {
            if self.theirs.has.includes(next.item.dot) || self.echo.contains(&next.item.dot) {
                if held.is_empty() {
                    cursor = next.seq;
                }
                continue;
            }
            let waits = held.len() < MAX_HELD && self.may_wait(&next, state);
            held.push(next);
            if waits {
                continue;
            }
            // Held-back changes are sent first, because an effect must not be sent before its
            // cause.
            for next in held.drain(..) {
                let weight = wire::weight(next.item);
                // A record that does not fit into a frame is sent alone.
                if weight > *room && !batch.ops.is_empty() {
                    filled.full = true;
                    break 'lane;
                }
                *room = room.saturating_sub(weight);
                batch.ops.push(Arc::clone(next.item));
                cursor = next.seq;
            }
        }
        filled.held = !held.is_empty();
        match lane {
            Lane::Intent => self.cursors.intents = cursor,
            Lane::Fact => self.cursors.facts = cursor,
        }
        filled
    }

    /// Adds watermarks. Everything live was sent, so the peer can count as known what we have.
    fn fill_watermarks(&mut self, state: &State, batch: &mut Batch, room: &mut usize) {
        for next in state.watermarks_after(self.cursors.watermarks) {
            let (actor, version) = next.item;
            if version > self.theirs.has.get(actor) {
                if *room < WATERMARK_WEIGHT
                    && !(batch.ops.is_empty() && batch.watermarks.is_empty())
                {
                    return;
                }
                *room = room.saturating_sub(WATERMARK_WEIGHT);
                batch.watermarks.push((actor, version));
                if state.gc_watermark(actor) > 0 {
                    batch.gc_watermarks.push((actor, state.gc_watermark(actor)));
                }
                self.closed.raise(actor, version);
            }
            self.cursors.watermarks = next.seq;
        }
    }

    fn fill_repairs(&mut self, state: &State, batch: &mut Batch, room: &mut usize) {
        batch.repair = true;
        while let Some(dot) = self.repairs.first().copied() {
            // A change that was replaced in the meantime is not sent.
            let op = state
                .ops_after(dot.actor, dot.version.saturating_sub(1))
                .next();
            if let Some(op) = op.filter(|op| op.dot == dot) {
                let weight = wire::weight(op);
                if weight > *room && !batch.ops.is_empty() {
                    return;
                }
                *room = room.saturating_sub(weight);
                batch.ops.push(Arc::clone(op));
            }
            self.repairs.remove(&dot);
        }
    }
}
