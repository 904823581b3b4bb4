//! Version vectors: per actor the version up to which everything is known.

use std::collections::BTreeMap;

use crate::id::{Actor, Dot};

/// "Everything that actor A changed, up to version v, is here or has been replaced by something
/// newer." An actor that is not listed stands at 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionVector(BTreeMap<Actor, u64>);

impl VersionVector {
    /// The version up to which `actor` is known; 0 for none.
    pub fn get(&self, actor: Actor) -> u64 {
        self.0.get(&actor).copied().unwrap_or(0)
    }

    /// Whether the dot is included.
    pub fn includes(&self, dot: Dot) -> bool {
        dot.version <= self.get(dot.actor)
    }

    /// All actors above 0, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Actor, u64)> + '_ {
        self.0.iter().map(|(actor, version)| (*actor, *version))
    }

    /// Number of actors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Raises an actor to `version`; never lowers it.
    pub(crate) fn raise(&mut self, actor: Actor, version: u64) {
        if version > 0 {
            let slot = self.0.entry(actor).or_insert(0);
            *slot = version.max(*slot);
        }
    }

    /// The actors that stand higher here than in `other`: (actor, there, here).
    pub(crate) fn above<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (Actor, u64, u64)> + 'a {
        self.iter().filter_map(|(actor, here)| {
            let there = other.get(actor);
            (here > there).then_some((actor, there, here))
        })
    }
}

impl FromIterator<(Actor, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (Actor, u64)>>(entries: I) -> Self {
        let mut vector = Self::default();
        for (actor, version) in entries {
            vector.raise(actor, version);
        }
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MachineId;

    fn actor(n: u8) -> Actor {
        Actor {
            machine: MachineId([n; 16]),
            incarnation: 1,
        }
    }

    #[test]
    fn raise_never_lowers() {
        let mut vector = VersionVector::default();
        vector.raise(actor(1), 5);
        vector.raise(actor(1), 3);
        assert_eq!(vector.get(actor(1)), 5);
        vector.raise(actor(2), 0);
        assert_eq!(vector.len(), 1);
    }

    #[test]
    fn above_lists_what_the_other_lacks() {
        let mine: VersionVector = [(actor(1), 5), (actor(2), 2), (actor(3), 1)]
            .into_iter()
            .collect();
        let theirs: VersionVector = [(actor(1), 4), (actor(2), 2), (actor(4), 9)]
            .into_iter()
            .collect();
        assert_eq!(
            mine.above(&theirs).collect::<Vec<_>>(),
            [(actor(1), 4, 5), (actor(3), 0, 1)]
        );
        assert!(mine.includes(Dot {
            actor: actor(1),
            version: 5
        }));
        assert!(!mine.includes(Dot {
            actor: actor(4),
            version: 1
        }));
    }
}
