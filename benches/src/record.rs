//! The records that are measured: each value starts with the time of its write.

use std::time::{SystemTime, UNIX_EPOCH};

use uc_cluster_state::{Class, Kind, Write};

/// The kind of all records here.
pub(crate) const RECORD: u16 = 1;
pub(crate) const KINDS: &[Kind] = &[Kind {
    id: RECORD,
    name: "record",
    class: Class::Intent,
}];

/// Nanoseconds since 1970 by the clock that all processes of this machine share.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

/// A record whose value starts with the time.
pub(crate) fn stamped(key: String, size: usize) -> Write {
    let mut value = vec![b'v'; size.max(8)];
    value[..8].copy_from_slice(&now_ns().to_le_bytes());
    Write::Put {
        kind: RECORD,
        key,
        value,
    }
}
