//! Who talks to whom: up to `FULL_MESH` machines everybody with everybody, above that each with a
//! few neighbours.
//!
//! The overlay is `RINGS` rings. Each ring holds all members in an order of its own (by a hash of
//! ring and id), and a machine's neighbours are those before and after it in each ring. So it
//! follows from the set of members alone, looks the same from both ends, is connected whatever
//! happens to all rings but one, has the short paths of a random graph, and changes in few places
//! when a member comes or goes. Give it the members that are alive: then the half of a cluster that
//! a partition leaves closes its rings again.

use std::collections::BTreeSet;

use crate::id::MachineId;

/// Up to so many members everybody is everybody's neighbour: a change is then everywhere after one
/// hop, and each machine is sent it by almost all others, 48 times among 50 machines where the
/// rings send 7.
pub const FULL_MESH: usize = 12;
/// Rings above that; a machine has at most twice as many neighbours.
///
/// Four is the fewest with which the median of 1,000 machines has a change within 100 ms at a round
/// trip of 50 ms. Each ring more costs every machine about two messages a change (`cargo xtask
/// bench sim`).
pub const RINGS: u64 = 4;

/// The machines that `me` keeps sessions with: the same set on every machine that knows the same
/// members, and `a` is a neighbour of `b` exactly if `b` is one of `a`. Empty if `me` is not a
/// member.
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

/// The members before and after `me` in a ring.
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
    // The ring closes: before the first comes the last.
    [before.or(last), after.or(first)].map(|place| place.map(|(_, member)| member))
}

/// Where a machine stands in a ring. Part of the protocol: machines that compute it differently do
/// not find each other.
fn place(ring: u64, machine: MachineId) -> u64 {
    let id = u128::from_le_bytes(machine.0);
    mix(mix(mix(ring.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ id as u64) ^ (id >> 64) as u64)
}

/// The finaliser of splitmix64: each bit of the input turns over about half of the output's.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests;
