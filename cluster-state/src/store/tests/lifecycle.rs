//! Events in the life of a store: deletes that all members have, eviction and return, damage,
//! backups, copies.

use super::replication::{alike, connect, sees, until};
use super::*;
use crate::state::MemberStatus;

async fn cluster(dir: &Path, count: u8) -> Vec<Store> {
    let mut stores = Vec::new();
    for n in 1..=count {
        stores.push(open(dir, n).await);
    }
    for n in 1..=count {
        declare(&stores[0], machine(n), MemberStatus::Member).await;
    }
    stores
}

async fn declare(store: &Store, machine: MachineId, status: MemberStatus) {
    let declare = Write::Declare { machine, status };
    store.write(vec![declare]).await.unwrap();
}

fn delete(key: &str) -> Write {
    Write::Delete {
        kind: SPEC,
        key: key.to_owned(),
    }
}

fn tombstones(snapshot: &Snapshot) -> usize {
    snapshot.state.tombstones()
}

#[tokio::test]
async fn store_moves_damaged_file_aside_and_is_filled_by_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = options(dir.path(), 1).path;
    let garbage = b"this is not a database, and long enough to be read as one".repeat(40);
    std::fs::write(&path, &garbage).unwrap();
    let store = open(dir.path(), 1).await;
    let aside = store.set_aside().unwrap().to_owned();
    assert_eq!(
        std::fs::read(&aside).unwrap(),
        garbage,
        "nothing of it is deleted"
    );

    for n in 0..50 {
        store
            .write(vec![put(&format!("key-{n}"), &"v".repeat(500))])
            .await
            .unwrap();
    }
    let other_dir = tempfile::tempdir().unwrap();
    let other = open(other_dir.path(), 2).await;
    let pipes = connect(&store, &other);
    other.wait_for(store.actor(), 50).await.unwrap();
    drop(pipes);
    let was = store.actor();
    store.close().await.unwrap();

    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[8_192..end].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let store = open(dir.path(), 1).await;
    assert!(store.set_aside().is_some_and(|second| second != aside));
    assert_eq!(store.snapshot().intents(SPEC).count(), 0);
    // If its new incarnation is below the old one, the first session finds that out and ends.
    while store.snapshot().watermark(was) < 50 {
        let mut wire = connect(&store, &other);
        let [end, _] = wire.ends.take().unwrap();
        tokio::select! {
            _ = end => {}
            _ = until(&store, |snapshot| snapshot.watermark(was) >= 50) => {}
        }
    }
    assert_eq!(store.snapshot().intents(SPEC).count(), 50);
    assert_ne!(store.actor(), was, "a version is never used again");
}

#[tokio::test]
async fn delete_is_forgotten_when_every_member_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let stores = cluster(dir.path(), 3).await;
    let wires = (
        connect(&stores[0], &stores[1]),
        connect(&stores[1], &stores[2]),
    );
    stores[0]
        .write(vec![put("a", "1"), put("b", "2")])
        .await
        .unwrap();
    let commit = stores[0].write(vec![put("c", "3")]).await.unwrap();
    sees(&stores[2], commit).await;
    drop(wires.1);
    let gone = stores[1].write(vec![delete("a")]).await.unwrap();
    sees(&stores[0], gone).await;
    // Two of three have it, and both have checked their deletes several times since.
    for store in &stores[..2] {
        store
            .shared
            .work(Work::Maintain {
                acknowledge: true,
                collect: true,
            })
            .await
            .unwrap();
        store
            .shared
            .work(Work::Maintain {
                acknowledge: true,
                collect: true,
            })
            .await
            .unwrap();
        assert_eq!(tombstones(&store.snapshot()), 1);
    }
    let _wire = connect(&stores[1], &stores[2]);
    for store in &stores {
        until(store, |snapshot| {
            let enrolled = snapshot.members().len() == 3;
            enrolled && tombstones(snapshot) == 0 && snapshot.get(SPEC, "a").is_none()
        })
        .await;
    }
    alike(&stores.iter().collect::<Vec<_>>()).await;
    assert!(stores[0].status().collected >= 1);
}

#[tokio::test]
async fn evicted_machine_returns_with_its_own_writes_and_without_deleted_records() {
    let dir = tempfile::tempdir().unwrap();
    let stores = cluster(dir.path(), 2).await;
    let (a, b) = (&stores[0], &stores[1]);
    a.write(vec![put("deleted", "old"), put("kept", "old")])
        .await
        .unwrap();
    let wire = connect(a, b);
    until(b, |snapshot| snapshot.get(SPEC, "kept").is_some()).await;
    let commit = b.publish(FACT, rows(&["container"])).await.unwrap();
    sees(a, commit).await;
    drop(wire);

    b.write(vec![put("only-here", "new"), put("kept", "mine")])
        .await
        .unwrap();
    a.write(vec![delete("deleted"), put("kept", "theirs")])
        .await
        .unwrap();
    declare(a, b.actor().machine, MemberStatus::Evicted).await;
    until(a, |snapshot| tombstones(snapshot) == 0).await;
    assert_eq!(
        a.snapshot().observations_of(FACT, machine(2)).next(),
        None,
        "its observations are hidden"
    );

    // The first session finds it out, the second fetches, and the third continues.
    let was = b.actor();
    let mut sessions = 0;
    while b.actor() == was {
        sessions += 1;
        assert!(sessions < 10);
        let mut wire = connect(a, b);
        let [_, end] = wire.ends.take().unwrap();
        let _ = tokio::time::timeout(PATIENCE, end).await.unwrap();
    }
    assert_eq!(
        b.snapshot().get(SPEC, "only-here"),
        Some(&b"new"[..]),
        "nothing is missing at any time"
    );
    let _wire = connect(a, b);
    let on_a = until(a, |snapshot| {
        snapshot.get(SPEC, "only-here").is_some()
            && snapshot.observations_of(FACT, machine(2)).next().is_some()
            && snapshot.siblings(SPEC, "kept").len() == 2
    })
    .await;
    assert_eq!(on_a.get(SPEC, "deleted"), None);
    let on_b = alike(&[b, a]).await.swap_remove(0);
    assert_eq!(on_b.get(SPEC, "deleted"), None);
    assert!(
        on_b.members()
            .iter()
            .all(|(_, status)| *status == MemberStatus::Member)
    );
    let conflicts = on_b.conflicts();
    assert_eq!(
        (conflicts.len(), conflicts[0].key, conflicts[0].others.len()),
        (1, "kept", 1)
    );
}

/// A machine was let in by one member. Another member has forgotten a delete that the machine does
/// not have, and refuses it until it has fetched everything.
#[tokio::test]
async fn forgotten_deletes_are_checked_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let stores = cluster(dir.path(), 2).await;
    let [a, b] = <[Store; 2]>::try_from(stores).unwrap();
    let commit = a
        .write(vec![put("deleted", "old"), put("kept", "old")])
        .await
        .unwrap();
    let wire = connect(&a, &b);
    sees(&b, commit).await;
    drop(wire);
    let late = open(dir.path(), 3).await;
    // b enrols a machine that a has never heard of, and a forgets a delete without asking either of
    // them.
    declare(&b, machine(3), MemberStatus::Member).await;
    let wire = connect(&b, &late);
    until(&late, |snapshot| {
        snapshot.get(SPEC, "deleted").is_some() && snapshot.members().len() == 3
    })
    .await;
    drop(wire);
    declare(&a, machine(2), MemberStatus::Evicted).await;
    a.write(vec![delete("deleted")]).await.unwrap();
    until(&a, |snapshot| tombstones(snapshot) == 0).await;
    a.close().await.unwrap();

    let a = open(dir.path(), 1).await;
    assert!(a.snapshot().state.gc_watermarks().next().is_some());
    for returning in [&late, &b] {
        let was = returning.actor();
        let commit = a.write(vec![put("still", "there")]).await.unwrap();
        for _ in 0..20 {
            let mut wire = connect(&a, returning);
            let [_, end] = wire.ends.take().unwrap();
            tokio::select! {
                _ = end => {}
                _ = sees(returning, commit) => break,
            }
        }
        assert_ne!(returning.actor(), was, "it continued as a new incarnation");
        assert_eq!(returning.snapshot().get(SPEC, "deleted"), None);
        assert_eq!(returning.snapshot().get(SPEC, "kept"), Some(&b"old"[..]));
    }
    let _wires = (connect(&a, &late), connect(&b, &late), connect(&a, &b));
    for store in [&a, &b, &late] {
        until(store, |snapshot| {
            let member = |(_, status): &(MachineId, MemberStatus)| *status == MemberStatus::Member;
            snapshot.members().iter().filter(|one| member(one)).count() == 3
        })
        .await;
    }
    for on in alike(&[&a, &b, &late]).await {
        assert_eq!(on.get(SPEC, "deleted"), None);
    }
}

#[tokio::test]
async fn old_copy_never_brings_back_forgotten_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let stores = cluster(dir.path(), 2).await;
    let wire = connect(&stores[0], &stores[1]);
    stores[0]
        .write(vec![put("deleted", "old"), put("other", "x")])
        .await
        .unwrap();
    let commit = stores[0].write(vec![delete("other")]).await.unwrap();
    sees(&stores[1], commit).await;
    // It has acknowledged once. This is the state that is restored later.
    until(&stores[1], |snapshot| tombstones(snapshot) == 0).await;
    let old = tempfile::tempdir().unwrap();
    let backup = old.path().join("2.db");
    let done = stores[1].backup(&backup).await.unwrap();
    assert_eq!(done.bytes, std::fs::metadata(&backup).unwrap().len());
    assert!(matches!(
        stores[1].backup(&backup).await,
        Err(BackupError::Exists { .. })
    ));

    stores[0].write(vec![delete("deleted")]).await.unwrap();
    until(&stores[0], |snapshot| {
        snapshot.get(SPEC, "deleted").is_none() && tombstones(snapshot) == 0
    })
    .await;
    drop(wire);
    let mut stores = stores.into_iter();
    let a = stores.next().unwrap();
    drop(stores);

    let restored = open(old.path(), 2).await;
    assert!(restored.snapshot().get(SPEC, "deleted").is_some());
    restored.write(vec![put("since", "1")]).await.unwrap();
    let mut sessions = 0;
    while restored.snapshot().get(SPEC, "deleted").is_some() {
        sessions += 1;
        assert!(sessions < 10);
        let mut wire = connect(&a, &restored);
        let [_, end] = wire.ends.take().unwrap();
        let gone = until(&restored, |snapshot| {
            snapshot.get(SPEC, "deleted").is_none()
        });
        tokio::select! {
            _ = end => {}
            _ = gone => {}
        }
    }
    let _wire = connect(&a, &restored);
    let on_a = until(&a, |snapshot| snapshot.get(SPEC, "since").is_some()).await;
    assert_eq!(on_a.get(SPEC, "deleted"), None, "not resurrected");
    alike(&[&a, &restored]).await;
}

#[tokio::test]
async fn twin_of_a_running_store_makes_one_give_up() {
    let dir = tempfile::tempdir().unwrap();
    let copied = tempfile::tempdir().unwrap();
    let peer = open(dir.path(), 9).await;
    let first = open(dir.path(), 1).await;
    first.write(vec![put("a", "1")]).await.unwrap();
    copy(dir.path(), copied.path());
    let second = open(copied.path(), 1).await;
    let mut refused = 0;
    for round in 0..40 {
        for store in [&first, &second] {
            let _ = store.write(vec![put("who", &round.to_string())]).await;
            let mut wire = connect(&peer, store);
            let [_, end] = wire.ends.take().unwrap();
            // Until it continues as a new incarnation, or has sent everything.
            let commit = store.write(vec![put("told", &round.to_string())]).await;
            if matches!(commit, Err(WriteError::Twin { .. })) {
                refused += 1;
                continue;
            }
            tokio::select! {
                _ = end => {}
                () = async {
                    if let Ok(commit) = commit {
                        sees(&peer, commit).await;
                    }
                } => {}
            }
        }
        if refused > 0 {
            break;
        }
    }
    let states = [&first, &second].map(|store| async { store.write(vec![put("last", "1")]).await });
    let [one, other] = states;
    let outcomes = [one.await, other.await];
    let gave_up = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(WriteError::Twin { .. })))
        .count();
    assert_eq!(gave_up, 1, "{outcomes:?}");
}
