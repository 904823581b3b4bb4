//! Which machines are alive: SWIM over UDP, by `foca`. The protocol is foca's; this module adds a
//! socket, timers, and the list of members. Liveness is each machine's own view and is never
//! replicated.
//!
//! Every datagram is sealed with a key that only the two machines know, so no other process can
//! speak as a member.
//!
//! foca cannot find its way back after it has lost all peers. So this module keeps announcing the
//! machine to all known peers that are not active.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::id::MachineId;

pub(crate) mod driver;
pub(crate) mod identity;
pub(crate) mod seal;

pub use seal::PairKey;

/// In each period one peer is probed. A peer that answers neither directly nor through others
/// within it is suspected.
const PROBE_PERIOD: Duration = Duration::from_millis(800);
/// Time limit for a direct answer. After it, other members are asked to probe.
const PROBE_RTT: Duration = Duration::from_millis(400);
/// A suspect that does not object within this time is down. Among three machines, suspicion starts
/// at most 3 s after a death (two probers, each within two periods and the failing one). So a
/// machine is down within 8 s.
const SUSPECT_TO_DOWN: Duration = Duration::from_secs(4);
/// Datagrams fit the mesh's MTU.
pub(crate) const MAX_DATAGRAM: usize = 1_200;
/// What foca has of a datagram.
pub(crate) const MAX_PAYLOAD: usize = MAX_DATAGRAM - seal::OVERHEAD;
/// Time between announcements to peers that are not active, before jitter.
const ANNOUNCE: Duration = Duration::from_secs(1);
/// A peer that was never heard is a suspect for this long, then down.
const UNHEARD: Duration = Duration::from_secs(8);
/// Calls of `set_peers` that can wait. The last one counts.
const COMMANDS: usize = 16;

/// This machine's view of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Liveness {
    /// It answers.
    Up,
    /// It did not answer, or was not heard yet. It may be dead.
    Suspect,
    /// It is dead, or no member can reach it.
    Down,
}

/// A machine to watch. Nothing is sent to other machines, and nothing is accepted from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// The secret that this machine shares with the peer, and with no other machine.
    pub key: PairKey,
}

/// The running failure detector.
#[derive(Debug)]
pub struct Membership {
    peers: mpsc::Sender<BTreeMap<MachineId, Peer>>,
    liveness: watch::Receiver<BTreeMap<MachineId, Liveness>>,
}

impl Membership {
    /// Starts on a bound socket, without peers. `incarnation` must be higher at each start: use
    /// `Store::starts`. Ends when `cancel` is cancelled, and then tells the other members that
    /// this machine leaves.
    pub fn start(
        socket: UdpSocket,
        me: MachineId,
        incarnation: u64,
        cancel: CancellationToken,
    ) -> std::io::Result<Self> {
        let address = socket.local_addr()?;
        let (peers, commands) = mpsc::channel(COMMANDS);
        let (publish, liveness) = watch::channel(BTreeMap::new());
        let me = identity::Identity {
            machine: me,
            incarnation,
            renewal: 0,
            address,
        };
        tokio::spawn(driver::run(
            driver::Driver::new(socket, me, publish, seal::FORGET_AFTER),
            commands,
            cancel,
        ));
        Ok(Self { peers, liveness })
    }

    /// Sets the machines to watch, without this machine. Replaces the previous list.
    pub async fn set_peers(&self, peers: BTreeMap<MachineId, Peer>) {
        // The task ends only when it was cancelled, and then no caller depends on the list.
        let _ = self.peers.send(peers).await;
    }

    /// Returns this machine's view of each peer in the list.
    pub fn liveness(&self) -> watch::Receiver<BTreeMap<MachineId, Liveness>> {
        self.liveness.clone()
    }
}

#[cfg(test)]
mod tests;
