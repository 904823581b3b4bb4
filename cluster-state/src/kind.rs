//! Kinds of records and the limits on them. The store's owner declares its kinds in one place. The
//! store never looks into a value.

use std::sync::Arc;

use crate::id::MachineId;

/// Maximum size of a record in bytes, key and value together. A larger body is stored elsewhere
/// under its content hash.
pub const MAX_RECORD: usize = 256 * 1024;
/// Maximum number of records in one call of `Store::write`.
pub const MAX_TRANSACTION: usize = 1_000;
/// Maximum length of a key in bytes.
pub const MAX_KEY: usize = 512;

/// How records of a kind are written and merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Observations about a machine, written by that machine only.
    Observation,
    /// What a user asked for, written by any machine. Concurrent values are all kept, and one is
    /// active.
    Intent,
    /// Something that only one machine can have, such as a name or a subnet. Any machine can claim
    /// it. The first claim holds.
    Claim,
    /// Events on a machine, appended and trimmed by that machine only.
    Log,
    /// Facts about the cluster that only grow: the highest epoch counts. Any machine writes them;
    /// they are never deleted.
    Registry,
}

/// A kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its number on disk and on the wire. It is never given to another kind.
    pub id: u16,
    /// Its name, for messages.
    pub name: &'static str,
    /// How it is merged. It never changes.
    pub class: Class,
}

/// Kinds from this number on belong to the store itself.
pub(crate) const FIRST_RESERVED: u16 = 0xff00;
/// Membership of a machine: registry, key = machine id.
pub(crate) const MEMBERS: u16 = 0xff00;
/// Acknowledgement of a member, as far as tombstones wait for it: intent, key = machine id.
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

/// Returns the declaration of a kind.
pub(crate) fn find(kinds: &[Kind], id: u16) -> Option<Kind> {
    RESERVED
        .iter()
        .chain(kinds)
        .find(|kind| kind.id == id)
        .copied()
}

/// The identity of one record of the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    pub kind: u16,
    /// The machine that an observation or a log belongs to. `None` for other classes.
    pub owner: Option<MachineId>,
    /// The key within the kind, and within the owner if there is one.
    pub key: Arc<str>,
}

/// The two maps of records that any machine writes. A record of one is never merged with one of the
/// other, even if a faulty peer uses one kind and key for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    Intent,
    Claim,
}

/// An intent or a claim.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordKey {
    pub(crate) slot: Slot,
    pub(crate) kind: u16,
    pub(crate) key: Arc<str>,
}

impl RecordKey {
    pub(crate) fn intent(kind: u16, key: &str) -> Self {
        Self {
            slot: Slot::Intent,
            kind,
            key: Arc::from(key),
        }
    }

    pub(crate) fn claim(kind: u16, key: &str) -> Self {
        Self {
            slot: Slot::Claim,
            kind,
            key: Arc::from(key),
        }
    }
}
