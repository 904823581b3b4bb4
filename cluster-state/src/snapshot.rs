//! What readers see: one commit, immutable. Reading takes no lock and never waits.

use std::sync::Arc;

use crate::clock::Stamp;
use crate::id::{Dot, MachineId};
use crate::op::Content;
use crate::register::MAX_SIBLINGS;
use crate::state::State;
use crate::vector::VersionVector;

/// All records as of one commit.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(crate) state: State,
    pub(crate) number: u64,
}

/// One of several values that were written to a record concurrently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling<'a> {
    /// The write.
    pub dot: Dot,
    /// When it was written, by its writer's hybrid clock.
    pub stamp: Stamp,
    /// None: a delete.
    pub value: Option<&'a [u8]>,
}

/// A record that is kept and relayed, but not active, because its stamp is too far ahead of our clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined<'a> {
    /// The kind.
    pub kind: u16,
    /// The key.
    pub key: &'a str,
    /// The stamp that is not believed.
    pub stamp: Stamp,
}

impl Snapshot {
    /// The active value of an intent.
    pub fn get(&self, kind: u16, key: &str) -> Option<&[u8]> {
        self.state.register(kind, key).and_then(crate::register::Register::value)
    }

    /// All intents of a kind that are not deleted, by key.
    pub fn intents(&self, kind: u16) -> impl Iterator<Item = (&str, &[u8])> {
        self.state.registers(kind).filter_map(|(key, register)| register.value().map(|value| (key, value)))
    }

    /// Everything written to a record concurrently, the active value first, at most `MAX_SIBLINGS`. One entry: no
    /// conflict.
    pub fn siblings(&self, kind: u16, key: &str) -> Vec<Sibling<'_>> {
        let items = self.state.register(kind, key).map(crate::register::Register::items).unwrap_or_default();
        items
            .iter()
            .filter_map(|op| match (&op.content, op.stamp()) {
                (Content::Intent(intent), Some(stamp)) => {
                    Some(Sibling { dot: op.dot, stamp, value: intent.value.as_deref() })
                }
                _ => None,
            })
            .take(MAX_SIBLINGS)
            .collect()
    }

    /// One observation.
    pub fn observation(&self, kind: u16, owner: MachineId, key: &str) -> Option<&[u8]> {
        self.state.fact(kind, owner, key).and_then(|fact| fact.value.as_deref())
    }

    /// All observations of a kind, by owner and key.
    pub fn observations(&self, kind: u16) -> impl Iterator<Item = (MachineId, &str, &[u8])> {
        self.state
            .facts_from(kind, None)
            .filter_map(|((_, owner, key), fact)| fact.value.as_deref().map(|value| (*owner, &**key, value)))
    }

    /// The observations of a kind that one machine made, by key.
    pub fn observations_of(&self, kind: u16, owner: MachineId) -> impl Iterator<Item = (&str, &[u8])> {
        self.state
            .facts_of(kind, owner)
            .filter_map(|((_, _, key), fact)| fact.value.as_deref().map(|value| (&**key, value)))
    }

    /// Whether a machine has ever published its complete set of this kind: an empty answer without it means "not
    /// heard yet", not "nothing there".
    pub fn has_published(&self, kind: u16, owner: MachineId) -> bool {
        self.state.sweep(kind, owner).is_some()
    }

    /// The commit this is: grows by one with each commit since the store was opened.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Up to where each actor is known.
    pub fn version_vector(&self) -> &VersionVector {
        self.state.vector()
    }

    /// Records that wait for our clock.
    pub fn quarantined(&self) -> impl Iterator<Item = Quarantined<'_>> {
        self.state
            .quarantined()
            .filter_map(|op| op.stamp().map(|stamp| Quarantined { kind: op.kind, key: &op.key, stamp }))
    }

    /// Number of records of unknown form: from newer machines, or damaged.
    pub fn opaque(&self) -> usize {
        self.state.opaque()
    }

    /// A shared copy, for tests and drivers.
    pub(crate) fn shared(state: State, number: u64) -> Arc<Self> {
        Arc::new(Self { state, number })
    }
}
