//! The order of sending: what a peer that has been sent everything up to here is to be sent next.
//!
//! Every change that is kept, and every height that grows, gets the next number of one local count;
//! what is replaced leaves its place. Walking up the count therefore meets every live change,
//! causes before effects, and no history.

use std::sync::Arc;

use super::State;
use crate::id::Actor;
use crate::op::{Lane, Op};

/// Something with its number in the order of sending.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Next<T> {
    pub(crate) seq: u64,
    pub(crate) item: T,
}

impl State {
    /// The live changes of a lane after a number.
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

    /// The heights that grew after a number.
    pub(crate) fn heights_after(&self, after: u64) -> impl Iterator<Item = Next<(Actor, u64)>> {
        self.height_lane
            .iter_from(move |seq| *seq <= after)
            .map(|(seq, actor)| Next {
                seq: *seq,
                item: (*actor, self.height(*actor)),
            })
    }

    /// The number given last.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }
}
