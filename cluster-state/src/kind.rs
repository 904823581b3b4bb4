//! Kinds of records and the limits on them. The owner of the store declares its kinds in one place;
//! the store never looks into a value.

use std::sync::Arc;

use crate::id::MachineId;

/// Largest record: key and value together, in bytes. Larger bodies live outside, by content hash.
pub const MAX_RECORD: usize = 256 * 1024;
/// Most records in one call of `Store::write`.
pub const MAX_TRANSACTION: usize = 1_000;
/// Longest key in bytes.
pub const MAX_KEY: usize = 512;

/// How records of a kind are written and merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Facts about a machine, written by that machine only.
    Observation,
    /// What a person asked for, written by anyone. Concurrent values are all kept, one is active.
    Intent,
    /// Something only one can have (a name, a subnet), claimed by anyone. The first claim holds.
    Claim,
    /// What happened on a machine, appended and trimmed by that machine only.
    Log,
    /// Facts about the cluster that only grow: the highest epoch stands. Written by anyone, never
    /// deleted.
    Registry,
}

/// A kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its number in storage and on the wire; never given to another kind.
    pub id: u16,
    /// For people.
    pub name: &'static str,
    /// How it is merged; never changed.
    pub class: Class,
}

/// Kinds from here on are the store's own.
pub(crate) const FIRST_RESERVED: u16 = 0xff00;
/// Who is a member: registry, key = machine id.
pub(crate) const MEMBERS: u16 = 0xff00;
/// What a member has, as far as tombstones wait for it: intent, key = machine id.
pub(crate) const ACKS: u16 = 0xff01;

static RESERVED: [Kind; 2] = [
    Kind {
        id: MEMBERS,
        name: "member",
        class: Class::Registry,
    },
    Kind {
        id: ACKS,
        name: "acknowledgement",
        class: Class::Intent,
    },
];

/// The declaration of a kind.
pub(crate) fn find(kinds: &[Kind], id: u16) -> Option<Kind> {
    RESERVED
        .iter()
        .chain(kinds)
        .find(|kind| kind.id == id)
        .copied()
}

/// Names one record of the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// The kind.
    pub kind: u16,
    /// The machine an observation or a log is about; none for the others.
    pub owner: Option<MachineId>,
    /// The key within the kind (and owner).
    pub key: Arc<str>,
}
