//! kill -9 during writes: everything acknowledged exists afterwards, on every node.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::seq::SliceRandom;

use crate::cluster::Cluster;
use crate::protocol::{Command, Index, Judgement, Reply};

/// One round of killing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Killing {
    /// Transactions sent to each node at the same time. The victims die somewhere among theirs.
    pub(crate) writes: usize,
    pub(crate) victims: usize,
    /// Whether the victims stay away until all others consider them down.
    pub(crate) noticed: bool,
}

/// A transaction that writes a new key and the counter.
fn transaction(run: &str, index: Index, number: usize) -> Command {
    Command::Write(vec![
        (
            format!("{run} node {index} write {number}"),
            Some(format!("value {number}")),
        ),
        (counter(run, index), Some(number.to_string())),
    ])
}

fn counter(run: &str, index: Index) -> String {
    format!("{run} node {index} count")
}

/// Kills some nodes while all write, restarts them, and checks everything acknowledged.
pub(crate) fn kill_amid_writes(cluster: &mut Cluster, run: &str, killing: Killing) {
    let mut all = cluster.awake();
    let everybody = all.clone();
    all.shuffle(&mut cluster.rng);
    let (victims, others) = all.split_at(killing.victims);
    for number in 0..killing.writes {
        for index in &everybody {
            cluster.send(*index, &transaction(run, *index, number));
        }
    }
    let mut acknowledged: BTreeMap<Index, usize> = BTreeMap::new();
    for victim in victims {
        let before = cluster.rng.random_range(1..killing.writes / 2);
        for _ in 0..before {
            cluster.receive(*victim);
        }
        let last = cluster.kill(*victim);
        let sound = last
            .iter()
            .all(|reply| matches!(reply, Reply::Committed { .. }));
        assert!(sound, "node {victim} answered writes with {last:?}");
        acknowledged.insert(*victim, before + last.len());
    }
    for index in others {
        for _ in 0..killing.writes {
            cluster.receive(*index);
        }
        acknowledged.insert(*index, killing.writes);
    }
    if killing.noticed {
        cluster.judged(others, victims, Judgement::Down);
    }
    cluster.begin(victims);
    cluster.judged(&everybody, &everybody, Judgement::Up);
    // The restarted nodes accept writes, too.
    for victim in victims {
        cluster.put(*victim, &format!("{run} node {victim} is back"), "yes");
    }
    cluster.converge(&everybody);
    let mut expected = BTreeMap::new();
    for (index, count) in &acknowledged {
        for number in 0..*count {
            expected.insert(
                format!("{run} node {index} write {number}"),
                format!("value {number}"),
            );
        }
    }
    for victim in victims {
        expected.insert(format!("{run} node {victim} is back"), "yes".to_owned());
    }
    cluster.expect_values(&everybody, &expected);
    for (index, visible) in cluster.dump(&everybody) {
        for (writer, count) in &acknowledged {
            let values = &visible.intents[&counter(run, *writer)];
            let here: usize = values[0]
                .value
                .as_deref()
                .and_then(|text| text.parse().ok())
                .expect("a number");
            assert!(
                values.len() == 1,
                "node {index}: a single writer has no siblings: {values:?}"
            );
            assert!(
                here + 1 >= *count,
                "node {index}: writer {writer} is at {here}, expected {count}"
            );
        }
    }
}

/// The rounds.
const ROUNDS: &[(&str, Killing)] = &[
    (
        "immediately",
        Killing {
            writes: 40,
            victims: 1,
            noticed: false,
        },
    ),
    (
        "noticed",
        Killing {
            writes: 40,
            victims: 1,
            noticed: true,
        },
    ),
    (
        "two",
        Killing {
            writes: 40,
            victims: 2,
            noticed: true,
        },
    ),
];

fn killed(count: Index) {
    let mut cluster = Cluster::start(count);
    for (run, killing) in ROUNDS {
        eprintln!("round: {run}");
        kill_amid_writes(&mut cluster, run, *killing);
    }
}

#[test]
fn three_processes_survive_kills() {
    killed(3);
}

#[test]
fn ten_processes_survive_kills() {
    killed(10);
}

/// The whole cluster dies during its writes, and returns from its disks.
#[test]
fn all_of_three_processes_survive_kills() {
    let mut cluster = Cluster::start(3);
    kill_amid_writes(
        &mut cluster,
        "all",
        Killing {
            writes: 40,
            victims: 3,
            noticed: false,
        },
    );
}
