use super::*;
use crate::local::{Txn, Write};
use crate::op::{Context, Wanted};

const NOW: u64 = 1_000_000;
const SPEC: u16 = 1;
const FACT: u16 = 2;

fn machine(n: u8) -> MachineId {
    MachineId([n; 16])
}

fn actor(n: u8, incarnation: u64) -> Actor {
    Actor {
        machine: machine(n),
        incarnation,
    }
}

fn put(state: &mut State, key: &str, value: &str) -> Changes {
    let mut changes = Changes::default();
    let write = Write::Put {
        kind: SPEC,
        key: key.to_owned(),
        value: value.as_bytes().to_vec(),
    };
    Txn::new(state, NOW, &mut changes).write(&[write]).unwrap();
    changes
}

fn publish(state: &mut State, rows: &[(&str, &str)]) -> Changes {
    let mut changes = Changes::default();
    let rows = rows
        .iter()
        .map(|(key, value)| (Arc::from(*key), value.as_bytes().to_vec()))
        .collect();
    Txn::new(state, NOW, &mut changes)
        .publish(FACT, &rows)
        .unwrap();
    changes
}

/// Returns all live changes of an actor after `from`, as its own machine would send them.
fn range(state: &State, actor: Actor, from: u64) -> Batch {
    let ops = state.ops_after(actor, from).cloned().collect();
    Batch {
        ops,
        watermarks: vec![(actor, state.watermark(actor))],
        ..Batch::default()
    }
}

fn receive(state: &mut State, batch: &Batch) -> Changes {
    let mut changes = Changes::default();
    state.apply_batch(batch, NOW, &mut changes).unwrap();
    changes
}

fn rows(state: &State, owner: u8) -> Vec<(String, String)> {
    state
        .facts_of(FACT, machine(owner))
        .filter_map(|((_, _, key), fact)| {
            let value = fact.value.as_ref()?;
            Some((key.to_string(), String::from_utf8(value.to_vec()).unwrap()))
        })
        .collect()
}

#[test]
fn state_counts_versions_from_one_without_holes() {
    let mut state = State::new(actor(1, 5));
    put(&mut state, "a", "1");
    publish(&mut state, &[("x", "1"), ("y", "2")]);
    assert_eq!(
        state.own_version(),
        4,
        "one intent, two observations, one sweep"
    );
    let versions: Vec<u64> = state.ops().map(|op| op.dot.version).collect();
    assert_eq!(versions, [1, 2, 3, 4]);
}

#[test]
fn state_ignores_duplicates_and_counts_changes_above_a_gap() {
    let mut a = State::new(actor(1, 1));
    put(&mut a, "a", "1");
    put(&mut a, "b", "2");
    put(&mut a, "c", "3");
    let mut b = State::new(actor(2, 1));
    let mut last = range(&a, actor(1, 1), 2);
    last.watermarks.clear();
    receive(&mut b, &last);
    assert_eq!((b.watermark(actor(1, 1)), b.above_gaps().count()), (0, 1));
    assert!(
        b.register(Slot::Intent, SPEC, "c").is_some(),
        "the change is used anyway"
    );
    receive(&mut b, &range(&a, actor(1, 1), 0));
    assert_eq!((b.watermark(actor(1, 1)), b.above_gaps().count()), (3, 0));
    assert_eq!(b.digest(), a.digest());
    let changes = receive(&mut b, &range(&a, actor(1, 1), 0));
    assert!(changes.is_empty());
}

#[test]
fn state_forgets_replaced_changes() {
    let mut a = State::new(actor(1, 1));
    for value in ["1", "2", "3"] {
        put(&mut a, "a", value);
    }
    assert_eq!(a.ops().count(), 1);
    let mut b = State::new(actor(2, 1));
    receive(&mut b, &range(&a, actor(1, 1), 0));
    assert_eq!(b.watermark(actor(1, 1)), 3);
    assert_eq!(
        b.register(Slot::Intent, SPEC, "a").unwrap().value(),
        Some(&b"3"[..])
    );
}

#[test]
fn publish_skips_unchanged_rows_and_removes_missing_ones() {
    let mut a = State::new(actor(1, 1));
    let mut b = State::new(actor(2, 1));
    publish(&mut a, &[("x", "1"), ("y", "2")]);
    assert!(publish(&mut a, &[("x", "1"), ("y", "2")]).is_empty());
    receive(&mut b, &range(&a, actor(1, 1), 0));
    let before = a.own_version();
    publish(&mut a, &[("y", "3")]);
    assert_eq!(a.own_version() - before, 2, "one changed, one removed");
    let changes = receive(&mut b, &range(&a, actor(1, 1), before));
    assert_eq!(rows(&b, 1), [("y".to_owned(), "3".to_owned())]);
    let changed: Vec<&str> = changes.records.iter().map(|id| &*id.key).collect();
    assert_eq!(changed, ["x", "y"]);
}

#[test]
fn publish_sweeps_tombstones_of_removed_rows() {
    let mut a = State::new(actor(1, 1));
    for n in 0..1_000 {
        publish(&mut a, &[("stays", "1"), (&format!("row-{n}"), "1")]);
    }
    assert!(a.ops().count() < 80, "{} changes kept", a.ops().count());
    let mut b = State::new(actor(2, 1));
    receive(&mut b, &range(&a, actor(1, 1), 0));
    assert_eq!(rows(&b, 1).len(), 2);
}

#[test]
fn publish_accepts_empty_set() {
    let mut a = State::new(actor(1, 1));
    publish(&mut a, &[]);
    let mut b = State::new(actor(2, 1));
    receive(&mut b, &range(&a, actor(1, 1), 0));
    assert!(b.sweep(FACT, machine(1)).is_some());
}

#[test]
fn state_prefers_observations_of_newer_incarnation() {
    let mut old = State::new(actor(1, 1));
    publish(&mut old, &[("lost", "1"), ("kept", "1")]);
    let mut new = State::new(actor(1, 9));
    publish(&mut new, &[("kept", "2")]);
    let ranges = [range(&old, actor(1, 1), 0), range(&new, actor(1, 9), 0)];
    for order in [[0, 1], [1, 0]] {
        let mut b = State::new(actor(2, 1));
        for at in order {
            receive(&mut b, &ranges[at]);
        }
        assert_eq!(rows(&b, 1), [("kept".to_owned(), "2".to_owned())]);
        assert_eq!(b.ops().count(), 2, "a row and a sweep");
    }
}

#[test]
fn state_quarantines_stamps_too_far_ahead_until_their_time() {
    let mut a = State::new(actor(1, 1));
    let mut changes = Changes::default();
    let write = Write::Put {
        kind: SPEC,
        key: "k".to_owned(),
        value: b"early".to_vec(),
    };
    Txn::new(&mut a, NOW + 3_600_000, &mut changes)
        .write(&[write])
        .unwrap();
    assert!(
        a.register(Slot::Intent, SPEC, "k").is_some(),
        "its writer can read it"
    );

    let mut b = State::new(actor(2, 1));
    receive(&mut b, &range(&a, actor(1, 1), 0));
    assert_eq!(
        b.register(Slot::Intent, SPEC, "k")
            .and_then(Register::value),
        None
    );
    assert_eq!(b.quarantined().count(), 1);
    assert_eq!(range(&b, actor(1, 1), 0).ops.len(), 1, "relayed");
    put(&mut b, "other", "x");
    assert!(
        b.hlc.last() >> 16 < NOW + 60_001,
        "it does not move our clock"
    );

    let mut changes = Changes::default();
    b.release(NOW + 3_000_000, &mut changes).unwrap();
    assert!(changes.is_empty());
    b.release(NOW + 3_600_000, &mut changes).unwrap();
    assert_eq!(
        b.register(Slot::Intent, SPEC, "k")
            .and_then(Register::value),
        Some(&b"early"[..])
    );
    assert_eq!(changes.records.len(), 1);
    assert!(
        changes
            .ops
            .values()
            .all(|fate| matches!(fate, Fate::Kept(_))),
        "it is kept in the file"
    );
}

#[test]
fn state_keeps_and_relays_opaque_changes() {
    let mut b = State::new(actor(2, 1));
    let dot = Dot {
        actor: actor(1, 1),
        version: 1,
    };
    let op = Op::decode(
        dot,
        77,
        42,
        Arc::from("k"),
        Bytes::from_static(b"claim"),
        &[],
    );
    let strange = Batch {
        ops: vec![Arc::new(op)],
        watermarks: vec![(actor(1, 1), 1)],
        ..Batch::default()
    };
    receive(&mut b, &strange);
    assert_eq!(b.watermark(actor(1, 1)), 1);
    assert_eq!(b.opaque(), 1);
    assert_eq!(range(&b, actor(1, 1), 0).ops, strange.ops);
}

#[test]
fn state_limits_opaque_changes() {
    let mut b = State::new(actor(2, 1));
    let ops: Vec<_> = (1..=MAX_OPAQUE as u64 + 1)
        .map(|version| {
            let dot = Dot {
                actor: actor(1, 1),
                version,
            };
            Arc::new(Op::decode(dot, 77, 42, Arc::from("k"), Bytes::new(), &[]))
        })
        .collect();
    let flood = Batch {
        ops,
        ..Batch::default()
    };
    assert_eq!(
        b.apply_batch(&flood, NOW, &mut Changes::default()),
        Err(Rejected::TooManyOpaque)
    );
}

#[test]
fn state_merges_unknown_kind_of_known_class() {
    let mut b = State::new(actor(2, 1));
    let dot = Dot {
        actor: actor(1, 1),
        version: 1,
    };
    let wanted = Wanted {
        record: RecordKey::intent(999, "k"),
        hlc: NOW << 16,
        creation: None,
        context: Context::default(),
        groups: Some(vec![(0, None, Bytes::from_static(b"v"))]),
    };
    let op = Op::intent(dot, &wanted);
    receive(
        &mut b,
        &Batch {
            ops: vec![Arc::new(op)],
            ..Batch::default()
        },
    );
    assert_eq!(
        b.register(Slot::Intent, 999, "k").and_then(Register::value),
        Some(&b"v"[..])
    );
}

#[test]
fn state_loads_what_was_stored() {
    let mut a = State::new(actor(1, 1));
    put(&mut a, "a", "1");
    put(&mut a, "a", "2");
    publish(&mut a, &[("x", "1"), ("y", "2")]);
    publish(&mut a, &[("x", "1")]);
    let stored: Vec<_> = a.ops().cloned().collect();
    let (loaded, changes) = State::load(
        a.me(),
        a.hlc,
        &a.vector(),
        &a.gc_watermarks().collect(),
        stored,
        NOW,
    )
    .unwrap();
    assert!(changes.ops.is_empty());
    assert!(loaded.ops().eq(a.ops()));
    assert_eq!(loaded.vector(), a.vector());
    assert_eq!(rows(&loaded, 1), rows(&a, 1));
}

#[test]
fn reincarnate_repeats_everything() {
    let mut a = State::new(actor(1, 1));
    put(&mut a, "before", "1");
    let opened_at = a.own_version();
    put(&mut a, "since", "2");
    publish(&mut a, &[("x", "1")]);
    Txn::new(&mut a, NOW, &mut Changes::default())
        .reincarnate(7, opened_at)
        .unwrap();
    assert_eq!(a.me(), actor(1, 7));
    let again = range(&a, actor(1, 7), 0);
    let keys: Vec<&str> = again.ops.iter().map(|op| &*op.key).collect();
    assert_eq!(keys, ["since", "x", ""]);
    assert_eq!(
        a.register(Slot::Intent, SPEC, "before").unwrap().value(),
        Some(&b"1"[..])
    );
    assert_eq!(
        a.register(Slot::Intent, SPEC, "since")
            .unwrap()
            .items()
            .len(),
        1
    );
}
