//! The identity of a member in foca.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::MachineId;

/// A machine in one incarnation. No clock is involved, because a clock that steps back must not
/// lock a machine out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) machine: MachineId,
    /// Grows with each start.
    pub(crate) incarnation: u64,
    /// Grows each time the machine learns that it was declared down.
    pub(crate) renewal: u32,
    pub(crate) address: SocketAddr,
}

impl foca::Identity for Identity {
    type Addr = MachineId;

    fn renew(&self) -> Option<Self> {
        Some(Self {
            renewal: self.renewal.checked_add(1)?,
            ..*self
        })
    }

    fn addr(&self) -> MachineId {
        self.machine
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }
}

impl Identity {
    /// Each renewal counts double. A store that was restored from a copy starts with a lower
    /// incarnation than its peers remember. So the machine overtakes that number after a few
    /// renewals.
    fn rank(&self) -> (u64, u64, u32, SocketAddr) {
        let renewed = self
            .incarnation
            .saturating_add((1 << self.renewal.min(62)) - 1);
        (renewed, self.incarnation, self.renewal, self.address)
    }
}

#[cfg(test)]
mod tests {
    use foca::Identity as _;

    use super::*;

    #[test]
    fn identity_wins_after_renewal_or_restart() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let first = Identity {
            machine: MachineId([1; 16]),
            incarnation: 7,
            renewal: 0,
            address,
        };
        let mut id = first;
        for _ in 0..40 {
            let next = id.renew().unwrap();
            assert!(next.win_addr_conflict(&id) && !id.win_addr_conflict(&next));
            id = next;
        }
        let restarted = Identity {
            incarnation: 8,
            ..first
        };
        assert!(restarted.win_addr_conflict(&first));
        assert!(!first.win_addr_conflict(&first));
        let mut restored = Identity {
            incarnation: 1,
            ..first
        };
        let mut renewals = 0;
        while !restored.win_addr_conflict(&restarted) {
            restored = restored.renew().unwrap();
            renewals += 1;
        }
        assert!(renewals <= 4, "{renewals}");
    }
}
