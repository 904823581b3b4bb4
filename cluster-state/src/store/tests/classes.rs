//! Claims, logs, registries and groups of fields, between stores.

use super::replication::{connect, sees, until};
use super::*;
use crate::id::Dot;
use crate::kind::Slot;

fn claim(key: &str, value: &str) -> Write {
    Write::Claim {
        kind: SUBNET,
        key: key.to_owned(),
        value: value.as_bytes().to_vec(),
    }
}

#[tokio::test]
async fn claim_held_by_the_first_and_reported_lost_to_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path(), 1).await, open(dir.path(), 2).await);
    a.write(vec![claim("10.210.1.0/24", "a")]).await.unwrap();
    b.write(vec![claim("10.210.1.0/24", "b")]).await.unwrap();
    let _wire = connect(&a, &b);
    let both = |snapshot: &Snapshot| snapshot.state.contested(Slot::Claim).count() == 1;
    let (on_a, on_b) = (until(&a, both).await, until(&b, both).await);
    let holder = on_a.holder(SUBNET, "10.210.1.0/24").unwrap();
    assert_eq!(Some(holder.clone()), on_b.holder(SUBNET, "10.210.1.0/24"));
    let (winner, loser) = if holder.machine == machine(1) {
        (&a, &b)
    } else {
        (&b, &a)
    };
    assert!(
        winner
            .snapshot()
            .lost_claims(winner.actor().machine)
            .is_empty()
    );
    let lost = loser.snapshot();
    let lost = lost.lost_claims(loser.actor().machine);
    assert_eq!((lost.len(), lost[0].2.machine), (1, winner.actor().machine));
    let refused = loser.write(vec![claim("10.210.1.0/24", "again")]).await;
    assert!(matches!(refused, Err(WriteError::Claimed { by, .. }) if by == winner.actor().machine));

    // The loser gives way and claims another key. The winner can change the value of its own claim.
    let release = Write::Release {
        kind: SUBNET,
        key: "10.210.1.0/24".to_owned(),
    };
    let commit = loser
        .write(vec![release, claim("10.210.2.0/24", "other")])
        .await
        .unwrap();
    let snapshot = sees(winner, commit).await;
    assert_eq!(snapshot.state.contested(Slot::Claim).count(), 0);
    let commit = winner
        .write(vec![claim("10.210.1.0/24", "renewed")])
        .await
        .unwrap();
    let snapshot = sees(loser, commit).await;
    let renewed = snapshot.holder(SUBNET, "10.210.1.0/24").unwrap();
    assert_eq!(
        (renewed.value, renewed.since),
        (&b"renewed"[..], holder.since)
    );

    // A released key is free.
    let release = Write::Release {
        kind: SUBNET,
        key: "10.210.1.0/24".to_owned(),
    };
    let commit = winner.write(vec![release]).await.unwrap();
    sees(loser, commit).await;
    let commit = loser
        .write(vec![claim("10.210.1.0/24", "mine now")])
        .await
        .unwrap();
    let snapshot = sees(winner, commit).await;
    assert_eq!(
        snapshot.holder(SUBNET, "10.210.1.0/24").unwrap().machine,
        loser.actor().machine
    );
}

#[tokio::test]
async fn log_is_trimmed_by_count_and_age_and_replicated() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock(AtomicU64::new(1_000_000)));
    let a = Store::open(Options {
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        ..options(dir.path(), 1)
    });
    let (a, b) = (a.await.unwrap(), open(dir.path(), 2).await);
    let _wire = connect(&a, &b);
    let keep = Retention {
        entries: 8,
        age_ms: 10_000,
    };
    let mut commit = None;
    for n in 0..100_u32 {
        clock.0.fetch_add(10, Ordering::Relaxed);
        commit = Some(
            a.append(EVENT, vec![n.to_be_bytes().to_vec()], keep)
                .await
                .unwrap(),
        );
    }
    let snapshot = sees(&b, commit.unwrap()).await;
    let numbers = |snapshot: &Snapshot| -> Vec<u32> {
        snapshot
            .log(EVENT)
            .map(|entry| u32::from_be_bytes(entry.value.try_into().unwrap()))
            .collect()
    };
    assert_eq!(numbers(&snapshot), (92..100).collect::<Vec<_>>());
    assert!(
        snapshot
            .log(EVENT)
            .all(|entry| entry.machine == machine(1) && entry.ms > 1_000_000)
    );
    clock.0.fetch_add(60_000, Ordering::Relaxed);
    let commit = a
        .append(EVENT, vec![7_u32.to_be_bytes().to_vec()], keep)
        .await
        .unwrap();
    assert_eq!(numbers(&*sees(&b, commit).await), [7]);
}

#[tokio::test]
async fn registry_only_goes_up() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path(), 1).await, open(dir.path(), 2).await);
    let raise = |epoch, value: &str| Write::Raise {
        kind: EPOCH,
        key: "schema".to_owned(),
        epoch,
        value: value.as_bytes().to_vec(),
    };
    a.write(vec![raise(3, "three")]).await.unwrap();
    b.write(vec![raise(1, "one")]).await.unwrap();
    b.write(vec![raise(2, "two")]).await.unwrap();
    let _wire = connect(&a, &b);
    let third = until(&b, |snapshot| {
        snapshot
            .registered(EPOCH, "schema")
            .is_some_and(|(n, _)| n == 3)
    })
    .await;
    assert_eq!(third.registered(EPOCH, "schema"), Some((3, &b"three"[..])));
    let refused = b.write(vec![raise(3, "again")]).await;
    assert!(matches!(
        refused,
        Err(WriteError::EpochTooLow {
            known: 3,
            epoch: 3,
            ..
        })
    ));
    assert_eq!(
        a.snapshot().registered(EPOCH, "schema"),
        Some((3, &b"three"[..]))
    );
}

#[tokio::test]
async fn edits_conflict_only_within_a_group() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path(), 1).await, open(dir.path(), 2).await);
    let edit = |groups: &[(u16, Option<&str>)]| Write::Edit {
        kind: SPEC,
        key: "web".to_owned(),
        groups: groups
            .iter()
            .map(|(id, value)| (*id, value.map(|value| value.as_bytes().to_vec())))
            .collect(),
    };
    let commit = a
        .write(vec![edit(&[
            (0, Some("image")),
            (1, Some("1")),
            (2, Some("label")),
        ])])
        .await
        .unwrap();
    let wire = connect(&a, &b);
    sees(&b, commit).await;
    drop(wire);
    a.write(vec![edit(&[(1, Some("3"))])]).await.unwrap();
    a.write(vec![edit(&[(2, None)])]).await.unwrap();
    b.write(vec![edit(&[(0, Some("image:2"))])]).await.unwrap();
    b.write(vec![edit(&[(1, Some("5"))])]).await.unwrap();
    let _wire = connect(&a, &b);
    let merged = |snapshot: &Snapshot| {
        snapshot.get(SPEC, "web") == Some(b"image:2") && !snapshot.conflicts().is_empty()
    };
    for store in [&a, &b] {
        let snapshot = until(store, merged).await;
        let register = snapshot.state.register(Slot::Intent, SPEC, "web").unwrap();
        assert_eq!(register.group_ids(), [0, 1]);
        assert_eq!(snapshot.get_group(SPEC, "web", 1), Some(&b"5"[..]));
        let conflicts = snapshot.conflicts();
        assert_eq!(conflicts.len(), 1);
        assert_eq!(
            (conflicts[0].group, conflicts[0].others[0].value),
            (1, Some(&b"3"[..]))
        );
    }
    let snapshot = a.snapshot();
    let conflict = &snapshot.conflicts()[0];
    let seen: Vec<_> = std::iter::once(&conflict.active)
        .chain(&conflict.others)
        .map(|side| side.dot)
        .collect();
    let settle = |seen: &[Dot]| {
        let (key, value) = ("web".to_owned(), Some(b"3".to_vec()));
        Write::Settle {
            kind: SPEC,
            key,
            group: 1,
            seen: seen.to_vec(),
            value,
        }
    };
    let refused = a.write(vec![settle(&seen[1..])]).await;
    assert!(
        matches!(refused, Err(WriteError::Changed { .. })),
        "the user chose from other values"
    );
    let commit = a.write(vec![settle(&seen)]).await.unwrap();
    let snapshot = sees(&b, commit).await;
    assert!(snapshot.conflicts().is_empty());
    assert_eq!(snapshot.get_group(SPEC, "web", 1), Some(&b"3"[..]));
    assert_eq!(snapshot.get(SPEC, "web"), Some(&b"image:2"[..]));
}
