//! Sessions between the stores. The state machine is the real one, with one stream of frames in
//! each direction. This module does the driver's part: apply, fetch into a fresh state, start
//! again.

use bytes::Bytes;

use super::world::{Link, World, machine};
use crate::id::ClusterId;
use crate::local;
use crate::session::{Core, Effect, SessionError};
use crate::state::{Changes, Rejected, State};
use crate::vector::VersionVector;

const CLUSTER: ClusterId = ClusterId([9; 16]);

pub(super) fn link(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl World {
    /// Breaks all sessions of a node.
    pub(super) fn hang_up(&mut self, n: usize) {
        self.links.retain(|(a, b), _| *a != n && *b != n);
    }

    pub(super) fn cut(&mut self, a: usize, b: usize) {
        self.links.remove(&link(a, b));
    }

    /// Takes a frame off the stream without storing it, which ends the session.
    pub(super) fn lose(&mut self, a: usize, b: usize) {
        let ends = link(a, b);
        let side = usize::from(b > a);
        if self
            .links
            .get_mut(&ends)
            .is_some_and(|link| link.wires[side].pop_front().is_some())
        {
            self.links.remove(&ends);
        }
    }

    fn open(&self, low: usize, high: usize) -> Link {
        let state = |n: usize| &self.nodes[n].state;
        let core = |me: usize, peer| Core::new(CLUSTER, &[], machine(peer), state(me));
        let fresh = |n: usize| {
            state(n)
                .is_rejoining()
                .then(|| State::fetched(state(n).me()))
        };
        Link {
            cores: [core(low, high), core(high, low)],
            wires: Default::default(),
            fresh: [fresh(low), fresh(high)],
        }
    }

    /// Moves up to this many frames in each direction.
    pub(super) fn pump(&mut self, a: usize, b: usize, frames: usize) {
        let ends = link(a, b);
        let mut link = match self.links.remove(&ends) {
            Some(link) => link,
            None => {
                // Everything is fetched from one peer at a time.
                for n in [a, b] {
                    if self.nodes[n].state.is_rejoining() {
                        self.hang_up(n);
                    }
                }
                self.open(ends.0, ends.1)
            }
        };
        for round in 0..frames {
            for (side, end) in [ends.0, ends.1].into_iter().enumerate() {
                // Each side reports to hear all machines, true or not, and holds back relayed
                // changes for some rounds.
                let state = &self.nodes[end].state;
                link.cores[side].hear((0..self.nodes.len()).map(machine).collect());
                link.cores[side].look_for_news(state);
                if round % 3 == 2 {
                    link.cores[side].tick(state);
                    link.cores[side].hold_no_longer(state.seq());
                }
                if let Some(frame) = link.cores[side].next_frame(&self.nodes[end].state, true) {
                    link.wires[1 - side].push_back(frame);
                }
                if link.cores[side].is_outgrown() {
                    return;
                }
            }
            // Sometimes one frame stays in transit, so that a break loses something.
            for (side, end) in [ends.0, ends.1].into_iter().enumerate() {
                if link.wires[side].len() > round % 2
                    && let Some(frame) = link.wires[side].pop_front()
                    && let Err(error) = self.deliver(end, &mut link, side, &frame)
                {
                    // The driver tells the peer the reason.
                    if let Some(refusal) = Core::refusal(&error) {
                        let peer = if side == 0 { ends.1 } else { ends.0 };
                        // The session has ended in any case.
                        let _ = self.deliver(peer, &mut link, 1 - side, &refusal);
                    }
                    return;
                }
            }
        }
        self.links.insert(ends, link);
    }

    /// Handles a frame as the driver does. An error ends the session.
    fn deliver(
        &mut self,
        n: usize,
        link: &mut Link,
        side: usize,
        frame: &Bytes,
    ) -> Result<(), SessionError> {
        let core = &mut link.cores[side];
        let effect = match core.handle(frame, &self.nodes[n].state) {
            Ok(effect) => effect,
            Err(
                error @ (SessionError::Rejoining
                | SessionError::PeerBehind { .. }
                | SessionError::Refused { .. }),
            ) => {
                return Err(error);
            }
            Err(error) => panic!("{error}"),
        };
        match (effect, &mut link.fresh[side]) {
            (None, _) => {}
            (Some(Effect::Apply(batch)), Some(fresh)) => {
                fresh
                    .apply_batch(&batch, self.nodes[n].clock, &mut Changes::default())
                    .unwrap();
                core.applied();
            }
            (Some(Effect::Apply(batch)), None) => {
                match self.nodes[n].receive(&batch) {
                    Ok(()) => {}
                    Err(Rejected::Forgotten) => {
                        return self.begin_rejoin(n, VersionVector::default());
                    }
                    Err(Rejected::TooManyOpaque) => panic!("too many unknown records"),
                }
                core.applied();
                self.delivered.push(batch);
            }
            (Some(Effect::GoOn), _) => {
                self.nodes[n].state.end_rejoin();
                return Err(SessionError::Rejoin);
            }
            (Some(Effect::Rejoin(wanted)), _) => return self.begin_rejoin(n, wanted),
            (Some(Effect::Reincarnate(_)), _) => {
                panic!("a crash left an incarnation that was used before")
            }
        }
        match link.fresh[side].take_if(|fresh| link.cores[side].has_fetched(fresh)) {
            Some(complete) => self.go_on_from(n, complete),
            None => Ok(()),
        }
    }

    fn begin_rejoin(&mut self, n: usize, wanted: VersionVector) -> Result<(), SessionError> {
        self.nodes[n].state.begin_rejoin(wanted);
        self.hang_up(n);
        Err(SessionError::Rejoin)
    }

    fn go_on_from(&mut self, n: usize, complete: State) -> Result<(), SessionError> {
        let stride = self.stride();
        let node = &mut self.nodes[n];
        let rejoined = local::rejoin(
            &node.state,
            complete,
            stride,
            node.clock,
            &mut Changes::default(),
        );
        node.state = rejoined.unwrap();
        node.rewrite();
        let me = node.state.me();
        self.remember(n, me, 0);
        // The daemon continues to publish what it finds on its machine.
        self.publish(n);
        self.hang_up(n);
        Err(SessionError::NewIncarnation)
    }
}
