//! The tunnel behind a trait, so that the mesh process can run on user-space WireGuard, on the
//! kernel's, or on none (tests).

mod fake;
mod host;
mod user_space;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;

pub use self::fake::{Fake, FakeState};
pub use self::user_space::UserSpace;
use crate::config::MeshConfig;
use crate::diff::TunnelState;
use crate::key::PublicKey;

/// A WireGuard interface with its addresses and routes.
///
/// Which endpoint a peer has is not part of the configuration it applies: a new peer has none until
/// [`set_endpoints`](Tunnel::set_endpoints), and an existing one keeps what it has.
#[async_trait]
pub trait Tunnel: Send {
    /// Makes the tunnel what `config` says, touching only what differs from what is there. The
    /// caller has validated `config`. After an error some of it may be done; applying again
    /// completes it.
    async fn apply(&mut self, config: &MeshConfig) -> Result<Applied, TunnelError>;

    /// Sends what is for these peers to these endpoints from now on, and starts a handshake with
    /// each that has no session. Peers that are not there are skipped.
    async fn set_endpoints(
        &mut self,
        endpoints: &[(PublicKey, SocketAddr)],
    ) -> Result<(), TunnelError>;

    /// All peers; none before the first configuration.
    async fn peers(&mut self) -> Result<Vec<TunnelPeer>, TunnelError>;

    /// Waits until the tunnel stops working for good. Never returns while it is closed. Can be
    /// dropped and called again.
    async fn failed(&mut self) -> TunnelError;

    /// Takes the interface away, with addresses and routes. Closing twice is no error.
    async fn close(&mut self) -> Result<(), TunnelError>;
}

/// What applying a configuration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The tunnel was there; sessions of peers that stayed are untouched.
    Changed,
    /// The tunnel was opened, with no session and no endpoint.
    Opened,
}

/// A peer of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelPeer {
    /// Its identity.
    pub public_key: PublicKey,
    /// Where it sends to: set by us, or where its packets came from last.
    pub endpoint: Option<SocketAddr>,
    /// Age of the last handshake; none without a session.
    pub handshake_age: Option<Duration>,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// The addresses that go to it.
    pub allowed_ips: Vec<ipnet::IpNet>,
}

/// What can go wrong with a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// `/dev/net/tun` cannot be used.
    #[error("cannot open interface {interface} on /dev/net/tun: {reason}; {hint}")]
    Open {
        /// The interface's name.
        interface: String,
        /// What the kernel said.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// The UDP port is taken.
    #[error("cannot listen on UDP port {port}: {reason}")]
    Listen {
        /// The port.
        port: u16,
        /// What the kernel said.
        reason: String,
    },
    /// The kernel refused an address, a route or a setting.
    #[error("cannot {action} on interface {interface}: {reason}")]
    Netlink {
        /// What was tried.
        action: String,
        /// The interface's name.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// The management address is IPv6.
    #[error(
        "IPv6 is switched off in this kernel, and the mesh needs it inside the tunnel: {path}: {source}; boot without ipv6.disable=1"
    )]
    NoIpv6 {
        /// The setting.
        path: String,
        /// Why it cannot be set.
        #[source]
        source: io::Error,
    },
    /// The interface was taken away or shut down by somebody.
    #[error("interface {interface} stopped working: it was removed or shut down")]
    Lost {
        /// The interface's name.
        interface: String,
    },
    /// Anything else the tunnel's implementation reports.
    #[error("the tunnel failed to {action}: {reason}")]
    Other {
        /// What was tried.
        action: &'static str,
        /// What it said.
        reason: String,
    },
}

/// What the tunnel has, for [`crate::diff`].
pub(crate) type Observed = TunnelState;
