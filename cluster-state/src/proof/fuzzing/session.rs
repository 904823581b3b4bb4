//! A session with a peer that sends anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::history::machine;
use super::input::Input;
use super::{CLAIM, FACT, KINDS, LOG, NOW, REGISTRY, SPEC};
use crate::id::{Actor, ClusterId, Dot};
use crate::kind::RecordKey;
use crate::op::{Context, Op, Wanted};
use crate::session::{Core, Effect};
use crate::state::{Batch, Changes, State};
use crate::vector::VersionVector;
use crate::wire::{self, MAX_FRAME, Message, WATERMARKS_CHUNK};

const CLUSTER: ClusterId = ClusterId([9; 16]);

/// Makes a machine that has written one record of each class.
pub(super) fn known(n: usize) -> State {
    let actor = Actor {
        machine: machine(n),
        incarnation: 1,
    };
    let dot = |version| Dot { actor, version };
    let key: Arc<str> = Arc::from("key");
    let wanted = |record, groups| Wanted {
        record,
        hlc: NOW << 16,
        creation: None,
        context: Context::default(),
        groups,
    };
    let value = || Some(vec![(0, None, Bytes::from_static(b"value"))]);
    let ops = [
        Op::intent(dot(1), &wanted(RecordKey::intent(SPEC, "key"), value())),
        Op::intent(dot(2), &wanted(RecordKey::claim(CLAIM, "key"), value())),
        Op::intent(dot(3), &wanted(RecordKey::intent(SPEC + 100, "key"), None)),
        Op::fact(dot(4), FACT, Arc::clone(&key), Some(b"value")),
        Op::sweep(dot(5), FACT, (1, 2)),
        Op::entry(dot(6), LOG, NOW, b"value"),
        Op::registry(dot(7), REGISTRY, Arc::clone(&key), 1, NOW << 16, b"value"),
    ];
    let mut state = State::new(actor);
    let watermarks = vec![(actor, ops.len() as u64)];
    let batch = Batch {
        ops: ops.map(Arc::new).into(),
        watermarks,
        ..Batch::default()
    };
    assert_eq!(
        state.apply_batch(&batch, NOW, &mut Changes::default()),
        Ok(())
    );
    state
}

pub(super) fn core(state: &State, peer: usize) -> Core {
    Core::new(CLUSTER, &KINDS, machine(peer), state)
}

/// Does what the writer does when the cluster continued without this machine. Returns the state to
/// fill.
fn begin_fetching(state: &mut State) -> State {
    state.begin_rejoin(VersionVector::default());
    State::fetched(state.me())
}

/// This machine's end.
struct End {
    /// The state that sessions see.
    state: State,
    /// The state that is being fetched. `None` if nothing is fetched.
    fresh: Option<State>,
    core: Core,
    /// Highest number of kinds since the session started. A comparison sends one frame for each.
    kinds: usize,
}

impl End {
    fn new(mut state: State, fetching: bool) -> Self {
        let fresh = fetching.then(|| begin_fetching(&mut state));
        let core = core(&state, 1);
        Self {
            kinds: state.bucket_sums().count(),
            core,
            state,
            fresh,
        }
    }

    /// The session has ended, so the next one starts, as in the driver.
    fn again(&mut self) {
        self.core = core(&self.state, 1);
        self.kinds = 0;
    }

    fn handle(&mut self, frame: &Bytes) {
        match self.core.handle(frame, &self.state) {
            Ok(None) => {}
            Ok(Some(Effect::Apply(batch))) => {
                let state = self.fresh.as_mut().unwrap_or(&mut self.state);
                let mut next = state.clone();
                if next
                    .apply_batch(&batch, NOW, &mut Changes::default())
                    .is_ok()
                {
                    *state = next;
                    self.core.applied();
                } else {
                    self.again();
                }
            }
            Ok(Some(_)) => self.again(),
            Err(error) => {
                let refusal = Core::refusal(&error).map(|frame| wire::decode(&frame, &KINDS));
                assert!(
                    matches!(refusal, None | Some(Ok(Message::Refuse(_)))),
                    "{error}"
                );
                self.again();
            }
        }
        self.kinds = self.state.bucket_sums().count().max(self.kinds);
        // A new session of a peer that has not reported anything sends everything.
        let _ = core(&self.state, 2)
            .lag(&self.state)
            .max(self.core.lag(&self.state));
    }

    /// Returns all frames to send. Their number is bounded, however many arrived before.
    fn drain(&mut self, bulk: bool) -> Vec<Bytes> {
        let watermarks = self.state.watermarks().count();
        let live = self.state.ops().count();
        // A greeting, one report of all watermarks, one digest, one comparison, one refusal.
        let control = 1 + watermarks / WATERMARKS_CHUNK + 2 + self.kinds + 2;
        let (mut told, mut repaired, mut frames) = (0, BTreeMap::new(), Vec::new());
        while let Some(frame) = self.core.next_frame(&self.state, bulk) {
            assert!(frame.len() <= MAX_FRAME, "{} bytes", frame.len());
            match wire::decode(&frame, &KINDS) {
                Ok(Message::Changes(batch)) if batch.repair => {
                    batch
                        .ops
                        .iter()
                        .for_each(|op| *repaired.entry(op.dot).or_insert(0) += 1);
                }
                Ok(Message::Changes(_)) => {}
                Ok(_) => told += 1,
                Err(error) => panic!("cannot decode an own frame: {error}"),
            }
            frames.push(frame);
            assert!(
                told <= control,
                "{told} frames before changes, at most {control} are plausible"
            );
            assert!(
                frames.len() <= control + 3 * (live + watermarks),
                "no end of frames"
            );
        }
        assert!(
            repaired.values().all(|times| *times == 1),
            "waiting to be sent again twice: {repaired:?}"
        );
        // Otherwise the driver would ask for a frame forever.
        if self.core.has_frame(&self.state, bulk) {
            frames.extend(self.core.next_frame(&self.state, bulk));
            let idle = frames.is_empty() && self.core.has_frame(&self.state, bulk);
            assert!(!idle, "a frame is promised but not returned");
        }
        if self.core.is_outgrown() {
            self.again();
        }
        frames
    }
}

/// The input has a byte of options. For each frame it has a byte for what happens, and the frame's
/// bytes.
pub(super) fn run(mut input: Input<'_>) {
    let options = input.byte();
    let state = if options & 1 == 0 {
        known(0)
    } else {
        State::new(known(0).me())
    };
    let mut end = End::new(state, options & 2 != 0);
    let peer = known(1);
    let mut sound = core(&peer, 0);
    if options & 4 == 0 {
        while let Some(frame) = sound.next_frame(&peer, false) {
            end.handle(&frame);
        }
        for frame in end.drain(true) {
            let _ = sound.handle(&frame, &peer);
        }
    }
    while !input.is_empty() {
        let what = input.byte();
        for _ in 0..what & 3 {
            end.core.tick(&end.state);
            sound.tick(&peer);
        }
        if what & 4 != 0 {
            // A valid frame among the others.
            if let Some(frame) = sound.next_frame(&peer, true) {
                end.handle(&frame);
            }
        } else {
            end.handle(&Bytes::copy_from_slice(input.piece()));
        }
        if what & 8 != 0 {
            for frame in end.drain(what & 16 == 0) {
                if what & 32 != 0 && sound.handle(&frame, &peer).is_err() {
                    sound = core(&peer, 0);
                }
            }
        }
    }
    end.drain(false);
    end.drain(true);
}
