//! Ids of machines and clusters, and the names of changes: actors and dots. The store does not
//! interpret the ids.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Versions and incarnations stay below this value, so that they fit SQLite's signed integers with
/// room to grow.
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

/// One incarnation of a machine's store. A new one starts whenever version numbers could have been
/// lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Actor {
    pub machine: MachineId,
    /// Grows. Two incarnations of one store never have the same number.
    pub incarnation: u64,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.machine, self.incarnation)
    }
}

/// One change: the actor that made it, and the actor's number for it, counted from 1 without holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// The actor that made the change.
    pub actor: Actor,
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
    fn ids_are_printed_as_hex() {
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
