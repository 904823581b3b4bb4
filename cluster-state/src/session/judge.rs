//! Whether one of two machines may still show what was deleted, because deletes were forgotten that
//! it never had.

use super::{Core, Effect, SessionError};
use crate::id::Actor;
use crate::state::State;
use crate::vector::VersionVector;
use crate::wire::{self, Refusal};

impl Core {
    /// Both have told what they have, and what they have forgotten: whether one has to fetch
    /// everything anew.
    pub(super) fn judge(&mut self, state: &State) -> Result<Option<Effect>, SessionError> {
        self.cuts_number = state.cuts_number();
        // Who says so may have sent its own changes all the same.
        let of_peer = |(actor, _): (Actor, u64)| actor.machine == self.peer;
        self.peer_new &= !state.heights().any(of_peer);
        self.new &= !self
            .peer_has
            .iter()
            .any(|(actor, _)| actor.machine == state.me().machine);
        if self.serving || self.peer_new {
            // What was forgotten before, it never had.
            self.baseline = state.cuts().collect();
        }
        let cuts = &self.peer_cuts;
        if self.serving {
            return Ok(None);
        }
        if state
            .wanted()
            .is_some_and(|wanted| wanted.above(&self.peer_has).next().is_some())
        {
            return Err(SessionError::PeerBehind { peer: self.peer });
        }
        let we_lack = !self.new && cuts.iter().any(|(actor, cut)| state.height(actor) < cut);
        let peer_lacks = self.peer_lacks(state);
        let peer = self.peer;
        match (we_lack, peer_lacks) {
            (we_lack, true) if !(we_lack && self.weaker) => {
                if self.fetching {
                    return Err(SessionError::PeerBehind { peer });
                }
                // It is told, and ends the session.
                self.control
                    .push_back(wire::encode_refusal(Refusal::Behind));
                self.parted = true;
                Ok(None)
            }
            (true, _) if !self.fetching => Ok(Some(Effect::Rejoin(self.peer_cuts.clone()))),
            _ => Ok(None),
        }
    }

    /// Whether deletes were forgotten here that the peer may not have. What a member has
    /// acknowledged, it has.
    pub(super) fn peer_lacks(&self, state: &State) -> bool {
        let told = |actor| {
            let sent = self.closed.get(actor).max(self.baseline.get(actor));
            self.peer_has.get(actor).max(sent)
        };
        let open: Vec<(Actor, u64)> = state
            .cuts()
            .filter(|(actor, cut)| told(*actor) < *cut)
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
            .any(|(actor, cut)| acknowledged.get(*actor) < *cut)
    }

    /// Whether deletes were forgotten since the session began that the peer may not have: it has to
    /// end.
    pub(crate) fn is_outgrown(&self) -> bool {
        self.outgrown
    }

    /// Whether the peer fetches everything anew.
    pub(crate) fn serves(&self) -> bool {
        self.serving
    }
}
