//! The tunnel as a trait, so that the mesh process can use WireGuard in user space or in the
//! kernel, or a fake in tests.

#[cfg(test)]
mod fake;
mod host;
mod user_space;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;

#[cfg(test)]
pub(crate) use self::fake::Fake;
pub use self::user_space::UserSpace;
use crate::config::MeshConfig;
use crate::diff::TunnelState;
use crate::key::PublicKey;

/// A WireGuard interface with its addresses and routes.
///
/// Applying a configuration does not set endpoints: a new peer has none until
/// [`set_endpoints`](Tunnel::set_endpoints), and an existing one keeps its own.
#[async_trait]
pub trait Tunnel: Send {
    /// Changes the tunnel to `config`, touching only what differs. The caller has validated
    /// `config`. After an error, a part may have been applied; applying again completes it.
    async fn apply(&mut self, config: &MeshConfig) -> Result<Applied, TunnelError>;

    /// Sends the packets of these peers to these endpoints from now on, and starts a handshake with
    /// each peer that has no session. Unknown peers are skipped.
    async fn set_endpoints(
        &mut self,
        endpoints: &[(PublicKey, SocketAddr)],
    ) -> Result<(), TunnelError>;

    /// All peers; empty before the first configuration.
    async fn peers(&mut self) -> Result<Vec<TunnelPeer>, TunnelError>;

    /// Waits until the tunnel has stopped working for good. Never returns while the tunnel is
    /// closed. The future can be dropped and the method called again.
    async fn failed(&mut self) -> TunnelError;

    /// Removes the interface with its addresses and routes. Closing a closed tunnel succeeds.
    async fn close(&mut self) -> Result<(), TunnelError>;
}

/// What applying a configuration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The open tunnel was changed. Peers that were kept still have their sessions.
    Changed,
    /// The tunnel was opened, and has no session and no endpoint.
    Opened,
}

/// A peer of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelPeer {
    pub public_key: PublicKey,
    /// Where packets are sent: the endpoint that was set, or where the peer's packets came from
    /// last.
    pub endpoint: Option<SocketAddr>,
    /// `None` without a session.
    pub handshake_age: Option<Duration>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// Addresses whose traffic is sent to this peer.
    pub allowed_ips: Vec<ipnet::IpNet>,
}

/// What can go wrong with a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// `/dev/net/tun` cannot be used.
    #[error("cannot open interface {interface} on /dev/net/tun: {reason}; {hint}")]
    Open {
        interface: String,
        reason: String,
        hint: &'static str,
    },
    /// The UDP port is taken.
    #[error("cannot listen on UDP port {port}: {reason}")]
    Listen { port: u16, reason: String },
    /// The kernel refused an address, a route or a setting.
    #[error("cannot {action} on interface {interface}: {reason}")]
    Netlink {
        /// What failed, such as `add address 10.210.0.1/32`.
        action: String,
        interface: String,
        reason: String,
    },
    /// The kernel has no IPv6, which the management address needs.
    #[error(
        "IPv6 is disabled in this kernel, but the mesh needs it inside the tunnel: {path}: {source}; boot without ipv6.disable=1"
    )]
    NoIpv6 {
        path: String,
        #[source]
        source: io::Error,
    },
    /// Another program removed the interface or shut it down.
    #[error("interface {interface} stopped working: it was removed or shut down")]
    Lost { interface: String },
    /// Any other error of the tunnel's implementation.
    #[error("the tunnel failed to {action}: {reason}")]
    Other {
        action: &'static str,
        reason: String,
    },
}

/// The existing tunnel, for [`crate::diff`].
pub(crate) type Observed = TunnelState;
