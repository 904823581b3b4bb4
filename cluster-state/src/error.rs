//! Why a write did not happen. Every layer from `local` to `store` returns these errors.

use std::path::PathBuf;

use crate::id::MachineId;
use crate::kind::{Class, MAX_RECORD, MAX_TRANSACTION};
use crate::op::MAX_CONTEXT;
use crate::state::Rejected;

/// Why a write did not happen. Nothing of it is stored anywhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The kind is not declared.
    #[error("kind {kind} is not declared")]
    UnknownKind { kind: u16 },
    /// The call does not fit the kind's class: `write` is for intents, `publish` for observations.
    #[error("kind {kind} ({name}) is of class {class:?}")]
    WrongClass {
        kind: u16,
        name: &'static str,
        class: Class,
    },
    /// The key is empty or too long.
    #[error(
        "invalid key of {bytes} bytes in kind {kind}: use 1 to {} bytes",
        crate::kind::MAX_KEY
    )]
    BadKey {
        kind: u16,
        /// The key's length.
        bytes: usize,
    },
    /// One set contains the same key twice.
    #[error("duplicate key `{key}` of kind {kind}")]
    DuplicateKey { kind: u16, key: String },
    /// Key and value are too large. A large body must be stored elsewhere under its content hash.
    #[error(
        "record `{key}` of kind {kind} has {bytes} bytes, but at most {MAX_RECORD} are allowed"
    )]
    RecordTooLarge {
        kind: u16,
        key: String,
        /// Bytes of key and value together.
        bytes: usize,
    },
    /// The transaction has too many records. Split it into parts that are valid on their own.
    #[error("transaction has {records} records, but at most {MAX_TRANSACTION} are allowed")]
    TransactionTooLarge { records: usize },
    /// The record's causal context is full.
    #[error("record `{key}` of kind {kind} was written by more than {MAX_CONTEXT} incarnations")]
    TooManyWriters { kind: u16, key: String },
    /// The record has too many groups of fields.
    #[error(
        "record `{key}` of kind {kind} has {groups} groups of fields, but at most {} are allowed",
        crate::op::MAX_GROUPS
    )]
    TooManyGroups {
        kind: u16,
        key: String,
        groups: usize,
    },
    /// The conflict is no longer the one that should be settled. The caller must look at it again.
    #[error("the values of `{key}` of kind {kind} have changed in the meantime")]
    Changed { kind: u16, key: String },
    /// Another machine has claimed the key. The caller must choose another key, or wait until it is
    /// released.
    #[error("`{key}` of kind {kind} is claimed by machine {by}")]
    Claimed {
        kind: u16,
        key: String,
        /// The machine that holds the claim.
        by: MachineId,
    },
    /// A registry record only goes up. The caller must read it again and decide again.
    #[error("record `{key}` of kind {kind} is at epoch {known}, so epoch {epoch} is not newer")]
    EpochTooLow {
        kind: u16,
        key: String,
        /// The record's epoch.
        known: u64,
        /// The requested epoch.
        epoch: u64,
    },
    /// Another process uses a copy of this machine's store under this machine's id. Only one of the
    /// two can continue.
    #[error(
        "another process writes as this machine, {machine}: a copy of its data directory is in use; stop one of the two processes"
    )]
    Twin { machine: MachineId },
    /// A peer has an acknowledgement of ours that this store does not remember. So this store is an
    /// old copy, and everything is fetched again. Never the answer to a write.
    #[error("this store is an old copy: fetching everything again")]
    Forgotten,
    /// The disk is full. Reading, receiving and membership continue.
    #[error("no space left for store {path}: free some space and try again")]
    DiskFull { path: PathBuf },
    /// The disk or SQLite failed.
    #[error("cannot write to store {path}: {reason}")]
    Storage {
        path: PathBuf,
        /// SQLite's message.
        reason: String,
    },
    /// More records of an unknown format than are kept.
    #[error(transparent)]
    TooManyOpaque(#[from] TooManyOpaqueRecords),
    #[error("the store is closed")]
    Closed,
}

/// More records of an unknown format than the store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {} records in an unknown format: upgrade this machine",
    crate::state::MAX_OPAQUE
)]
pub struct TooManyOpaqueRecords;

impl From<Rejected> for WriteError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::TooManyOpaque => Self::TooManyOpaque(TooManyOpaqueRecords),
            Rejected::Forgotten => Self::Forgotten,
        }
    }
}
