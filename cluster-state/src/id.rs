//! Ids of machines and clusters, and the names of changes: actors and dots. The store does not
//! interpret the ids.

use std::fmt;

use serde::{Deserialize, Serialize};
pub use uc_id::{ClusterId, MachineId};

/// Versions and incarnations stay below this value, so that they fit SQLite's signed integers with
/// room to grow.
pub(crate) const MAX_COUNTER: u64 = 1 << 62;

/// One incarnation of a machine's store. A new one starts whenever version numbers could have been
/// lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Actor {
    pub machine: MachineId,
    /// Grows. Two incarnations of one store never have the same number.
    pub incarnation: u64,
}

impl Actor {
    /// Returns the name of one of the actor's changes.
    pub(crate) fn dot(self, version: u64) -> Dot {
        Dot {
            actor: self,
            version,
        }
    }
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
    fn dot_prints_its_actor_and_version() {
        let mut bytes = [0; 16];
        bytes[0] = 0xab;
        bytes[15] = 7;
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
