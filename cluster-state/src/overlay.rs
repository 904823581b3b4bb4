//! Selects the neighbours of a machine. Up to `FULL_MESH` machines, all keep sessions with each
//! other; above that, each has a few neighbours.
//!
//! The overlay has `RINGS` rings. Each ring orders all members by a hash of ring and id, and a
//! machine's neighbours are those before and after it in each ring. So the overlay depends only on
//! the set of members and looks the same from both ends. It stays connected while at least one ring
//! is intact, and it has the short paths of a random graph. Few neighbours change when a member
//! joins or leaves. The set should contain the members that are alive, so that each side of a
//! partition closes its rings again.

use std::collections::BTreeSet;

use crate::id::MachineId;

/// Up to this number of members, all are neighbours of each other. A change then reaches all of
/// them in one hop, but almost every member sends it to each machine. Among 50 machines that would
/// be 48 times, where the rings send it 7 times.
pub const FULL_MESH: usize = 12;
/// Number of rings. A machine has at most twice as many neighbours.
///
/// Four is the smallest number with which the median of 1,000 machines has a change within 100 ms
/// at a round trip of 50 ms. Each further ring costs every machine about two messages for each
/// change (`cargo xtask bench sim`).
pub const RINGS: u64 = 4;

/// Returns the machines that `me` keeps sessions with. Machines that know the same members agree:
/// `a` is a neighbour of `b` exactly if `b` is a neighbour of `a`. Empty if `me` is not a member.
pub fn neighbours(me: MachineId, members: &BTreeSet<MachineId>) -> BTreeSet<MachineId> {
    if !members.contains(&me) {
        return BTreeSet::new();
    }
    if members.len() <= FULL_MESH {
        return members
            .iter()
            .copied()
            .filter(|member| *member != me)
            .collect();
    }
    (0..RINGS)
        .flat_map(|ring| beside(ring, me, members))
        .flatten()
        .collect()
}

/// Returns the members before and after `me` in a ring.
fn beside(ring: u64, me: MachineId, members: &BTreeSet<MachineId>) -> [Option<MachineId>; 2] {
    type Place = (u64, MachineId);
    let own = (place(ring, me), me);
    let (mut first, mut last): (Option<Place>, Option<Place>) = (None, None);
    let (mut before, mut after): (Option<Place>, Option<Place>) = (None, None);
    for member in members.iter().filter(|member| **member != me) {
        let there = (place(ring, *member), *member);
        first = Some(first.map_or(there, |first| first.min(there)));
        last = last.max(Some(there));
        if there < own {
            before = before.max(Some(there));
        } else {
            after = Some(after.map_or(there, |after| after.min(there)));
        }
    }
    // The ring is closed: the last member is before the first.
    [before.or(last), after.or(first)].map(|place| place.map(|(_, member)| member))
}

/// Returns the position of a machine in a ring. This is part of the protocol: machines that compute
/// it differently do not find each other.
fn place(ring: u64, machine: MachineId) -> u64 {
    let id = u128::from_le_bytes(machine.0);
    mix(mix(mix(ring.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ id as u64) ^ (id >> 64) as u64)
}

/// The finalizer of splitmix64. Each bit of the input flips about half of the output's bits.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests;
