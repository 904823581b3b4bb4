//! Chooses which of a peer's endpoints to send to: a state machine without clock or socket.
//!
//! The rules are those of KubeSpan. After its endpoint was changed, a peer is in state unknown for
//! 15 s. Then it is down unless there was a handshake. Later it is down when the last handshake is
//! older than 275 s. A peer that is down gets the next of its endpoints in turn.
//!
//! Two rules are our own. If a peer moved, so that its packets come from another address, that
//! learned endpoint is kept as long as it works, whatever the configuration has, and remains a
//! candidate afterwards. And a candidate that is new in the configuration is tried immediately when
//! the peer is not up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::PeerConfig;
use crate::key::PublicKey;

/// How long an endpoint has to produce a handshake: enough for two retries of WireGuard, which
/// sends one every 5 s.
pub const TRY_FOR: Duration = Duration::from_secs(15);

/// When a peer without a handshake counts as down. A session is valid for 180 s and renewed after
/// 120 s, and WireGuard tries to renew it for 90 s. After 275 s it no longer tries on its own.
pub const DOWN_AFTER: Duration = Duration::from_secs(275);

/// How much earlier than the change of its endpoint a handshake may be dated and still count.
/// gotatun's clock moves in steps of 250 ms, so a handshake right after the change can seem older.
/// A handshake that really came before it would have made the peer count as up, and then its
/// endpoint would not have been changed.
const HANDSHAKE_SLACK: Duration = Duration::from_secs(1);

/// Whether a peer answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// The endpoint was changed less than 15 s ago, and there was no handshake yet.
    #[default]
    Unknown,
    /// There was a handshake within the last 275 s.
    Up,
    /// The peer has no endpoint, or the current one does not answer.
    Down,
}

/// What the tunnel reports about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// Where the tunnel sends the peer's packets; `None` before the first choice.
    pub endpoint: Option<SocketAddr>,
    /// Age of the last handshake; `None` without a session.
    pub handshake_age: Option<Duration>,
}

/// The state of all peers. All times are durations since one fixed moment that the caller chooses.
#[derive(Debug, Default)]
pub struct EndpointChooser {
    peers: BTreeMap<PublicKey, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    /// Endpoints of the configuration, best first.
    candidates: Vec<SocketAddr>,
    /// Where the peer's packets came from last, unless that is a candidate.
    learned: Option<SocketAddr>,
    /// Where the tunnel sends to; `None` before the first choice.
    current: Option<SocketAddr>,
    /// The endpoint to try next, out of turn.
    prefer: Option<SocketAddr>,
    /// When this state machine last chose `current`.
    changed_at: Duration,
    last_handshake: Option<Duration>,
}

impl EndpointChooser {
    /// Takes over a new configuration. `remembered` are endpoints that worked before a restart;
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

    /// Takes in what the tunnel reports, and returns the endpoints to set. A handshake is to be
    /// started with each.
    ///
    /// A peer that the tunnel does not have is left alone. A peer whose only endpoint does not
    /// answer gets the same one again, because WireGuard gives up after 90 s unless it is asked
    /// to.
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

    /// Takes in what the tunnel reports, without choosing endpoints.
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

    /// The endpoints that work now, to be remembered across a restart.
    pub fn working(&self, now: Duration) -> BTreeMap<PublicKey, SocketAddr> {
        let up = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.reach(now) == Reach::Up);
        up.filter_map(|(key, peer)| Some((*key, peer.current?)))
            .collect()
    }

    /// To be called when the tunnel was reopened and has lost its sessions and endpoints. The
    /// endpoints that were in use are tried first.
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
        // An endpoint that we did not set comes from an authenticated packet: the peer moved.
        // `changed_at` is kept, since that packet belongs to a session whose handshake may be older
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
            // The peer contacted us before we chose an endpoint.
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
