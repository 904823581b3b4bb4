//! All nodes write, and all end with the same content.

use std::collections::BTreeMap;

use crate::cluster::Cluster;
use crate::protocol::{Command, Index, Judgement, observation};

/// Transactions of each node. They are sent without waiting for the previous answer.
const ROUNDS: usize = 3;

/// Every node puts and deletes its own keys, writes to a common key, and publishes.
pub(crate) fn write_everywhere(cluster: &mut Cluster, run: &str) {
    let all = cluster.awake();
    // One creation for all writers. Of several creations the newest would be shown, whatever its
    // stamps.
    cluster.put(all[0], &format!("{run} shared"), "before");
    cluster.converge(&all);
    let mut expected = BTreeMap::new();
    for round in 0..ROUNDS {
        for index in &all {
            let key = |name: &str| format!("{run} node {index} {name}");
            let value = format!("{round} {}", "x".repeat(100));
            let mut writes = vec![
                (key("each round"), Some(value.clone())),
                (key(&format!("round {round}")), Some(value.clone())),
                (format!("{run} shared"), Some(format!("node {index}"))),
                (key("deleted"), Some(value.clone())),
            ];
            if round + 1 == ROUNDS {
                writes.pop();
                writes.push((key("deleted"), None));
            }
            expected.insert(key("each round"), value.clone());
            expected.insert(key(&format!("round {round}")), value);
            cluster.send(*index, &Command::Write(writes));
            let rows = vec![
                ("state".to_owned(), format!("{run} {round}")),
                (format!("{run} {round}"), String::new()),
            ];
            cluster.send(*index, &Command::Publish(rows));
        }
    }
    for index in &all {
        for _ in 0..2 * ROUNDS {
            cluster.receive(*index);
        }
    }
    cluster.converge(&all);
    cluster.expect_values(&all, &expected);
    let last = ROUNDS - 1;
    for (index, visible) in cluster.dump(&all) {
        for owner in &all {
            let here = visible.observations.get(&observation(*owner, "state"));
            assert_eq!(
                here,
                Some(&format!("{run} {last}")),
                "on node {index}, of node {owner}"
            );
            for round in 0..last {
                let gone = observation(*owner, &format!("{run} {round}"));
                assert!(
                    !visible.observations.contains_key(&gone),
                    "node {index} keeps {gone}"
                );
            }
            let deleted = format!("{run} node {owner} deleted");
            assert!(
                !visible.intents.contains_key(&deleted),
                "node {index} keeps {deleted}"
            );
        }
        let shared = &visible.intents[&format!("{run} shared")];
        let highest = shared
            .iter()
            .max_by(|one, other| (one.hlc, &one.dot).cmp(&(other.hlc, &other.dot)));
        assert_eq!(
            shared.first(),
            highest,
            "on node {index}, active is the highest stamp"
        );
    }
}

fn everybody_writes(count: Index) {
    let mut cluster = Cluster::start(count);
    write_everywhere(&mut cluster, "first");
    let all = cluster.awake();
    cluster.judged(&all, &all, Judgement::Up);
    // The node that writes now has seen everything that was concurrent.
    cluster.put(0, "first shared", "settled");
    cluster.converge(&all);
    cluster.expect_values(
        &all,
        &BTreeMap::from([("first shared".to_owned(), "settled".to_owned())]),
    );
}

#[test]
fn three_processes_converge() {
    everybody_writes(3);
}

#[test]
fn ten_processes_converge() {
    everybody_writes(10);
}

#[test]
fn fifty_processes_converge() {
    everybody_writes(50);
}
