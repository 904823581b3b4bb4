//! Who wrote what: machines, clusters, actors and dots. Opaque to everybody but the one who makes
//! them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Versions and incarnations stay below this, so that they fit SQLite's signed integers with room
/// to raise them.
pub(crate) const MAX_COUNTER: u64 = 1 << 62;

/// A machine, for as long as it is a member of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MachineId(pub [u8; 16]);

/// A cluster. Machines of different clusters exchange nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

fn hex(bytes: [u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(self.0, f)
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MachineId({self})")
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(self.0, f)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

/// One life of a machine's store. A new incarnation begins whenever version numbers might have been
/// lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// The machine.
    pub machine: MachineId,
    /// Grows; never used by two lives of one store.
    pub incarnation: u64,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.machine, self.incarnation)
    }
}

/// One change: the actor that made it and its number there, counted from 1 without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who made the change.
    pub actor: Actor,
    /// Its number.
    pub version: u64,
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.actor, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_as_hex() {
        let mut bytes = [0; 16];
        bytes[0] = 0xab;
        bytes[15] = 7;
        assert_eq!(
            MachineId(bytes).to_string(),
            "ab000000000000000000000000000007"
        );
        assert_eq!(
            ClusterId(bytes).to_string(),
            "ab000000000000000000000000000007"
        );
        let dot = Dot {
            actor: Actor {
                machine: MachineId(bytes),
                incarnation: 3,
            },
            version: 9,
        };
        assert_eq!(dot.to_string(), "ab000000000000000000000000000007/3:9");
    }
}
