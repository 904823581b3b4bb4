//! The WireGuard mesh of a cluster: keys, addresses, which endpoint of which peer, and the tunnel
//! itself.
//!
//! The tunnel lives in a process of its own (`ucd mesh`, [`run()`]) so that stopping or upgrading
//! the daemon drops no packet. The daemon talks to it through a root-only Unix socket
//! ([`MeshClient`]): it hands over a complete [`MeshConfig`], which is applied incrementally,
//! written to disk and only then acknowledged; and it reads back a [`MeshStatus`].
//!
//! The pure parts are [`diff`] (what must change to get from what is there to what is wanted) and
//! [`endpoint`] (which of a peer's addresses to try when). The tunnel is behind the trait
//! [`Tunnel`]: [`UserSpace`] runs WireGuard in this process over a TUN device,
//! [`Fake`] is for tests; a back end for the kernel's own WireGuard fits the same trait.
//!
//! This crate knows nothing of services, containers or the replicated store: who the peers are is
//! decided by its caller.

pub mod client;
pub mod config;
pub mod control;
pub mod diff;
pub mod endpoint;
mod error;
pub mod key;
pub mod run;
pub mod status;
mod store;
pub mod tunnel;

pub use client::MeshClient;
pub use config::{DEFAULT_MTU, MeshConfig, PeerConfig};
pub use error::MeshError;
pub use key::{MANAGEMENT_NETWORK, PrivateKey, PublicKey, management_address};
pub use run::{MeshPaths, run};
pub use status::{MeshStatus, PeerStatus};
pub use tunnel::{Fake, Tunnel, TunnelError, UserSpace};
