//! The WireGuard mesh of a cluster: keys, addresses, the choice of endpoints, and the tunnel
//! itself.
//!
//! The tunnel runs in its own process (`ucd mesh`, [`run()`]), so that stopping or upgrading the
//! daemon drops no packet. The daemon talks to it through a Unix socket that only root can open
//! ([`MeshClient`]). It sends a complete [`MeshConfig`], which is applied incrementally, written to
//! disk, and only then acknowledged. It reads back a [`MeshStatus`].
//!
//! The pure parts are [`diff`] (the steps from the observed to the wanted tunnel) and [`endpoint`]
//! (which of a peer's addresses to try when). The tunnel is behind the trait [`Tunnel`].
//! [`UserSpace`] runs WireGuard in this process over a TUN device; a fake stands for it in tests. A
//! back end for the kernel's own WireGuard would fit the same trait. [`guard`] has the firewall
//! rules that are in place before the tunnel has an address, and [`firewall`] what makes such
//! rules.
//!
//! This crate knows nothing about services, containers or the replicated store. Its caller decides
//! who the peers are, and resolves host names: a [`PeerConfig`] has socket addresses only.

pub mod client;
pub mod config;
pub mod control;
pub mod diff;
pub mod endpoint;
mod error;
pub mod firewall;
pub mod guard;
pub mod key;
pub mod noise;
pub mod run;
pub mod status;
mod store;
pub mod tunnel;

pub use client::MeshClient;
pub use config::{DEFAULT_MTU, MeshConfig, PeerConfig};
pub use error::MeshError;
pub use guard::{Guard, IptablesGuard, PeerPorts};
pub use key::{MANAGEMENT_NETWORK, PrivateKey, PublicKey, management_address};
pub use run::{MeshPaths, run};
pub use status::{MeshStatus, PeerStatus};
pub use tunnel::{Tunnel, TunnelError, UserSpace};
