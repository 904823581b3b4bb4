use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::kind::{MAX_RECORD, Slot};
use crate::local::{Txn, Write};
use crate::state::Changes;
use crate::wire::{FRAME_TARGET, MAX_FRAME};

const CLUSTER: ClusterId = ClusterId([9; 16]);
const NOW: u64 = 1_000_000;

fn machine(n: u8) -> MachineId {
    MachineId([n; 16])
}

fn state(n: u8) -> State {
    State::new(Actor {
        machine: machine(n),
        incarnation: 1,
    })
}

fn put(state: &mut State, key: &str, bytes: usize) {
    let write = Write::Put {
        kind: 1,
        key: key.to_owned(),
        value: vec![7; bytes],
    };
    Txn::new(state, NOW, &mut Changes::default())
        .write(&[write])
        .unwrap();
}

fn deliver(core: &mut Core, state: &mut State, frame: &Bytes) {
    if let Some(Effect::Apply(batch)) = core.handle(frame, state).unwrap() {
        state
            .apply_batch(&batch, NOW, &mut Changes::default())
            .unwrap();
        core.applied();
    }
}

/// Two connected machines. Frames arrive immediately and in order.
struct Pair {
    states: [State; 2],
    cores: [Core; 2],
    /// Number of frames moved, and their bytes.
    frames: usize,
    bytes: usize,
    largest: usize,
}

impl Pair {
    fn new(states: [State; 2]) -> Self {
        let core = |n: usize| Core::new(CLUSTER, &[], states[1 - n].me().machine, &states[n]);
        let cores = [core(0), core(1)];
        Self {
            states,
            cores,
            frames: 0,
            bytes: 0,
            largest: 0,
        }
    }

    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for side in 0..2 {
                while let Some(frame) = self.cores[side].next_frame(&self.states[side], true) {
                    quiet = false;
                    self.frames += 1;
                    self.bytes += frame.len();
                    self.largest = self.largest.max(frame.len());
                    deliver(
                        &mut self.cores[1 - side],
                        &mut self.states[1 - side],
                        &frame,
                    );
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn tick(&mut self) {
        for side in 0..2 {
            self.cores[side].tick(&self.states[side]);
        }
    }
}

#[test]
fn session_sends_what_the_peer_lacks_then_what_is_new() {
    let (mut a, mut b) = (state(1), state(2));
    put(&mut a, "a", 10);
    put(&mut b, "b", 10);
    let mut pair = Pair::new([a, b]);
    pair.settle();
    assert_eq!(pair.states[0].vector(), pair.states[1].vector());
    put(&mut pair.states[0], "c", 10);
    let before = pair.frames;
    pair.settle();
    assert_eq!(
        pair.frames - before,
        1,
        "one change is one frame, and nothing is sent back"
    );
    assert!(pair.states[1].register(Slot::Intent, 1, "c").is_some());
}

#[test]
fn session_costs_tens_of_bytes_when_idle() {
    let (mut a, b) = (state(1), state(2));
    put(&mut a, "a", 10);
    let mut pair = Pair::new([a, b]);
    pair.settle();
    pair.tick();
    pair.settle();
    let before = pair.bytes;
    pair.tick();
    pair.settle();
    assert!(
        pair.bytes - before <= 20,
        "{} bytes in both directions",
        pair.bytes - before
    );
}

#[test]
fn session_fills_frames_and_sends_large_record_alone() {
    let (mut a, b) = (state(1), state(2));
    for n in 0..500 {
        put(&mut a, &format!("small-{n}"), 100);
    }
    let mut pair = Pair::new([a, b]);
    pair.settle();
    assert!(pair.largest <= FRAME_TARGET, "{}", pair.largest);
    assert!(pair.frames < 20, "{}", pair.frames);
    put(&mut pair.states[0], "large", MAX_RECORD - 5);
    put(&mut pair.states[0], "next", 10);
    pair.settle();
    assert!(pair.largest > FRAME_TARGET && pair.largest <= MAX_FRAME);
    assert_eq!(pair.states[0].vector(), pair.states[1].vector());
}

#[test]
fn session_sends_intents_then_observations_then_watermarks() {
    let mut pair = Pair::new([state(1), state(2)]);
    pair.settle();
    let rows = (0..300)
        .map(|n| (Arc::from(format!("row-{n}")), vec![7; 100]))
        .collect();
    Txn::new(&mut pair.states[0], NOW, &mut Changes::default())
        .publish(2, &rows)
        .unwrap();
    put(&mut pair.states[0], "urgent", 10);
    let mut frames = Vec::new();
    while let Some(frame) = pair.cores[0].next_frame(&pair.states[0], true) {
        frames.push(frame);
    }
    let batches: Vec<Batch> = frames
        .iter()
        .map(|frame| match wire::decode(frame, &[]) {
            Ok(Message::Changes(batch)) => batch,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(batches.len() > 2);
    assert_eq!(&*batches[0].ops[0].key, "urgent");
    let (last, before) = batches.split_last().unwrap();
    assert!(before.iter().all(|batch| batch.watermarks.is_empty()) && !last.watermarks.is_empty());
    deliver(&mut pair.cores[1], &mut pair.states[1], &frames[0]);
    assert!(
        pair.states[1].register(Slot::Intent, 1, "urgent").is_some(),
        "visible before the rest has arrived"
    );
    assert_eq!(pair.states[1].watermark(pair.states[0].me()), 0);
    for frame in &frames[1..] {
        deliver(&mut pair.cores[1], &mut pair.states[1], frame);
    }
    assert_eq!(pair.states[0].vector(), pair.states[1].vector());
    assert_eq!(pair.states[0].digest(), pair.states[1].digest());
}

#[test]
fn session_without_bandwidth_sends_only_intents() {
    let mut pair = Pair::new([state(1), state(2)]);
    pair.settle();
    let rows = [(Arc::from("row"), vec![7; 100])].into();
    Txn::new(&mut pair.states[0], NOW, &mut Changes::default())
        .publish(2, &rows)
        .unwrap();
    assert!(!pair.cores[0].has_frame(&pair.states[0], false));
    put(&mut pair.states[0], "urgent", 10);
    assert!(pair.cores[0].has_frame(&pair.states[0], false));
    let frame = pair.cores[0].next_frame(&pair.states[0], false).unwrap();
    deliver(&mut pair.cores[1], &mut pair.states[1], &frame);
    assert!(pair.states[1].register(Slot::Intent, 1, "urgent").is_some());
    assert!(pair.states[1].fact(2, machine(1), "row").is_none());
    pair.settle();
    assert!(pair.states[1].fact(2, machine(1), "row").is_some());
    assert_eq!(pair.states[0].vector(), pair.states[1].vector());
}

/// A pair whose second machine has what machine 1 wrote and machine 3 lacks. Both machines report
/// to hear machine 1.
fn in_the_middle() -> Pair {
    let mut pair = Pair::new([state(2), state(3)]);
    pair.settle();
    pair.cores[0].hear(vec![machine(1)]);
    pair.cores[1].hear(vec![machine(1)]);
    pair.settle();
    let mut writer = state(1);
    put(&mut writer, "a", 10);
    let batch = Batch {
        ops: writer.ops().cloned().collect(),
        watermarks: writer.watermarks().collect(),
        ..Batch::default()
    };
    pair.states[0]
        .apply_batch(&batch, NOW, &mut Changes::default())
        .unwrap();
    pair
}

#[test]
fn session_holds_back_changes_of_a_machine_the_peer_hears() {
    let mut pair = in_the_middle();
    pair.settle();
    assert!(pair.cores[0].is_holding());
    assert!(
        !pair.cores[0].has_frame(&pair.states[0], true),
        "nothing is announced in the meantime"
    );
    assert_eq!(
        pair.states[1].vector().len(),
        0,
        "neither the change nor its watermark"
    );
    let seq = pair.states[0].seq();
    pair.cores[0].hold_no_longer(seq);
    pair.settle();
    assert!(!pair.cores[0].is_holding());
    assert_eq!(pair.states[0].vector(), pair.states[1].vector());
}

#[test]
fn session_leaves_out_held_back_change_the_peer_has() {
    let mut pair = in_the_middle();
    pair.settle();
    let batch = Batch {
        ops: pair.states[0].ops().cloned().collect(),
        watermarks: pair.states[0].watermarks().collect(),
        ..Batch::default()
    };
    pair.states[1]
        .apply_batch(&batch, NOW, &mut Changes::default())
        .unwrap();
    pair.cores[1].look_for_news(&pair.states[1]);
    let before = pair.frames;
    pair.settle();
    assert_eq!(pair.frames - before, 1, "the peer reports it");
    assert!(!pair.cores[0].is_holding());
}

#[test]
fn session_never_overtakes_held_back_changes() {
    let mut pair = in_the_middle();
    pair.settle();
    put(&mut pair.states[0], "b", 10);
    let frame = pair.cores[0].next_frame(&pair.states[0], true).unwrap();
    let Ok(Message::Changes(batch)) = wire::decode(&frame, &[]) else {
        panic!("no changes")
    };
    let keys: Vec<&str> = batch.ops.iter().map(|op| &*op.key).collect();
    assert_eq!(keys, ["a", "b"]);
    assert!(!batch.watermarks.is_empty() && !pair.cores[0].is_holding());
}

#[test]
fn session_relays_immediately_what_the_peer_does_not_hear() {
    let mut pair = in_the_middle();
    pair.cores[1].hear(Vec::new());
    pair.settle();
    assert_eq!(pair.states[0].vector(), pair.states[1].vector());
}

#[test]
fn session_repairs_different_records_under_equal_watermarks() {
    let (mut a, mut b) = (state(1), state(2));
    put(&mut a, "a", 10);
    let mut pair = Pair::new([a.clone(), b.clone()]);
    pair.settle();
    [a, b] = pair.states;
    // No correct machine does this: it announces a version that it does not have.
    let dot = Dot {
        actor: a.me(),
        version: 2,
    };
    put(&mut a, "lost", 10);
    let watermarks = vec![(dot.actor, dot.version)];
    b.apply_batch(
        &Batch {
            watermarks,
            ..Batch::default()
        },
        NOW,
        &mut Changes::default(),
    )
    .unwrap();
    assert_ne!(a.digest(), b.digest());
    let mut pair = Pair::new([a, b]);
    pair.settle();
    assert!(pair.states[1].register(Slot::Intent, 1, "lost").is_none());
    for _ in 0..DIGEST_TICKS {
        pair.tick();
        pair.settle();
    }
    assert!(pair.states[1].register(Slot::Intent, 1, "lost").is_some());
    assert_eq!(pair.states[0].digest(), pair.states[1].digest());
    assert!(pair.cores.iter().any(|core| core.differences() > 0));
}

#[test]
fn session_does_not_resend_frames_in_transit() {
    let mut pair = Pair::new([state(1), state(2)]);
    pair.settle();
    put(&mut pair.states[0], "a", 10);
    let frame = pair.cores[0].next_frame(&pair.states[0], true).unwrap();
    // The peer reports while the frame is in transit.
    pair.cores[1].tick(&pair.states[1]);
    let word = pair.cores[1].next_frame(&pair.states[1], true).unwrap();
    deliver(&mut pair.cores[0], &mut pair.states[0], &word);
    assert!(!pair.cores[0].has_frame(&pair.states[0], true));
    deliver(&mut pair.cores[1], &mut pair.states[1], &frame);
    assert_eq!(pair.states[0].vector(), pair.states[1].vector());
}

#[test]
fn session_refuses_other_cluster_machine_and_protocol() {
    let (a, b) = (state(1), state(2));
    let mut stranger = Core::new(ClusterId([1; 16]), &[], machine(1), &b);
    let hello = stranger.next_frame(&b, true).unwrap();
    let mut core = Core::new(CLUSTER, &[], machine(2), &a);
    let error = core.handle(&hello, &a).unwrap_err();
    let theirs = ClusterId([1; 16]);
    assert_eq!(
        error,
        SessionError::OtherCluster {
            peer: machine(2),
            theirs,
            ours: CLUSTER
        }
    );
    let refusal = Core::refusal(&error).unwrap();
    assert!(matches!(
        stranger.handle(&refusal, &b),
        Err(SessionError::Refused { .. })
    ));

    let mut core = Core::new(CLUSTER, &[], machine(3), &a);
    let hello = Core::new(CLUSTER, &[], machine(1), &b)
        .next_frame(&b, true)
        .unwrap();
    let error = core.handle(&hello, &a).unwrap_err();
    assert_eq!(
        error,
        SessionError::OtherMachine {
            expected: machine(3),
            found: machine(2)
        }
    );

    let newer = Hello {
        protocol: 9,
        oldest: 8,
        cluster: CLUSTER,
        machine: machine(2),
        incarnation: 1,
        rejoin: false,
        new: false,
        standing: b.standing(),
    };
    let mut core = Core::new(CLUSTER, &[], machine(2), &a);
    let error = core.handle(&wire::encode_hello(&newer), &a).unwrap_err();
    assert_eq!(
        error,
        SessionError::Protocol {
            peer: machine(2),
            theirs: 9
        }
    );
    let compatible = Hello { oldest: 1, ..newer };
    assert!(
        Core::new(CLUSTER, &[], machine(2), &a)
            .handle(&wire::encode_hello(&compatible), &a)
            .is_ok()
    );
}

#[test]
fn session_ends_on_changes_before_the_greeting() {
    let a = state(1);
    let watermarks = vec![(
        Actor {
            machine: machine(2),
            incarnation: 1,
        },
        1,
    )];
    let mut core = Core::new(CLUSTER, &[], machine(2), &a);
    let early = wire::encode_changes(&Batch {
        watermarks,
        ..Batch::default()
    });
    assert!(matches!(
        core.handle(&early, &a),
        Err(SessionError::BadFrame { .. })
    ));
}

#[test]
fn session_demands_new_incarnation_when_peer_knows_more() {
    let mut old = state(1);
    put(&mut old, "a", 1);
    put(&mut old, "b", 1);
    let mut pair = Pair::new([old, state(2)]);
    pair.settle();
    let [_, b] = pair.states;
    // The same machine, with an older copy of its file.
    let mut restored = state(1);
    put(&mut restored, "x", 1);
    let mut ours = Core::new(CLUSTER, &[], machine(2), &restored);
    let mut theirs = Core::new(CLUSTER, &[], machine(1), &b);
    let hello = theirs.next_frame(&b, true).unwrap();
    assert!(ours.handle(&hello, &restored).unwrap().is_none());
    let vector = theirs.next_frame(&b, true).unwrap();
    assert!(matches!(
        ours.handle(&vector, &restored),
        Ok(Some(Effect::Reincarnate(1)))
    ));
}

#[test]
fn session_splits_long_vector_into_frames() {
    let mut a = state(1);
    let mut changes = Changes::default();
    for n in 0..1_000u64 {
        let actor = Actor {
            machine: machine(5),
            incarnation: n,
        };
        let watermarks = vec![(actor, 3)];
        a.apply_batch(
            &Batch {
                watermarks,
                ..Batch::default()
            },
            NOW,
            &mut changes,
        )
        .unwrap();
    }
    let mut pair = Pair::new([a, state(2)]);
    pair.settle();
    assert_eq!(pair.states[1].vector().len(), 1_000);
    assert!(pair.largest <= FRAME_TARGET, "{}", pair.largest);
}

proptest! {
    #[test]
    fn session_never_panics_on_any_frame(frames in prop::collection::vec((0u8..9, prop::collection::vec(any::<u8>(), 0..200)), 1..8)) {
        let (mut a, b) = (state(1), state(2));
        put(&mut a, "a", 10);
        let mut core = Core::new(CLUSTER, &[], machine(2), &a);
        let mut peer = Core::new(CLUSTER, &[], machine(1), &b);
        while let Some(frame) = peer.next_frame(&b, true) {
            deliver(&mut core, &mut a, &frame);
        }
        for (tag, mut bytes) in frames {
            bytes.insert(0, tag);
            let _ = core.handle(&Bytes::from(bytes), &a);
            core.tick(&a);
            while core.next_frame(&a, true).is_some() {}
        }
    }
}
