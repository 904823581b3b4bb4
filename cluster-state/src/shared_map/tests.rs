//! Compares the map with the standard library's, and checks the shape of its tree.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Checks a node other than the root, and returns its depth and its keys. They must ascend and not
/// be below `low`.
fn check<V>(node: &Node<u32, V>, low: Option<u32>) -> (usize, Vec<u32>) {
    let (depth, keys) = match node {
        Node::Leaf(entries) => (1, entries.iter().map(|(key, _)| *key).collect::<Vec<_>>()),
        Node::Inner(children) => {
            let lows = children
                .iter()
                .enumerate()
                .map(|(at, (key, _))| if at == 0 { low } else { Some(*key) });
            let parts: Vec<_> = lows
                .zip(children.iter())
                .map(|(low, (_, node))| check(node, low))
                .collect();
            assert!(
                parts.iter().all(|(depth, _)| *depth == parts[0].0),
                "all leaves have the same depth"
            );
            for ((_, keys), (next, _)) in parts.iter().zip(children.iter().skip(1)) {
                assert!(
                    keys.last() < Some(next),
                    "a child's keys are below the next one's"
                );
            }
            (
                1 + parts[0].0,
                parts.into_iter().flat_map(|(_, keys)| keys).collect(),
            )
        }
    };
    assert!(!keys.is_empty(), "no node is empty");
    assert!(keys.is_sorted_by(|one, next| one < next) && low.is_none_or(|low| low <= keys[0]));
    (depth, keys)
}

fn sound<V: Clone + PartialEq>(map: &SharedMap<u32, V>, model: &BTreeMap<u32, V>) -> bool {
    match &map.root {
        Node::Leaf(_) => {}
        Node::Inner(children) => {
            assert!(children.len() > 1);
            check(&map.root, None);
        }
    }
    map.len() == model.len() && map.iter().eq(model.iter())
}

fn leaves<V>(node: &Node<u32, V>) -> usize {
    match node {
        Node::Leaf(_) => 1,
        Node::Inner(children) => children.iter().map(|(_, node)| leaves(node)).sum(),
    }
}

proptest! {
    #[test]
    fn map_behaves_like_btree_map_and_keeps_old_copies(
        // Long runs of insertions and of removals, so that the tree grows by some levels and
        // shrinks again.
        stretches in prop::collection::vec((0u32..9, prop::collection::vec((0u32..3000, 0u32..9), 0..900)), 0..9),
        from in 0u32..3000,
    ) {
        let mut map = SharedMap::default();
        let mut model = BTreeMap::new();
        let mut copies = Vec::new();
        for (inserts, steps) in stretches {
            copies.push((map.clone(), model.clone()));
            for (key, n) in steps {
                if n < inserts {
                    prop_assert_eq!(map.insert(key, n), model.insert(key, n));
                } else {
                    // Usually a key that exists.
                    let key = model.range(key..).next().map_or(key, |(key, _)| *key);
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
                prop_assert_eq!(map.len(), model.len());
            }
        }
        copies.push((map, model));
        for (map, model) in copies {
            prop_assert!(sound(&map, &model));
            prop_assert!(map.iter_from(|key| *key < from).eq(model.range(from..)));
            prop_assert!((0..3000).step_by(7).all(|key| map.get(&key) == model.get(&key)));
        }
    }

    #[test]
    fn map_iterates_from_any_key_and_empties_in_any_order(
        keys in prop::collection::btree_set(0u32..2000, 0..900),
        orders in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
    ) {
        let mut map = SharedMap::default();
        let mut model: BTreeMap<u32, u32> = keys.iter().map(|key| (*key, !key)).collect();
        for key in &keys {
            map.insert(*key, !key);
        }
        for from in 0..2000 {
            let next = map.iter_from(|key| *key < from).map(|(key, _)| *key).next();
            prop_assert_eq!(next, keys.range(from..).next().copied());
        }
        let mut left: Vec<u32> = keys.iter().copied().collect();
        for order in orders.iter().cycle() {
            if left.is_empty() {
                break;
            }
            let key = left.swap_remove(order.index(left.len()));
            prop_assert_eq!(map.remove(&key), model.remove(&key));
            prop_assert!(!left.len().is_multiple_of(64) || sound(&map, &model));
        }
        prop_assert!(matches!(map.root, Node::Leaf(_)));
    }
}

#[test]
fn map_used_as_queue_has_full_leaves() {
    let mut map = SharedMap::default();
    let mut model = BTreeMap::new();
    for n in 0..20_000 {
        let _older = map.clone();
        map.insert(n, n);
        model.insert(n, n);
        if n >= 3_000 {
            assert_eq!(map.remove(&(n - 3_000)), model.remove(&(n - 3_000)));
        }
    }
    assert!(sound(&map, &model));
    assert!(
        leaves(&map.root) <= 3_000 / (LEAF - LEAF / 8) + 2,
        "{}",
        leaves(&map.root)
    );
    assert!(check(&map.root, None).0 <= 4);
}

#[test]
fn map_after_random_removals_has_no_tiny_leaves() {
    let mut map = SharedMap::default();
    for n in 0..16_000 {
        map.insert(n, ());
    }
    for n in (0..16_000u32)
        .map(|n| n * 7_919 % 16_000)
        .filter(|n| n % 16 != 0)
    {
        map.remove(&n);
    }
    assert_eq!(map.len(), 1_000);
    assert!(
        leaves(&map.root) <= 1_000 / (LEAF / 4),
        "{}",
        leaves(&map.root)
    );
}

#[test]
fn map_growing_in_one_place_has_nearly_full_leaves() {
    let mut map = SharedMap::default();
    for n in 0..1_000 {
        for actor in 0..3 {
            map.insert(actor * 100_000 + n, ());
        }
    }
    assert!(
        leaves(&map.root) <= 3_000 / (LEAF - LEAF / 8) + 6,
        "{}",
        leaves(&map.root)
    );
}
