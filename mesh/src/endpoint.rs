//! Which of a peer's endpoints to send to: a state machine without clock or socket.
//!
//! The rules are those of KubeSpan. A peer's state is unknown for 15 s after its endpoint was
//! changed, then it is down unless a handshake came about; later it is down when the last handshake
//! is older than 275 s. A peer that is down gets the next of its endpoints in turn. Two things
//! differ from what others do: an endpoint learned because the peer moved (its packets came from
//! somewhere else) is kept as long as it works, whatever the configuration says, and stays among
//! the candidates afterwards; and a candidate that is new in the configuration is tried at once
//! when the peer is not up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::PeerConfig;
use crate::key::PublicKey;

/// How long an endpoint is given to produce a handshake: two retries of WireGuard, which come every
/// 5 s.
pub const TRY_FOR: Duration = Duration::from_secs(15);

/// A session lives for 180 s, is renewed after 120 s and its renewal is tried for 90 s: after 275 s
/// without a handshake nothing more will come by itself.
pub const DOWN_AFTER: Duration = Duration::from_secs(275);

/// A tunnel may date a handshake a little early (gotatun's clock moves in steps of 250 ms), so one
/// that came right after an endpoint was set can seem older than that. A real one that much before
/// would have made the peer count as up, and its endpoint would not have been set.
const HANDSHAKE_SLACK: Duration = Duration::from_secs(1);

/// Whether a peer answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// The endpoint was changed less than 15 s ago and there was no handshake yet.
    #[default]
    Unknown,
    /// There was a handshake lately.
    Up,
    /// There is no endpoint, or none that answers.
    Down,
}

/// What the tunnel says of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// Where it sends to.
    pub endpoint: Option<SocketAddr>,
    /// Age of the last handshake.
    pub handshake_age: Option<Duration>,
}

/// The state of all peers. Times are since any fixed moment, the same for all calls.
#[derive(Debug, Default)]
pub struct EndpointChooser {
    peers: BTreeMap<PublicKey, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    /// From the configuration, best first.
    candidates: Vec<SocketAddr>,
    /// Where packets of the peer came from last, if that is none of the candidates.
    learned: Option<SocketAddr>,
    /// Where the tunnel sends to; none before the first choice.
    current: Option<SocketAddr>,
    /// To be tried next, before its turn.
    prefer: Option<SocketAddr>,
    /// When `current` was chosen by us.
    changed_at: Duration,
    last_handshake: Option<Duration>,
}

impl EndpointChooser {
    /// Takes over a new configuration. `remembered` are endpoints that worked before a restart:
    /// they are tried first.
    pub fn configure(
        &mut self,
        now: Duration,
        peers: &[PeerConfig],
        remembered: &BTreeMap<PublicKey, SocketAddr>,
    ) {
        let mut old = std::mem::take(&mut self.peers);
        for config in peers {
            let peer = match old.remove(&config.public_key) {
                Some(mut peer) => {
                    peer.update(now, &config.endpoints);
                    peer
                }
                None => Peer::new(
                    now,
                    &config.endpoints,
                    remembered.get(&config.public_key).copied(),
                ),
            };
            self.peers.insert(config.public_key, peer);
        }
    }

    /// Takes in what the tunnel says and returns the endpoints to set, each together with a
    /// handshake to be started.
    ///
    /// A peer the tunnel does not have is left alone. A peer whose only endpoint does not answer
    /// gets the same one again: WireGuard gives up after 90 s unless someone asks.
    pub fn step(
        &mut self,
        now: Duration,
        observed: &BTreeMap<PublicKey, Observation>,
    ) -> Vec<(PublicKey, SocketAddr)> {
        self.observe(now, observed);
        let mut changes = Vec::new();
        for (key, peer) in &mut self.peers {
            if !observed.contains_key(key) {
                continue;
            }
            let reach = peer.reach(now);
            let due = reach == Reach::Down || (peer.prefer.is_some() && reach != Reach::Up);
            if due && let Some(next) = peer.next() {
                peer.current = Some(next);
                peer.prefer = None;
                peer.changed_at = now;
                changes.push((*key, next));
            }
        }
        changes
    }

    /// Takes in what the tunnel says, and changes nothing.
    pub fn observe(&mut self, now: Duration, observed: &BTreeMap<PublicKey, Observation>) {
        for (key, observation) in observed {
            if let Some(peer) = self.peers.get_mut(key) {
                peer.observe(now, observation);
            }
        }
    }

    /// Whether a peer answers.
    pub fn reach(&self, now: Duration, key: &PublicKey) -> Reach {
        self.peers
            .get(key)
            .map_or(Reach::Down, |peer| peer.reach(now))
    }

    /// The endpoints that work now, to be remembered over a restart.
    pub fn working(&self, now: Duration) -> BTreeMap<PublicKey, SocketAddr> {
        let up = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.reach(now) == Reach::Up);
        up.filter_map(|(key, peer)| Some((*key, peer.current?)))
            .collect()
    }

    /// The tunnel was opened anew: its sessions and endpoints are gone. The endpoints that were in
    /// use are tried first.
    pub fn reopened(&mut self) {
        for peer in self.peers.values_mut() {
            peer.prefer = peer.current.take().or(peer.prefer);
            peer.last_handshake = None;
        }
    }
}

impl Peer {
    fn new(now: Duration, endpoints: &[SocketAddr], remembered: Option<SocketAddr>) -> Self {
        let learned = remembered.filter(|endpoint| !endpoints.contains(endpoint));
        Self {
            candidates: endpoints.to_vec(),
            learned,
            current: None,
            prefer: remembered,
            changed_at: now,
            last_handshake: None,
        }
    }

    fn update(&mut self, now: Duration, endpoints: &[SocketAddr]) {
        let fresh = endpoints
            .iter()
            .find(|endpoint| !self.candidates.contains(endpoint))
            .copied();
        self.candidates = endpoints.to_vec();
        if self
            .learned
            .is_some_and(|learned| endpoints.contains(&learned))
        {
            self.learned = None;
        }
        if self.reach(now) == Reach::Up {
            self.learn();
            return;
        }
        let gone = self
            .current
            .is_some_and(|current| !self.all().any(|endpoint| endpoint == current));
        if let Some(fresh) = fresh.filter(|fresh| self.current != Some(*fresh)) {
            self.prefer = Some(fresh);
        } else if gone {
            self.prefer = self.candidates.first().copied();
        }
    }

    fn observe(&mut self, now: Duration, observation: &Observation) {
        if let Some(age) = observation.handshake_age {
            self.last_handshake = self.last_handshake.max(Some(now.saturating_sub(age)));
        }
        // An endpoint we did not set comes from an authenticated packet: the peer moved.
        // `changed_at` stays, since that packet belongs to a session whose handshake may be older
        // than the move.
        if observation.endpoint.is_some()
            && observation.endpoint != self.current
            && self.current.is_some()
        {
            self.current = observation.endpoint;
            self.learn();
        } else if self.current.is_none()
            && let Some(endpoint) = observation.endpoint
        {
            // The peer came to us before we chose.
            self.current = Some(endpoint);
            self.prefer = None;
            self.changed_at = now;
            self.learn();
        }
    }

    fn learn(&mut self) {
        self.learned = self
            .current
            .filter(|current| !self.candidates.contains(current))
            .or(self.learned);
    }

    fn reach(&self, now: Duration) -> Reach {
        if self.current.is_none() {
            return Reach::Down;
        }
        let answered = self
            .last_handshake
            .is_some_and(|at| at + HANDSHAKE_SLACK >= self.changed_at);
        let fresh = self
            .last_handshake
            .is_some_and(|at| now.saturating_sub(at) < DOWN_AFTER);
        if answered && fresh {
            Reach::Up
        } else if !answered && now.saturating_sub(self.changed_at) < TRY_FOR {
            Reach::Unknown
        } else {
            Reach::Down
        }
    }

    fn all(&self) -> impl Iterator<Item = SocketAddr> {
        self.candidates.iter().copied().chain(self.learned)
    }

    fn next(&self) -> Option<SocketAddr> {
        let after_current = || {
            let position = self
                .all()
                .position(|endpoint| Some(endpoint) == self.current)?;
            self.all().nth(position + 1)
        };
        self.prefer
            .or_else(after_current)
            .or_else(|| self.all().next())
            .or(self.current)
    }
}

#[cfg(test)]
mod tests;
