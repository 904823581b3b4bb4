//! The call's parts: two stores that replicate, and the asking of several machines with answers of
//! every sort.

use std::collections::BTreeMap;
use std::sync::Arc;

use uc_cluster_state::{ClusterId, Options, Session, Write};
use uc_mesh::PrivateKey;

use super::*;
use crate::cluster::machines::Own;
use crate::cluster::records::{self, KINDS, put};

/// The stores answer in milliseconds; the word on lag comes once a second.
const LIMIT: Duration = Duration::from_secs(30);

fn machine_id(index: usize) -> MachineId {
    MachineId([u8::try_from(index).unwrap() + 1; 16])
}

fn key(index: usize) -> uc_mesh::PublicKey {
    PrivateKey::from_bytes(machine_id(index).0.repeat(2).try_into().unwrap()).public()
}

fn machine(index: usize) -> MachineRecord {
    let id = machine_id(index).to_string();
    MachineRecord {
        id,
        name: format!("m{}", index + 1),
        public_key: key(index).to_string(),
        ..MachineRecord::default()
    }
}

fn machines() -> Vec<MachineRecord> {
    (0..3).map(machine).collect()
}

async fn store(path: &Path, index: usize) -> Store {
    Store::open(Options::new(
        path.to_owned(),
        ClusterId([9; 16]),
        machine_id(index),
        KINDS,
    ))
    .await
    .unwrap()
}

/// Carries frames both ways until one of the sessions ends.
async fn carry(mut a: Session, mut b: Session) {
    loop {
        tokio::select! {
            Some(frame) = a.outgoing.recv() => if b.incoming.send(frame).await.is_err() { return },
            Some(frame) = b.outgoing.recv() => if a.incoming.send(frame).await.is_err() { return },
            else => return,
        }
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, waiting)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come"));
}

/// What m1 says, that has seen m2 as up and m3 as down.
fn examined(store: &Store) -> Examination {
    let own = Own {
        id: machine_id(0),
        key: key(0),
        network: "10.0.0.0/8".parse().unwrap(),
        prefix_length: 24,
    };
    let alive = BTreeMap::from([
        (machine_id(1), Liveness::Up),
        (machine_id(2), Liveness::Down),
    ]);
    let cluster = Cluster::of_machines(own, machines()).with_alive(Arc::new(alive));
    let found = Records::look(store);
    let peers = found.peers(&cluster, &neighbours(machine_id(0), &cluster));
    Examination {
        peers,
        ..found.examination()
    }
}

#[tokio::test]
async fn here_reports_the_figures_of_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let one = store(&directory.path().join("1.db"), 0).await;
    let two = store(&directory.path().join("2.db"), 1).await;
    let declare = |index, status| Write::Declare {
        machine: machine_id(index),
        status,
    };
    for store in [&one, &two] {
        let members = (0..3).map(|index| declare(index, MemberStatus::Member));
        store.write(members.collect()).await.unwrap();
    }
    let evicted = declare(2, MemberStatus::Evicted);
    one.write(vec![evicted]).await.unwrap();
    let write = |index: usize| vec![put(records::MACHINE, machine(index).id, &machine(index))];
    one.write(write(0)).await.unwrap();
    let alone = examined(&one);
    let [m2, m3] = alone.peers.as_slice() else {
        panic!("{alone:?}")
    };
    assert_eq!(
        (
            m2.machine_name.as_str(),
            m2.connected,
            m2.sessions,
            m2.neighbour
        ),
        ("m2", false, 0, true)
    );
    assert_eq!(
        (m2.liveness(), m2.evicted),
        (uc_api::v1::Liveness::Up, false)
    );
    assert_eq!(
        (m3.liveness(), m3.evicted),
        (uc_api::v1::Liveness::Down, true)
    );

    let carrying = tokio::spawn(carry(
        one.session(machine_id(1)),
        two.session(machine_id(0)),
    ));
    until("the record", || {
        two.snapshot()
            .get(records::MACHINE, &machine(0).id)
            .is_some()
    })
    .await;
    until("the word that there is no lag", || {
        examined(&one).peers[0].lag == 0
    })
    .await;
    let met = examined(&one);
    assert!(
        met.peers[0].connected && met.peers[0].sessions == 1,
        "{met:?}"
    );
    assert!(
        met.peers[0].bytes_out > 0 && met.peers[0].frames_in > 0,
        "{met:?}"
    );
    assert!(!met.peers[1].connected, "{met:?}");
    let (figures, status) = (met.store.unwrap(), one.status());
    assert_eq!(figures.changes, status.changes);
    // Members, eviction and machine were written here, and at least one commit was received.
    assert!(
        figures.commits > 3 && figures.durable_commits >= 3,
        "{figures:?}"
    );
    assert_eq!(
        figures.commit_buckets.len(),
        figures.commit_bucket_ends_us.len() + 1
    );
    assert_eq!(figures.commit_buckets.iter().sum::<u64>(), figures.commits);
    assert_eq!((met.rejoining, met.set_aside.as_str()), (false, ""));

    carrying.abort();
    until("the session's end", || !examined(&one).peers[0].connected).await;
}

#[tokio::test]
async fn here_reports_where_a_damaged_file_was_moved() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("1.db");
    std::fs::write(&path, [0x55; 8192]).unwrap();
    let store = store(&path, 0).await;
    let aside = examined(&store).set_aside;
    assert!(
        aside.starts_with(directory.path().to_str().unwrap()),
        "{aside}"
    );
    assert!(Path::new(&aside).exists(), "{aside}");
}

#[tokio::test]
async fn here_names_the_writers_of_quarantined_records() {
    #[derive(Debug)]
    struct Stopped(u64);
    impl uc_cluster_state::Clock for Stopped {
        fn now_ms(&self) -> u64 {
            self.0
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let one = store(&directory.path().join("1.db"), 0).await;
    let path = directory.path().join("2.db");
    let mut options = Options::new(path, ClusterId([9; 16]), machine_id(1), KINDS);
    options.clock = Arc::new(Stopped(u64::try_from(now_ms()).unwrap() + 3_600_000));
    let two = Store::open(options).await.unwrap();
    two.write(vec![put(records::MACHINE, machine(1).id, &machine(1))])
        .await
        .unwrap();
    let carrying = tokio::spawn(carry(
        one.session(machine_id(1)),
        two.session(machine_id(0)),
    ));
    until("the record", || {
        examined(&one).store.unwrap().quarantined == 1
    })
    .await;
    assert_eq!(examined(&one).quarantined_writers, [machine(1).id]);
    carrying.abort();
}

#[tokio::test(start_paused = true)]
async fn ask_each_returns_every_machine_with_answer_or_failure() {
    let asked = machines()
        .into_iter()
        .chain([machine(3)])
        .map(|machine| ExaminedMachine {
            machine: Some(machine),
            ..ExaminedMachine::default()
        });
    let start = tokio::time::Instant::now();
    let clock = || i64::try_from(start.elapsed().as_millis()).unwrap();
    let answers = ask_each(asked.collect(), clock, |machine| async move {
        match machine.name.as_str() {
            "m1" => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok(Examination {
                    uc_version: "1".into(),
                    ..Examination::default()
                })
            }
            "m2" => Err(Failure::new(Code::Unreachable, "connection refused")),
            "m3" => Err(Failure::from(tonic::Status::unimplemented(""))),
            _ => std::future::pending().await,
        }
    })
    .await;
    let names: Vec<_> = answers
        .iter()
        .map(|examined| examined.machine.clone().unwrap().name)
        .collect();
    assert_eq!(names, ["m1", "m2", "m3", "m4"]);
    assert_eq!(answers[0].examination.clone().unwrap().uc_version, "1");
    assert_eq!((answers[0].asked_at_ms, answers[0].heard_at_ms), (0, 300));
    assert_eq!(answers[1].failure, "connection refused");
    assert!(
        answers[2].failure.contains("has another version"),
        "{}",
        answers[2].failure
    );
    assert_eq!(answers[3].failure, "no answer within 5 s");
    assert!(
        answers[1..]
            .iter()
            .all(|examined| examined.examination.is_none())
    );
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "they were asked one after another"
    );
}
