//! The state of this machine's mesh.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::AddressConflict;
use crate::endpoint::Reach;
use crate::key::PublicKey;

/// The interface and all peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshStatus {
    /// Name of the mesh interface; empty before the first configuration.
    pub interface: String,
    /// This machine's key; `None` before the first configuration.
    pub public_key: Option<PublicKey>,
    /// UDP port; 0 before the first configuration.
    pub listen_port: u16,
    /// All peers, ordered by key.
    pub peers: Vec<PeerStatus>,
    /// Addresses that two peers claim. The peer that is listed first gets them.
    #[serde(default)]
    pub conflicts: Vec<AddressConflict>,
    /// Whether the firewall rules of this configuration are in place. A mesh process that is too
    /// old to have any does not report it.
    #[serde(default)]
    pub guarded: bool,
}

/// The state of one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    pub public_key: PublicKey,
    /// Where packets are sent now: a configured endpoint, or one that was learned from the peer's
    /// own packets.
    pub endpoint: Option<SocketAddr>,
    /// Age of the last handshake in milliseconds; `None` without a session.
    pub latest_handshake: Option<u64>,
    /// Bytes received since the peer was added.
    pub rx_bytes: u64,
    /// Bytes sent since the peer was added.
    pub tx_bytes: u64,
    /// Addresses whose traffic is sent to this peer.
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
            guarded: false,
        }
    }

    /// The state of one peer.
    pub fn peer(&self, key: &PublicKey) -> Option<&PeerStatus> {
        self.peers.iter().find(|peer| peer.public_key == *key)
    }
}
