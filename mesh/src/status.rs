//! What the mesh of this machine is right now.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::AddressConflict;
use crate::endpoint::Reach;
use crate::key::PublicKey;

/// The interface and all peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshStatus {
    /// The name of the mesh interface; empty before the first configuration.
    pub interface: String,
    /// This machine's identity; none before the first configuration.
    pub public_key: Option<PublicKey>,
    /// UDP; 0 before the first configuration.
    pub listen_port: u16,
    /// All peers, ordered by key.
    pub peers: Vec<PeerStatus>,
    /// Addresses two peers claim. The daemon has to settle that; until then the first one listed
    /// has them.
    #[serde(default)]
    pub conflicts: Vec<AddressConflict>,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its identity.
    pub public_key: PublicKey,
    /// Where we send to now: one of the configured endpoints, or one learned from where the peer's
    /// packets came.
    pub endpoint: Option<SocketAddr>,
    /// Age of the last handshake in milliseconds; none if there is no session.
    pub latest_handshake: Option<u64>,
    /// Bytes received, since the peer was added.
    pub rx_bytes: u64,
    /// Bytes sent, since the peer was added.
    pub tx_bytes: u64,
    /// The addresses that go to this peer.
    pub allowed_ips: Vec<IpNet>,
    /// Whether the current endpoint works.
    #[serde(default)]
    pub reach: Reach,
}

impl MeshStatus {
    /// The status before the first configuration.
    pub fn unconfigured() -> Self {
        Self {
            interface: String::new(),
            public_key: None,
            listen_port: 0,
            peers: Vec::new(),
            conflicts: Vec::new(),
        }
    }

    /// The entry of one peer.
    pub fn peer(&self, key: &PublicKey) -> Option<&PeerStatus> {
        self.peers.iter().find(|peer| peer.public_key == *key)
    }
}
