//! Kinds of records and the limits on them. The owner of the store declares its kinds in one place; the store
//! never looks into a value.

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
    /// What a person asked for, written by anyone.
    Intent,
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

/// Names one record of the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// The kind.
    pub kind: u16,
    /// The machine an observation is about; none for intent.
    pub owner: Option<MachineId>,
    /// The key within the kind (and owner).
    pub key: Arc<str>,
}
