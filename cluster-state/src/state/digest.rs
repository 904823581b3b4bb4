//! Digests: sums of the hashes of the live changes, by kind and bucket of the key. Machines with
//! equal watermarks, and without changes above a gap or in quarantine, have equal digests. If they
//! do not, the buckets show which records to send again.
//!
//! Tombstones that nothing contradicts are left out, because each machine collects them in its own
//! time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::State;
use crate::op::Op;

/// Buckets for each kind.
pub(crate) const BUCKETS: usize = 256;

/// The sums of one kind.
pub(crate) type Buckets = Vec<u128>;

#[derive(Debug, Clone, Default)]
pub(super) struct Digests {
    kinds: Arc<BTreeMap<u16, Arc<Buckets>>>,
}

/// Spreads keys over the buckets. Any function is good enough, as long as it never changes.
pub(super) fn bucket(key: &str) -> usize {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 32) as usize % BUCKETS
}

impl Digests {
    pub(super) fn add(&mut self, op: &Op) {
        self.change(op, u128::wrapping_add);
    }

    pub(super) fn subtract(&mut self, op: &Op) {
        self.change(op, u128::wrapping_sub);
    }

    fn change(&mut self, op: &Op, by: fn(u128, u128) -> u128) {
        let kinds = Arc::make_mut(&mut self.kinds);
        let buckets = kinds
            .entry(op.kind)
            .or_insert_with(|| Arc::new(vec![0; BUCKETS]));
        if let Some(sum) = Arc::make_mut(buckets).get_mut(bucket(&op.key)) {
            *sum = by(*sum, op.hash);
        }
    }
}

impl State {
    /// Returns the digest of everything.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for (kind, buckets) in self.bucket_sums() {
            hasher.update(&kind.to_le_bytes());
            for sum in buckets {
                hasher.update(&sum.to_le_bytes());
            }
        }
        *hasher.finalize().as_bytes()
    }

    /// Returns the sums of all kinds that have live changes.
    pub(crate) fn bucket_sums(&self) -> impl Iterator<Item = (u16, &Buckets)> {
        let present = |(_, buckets): &(&u16, &Arc<Buckets>)| buckets.iter().any(|sum| *sum != 0);
        self.digests
            .kinds
            .iter()
            .filter(present)
            .map(|(kind, buckets)| (*kind, &**buckets))
    }

    /// Returns a hash of the watermarks and of the changes above them.
    pub(crate) fn watermarks_hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut add = |actor: crate::id::Actor, version: u64| {
            hasher.update(&actor.machine.0);
            hasher.update(&actor.incarnation.to_le_bytes());
            hasher.update(&version.to_le_bytes());
        };
        self.watermarks()
            .for_each(|(actor, version)| add(actor, version));
        self.above_gaps()
            .for_each(|dot| add(dot.actor, dot.version));
        *hasher.finalize().as_bytes()
    }

    /// Returns the live changes in some buckets of a kind.
    pub(crate) fn ops_in_buckets(&self, kind: u16, wanted: &BTreeSet<usize>) -> Vec<Arc<Op>> {
        self.ops()
            .filter(|op| op.kind == kind && wanted.contains(&bucket(&op.key)))
            .cloned()
            .collect()
    }
}
