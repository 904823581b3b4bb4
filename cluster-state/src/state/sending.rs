//! The order of sending: what to send next to a peer that was sent everything up to some number.
//!
//! Every change that is kept, and every watermark that grows, gets the next number of one local
//! counter. A change that is replaced loses its number. Walking up the numbers therefore meets
//! every live change, causes before effects, and no history.

use std::sync::Arc;

use super::State;
use crate::id::Actor;
use crate::op::{Lane, Op};

/// An item with its number in the order of sending.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Next<T> {
    pub(crate) seq: u64,
    pub(crate) item: T,
}

impl State {
    /// Returns the live changes of a lane after a number.
    pub(crate) fn lane_after(
        &self,
        lane: Lane,
        after: u64,
    ) -> impl Iterator<Item = Next<&Arc<Op>>> {
        let lane = match lane {
            Lane::Intent => &self.intent_lane,
            Lane::Fact => &self.fact_lane,
        };
        lane.iter_from(move |seq| *seq <= after)
            .map(|(seq, item)| Next { seq: *seq, item })
    }

    /// Returns the watermarks that grew after a number.
    pub(crate) fn watermarks_after(&self, after: u64) -> impl Iterator<Item = Next<(Actor, u64)>> {
        self.watermark_lane
            .iter_from(move |seq| *seq <= after)
            .map(|(seq, actor)| Next {
                seq: *seq,
                item: (*actor, self.watermark(*actor)),
            })
    }

    /// Returns the last number.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }
}
