//! Why a session ended.

use super::PROTOCOL;
use crate::id::{ClusterId, MachineId};
use crate::wire::FrameError;

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer belongs to another cluster. The caller should not retry before the configuration
    /// changes.
    #[error("peer {peer} belongs to cluster {theirs}, this machine to {ours}")]
    OtherCluster {
        peer: MachineId,
        theirs: ClusterId,
        ours: ClusterId,
    },
    /// Another machine than expected answers.
    #[error("expected machine {expected}, but {found} answers")]
    OtherMachine {
        expected: MachineId,
        /// The machine that answers.
        found: MachineId,
    },
    /// There is no common protocol.
    #[error(
        "peer {peer} uses replication protocol {theirs}, this machine {PROTOCOL}: upgrade the older one"
    )]
    Protocol {
        peer: MachineId,
        /// The newest protocol that the peer supports.
        theirs: u16,
    },
    /// The peer refused the session.
    #[error("peer {peer} refused the session: {why}")]
    Refused { peer: MachineId, why: &'static str },
    /// The peer sent a frame that no correct peer sends.
    #[error("peer {peer} sent an invalid frame: {source}")]
    BadFrame { peer: MachineId, source: FrameError },
    /// The peer was silent for too long.
    #[error("peer {peer} sent nothing for {seconds} s")]
    Silent { peer: MachineId, seconds: u64 },
    /// More records of an unknown format than are kept.
    #[error("peer {peer} has more than {limit} records in an unknown format: upgrade this machine")]
    TooManyUnknown { peer: MachineId, limit: usize },
    /// This machine continues as a new incarnation, because peers knew changes of it that its store
    /// did not. The session must be started again.
    #[error("this machine has a new incarnation: restart the session")]
    NewIncarnation,
    /// This store has forgotten deletes that the peer never had. The peer must fetch everything
    /// again, which it does automatically.
    #[error("peer {peer} was away too long: it must fetch everything again first")]
    PeerBehind { peer: MachineId },
    /// This store forgot deletes during the session that the peer does not have yet. The next
    /// session settles it.
    #[error("deletes were forgotten that peer {peer} may not have: restart the session")]
    Outgrown { peer: MachineId },
    /// This machine must fetch everything again from another one: it was away too long, or its
    /// store is an old copy. The next session does that.
    #[error("this machine must fetch everything again: start a session")]
    Rejoin,
    /// Another session of this machine is fetching everything.
    #[error("this machine is already fetching everything from another peer")]
    Rejoining,
    /// Another process writes under this machine's id.
    #[error("another process writes as this machine: a copy of its data directory is in use")]
    Twin,
    #[error("the store is closed")]
    Closed,
}
