//! SIGSTOP: a stopped node neither delays the others nor costs them memory, and it catches up
//! afterwards.

use std::collections::BTreeMap;

use rand::seq::SliceRandom;

use crate::cluster::Cluster;
use crate::protocol::{Command, Index, Judgement};

fn key_while_stopped(run: &str, index: Index, number: usize) -> String {
    format!("{run} node {index} while stopped {number}")
}

/// Stops some nodes. Each of the others writes `writes` transactions.
pub(crate) fn stop_amid_writes(cluster: &mut Cluster, run: &str, count: usize, writes: usize) {
    let mut all = cluster.awake();
    let everybody = all.clone();
    all.shuffle(&mut cluster.rng);
    let (stopped, others) = all.split_at(count);
    let mut expected = BTreeMap::new();
    for index in &everybody {
        let key = format!("{run} node {index} before");
        cluster.put(*index, &key, "x");
        expected.insert(key, "x".to_owned());
    }
    for index in stopped {
        cluster.stop(*index);
    }
    for number in 0..writes {
        // The answer comes after the acknowledgement, although the stopped nodes acknowledge
        // nothing.
        cluster.ask_all(others, |index| {
            Command::Write(vec![(
                key_while_stopped(run, index, number),
                Some("y".to_owned()),
            )])
        });
        expected.extend(
            others
                .iter()
                .map(|index| (key_while_stopped(run, *index, number), "y".to_owned())),
        );
    }
    cluster.converge(others);
    cluster.judged(others, stopped, Judgement::Down);
    for index in others {
        let key = format!("{run} node {index} while they are down");
        cluster.put(*index, &key, "z");
        expected.insert(key, "z".to_owned());
    }
    cluster.converge(others);
    for index in stopped {
        cluster.resume(*index);
    }
    cluster.judged(&everybody, &everybody, Judgement::Up);
    cluster.converge(&everybody);
    cluster.expect_values(&everybody, &expected);
}

fn stopped(count: Index, stopped: usize) {
    let mut cluster = Cluster::start(count);
    stop_amid_writes(&mut cluster, "first", stopped, 20);
}

#[test]
fn one_of_three_processes_catches_up() {
    stopped(3, 1);
}

#[test]
fn four_of_ten_processes_catch_up() {
    stopped(10, 4);
}

/// Records that change repeatedly while a peer is stopped.
const RECORDS: usize = 200;
/// Number of changes of each record.
const CHANGES: usize = 100;
/// Bytes of a value. All changes together are 20 MB, the records 0.2 MB.
const VALUE: usize = 1_000;
/// Maximum growth of the writer's resident memory in bytes. It is less than half of what a queue of
/// the changes would take, and more than SQLite's cache and the buffers of two peers.
const GROWTH: u64 = 8 * 1024 * 1024;

fn change_all(cluster: &mut Cluster, writer: Index, times: usize, run: &str) {
    for time in 0..times {
        let value = format!("{run} {time} {}", "v".repeat(VALUE));
        let writes = (0..RECORDS)
            .map(|record| (format!("record {record}"), Some(value.clone())))
            .collect();
        cluster.write(writer, writes);
    }
}

#[test]
fn slow_peer_costs_the_writer_no_memory() {
    let mut cluster = Cluster::start(3);
    // Warm up, so that everything that grows once has grown, the file's log included.
    change_all(&mut cluster, 0, 20, "warm");
    cluster.converge(&[0, 1, 2]);
    cluster.stop(2);
    change_all(&mut cluster, 0, 2, "begin");
    let before = cluster.process(0).resident();
    change_all(&mut cluster, 0, CHANGES, "last");
    let after = cluster.process(0).resident();
    eprintln!("resident before {before}, after {after}");
    assert!(
        after <= before + GROWTH,
        "resident memory of the writer grew from {before} to {after}"
    );
    // The node that reads has everything, although the other one is stopped.
    cluster.converge(&[0, 1]);
    cluster.resume(2);
    cluster.converge(&[0, 1, 2]);
    let value = format!("last {} {}", CHANGES - 1, "v".repeat(VALUE));
    let expected = (0..RECORDS)
        .map(|record| (format!("record {record}"), value.clone()))
        .collect();
    cluster.expect_values(&[0, 1, 2], &expected);
    cluster.ask(0, &Command::Close);
    assert!(
        cluster.kill(0).is_empty(),
        "a closed node sends nothing more"
    );
}
