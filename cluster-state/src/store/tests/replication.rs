//! Two and three stores in one process, joined by sessions over wires that can be cut.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::*;
use crate::session::SessionEnd;
use crate::wire;

/// A connection. Dropping it cuts it.
pub(super) struct Wire {
    pub(super) ends: Option<[SessionEnd; 2]>,
    _cut: DropGuard,
}

async fn carry(mut from: mpsc::Receiver<Bytes>, to: mpsc::Sender<Bytes>, cut: CancellationToken) {
    loop {
        tokio::select! {
            () = cut.cancelled() => return,
            frame = from.recv() => {
                let Some(frame) = frame else { return };
                if to.send(frame).await.is_err() {
                    return;
                }
            }
        }
    }
}

pub(super) fn connect(a: &Store, b: &Store) -> Wire {
    let left = a.session(b.actor().machine);
    let right = b.session(a.actor().machine);
    let cut = CancellationToken::new();
    tokio::spawn(carry(left.outgoing, right.incoming, cut.clone()));
    tokio::spawn(carry(right.outgoing, left.incoming, cut.clone()));
    Wire {
        ends: Some([left.end, right.end]),
        _cut: cut.drop_guard(),
    }
}

pub(super) async fn sees(store: &Store, commit: Commit) -> Arc<Snapshot> {
    tokio::time::timeout(PATIENCE, store.wait_for(commit.actor, commit.version))
        .await
        .unwrap()
        .unwrap()
}

/// Waits until a condition holds on a store.
pub(super) async fn until(store: &Store, holds: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let mut snapshots = store.shared.snapshots.clone();
    let wait = snapshots.wait_for(|snapshot| holds(snapshot));
    let snapshot = tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap();
    Arc::clone(&snapshot)
}

/// Waits until all stores have the same content, whichever of them is last.
pub(super) async fn alike(stores: &[&Store]) -> Vec<Arc<Snapshot>> {
    let mut watched: Vec<_> = stores
        .iter()
        .map(|store| store.shared.snapshots.clone())
        .collect();
    let same = async {
        loop {
            let shown: Vec<_> = watched
                .iter_mut()
                .map(|one| Arc::clone(&one.borrow_and_update()))
                .collect();
            let what = |snapshot: &Snapshot| (snapshot.digest(), snapshot.version_vector());
            if shown
                .windows(2)
                .all(|pair| what(&pair[0]) == what(&pair[1]))
            {
                return shown;
            }
            let mut changes: Vec<_> = watched
                .iter_mut()
                .map(|one| Box::pin(one.changed()))
                .collect();
            poll_fn(|context| {
                let changed = changes
                    .iter_mut()
                    .any(|change| change.as_mut().poll(context).is_ready());
                if changed {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        }
    };
    tokio::time::timeout(PATIENCE, same).await.unwrap()
}

#[tokio::test]
async fn write_is_pushed_immediately_in_both_directions() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path(), 1).await, open(dir.path(), 2).await);
    a.write(vec![put("before", "1")]).await.unwrap();
    let _wire = connect(&a, &b);
    until(&b, |snapshot| snapshot.get(SPEC, "before").is_some()).await;
    let mut times = Vec::new();
    for n in 0..50 {
        let started = Instant::now();
        let commit = a.write(vec![put("k", &n.to_string())]).await.unwrap();
        let local = started.elapsed();
        let snapshot = sees(&b, commit).await;
        assert_eq!(snapshot.get(SPEC, "k"), Some(n.to_string().as_bytes()));
        times.push((started.elapsed(), local));
    }
    times.sort();
    println!(
        "visible on the other: p50 {:?} (of it local commit {:?}), max {:?}",
        times[25].0, times[25].1, times[49].0
    );
    // The periodic exchange would need half a second on average.
    assert!(times[25].0 < Duration::from_millis(250), "{:?}", times[25]);
    let commit = b.publish(FACT, rows(&["x", "y"])).await.unwrap();
    let snapshot = sees(&a, commit).await;
    assert_eq!(snapshot.observations_of(FACT, machine(2)).count(), 2);
    assert!(snapshot.state.sweep(FACT, machine(2)).is_some());
    let commit = b.publish(FACT, rows(&["y"])).await.unwrap();
    assert_eq!(
        sees(&a, commit)
            .await
            .observations_of(FACT, machine(2))
            .count(),
        1
    );
}

#[tokio::test]
async fn store_in_the_middle_relays() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, c) = (
        open(dir.path(), 1).await,
        open(dir.path(), 2).await,
        open(dir.path(), 3).await,
    );
    let (_left, _right) = (connect(&a, &b), connect(&b, &c));
    let from_a = a.write(vec![put("a", "1")]).await.unwrap();
    let from_c = c.write(vec![put("c", "1")]).await.unwrap();
    sees(&c, from_a).await;
    sees(&a, from_c).await;
    assert_eq!(c.snapshot().get(SPEC, "a"), Some(&b"1"[..]));
}

/// Moves the frames that match and loses the others.
async fn sift(
    mut from: mpsc::Receiver<Bytes>,
    to: mpsc::Sender<Bytes>,
    wanted: impl Fn(&wire::Message) -> bool,
) {
    while let Some(frame) = from.recv().await {
        if wire::decode(&frame, KINDS).is_ok_and(|message| wanted(&message))
            && to.send(frame).await.is_err()
        {
            return;
        }
    }
}

#[tokio::test]
async fn change_its_writer_does_not_deliver_comes_from_another() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, c) = (
        open(dir.path(), 1).await,
        open(dir.path(), 2).await,
        open(dir.path(), 3).await,
    );
    let cut = CancellationToken::new();
    let _cut = cut.clone().drop_guard();
    let _wire = connect(&a, &b);
    // The third store hears the first all the time, but receives none of its changes. The second
    // store assumes that it receives them from there.
    let (first, third) = (a.session(c.actor().machine), c.session(a.actor().machine));
    tokio::spawn(carry(third.outgoing, first.incoming, cut.clone()));
    tokio::spawn(sift(first.outgoing, third.incoming, |message| {
        !matches!(message, wire::Message::Changes(_))
    }));
    let (second, third) = (b.session(c.actor().machine), c.session(b.actor().machine));
    tokio::spawn(carry(second.outgoing, third.incoming, cut));
    let (said, mut told) = tokio::sync::watch::channel(false);
    let writer = a.actor().machine;
    tokio::spawn(sift(third.outgoing, second.incoming, move |message| {
        if matches!(message, wire::Message::Hears(machines) if machines.contains(&writer)) {
            said.send_replace(true);
        }
        true
    }));
    tokio::time::timeout(PATIENCE, told.wait_for(|told| *told))
        .await
        .unwrap()
        .unwrap();
    for n in 0..10 {
        let commit = a.write(vec![put("k", &n.to_string())]).await.unwrap();
        let snapshot = sees(&c, commit).await;
        assert_eq!(snapshot.get(SPEC, "k"), Some(n.to_string().as_bytes()));
    }
}

#[tokio::test]
async fn two_sides_of_a_partition_agree_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path(), 1).await, open(dir.path(), 2).await);
    let wire = connect(&a, &b);
    let commit = a
        .write(vec![put("k", "base"), put("deleted", "base")])
        .await
        .unwrap();
    sees(&b, commit).await;
    drop(wire);
    let mut last = Vec::new();
    for n in 0..300 {
        last = vec![
            a.write(vec![put("k", &format!("a{n}")), put(&format!("a{n}"), "1")])
                .await
                .unwrap(),
            b.write(vec![put("k", &format!("b{n}")), put(&format!("b{n}"), "1")])
                .await
                .unwrap(),
        ];
    }
    b.write(vec![Write::Delete {
        kind: SPEC,
        key: "deleted".to_owned(),
    }])
    .await
    .unwrap();
    last.push(b.publish(FACT, rows(&["x"])).await.unwrap());
    let _wire = connect(&a, &b);
    for commit in last {
        sees(&a, commit).await;
        sees(&b, commit).await;
    }
    let (left, right) = (a.snapshot(), b.snapshot());
    assert_eq!(left.version_vector(), right.version_vector());
    assert!(left.intents(SPEC).eq(right.intents(SPEC)));
    assert_eq!(left.intents(SPEC).count(), 601);
    assert_eq!(left.siblings(SPEC, "k"), right.siblings(SPEC, "k"));
    assert_eq!(
        left.siblings(SPEC, "k").len(),
        2,
        "both users find their value"
    );
    // A writer that has seen both values settles the conflict everywhere.
    let commit = a.write(vec![put("k", "settled")]).await.unwrap();
    assert_eq!(sees(&b, commit).await.siblings(SPEC, "k").len(), 1);
}

#[tokio::test]
async fn restarted_machine_catches_up_and_replaces_its_observations() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path(), 1).await, open(dir.path(), 2).await);
    let wire = connect(&a, &b);
    let commit = b.publish(FACT, rows(&["old", "kept"])).await.unwrap();
    sees(&a, commit).await;
    drop(wire);
    drop(b);
    let commit = a.write(vec![put("in between", "1")]).await.unwrap();
    let b = open(dir.path(), 2).await;
    let _wire = connect(&a, &b);
    sees(&b, commit).await;
    let commit = b.publish(FACT, rows(&["kept", "new"])).await.unwrap();
    let snapshot = sees(&a, commit).await;
    let keys: Vec<&str> = snapshot
        .observations_of(FACT, machine(2))
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, ["kept", "new"]);
}

#[tokio::test]
async fn store_restored_from_old_copy_continues_as_new_incarnation() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path(), 1).await, open(dir.path(), 2).await);
    a.write(vec![put("early", "1")]).await.unwrap();
    a.close().await.unwrap();
    let backup = std::fs::read(options(dir.path(), 1).path).unwrap();
    let a = open(dir.path(), 1).await;
    let wire = connect(&a, &b);
    a.write(vec![put("late", "1")]).await.unwrap();
    let commit = a.write(vec![put("later", "1")]).await.unwrap();
    sees(&b, commit).await;
    drop(wire);
    a.close().await.unwrap();
    // The same inode with older content, as a snapshot of the disk would restore it.
    std::fs::write(options(dir.path(), 1).path, backup).unwrap();
    let a = open(dir.path(), 1).await;
    assert_eq!(a.actor(), commit.actor, "the file looks clean");
    let reused = a.write(vec![put("other", "1")]).await.unwrap();
    assert_eq!(reused.version, 2, "which was \"late\" before");
    let mut wire = connect(&a, &b);
    let [end, _] = wire.ends.take().unwrap();
    let end = tokio::time::timeout(PATIENCE, end).await.unwrap();
    assert_eq!(end, Err(SessionError::NewIncarnation));
    assert!(a.incarnation() > commit.actor.incarnation);
    let _wire = connect(&a, &b);
    until(&b, |snapshot| snapshot.get(SPEC, "other").is_some()).await;
    let snapshot = sees(&a, commit).await;
    assert_eq!(
        snapshot
            .intents(SPEC)
            .map(|(key, _)| key)
            .collect::<Vec<_>>(),
        ["early", "late", "later", "other"]
    );
}

#[tokio::test]
async fn session_with_other_cluster_is_refused_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), 1).await;
    let b = Store::open(Options {
        cluster: ClusterId([1; 16]),
        ..options(dir.path(), 2)
    })
    .await
    .unwrap();
    a.write(vec![put("k", "1")]).await.unwrap();
    let mut wire = connect(&a, &b);
    for end in wire.ends.take().unwrap() {
        let error = tokio::time::timeout(PATIENCE, end)
            .await
            .unwrap()
            .unwrap_err();
        assert!(
            matches!(
                error,
                SessionError::OtherCluster { .. } | SessionError::Refused { .. }
            ),
            "{error}"
        );
    }
    assert_eq!(b.snapshot().get(SPEC, "k"), None);
}

#[tokio::test]
async fn session_ends_when_a_side_is_dropped_or_the_store_closes() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), 1).await;
    let session = a.session(machine(2));
    drop(session.incoming);
    assert_eq!(
        tokio::time::timeout(PATIENCE, session.end).await.unwrap(),
        Ok(())
    );
    let session = a.session(machine(2));
    drop(session.outgoing);
    assert_eq!(
        tokio::time::timeout(PATIENCE, session.end).await.unwrap(),
        Ok(())
    );
    let session = a.session(machine(2));
    a.close().await.unwrap();
    assert_eq!(
        tokio::time::timeout(PATIENCE, session.end).await.unwrap(),
        Err(SessionError::Closed)
    );
}

#[tokio::test]
async fn peer_that_does_not_read_blocks_no_other_and_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path(), 1).await, open(dir.path(), 2).await);
    // The session runs, but its frames are not moved yet.
    let left = a.session(machine(2));
    let right = b.session(machine(1));
    let mut last = None;
    for n in 0..40 {
        let many = (0..50)
            .map(|key| put(&format!("{n}-{key}"), &"v".repeat(400)))
            .collect();
        last = Some(a.write(many).await.unwrap());
    }
    assert_eq!(a.snapshot().intents(SPEC).count(), 2_000);
    let cut = CancellationToken::new();
    tokio::spawn(carry(left.outgoing, right.incoming, cut.clone()));
    tokio::spawn(carry(right.outgoing, left.incoming, cut.clone()));
    assert_eq!(sees(&b, last.unwrap()).await.intents(SPEC).count(), 2_000);
    cut.cancel();
}

#[tokio::test]
async fn peer_with_full_disk_continues_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), 1).await;
    let limited = Options {
        max_bytes: 200 * 1024,
        ..options(dir.path(), 2)
    };
    let b = Store::open(limited.clone()).await.unwrap();
    let wire = connect(&a, &b);
    let commit = a.write(vec![put("fits", "1")]).await.unwrap();
    sees(&b, commit).await;
    let large = a
        .write(vec![put("large", &"v".repeat(250_000))])
        .await
        .unwrap();
    let small = b.write(vec![put("from b", "1")]).await.unwrap();
    assert_eq!(
        sees(&a, small).await.get(SPEC, "from b"),
        Some(&b"1"[..]),
        "its own changes are sent"
    );
    assert!(b.snapshot().watermark(large.actor) < large.version);
    drop(wire);
    b.close().await.unwrap();
    let b = Store::open(Options {
        max_bytes: 0,
        ..limited
    })
    .await
    .unwrap();
    let _wire = connect(&a, &b);
    assert!(sees(&b, large).await.get(SPEC, "large").is_some());
}

#[tokio::test]
async fn kinds_of_a_newer_peer_are_kept_and_relayed() {
    const NEWER: &[Kind] = &[
        Kind {
            id: SPEC,
            name: "spec",
            class: Class::Intent,
        },
        Kind {
            id: 500,
            name: "new",
            class: Class::Intent,
        },
    ];
    let dir = tempfile::tempdir().unwrap();
    let newer = |n| Options {
        kinds: NEWER,
        ..options(dir.path(), n)
    };
    let (a, b, c) = (
        Store::open(newer(1)).await.unwrap(),
        open(dir.path(), 2).await,
        Store::open(newer(3)).await.unwrap(),
    );
    let (_left, _right) = (connect(&a, &b), connect(&b, &c));
    let strange = Write::Put {
        kind: 500,
        key: "k".to_owned(),
        value: b"new".to_vec(),
    };
    let commit = a.write(vec![strange, put("k", "known")]).await.unwrap();
    assert_eq!(sees(&b, commit).await.get(SPEC, "k"), Some(&b"known"[..]));
    assert_eq!(sees(&c, commit).await.get(500, "k"), Some(&b"new"[..]));
}

#[tokio::test]
async fn record_from_the_future_is_quarantined_and_released() {
    let dir = tempfile::tempdir().unwrap();
    let clock = |ms| Arc::new(TestClock(AtomicU64::new(ms)));
    let (early, late) = (clock(10_000_000), clock(10_000_000 + 600_000));
    let a = Store::open(Options {
        clock: late,
        ..options(dir.path(), 1)
    })
    .await
    .unwrap();
    let b = Store::open(Options {
        clock: Arc::clone(&early) as _,
        ..options(dir.path(), 2)
    })
    .await
    .unwrap();
    let _wire = connect(&a, &b);
    let commit = a.write(vec![put("k", "early")]).await.unwrap();
    let snapshot = sees(&b, commit).await;
    assert_eq!(snapshot.get(SPEC, "k"), None);
    assert_eq!(
        snapshot
            .quarantined()
            .map(|record| record.key.to_owned())
            .collect::<Vec<_>>(),
        ["k"]
    );
    early.0.store(10_000_000 + 590_000, Ordering::Relaxed);
    let snapshot = until(&b, |snapshot| snapshot.get(SPEC, "k").is_some()).await;
    assert_eq!(snapshot.quarantined().count(), 0);
}

#[tokio::test]
async fn ten_thousand_records_converge() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path(), 1).await, open(dir.path(), 2).await);
    let _wire = connect(&a, &b);
    let started = Instant::now();
    let mut last = None;
    for n in 0..10 {
        let many = (0..1_000)
            .map(|key| put(&format!("{n}-{key}"), &"v".repeat(150)))
            .collect();
        last = Some(a.write(many).await.unwrap());
    }
    let written = started.elapsed();
    assert_eq!(sees(&b, last.unwrap()).await.intents(SPEC).count(), 10_000);
    println!(
        "10,000 records: written in {written:?}, on the other after {:?}",
        started.elapsed()
    );
}
