//! Who is alive: SWIM by `foca` over UDP. The protocol is foca's; this module gives it a socket,
//! timers, and the members to look for. Liveness is each machine's own view and is never
//! replicated.
//!
//! foca forgets how to come back when it has lost everybody, so all known peers that are not active
//! are announced to again and again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::id::MachineId;

mod driver;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod identity;

/// Each period one peer is probed; a peer that does not answer in it, directly or through others,
/// is suspected.
const PROBE_PERIOD: Duration = Duration::from_millis(800);
/// A direct answer must come within this; then others are asked to probe.
const PROBE_RTT: Duration = Duration::from_millis(400);
/// A suspect that does not speak up for this long is down. Suspicion comes at most 3 s after death
/// among three machines (two probers, each within two periods and the one that fails), so down
/// comes within 8 s.
const SUSPECT_TO_DOWN: Duration = Duration::from_secs(4);
/// Datagrams fit the mesh's MTU.
const MAX_PACKET: usize = 1_200;
/// How often peers that are not active are announced to, before jitter.
const ANNOUNCE: Duration = Duration::from_secs(1);
/// A peer that was never heard of is "suspect" for this long, then "down".
const UNHEARD: Duration = Duration::from_secs(8);
/// Calls of `set_peers` that wait; the last one counts.
const COMMANDS: usize = 16;

/// What this machine thinks of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Liveness {
    /// It answers.
    Up,
    /// It did not answer, or has not been heard of yet: perhaps dead.
    Suspect,
    /// It is dead or cannot be reached by anybody.
    Down,
}

/// The running failure detector.
#[derive(Debug)]
pub struct Membership {
    peers: mpsc::Sender<BTreeMap<MachineId, SocketAddr>>,
    liveness: watch::Receiver<BTreeMap<MachineId, Liveness>>,
}

impl Membership {
    /// Starts on a bound socket, whose address others use to reach this machine unless they know a
    /// better one. `incarnation` must be higher at each start: `Store::starts`. Ends when `cancel`
    /// is cancelled, telling the others that this machine leaves.
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
            driver::Driver::new(socket, me, publish),
            commands,
            cancel,
        ));
        Ok(Self { peers, liveness })
    }

    /// The machines to watch and where they listen, without this one. Replaces the last list.
    pub async fn set_peers(&self, peers: Vec<(MachineId, SocketAddr)>) {
        // The task has ended only when it was cancelled: nobody is interested any more.
        let _ = self.peers.send(peers.into_iter().collect()).await;
    }

    /// The peers of the list and what this machine thinks of each.
    pub fn liveness(&self) -> watch::Receiver<BTreeMap<MachineId, Liveness>> {
        self.liveness.clone()
    }
}

#[cfg(test)]
mod tests;
