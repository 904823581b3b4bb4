//! Why a session ended.

use super::PROTOCOL;
use crate::id::{ClusterId, MachineId};
use crate::wire::FrameError;

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer belongs to another cluster. Do not try again before the configuration has changed.
    #[error("peer {peer} belongs to cluster {theirs}, we belong to {ours}")]
    OtherCluster {
        /// Who was meant.
        peer: MachineId,
        /// Its cluster.
        theirs: ClusterId,
        /// Our cluster.
        ours: ClusterId,
    },
    /// Another machine than expected answers.
    #[error("expected machine {expected}, but {found} answers")]
    OtherMachine {
        /// Who was meant.
        expected: MachineId,
        /// Who answers.
        found: MachineId,
    },
    /// No protocol in common.
    #[error(
        "peer {peer} speaks replication protocol {theirs}, this machine {PROTOCOL}: upgrade the older one"
    )]
    Protocol {
        /// Who was meant.
        peer: MachineId,
        /// The newest protocol it speaks.
        theirs: u16,
    },
    /// The peer refused us.
    #[error("peer {peer} refused the session: {why}")]
    Refused {
        /// Who was meant.
        peer: MachineId,
        /// Its reason.
        why: &'static str,
    },
    /// The peer sent what no sound peer sends.
    #[error("peer {peer} sent a bad frame: {source}")]
    BadFrame {
        /// Who sent it.
        peer: MachineId,
        /// What is wrong with it.
        source: FrameError,
    },
    /// Nothing came from the peer for too long.
    #[error("nothing from peer {peer} for {seconds} s")]
    Silent {
        /// Who was meant.
        peer: MachineId,
        /// How long.
        seconds: u64,
    },
    /// More records of unknown form than are kept.
    #[error("peer {peer} has more than {limit} records of unknown form: upgrade this machine")]
    TooManyUnknown {
        /// Who sent them.
        peer: MachineId,
        /// The limit.
        limit: usize,
    },
    /// This machine goes on as a new incarnation, because peers knew more of its past than its
    /// store. Start again.
    #[error("this machine has a new incarnation: start the session again")]
    NewIncarnation,
    /// Deletes were forgotten here that the peer never had. It has to fetch everything anew, which
    /// it does by itself.
    #[error("peer {peer} was away for so long that it has to fetch everything anew first")]
    PeerBehind {
        /// Who was meant.
        peer: MachineId,
    },
    /// Deletes were forgotten during the session that the peer does not have yet. The next one
    /// settles it.
    #[error("deletes were forgotten that peer {peer} may not have: start the session again")]
    Outgrown {
        /// Who was meant.
        peer: MachineId,
    },
    /// This machine has to fetch everything anew from another: it was away for too long, or its
    /// store is an old copy. The next session does it.
    #[error("this machine has to fetch everything anew: start a session")]
    Rejoin,
    /// This machine fetches everything anew in another session.
    #[error("this machine is busy fetching everything anew from another peer")]
    Rejoining,
    /// Another process writes under this machine's id.
    #[error("another process writes as this machine: a copy of its data directory is in use")]
    Twin,
    /// Our store was closed.
    #[error("the store is closed")]
    Closed,
}
