//! Makes changes from bytes and gives them to two machines in two orders.

use std::sync::Arc;

use bytes::Bytes;

use super::input::Input;
use super::{CLAIM, FACT, KINDS, LOG, NOW, REGISTRY, SPEC};
use crate::id::{Actor, Dot, MAX_COUNTER, MachineId};
use crate::kind::{ACKS, MAX_KEY, MEMBERS, RecordKey, Slot};
use crate::op::{Context, Op, Wanted};
use crate::register::Register;
use crate::state::{Batch, Changes, State};

/// Maximum number of changes in one history. More would take longer without testing more.
const MAX_OPS: usize = 400;
/// A class that is not known.
const CLASS_FUTURE: u8 = 99;
/// A time at which no stamp is in the future.
const END: u64 = MAX_COUNTER;

pub(super) fn machine(n: usize) -> MachineId {
    MachineId([n as u8 + 1; 16])
}

fn state(n: usize) -> State {
    State::new(Actor {
        machine: machine(n),
        incarnation: 1,
    })
}

/// What one machine of the history has done so far.
#[derive(Debug, Clone)]
struct Writer {
    actor: Actor,
    version: u64,
    /// Up to where it has swept its observations and its log.
    floors: [(u64, u64); 2],
}

/// All changes ever made, causes before effects.
struct History {
    writers: Vec<Writer>,
    ops: Vec<Arc<Op>>,
}

impl History {
    fn of(input: &mut Input<'_>) -> Self {
        let writer = |n| Writer {
            actor: Actor {
                machine: machine(n),
                incarnation: 1,
            },
            version: 0,
            floors: [(0, 0); 2],
        };
        let mut history = Self {
            writers: (0..4).map(writer).collect(),
            ops: Vec::new(),
        };
        while !input.is_empty() && history.ops.len() < MAX_OPS {
            history.step(input);
        }
        history
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let (what, n) = (input.below(12), input.below(self.writers.len()));
        if what == 0 {
            if let Some(writer) = self.writers.get_mut(n) {
                writer.actor.incarnation += 1;
                writer.version = 0;
            }
            return;
        }
        let Some(writer) = self.writers.get_mut(n) else {
            return;
        };
        writer.version += 1;
        let dot = Dot {
            actor: writer.actor,
            version: writer.version,
        };
        let key: Arc<str> = Arc::from(format!("k{}", input.below(3)));
        let value = [input.byte()];
        let op = match what {
            1..=4 => Op::intent(dot, &self.wanted(input, dot, &key, SPEC)),
            5 | 6 => Op::intent(dot, &self.wanted(input, dot, &key, CLAIM)),
            7 => Op::fact(dot, FACT, key, (value != [0]).then_some(&value)),
            8 => Op::entry(dot, LOG, input.number(), &value),
            9 => {
                let kind = input.below(2);
                let Some(floor) = writer.floors.get_mut(kind) else {
                    return;
                };
                // A later sweep never undoes what an earlier one removed.
                let to = (
                    dot.actor.incarnation,
                    dot.version.saturating_sub(input.below(4) as u64),
                );
                *floor = to.max(*floor);
                Op::sweep(dot, if kind == 0 { FACT } else { LOG }, *floor)
            }
            10 if input.byte().is_multiple_of(2) => {
                // A machine's floor only grows with the epoch.
                let epoch = input.below(5) as u64;
                let member = postcard::to_stdvec(&(0_u32, epoch.min(2))).unwrap_or_default();
                let key = Arc::from(machine(input.below(4)).to_string());
                Op::registry(dot, MEMBERS, key, epoch, stamp(input), &member)
            }
            10 => Op::registry(
                dot,
                REGISTRY,
                key,
                input.below(4) as u64,
                stamp(input),
                &value,
            ),
            _ => Op::decode(
                dot,
                SPEC,
                CLASS_FUTURE,
                key,
                Bytes::copy_from_slice(&value),
                &KINDS,
            ),
        };
        self.ops.push(Arc::new(op));
    }

    /// Makes a write whose writer has seen its own writes and any of the others, with everything
    /// that these had seen.
    fn wanted(&self, input: &mut Input<'_>, dot: Dot, key: &str, kind: u16) -> Wanted {
        let (mut context, mut creation) = (Context::default(), None);
        let mut groups = Vec::new();
        let of_record = |op: &&Arc<Op>| op.kind == kind && &*op.key == key && op.asked().is_some();
        let mut seen = input.number();
        for op in self.ops.iter().rev().filter(of_record) {
            let Some(asked) = op.asked() else { continue };
            let also = seen % 2 == 1;
            seen >>= 1;
            if !also && op.dot.actor != dot.actor {
                continue;
            }
            context.join(&asked.context);
            context.add(op.dot);
            creation = creation.max(Some(asked.creation));
            if let Some(group) = asked.groups.iter().flatten().next() {
                groups.push((group.id, Some((group.dot, group.hlc)), group.value.clone()));
            }
        }
        let form = input.byte();
        groups.push((u16::from(form % 4), None, Bytes::copy_from_slice(&[form])));
        // The newest value of a group is the last.
        groups.reverse();
        groups.sort_by_key(|(id, _, _)| *id);
        groups.dedup_by_key(|(id, _, _)| *id);
        let groups = (form < 200).then_some(groups);
        let creation = creation.filter(|_| !form.is_multiple_of(3));
        Wanted {
            record: if kind == CLAIM {
                RecordKey::claim(kind, key)
            } else {
                RecordKey::intent(kind, key)
            },
            hlc: stamp(input),
            creation,
            context,
            groups,
        }
    }

    fn watermarks(&self) -> Vec<(Actor, u64)> {
        let dots = self.ops.iter().map(|op| op.dot);
        dots.map(|dot| (dot.actor, dot.version)).collect()
    }
}

/// Mostly a time in the past, sometimes one too far in the future.
fn stamp(input: &mut Input<'_>) -> u64 {
    match input.byte() {
        past @ 0..=0xdf => (NOW << 16) + u64::from(past),
        future => (NOW + 1_000_000) << 16 | u64::from(future),
    }
}

fn batch(ops: &[Arc<Op>], watermarks: &[(Actor, u64)], repair: bool) -> Batch {
    let mut batch = Batch {
        ops: ops.to_vec(),
        watermarks: watermarks.to_vec(),
        ..Batch::default()
    };
    batch.repair = repair;
    batch
}

fn apply(state: &mut State, ops: &[Arc<Op>], watermarks: &[(Actor, u64)], repair: bool) {
    let outcome = state.apply_batch(
        &batch(ops, watermarks, repair),
        NOW,
        &mut Changes::default(),
    );
    assert_eq!(outcome, Ok(()));
}

fn finish(state: &mut State, watermarks: &[(Actor, u64)]) {
    apply(state, &[], watermarks, false);
    let outcome = state.release(END, &mut Changes::default());
    assert_eq!(outcome, Ok(()));
}

/// Shuffles changes, with a seed that comes from the input.
fn shuffled(ops: &[Arc<Op>], mut seed: u64) -> Vec<Arc<Op>> {
    let mut order = ops.to_vec();
    for at in (1..order.len()).rev() {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        order.swap(at, (seed >> 33) as usize % (at + 1));
    }
    order
}

pub(super) fn sound(mut input: Input<'_>) {
    let (seed, options) = (
        u64::from(input.byte()) << 8 | u64::from(input.byte()),
        input.byte(),
    );
    let history = History::of(&mut input);
    let watermarks = history.watermarks();
    let (mut a, mut b) = (state(0), state(usize::from(options) % 6));
    for (op, watermark) in history.ops.iter().zip(&watermarks) {
        // Only a store that has everything of an actor up to a version can announce it.
        let told = if options & 64 == 0 {
            std::slice::from_ref(watermark)
        } else {
            &[]
        };
        apply(&mut a, std::slice::from_ref(op), told, false);
    }
    let order = shuffled(&history.ops, seed);
    for some in order.chunks(1 + usize::from(options) % 7) {
        apply(&mut b, some, &[], false);
    }
    let again = shuffled(&history.ops, seed + 1);
    apply(&mut a, &again, &[], options & 128 != 0);
    apply(
        &mut b,
        again.get(again.len() / 2..).unwrap_or_default(),
        &[],
        options & 128 == 0,
    );
    finish(&mut a, &watermarks);
    finish(&mut b, &watermarks);
    let dots = |state: &State| state.ops().map(|op| op.dot).collect::<Vec<_>>();
    assert_eq!(dots(&a), dots(&b));
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.watermarks_hash(), b.watermarks_hash());
    read(&a);
}

pub(super) fn raw(mut input: Input<'_>) {
    let mut ops = Vec::new();
    let mut watermarks = Vec::new();
    while !input.is_empty() && ops.len() < MAX_OPS {
        let what = input.byte();
        let incarnation = input.number() % MAX_COUNTER;
        let actor = Actor {
            machine: machine(usize::from(what) % 4),
            incarnation,
        };
        // The limits that a frame enforces.
        let version = (input.number() % MAX_COUNTER).max(1);
        if what >= 0xf0 {
            watermarks.push((actor, version));
            continue;
        }
        let kind = match what >> 2 & 15 {
            8 => MEMBERS,
            9 => ACKS,
            10 => input.number() as u16,
            known => u16::from(known),
        };
        let (class, form) = (input.byte() % 8, input.byte());
        let key = match form % 8 {
            0 => String::from_utf8_lossy(input.piece())
                .chars()
                .take(MAX_KEY / 4)
                .collect(),
            id @ 1..5 => machine(usize::from(id) - 1).to_string(),
            short => format!("k{short}"),
        };
        let body = Bytes::copy_from_slice(input.piece());
        let dot = Dot { actor, version };
        let kinds = if form & 8 == 0 { &KINDS[..] } else { &[] };
        ops.push(Arc::new(Op::decode(
            dot,
            kind,
            class,
            key.into(),
            body,
            kinds,
        )));
    }
    let (mut a, mut b) = (state(0), state(5));
    let (early, late) = watermarks.split_at(watermarks.len() / 2);
    let mut back = ops.clone();
    back.reverse();
    for (state, order) in [(&mut a, &ops), (&mut b, &back)] {
        for (watermarks, repair) in [(early, false), (late, true)] {
            // A rejected batch may be half-applied, so the state is discarded.
            let mut next = state.clone();
            if next
                .apply_batch(
                    &batch(order, watermarks, repair),
                    NOW,
                    &mut Changes::default(),
                )
                .is_ok()
            {
                *state = next;
            }
            read(state);
        }
        if state.release(END, &mut Changes::default()).is_ok() {
            read(state);
        }
    }
}

/// Reads everything that a state can show.
fn read(state: &State) {
    let ids = |register: &Register| -> Vec<_> {
        let ids = register.group_ids();
        for id in &ids {
            let _ = register.candidates(*id);
        }
        ids
    };
    for (slot, kind) in [
        (Slot::Intent, SPEC),
        (Slot::Claim, CLAIM),
        (Slot::Intent, ACKS),
        (Slot::Intent, 0),
        (Slot::Claim, SPEC),
    ] {
        for (key, register) in state.registers(slot, kind) {
            // A group that exists has a value.
            assert!(
                ids(register)
                    .iter()
                    .all(|id| register.active(*id).is_some()),
                "{key}"
            );
            assert_eq!(
                register.creation().is_none(),
                register.deleted_at().is_some(),
                "{key}"
            );
            let _ = (
                register.value(),
                register.context(),
                register.is_contested(),
            );
        }
        let _ = state.contested(slot).count();
    }
    let _ = (state.standing(), state.digest(), state.watermarks_hash());
}
