//! Decides whether one of two machines can still show deleted records, because deletes were
//! forgotten that it never had.

use super::{Core, Effect, SessionError};
use crate::id::Actor;
use crate::state::State;
use crate::vector::VersionVector;
use crate::wire::{self, Refusal};

impl Core {
    /// Called when both sides have sent their watermarks and gc watermarks. Decides whether one of
    /// them must fetch everything again.
    pub(super) fn judge(&mut self, state: &State) -> Result<Option<Effect>, SessionError> {
        self.gc_number = state.gc_number();
        // A peer that says that it is new can still have sent changes of its own before; the same
        // holds for this machine.
        let of_peer = |(actor, _): (Actor, u64)| actor.machine == self.peer;
        self.theirs.new &= !state.watermarks().any(of_peer);
        self.new &= !self
            .theirs
            .has
            .iter()
            .any(|(actor, _)| actor.machine == state.me().machine);
        if self.theirs.fetching || self.theirs.new {
            // Deletes that were forgotten before this session are not the peer's concern, because
            // it never had the records.
            self.baseline = state.gc_watermarks().collect();
        }
        let gc_watermarks = &self.theirs.gc_watermarks;
        if self.theirs.fetching {
            return Ok(None);
        }
        if state
            .wanted()
            .is_some_and(|wanted| wanted.above(&self.theirs.has).next().is_some())
        {
            return Err(SessionError::PeerBehind { peer: self.peer });
        }
        // A store that never received anything cannot show deleted records.
        let we_lack = !self.new
            && gc_watermarks
                .iter()
                .any(|(actor, gc_watermark)| state.watermark(actor) < gc_watermark);
        let peer_lacks = self.peer_lacks(state);
        let peer = self.peer;
        match (we_lack, peer_lacks) {
            (we_lack, true) if !(we_lack && self.weaker) => {
                if self.fetching {
                    return Err(SessionError::PeerBehind { peer });
                }
                // The peer receives this refusal and ends the session.
                self.control
                    .push_back(wire::encode_refusal(Refusal::Behind));
                self.parted = true;
                Ok(None)
            }
            (true, _) if !self.fetching => {
                Ok(Some(Effect::Rejoin(self.theirs.gc_watermarks.clone())))
            }
            _ => Ok(None),
        }
    }

    /// Reports whether this store has forgotten deletes that the peer may not have. The peer has
    /// what it acknowledged as a member.
    pub(super) fn peer_lacks(&self, state: &State) -> bool {
        // What the peer has, or will have once it has processed what was sent.
        let told = |actor| {
            let sent = self.closed.get(actor).max(self.baseline.get(actor));
            self.theirs.has.get(actor).max(sent)
        };
        let open: Vec<(Actor, u64)> = state
            .gc_watermarks()
            .filter(|(actor, gc_watermark)| told(*actor) < *gc_watermark)
            .collect();
        if open.is_empty() {
            return false;
        }
        let acknowledged: VersionVector = state
            .acknowledged(self.peer)
            .into_iter()
            .map(|ack| (ack.actor, ack.version))
            .collect();
        open.iter()
            .any(|(actor, gc_watermark)| acknowledged.get(*actor) < *gc_watermark)
    }

    /// Reports whether deletes were forgotten since the session started that the peer may not have.
    /// The session must then end.
    pub(crate) fn is_outgrown(&self) -> bool {
        self.outgrown
    }

    /// Reports whether the peer is fetching everything.
    pub(crate) fn serves(&self) -> bool {
        self.theirs.fetching
    }
}
