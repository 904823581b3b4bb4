//! Power loss and restored disks: a node continues from an older state of its files, and no version
//! is used twice.

use std::collections::BTreeMap;

use rand::seq::SliceRandom;

use crate::cluster::{Cluster, copy_files};
use crate::protocol::{Command, Index, Judgement, Visible};

/// Copies taken, with a few writes before each.
const COPIES: usize = 5;

/// What each dot was seen to stand for, on any node, at any time.
#[derive(Default)]
struct Ledger(BTreeMap<String, (String, Option<String>)>);

impl Ledger {
    /// Fails if a dot stands for something else than before.
    fn check(&mut self, dumps: &BTreeMap<Index, Visible>) {
        for (index, visible) in dumps {
            for (key, values) in &visible.intents {
                for value in values {
                    let content = (key.clone(), value.value.clone());
                    let known = self
                        .0
                        .entry(value.dot.clone())
                        .or_insert_with(|| content.clone());
                    assert_eq!(
                        *known, content,
                        "node {index}: version {} is used twice",
                        value.dot
                    );
                }
            }
        }
    }
}

/// Copies the files of a running node between two instants: it is stopped in the meantime.
fn copy_running(cluster: &mut Cluster, index: Index, name: &str) -> std::path::PathBuf {
    let shelf = cluster.shelf(name);
    cluster.stop(index);
    copy_files(&cluster.files(index), &shelf);
    cluster.resume(index);
    shelf
}

/// How the restored node returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Return {
    /// It receives what it has lost before it writes.
    Linked,
    /// It writes before it receives what it has lost, so it uses the same versions again.
    Writing,
    /// It is killed again after that, before any node has received those writes.
    Twice,
}

#[test]
fn older_files_never_use_a_version_twice() {
    let mut cluster = Cluster::start(3);
    let all = cluster.awake();
    let others = &all[1..];
    let mut ledger = Ledger::default();
    let mut expected = BTreeMap::new();
    let mut copies = Vec::new();
    let mut number = 0;
    let mut write = |cluster: &mut Cluster,
                     expected: &mut BTreeMap<String, String>,
                     index: Index,
                     word: &str| {
        number += 1;
        let key = format!("node {index} write {number}");
        cluster.write(
            index,
            vec![
                (key.clone(), Some(word.to_owned())),
                ("the same".to_owned(), Some(format!("{word} {number}"))),
            ],
        );
        cluster.ask(
            index,
            &Command::Publish(vec![("state".to_owned(), number.to_string())]),
        );
        expected.insert(key, word.to_owned());
    };
    for copy in 0..COPIES {
        for _ in 0..3 {
            write(&mut cluster, &mut expected, 0, "first run");
        }
        write(&mut cluster, &mut expected, 1, "another's");
        copies.push(copy_running(&mut cluster, 0, &format!("copy {copy}")));
    }
    for _ in 0..3 {
        write(&mut cluster, &mut expected, 0, "first run");
    }
    cluster.converge(&all);
    ledger.check(&cluster.dump(&all));

    // Every copy has these writes, and none has their deletes. No node will have those deletes
    // soon.
    let deleted = [1, 2].map(|number| format!("node 0 write {number}"));
    for key in &deleted {
        expected.remove(key).expect("a write of the first run");
        cluster.write(1, vec![(key.clone(), None)]);
    }
    cluster.converge(&all);
    cluster.collected(&all);

    copies.shuffle(&mut cluster.rng);
    let returns = [
        Return::Linked,
        Return::Writing,
        Return::Twice,
        Return::Writing,
        Return::Linked,
    ];
    for (copy, how) in copies.iter().zip(returns) {
        eprintln!("{how:?} from {}", copy.display());
        cluster.kill(0);
        copy_files(copy, &cluster.files(0));
        if how == Return::Linked {
            cluster.begin(&[0]);
        } else {
            cluster.cut(&[0], others);
            cluster.begin(&[0]);
            let mut lost = BTreeMap::new();
            for _ in 0..3 {
                let kept = if how == Return::Twice {
                    &mut lost
                } else {
                    &mut expected
                };
                write(&mut cluster, kept, 0, "before it receives");
            }
            ledger.check(&cluster.dump(&all));
            if how == Return::Twice {
                cluster.kill(0);
                copy_files(copy, &cluster.files(0));
                cluster.begin(&[0]);
                write(&mut cluster, &mut expected, 0, "before it receives, again");
                ledger.check(&cluster.dump(&all));
            }
            cluster.heal();
        }
        cluster.judged(&all, &all, Judgement::Up);
        for index in &all {
            write(&mut cluster, &mut expected, *index, "after the return");
        }
        cluster.converge(&all);
        ledger.check(&cluster.dump(&all));
        cluster.expect_values(&all, &expected);
        for key in &deleted {
            for index in &all {
                assert_eq!(
                    cluster.get(*index, key),
                    [],
                    "deleted {key} is visible again on node {index}"
                );
            }
        }
    }
}

/// The whole cluster loses power, and one disk returns older than the others.
#[test]
fn power_cut_of_all_with_one_older_disk_loses_nothing() {
    let mut cluster = Cluster::start(3);
    let all = cluster.awake();
    let mut ledger = Ledger::default();
    let mut expected = BTreeMap::new();
    cluster.put(0, "early", "x");
    expected.insert("early".to_owned(), "x".to_owned());
    cluster.converge(&all);
    let older = copy_running(&mut cluster, 0, "older");
    for number in 0..10 {
        for index in &all {
            let key = format!("node {index} late {number}");
            cluster.put(*index, &key, "x");
            expected.insert(key, "x".to_owned());
        }
    }
    cluster.converge(&all);
    ledger.check(&cluster.dump(&all));
    for index in &all {
        cluster.kill(*index);
    }
    copy_files(&older, &cluster.files(0));
    cluster.begin(&all);
    for index in &all {
        cluster.put(*index, &format!("node {index} after"), "y");
        expected.insert(format!("node {index} after"), "y".to_owned());
    }
    cluster.converge(&all);
    ledger.check(&cluster.dump(&all));
    cluster.expect_values(&all, &expected);
}
