//! Version vectors: for each actor, the version up to which everything is known.

use std::collections::BTreeMap;

use crate::id::{Actor, Dot};

/// For each actor, the watermark: every change of the actor up to this version is in the store or
/// was replaced by a newer one. An actor that is not listed is at 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionVector(BTreeMap<Actor, u64>);

impl VersionVector {
    /// Returns the watermark of `actor`, or 0.
    pub fn get(&self, actor: Actor) -> u64 {
        self.0.get(&actor).copied().unwrap_or(0)
    }

    /// Reports whether the vector covers the dot.
    pub fn includes(&self, dot: Dot) -> bool {
        dot.version <= self.get(dot.actor)
    }

    /// Returns all actors above 0, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Actor, u64)> + '_ {
        self.0.iter().map(|(actor, version)| (*actor, *version))
    }

    /// Returns the number of actors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Reports whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Raises an actor to `version`. Never lowers it.
    pub(crate) fn raise(&mut self, actor: Actor, version: u64) {
        if version > 0 {
            let slot = self.0.entry(actor).or_insert(0);
            *slot = version.max(*slot);
        }
    }

    /// Returns the actors that are higher here than in `other`, as (actor, version in `other`,
    /// version here).
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
