//! Properties of the overlay over random sets of members.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

type Links = BTreeMap<MachineId, BTreeSet<MachineId>>;

fn links(members: &BTreeSet<MachineId>) -> Links {
    members
        .iter()
        .map(|member| (*member, neighbours(*member, members)))
        .collect()
}

/// Returns the number of hops from `from` to each machine that can be reached.
fn distances(links: &Links, from: MachineId) -> BTreeMap<MachineId, usize> {
    let mut hops = BTreeMap::from([(from, 0)]);
    let mut queue = VecDeque::from([from]);
    while let Some(here) = queue.pop_front() {
        let next = hops[&here] + 1;
        for there in &links[&here] {
            if !hops.contains_key(there) {
                hops.insert(*there, next);
                queue.push_back(*there);
            }
        }
    }
    hops
}

/// Ids that differ in two bytes only, as in a test bed. This is the worst case for the mixing.
fn machine(n: usize) -> MachineId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(n as u64).to_le_bytes());
    MachineId(id)
}

fn members(sizes: std::ops::Range<usize>) -> impl Strategy<Value = BTreeSet<MachineId>> {
    prop::collection::btree_set(any::<[u8; 16]>().prop_map(MachineId), sizes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn overlay_is_symmetric_and_reaches_all_members(members in members(1..200)) {
        let links = links(&members);
        for (here, there) in &links {
            prop_assert!(!there.contains(here));
            prop_assert!(there.iter().all(|there| links[there].contains(here)));
            let most = if members.len() <= FULL_MESH { members.len() - 1 } else { 2 * RINGS as usize };
            prop_assert!(there.len() <= most);
        }
        let from = *members.first().unwrap();
        prop_assert_eq!(distances(&links, from).len(), members.len());
    }

    #[test]
    fn overlay_changes_few_links_for_one_more_member(members in members(FULL_MESH + 2..200)) {
        let after = links(&members);
        let mut fewer = members.clone();
        let gone = fewer.pop_last().unwrap();
        let before = links(&fewer);
        let mut touched = 0;
        for (machine, neighbours) in &before {
            let kept = neighbours.intersection(&after[machine]).count();
            // In each ring the new member takes the place of at most one neighbour.
            prop_assert!(neighbours.len() - kept <= RINGS as usize);
            touched += usize::from(*neighbours != after[machine]);
        }
        prop_assert!(touched <= 2 * RINGS as usize, "{} machines changed neighbours for {}", touched, gone);
    }

    #[test]
    fn overlay_stays_connected_when_many_machines_die(
        members in members(150..200),
        dead in prop::collection::vec(any::<prop::sample::Index>(), 30),
    ) {
        let all: Vec<MachineId> = members.iter().copied().collect();
        let dead: BTreeSet<MachineId> = dead.iter().map(|index| *index.get(&all)).collect();
        let mut links = links(&members);
        links.retain(|machine, _| !dead.contains(machine));
        for there in links.values_mut() {
            there.retain(|there| !dead.contains(there));
        }
        let from = *links.keys().next().unwrap();
        prop_assert_eq!(distances(&links, from).len(), links.len());
    }
}

#[test]
fn overlay_of_a_thousand_machines_has_five_hops() {
    let members: BTreeSet<MachineId> = (0..1_000).map(machine).collect();
    let links = links(&members);
    let mut far = Vec::new();
    for from in (0..1_000).step_by(97).map(machine) {
        far.extend(distances(&links, from).into_values());
    }
    far.sort_unstable();
    assert!(far[far.len() / 2] <= 4, "median {}", far[far.len() / 2]);
    assert!(far[far.len() - 1] <= 5, "longest {}", far[far.len() - 1]);
    let degree = links.values().map(BTreeSet::len).sum::<usize>() as f64 / 1_000.0;
    assert!(degree > 7.8, "{degree}: two rings have the same order");
}

/// Machines of different versions must agree, so this list must never change.
#[test]
fn overlay_never_changes_between_versions() {
    let members: BTreeSet<MachineId> = (0..100).map(machine).collect();
    let found: Vec<u64> = neighbours(machine(42), &members)
        .iter()
        .map(|machine| u64::from_le_bytes(machine.0[..8].try_into().unwrap()))
        .collect();
    assert_eq!(found, [13, 19, 26, 48, 62, 70, 74, 77]);
}

#[test]
fn overlay_gives_no_neighbours_to_non_member() {
    let members: BTreeSet<MachineId> = (0..3).map(machine).collect();
    assert_eq!(neighbours(machine(7), &members), BTreeSet::new());
    assert_eq!(
        neighbours(machine(1), &members),
        BTreeSet::from([machine(0), machine(2)])
    );
    assert_eq!(
        neighbours(machine(1), &BTreeSet::from([machine(1)])),
        BTreeSet::new()
    );
}
