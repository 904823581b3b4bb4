//! Cut links: both sides continue, and nothing is lost when the links heal. A node that is
//! reachable through others receives everything. After a short cut no node counts as dead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;

use crate::cluster::Cluster;
use crate::protocol::{Index, Judgement};

/// What the two sides do to a record that exists before the cut, and its values afterwards.
struct Case {
    name: &'static str,
    left: Option<&'static str>,
    right: Option<&'static str>,
    /// All values afterwards.
    values: &'static [Option<&'static str>],
    /// The active value, if it does not depend on which side wrote last.
    active: Option<&'static str>,
}

const CASES: &[Case] = &[
    Case {
        name: "put and put",
        left: Some("left"),
        right: Some("right"),
        values: &[Some("left"), Some("right")],
        active: None,
    },
    Case {
        name: "put and delete",
        left: Some("left"),
        right: None,
        values: &[None, Some("left")],
        active: Some("left"),
    },
    Case {
        name: "delete and put",
        left: None,
        right: Some("right"),
        values: &[None, Some("right")],
        active: Some("right"),
    },
    // A record that does not exist has no values.
    Case {
        name: "delete and delete",
        left: None,
        right: None,
        values: &[],
        active: None,
    },
];

/// Cuts the cluster into halves, lets both write, and heals it.
pub(crate) fn halve(cluster: &mut Cluster, run: &str) {
    let mut all = cluster.awake();
    let everybody = all.clone();
    all.shuffle(&mut cluster.rng);
    let (left, right) = all.split_at(all.len() / 2);
    let key = |case: &Case| format!("{run} {}", case.name);
    for case in CASES {
        cluster.put(left[0], &key(case), "before");
    }
    cluster.converge(&everybody);

    cluster.cut(left, right);
    let mut expected: [BTreeMap<String, String>; 2] = Default::default();
    for (side, (nodes, name)) in [(left, "left"), (right, "right")].into_iter().enumerate() {
        for index in nodes {
            let own = format!("{run} {name} node {index}");
            cluster.put(*index, &own, name);
            expected[side].insert(own, name.to_owned());
        }
        for case in CASES {
            let value = if side == 0 { case.left } else { case.right };
            cluster.write(nodes[0], vec![(key(case), value.map(str::to_owned))]);
        }
    }
    cluster.judged(left, right, Judgement::Down);
    cluster.judged(right, left, Judgement::Down);
    cluster.converge(left);
    cluster.converge(right);
    // The cut works: no node knows anything of the other side.
    for (nodes, theirs) in [(left, &expected[1]), (right, &expected[0])] {
        for (index, visible) in cluster.dump(nodes) {
            let leaked = theirs.keys().find(|key| visible.intents.contains_key(*key));
            assert_eq!(leaked, None, "node {index} received it across the cut");
        }
    }

    cluster.heal();
    cluster.judged(&everybody, &everybody, Judgement::Up);
    cluster.converge(&everybody);
    for expected in &expected {
        cluster.expect_values(&everybody, expected);
    }
    for case in CASES {
        let mut first = cluster.get(everybody[0], &key(case));
        // The tombstones of a deleted record exist until every node has acknowledged them.
        if first.iter().all(|value| value.value.is_none()) {
            first.clear();
        }
        let mut values: Vec<Option<&str>> =
            first.iter().map(|value| value.value.as_deref()).collect();
        let active = values.first().copied().flatten();
        assert!(
            case.active.is_none() || active == case.active,
            "{}: {first:?}",
            case.name
        );
        let highest = first
            .iter()
            .filter(|value| value.value.is_some())
            .max_by_key(|v| v.hlc);
        assert_eq!(
            first.first().map(|v| v.hlc),
            highest.map(|v| v.hlc),
            "{}: {first:?}",
            case.name
        );
        values.sort_unstable();
        assert_eq!(values, case.values, "{}: what both sides wrote", case.name);
        for index in &everybody {
            let mut here = cluster.get(*index, &key(case));
            here.retain(|value| !first.is_empty() || value.value.is_some());
            assert_eq!(here, first, "{} on node {index}", case.name);
        }
    }
    // A node that has seen all values settles the conflict.
    let settled: BTreeMap<String, String> = CASES
        .iter()
        .map(|case| (key(case), "settled".to_owned()))
        .collect();
    let writes = settled
        .iter()
        .map(|(key, value)| (key.clone(), Some(value.clone())))
        .collect();
    cluster.write(right[0], writes);
    cluster.converge(&everybody);
    cluster.expect_values(&everybody, &settled);
}

fn halved(count: Index) {
    let mut cluster = Cluster::start(count);
    halve(&mut cluster, "first");
}

#[test]
fn three_processes_agree_after_a_cut() {
    halved(3);
}

#[test]
fn ten_processes_agree_after_a_cut() {
    halved(10);
}

/// 0 – 1 – 2 without 0 – 2: what 0 writes reaches 2, and the two consider each other alive.
#[test]
fn changes_are_relayed() {
    let mut cluster = Cluster::start(3);
    cluster.cut(&[0], &[2]);
    let mut expected = BTreeMap::new();
    for number in 0..50 {
        for index in [0, 2] {
            let key = format!("node {index} write {number}");
            cluster.put(index, &key, "x");
            expected.insert(key, "x".to_owned());
        }
    }
    cluster.converge(&[0, 1, 2]);
    cluster.expect_values(&[0, 1, 2], &expected);
    cluster.judged(&[0, 1, 2], &[0, 1, 2], Judgement::Up);
}

/// Less than half of the time between suspicion and down. A longer cut proves nothing here and is
/// tried again.
const SHORT: Duration = Duration::from_millis(1_500);
const ATTEMPTS: usize = 5;

#[test]
fn short_cut_makes_no_node_down() {
    let mut cluster = Cluster::start(5);
    let all = cluster.awake();
    let others = &all[1..];
    for _ in 0..ATTEMPTS {
        cluster.judged(&all, &all, Judgement::Up);
        cluster.put(1, "before", "x");
        cluster.converge(&all);
        cluster.forget(&all);
        cluster.cut(&all[..1], others);
        cluster.until("a node suspects the node that is cut off", |cluster| {
            let seen = cluster.seen(others);
            let suspects = |seen: &BTreeMap<Index, BTreeSet<Judgement>>| {
                seen.get(&0)
                    .is_some_and(|seen| seen.contains(&Judgement::Suspect))
            };
            if seen.values().any(suspects) {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        });
        let suspected = Instant::now();
        cluster.put(0, "here", "x");
        cluster.put(1, "there", "x");
        cluster.heal();
        let short = suspected.elapsed() < SHORT;
        cluster.judged(&all, &all, Judgement::Up);
        cluster.converge(&all);
        let expected = ["before", "here", "there"]
            .map(|key| (key.to_owned(), "x".to_owned()))
            .into();
        cluster.expect_values(&all, &expected);
        if short {
            for (judge, seen) in cluster.seen(others) {
                let down = seen
                    .iter()
                    .find(|(_, seen)| seen.contains(&Judgement::Down));
                assert_eq!(down, None, "node {judge} considered nodes: {seen:?}");
            }
            return;
        }
    }
    panic!("this machine is too slow for a cut of less than {SHORT:?}: {ATTEMPTS} attempts");
}
