//! The content of the store as one immutable value per commit, and the rules by which changes alter
//! it.
//!
//! The state is the set of live changes (`ops`) and the watermarks of the actors. The
//! other maps are views of these. Applying a change is idempotent and independent of order. There
//! is no clock and no disk here: the time is an argument, and what must be written to disk is
//! returned in `Changes`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::{Hlc, too_far_ahead};
use crate::id::{Actor, Dot, MachineId};
use crate::kind::{self, RecordId, RecordKey, Slot};
use crate::op::{Content, Lane, Op};
use crate::register::Register;
use crate::shared_map::SharedMap;
use crate::vector::VersionVector;

mod collect;
mod digest;
mod members;
mod sending;
mod watermarks;

pub(crate) use collect::Acknowledgements;
pub(crate) use digest::BUCKETS;
pub use members::MemberStatus;
pub(crate) use members::{Member, Standing, declared};
pub(crate) use sending::Next;

/// Maximum number of changes that are kept without being understood: of a newer peer's classes, or
/// damaged.
pub(crate) const MAX_OPAQUE: usize = 10_000;

pub(crate) type FactKey = (u16, MachineId, Arc<str>);

/// An observation or a log entry: the newest change that its owner made to it.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub(crate) dot: Dot,
    /// When a log entry was made, in milliseconds. 0 for an observation.
    pub(crate) ms: u64,
    /// `None` means that the row no longer exists.
    pub(crate) value: Option<Bytes>,
}

/// The last sweep of an owner's observations of a kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sweep {
    pub(crate) dot: Dot,
    /// Observations before this (incarnation, version) are removed.
    pub(crate) floor: (u64, u64),
}

/// A live change and its number in the order of sending.
#[derive(Debug, Clone)]
struct Kept {
    op: Arc<Op>,
    seq: u64,
}

/// The watermark of an actor, and its number in the order of sending.
#[derive(Debug, Clone, Copy)]
struct Watermark {
    version: u64,
    /// The gc watermark. Some of the deletes up to here were forgotten; above it, none.
    gc_watermark: u64,
    seq: u64,
}

/// What a peer sent in one frame.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    pub(crate) ops: Vec<Arc<Op>>,
    /// The sender has sent, before or with these watermarks, every live change below them.
    pub(crate) watermarks: Vec<(Actor, u64)>,
    /// The sender's gc watermarks of these actors.
    pub(crate) gc_watermarks: Vec<(Actor, u64)>,
    /// Also merge changes below the watermarks, because the peers' digests differ.
    pub(crate) repair: bool,
}

/// What happens to a change on disk.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// It is stored.
    Kept(Arc<Op>),
    /// A change that is kept, or that was replaced itself, has taken its place. As long as that one
    /// is on disk, it makes no difference whether this one is there, too.
    Replaced {
        /// Bytes on disk until it is removed.
        bytes: usize,
    },
    /// It must no longer be on disk.
    Gone,
}

/// What a transaction changes on disk and for watchers.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The changes and what happens to them on disk.
    pub(crate) ops: BTreeMap<Dot, Fate>,
    /// New watermarks.
    pub(crate) complete: BTreeMap<Actor, u64>,
    /// New gc watermarks.
    pub(crate) gc_watermarks: BTreeMap<Actor, u64>,
    /// Records whose visible value may have changed.
    pub(crate) records: BTreeSet<RecordId>,
    /// Number of tombstones that every member has and that are now forgotten.
    pub(crate) collected: usize,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
            && self.complete.is_empty()
            && self.gc_watermarks.is_empty()
            && self.records.is_empty()
    }

    /// Notes that another change has replaced this one.
    fn pass_over(&mut self, op: &Op) {
        self.ops.insert(
            op.dot,
            Fate::Replaced {
                bytes: op.key.len() + op.body.len(),
            },
        );
    }
}

/// Why a batch was rejected. The state may be half-changed, so the caller must discard it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejected {
    #[error("more than {MAX_OPAQUE} records in an unknown format: upgrade this machine")]
    TooManyOpaque,
    /// This machine once acknowledged more than it remembers. Its file is an old copy, and peers
    /// may have forgotten what they believed it had.
    #[error("this machine acknowledged more than its store holds")]
    Forgotten,
}

#[derive(Debug, Clone)]
pub(crate) struct State {
    me: Actor,
    pub(crate) hlc: Hlc,
    /// Whether the file was empty when it was opened. Then it is not a contradiction if other
    /// machines remember more of this one.
    blank: bool,
    /// Set while everything must be fetched again, because the other machines have continued
    /// without this one. Holds the watermarks that the peer must at least have.
    rejoining: Option<Arc<VersionVector>>,
    watermarks: SharedMap<Actor, Watermark>,
    /// Counts how often a gc watermark has grown.
    gc_number: u64,
    /// Intents and claims.
    registers: SharedMap<RecordKey, Arc<Register>>,
    registry: SharedMap<(u16, Arc<str>), Arc<Op>>,
    facts: SharedMap<FactKey, Fact>,
    sweeps: SharedMap<(u16, MachineId), Sweep>,
    ops: SharedMap<Dot, Kept>,
    /// Live changes above their actor's watermark.
    above_gaps: SharedMap<Dot, ()>,
    /// Changes whose stamp is too far ahead, ordered by time. They are kept and relayed but not
    /// merged yet.
    quarantine: SharedMap<(u64, Dot), Arc<Op>>,
    /// Registers that have only tombstones left, ordered by time.
    tombstones: SharedMap<(u64, RecordKey), ()>,
    /// Registers with several writes, at least one of them a value.
    contested: SharedMap<RecordKey, ()>,
    opaque: usize,
    seq: u64,
    intent_lane: SharedMap<u64, Arc<Op>>,
    fact_lane: SharedMap<u64, Arc<Op>>,
    watermark_lane: SharedMap<u64, Actor>,
    digests: digest::Digests,
}

impl State {
    pub(crate) fn new(me: Actor) -> Self {
        Self {
            me,
            hlc: Hlc::default(),
            blank: true,
            rejoining: None,
            watermarks: SharedMap::default(),
            gc_number: 0,
            registers: SharedMap::default(),
            registry: SharedMap::default(),
            facts: SharedMap::default(),
            sweeps: SharedMap::default(),
            ops: SharedMap::default(),
            above_gaps: SharedMap::default(),
            quarantine: SharedMap::default(),
            tombstones: SharedMap::default(),
            contested: SharedMap::default(),
            opaque: 0,
            seq: 0,
            intent_lane: SharedMap::default(),
            fact_lane: SharedMap::default(),
            watermark_lane: SharedMap::default(),
            digests: digest::Digests::default(),
        }
    }

    /// Makes an empty state, to be filled with everything that a peer has while the old state is
    /// still shown.
    pub(crate) fn fetched(me: Actor) -> Self {
        Self {
            rejoining: Some(Arc::default()),
            ..Self::new(me)
        }
    }

    /// Makes the state from what was stored.
    pub(crate) fn load(
        me: Actor,
        hlc: Hlc,
        vector: &VersionVector,
        gc_watermarks: &VersionVector,
        mut ops: Vec<Arc<Op>>,
        now_ms: u64,
    ) -> Result<(Self, Changes), Rejected> {
        let mut state = Self::new(me);
        state.hlc = hlc;
        state.blank = vector.is_empty() && ops.is_empty();
        let mut changes = Changes::default();
        for (actor, version) in vector.iter() {
            state.raise(actor, version, &mut changes);
            state.raise_gc_watermark(actor, gc_watermarks.get(actor), &mut changes);
        }
        changes.complete.clear();
        changes.gc_watermarks.clear();
        // The order of sending must not put an effect before its cause. Stamps guarantee that.
        ops.sort_by_key(|op| (op.hlc(), op.dot));
        for op in ops {
            state.apply(&op, now_ms, &mut changes)?;
        }
        // Everything loaded is already on disk. Only what loading discarded must be written.
        changes.ops.retain(|_, fate| !matches!(fate, Fate::Kept(_)));
        Ok((state, changes))
    }

    pub(crate) fn me(&self) -> Actor {
        self.me
    }

    pub(crate) fn is_rejoining(&self) -> bool {
        self.rejoining.is_some()
    }

    /// Returns the watermarks that a peer must have to be fetched from.
    pub(crate) fn wanted(&self) -> Option<&VersionVector> {
        self.rejoining.as_deref()
    }

    /// Starts fetching everything again, from a peer that has at least `wanted`.
    pub(crate) fn begin_rejoin(&mut self, wanted: VersionVector) {
        self.rejoining = Some(Arc::new(wanted));
        self.blank = false;
    }

    pub(crate) fn end_rejoin(&mut self) {
        self.rejoining = None;
        self.blank = false;
    }

    pub(crate) fn register(&self, slot: Slot, kind: u16, key: &str) -> Option<&Register> {
        self.registers
            .get_by(|other| (other.slot, other.kind, &*other.key).cmp(&(slot, kind, key)))
            .map(Arc::as_ref)
    }

    /// Returns the register of a record.
    pub(crate) fn register_of(&self, record: &RecordKey) -> Option<&Register> {
        self.registers.get(record).map(Arc::as_ref)
    }

    pub(crate) fn registers(
        &self,
        slot: Slot,
        kind: u16,
    ) -> impl Iterator<Item = (&str, &Register)> {
        self.registers
            .iter_from(move |other| (other.slot, other.kind) < (slot, kind))
            .take_while(move |(other, _)| (other.slot, other.kind) == (slot, kind))
            .map(|(other, register)| (&*other.key, &**register))
    }

    /// Returns the registers with several writes, at least one of them a value.
    pub(crate) fn contested(&self, slot: Slot) -> impl Iterator<Item = (u16, &str, &Register)> {
        self.contested
            .iter()
            .filter(move |(record, ())| record.slot == slot)
            .filter_map(|(record, ())| Some((record.kind, &*record.key, self.register_of(record)?)))
    }

    /// Returns the counting change of a registry record.
    pub(crate) fn registered(&self, kind: u16, key: &str) -> Option<&Op> {
        self.registry
            .get_by(|(other, name)| (*other, &**name).cmp(&(kind, key)))
            .map(Arc::as_ref)
    }

    pub(crate) fn registry(&self, kind: u16) -> impl Iterator<Item = (&str, &Op)> {
        self.registry
            .iter_from(move |(other, _)| *other < kind)
            .take_while(move |((other, _), _)| *other == kind)
            .map(|((_, key), op)| (&**key, &**op))
    }

    pub(crate) fn fact(&self, kind: u16, owner: MachineId, key: &str) -> Option<&Fact> {
        self.facts
            .get_by(|(other, machine, name)| (*other, *machine, &**name).cmp(&(kind, owner, key)))
    }

    /// Returns all observations of a kind, or only those from `owner` on, tombstones included.
    pub(crate) fn facts_from(
        &self,
        kind: u16,
        owner: Option<MachineId>,
    ) -> impl Iterator<Item = (&FactKey, &Fact)> {
        self.facts
            .iter_from(move |(other, machine, _)| (*other, Some(*machine)) < (kind, owner))
            .take_while(move |((other, _, _), _)| *other == kind)
    }

    pub(crate) fn facts_of(
        &self,
        kind: u16,
        owner: MachineId,
    ) -> impl Iterator<Item = (&FactKey, &Fact)> {
        self.facts_from(kind, Some(owner))
            .take_while(move |((_, machine, _), _)| *machine == owner)
    }

    pub(crate) fn sweep(&self, kind: u16, owner: MachineId) -> Option<&Sweep> {
        self.sweeps.get(&(kind, owner))
    }

    /// Returns the kinds of which `owner` has published observations or appended entries.
    pub(crate) fn published_kinds(&self, owner: MachineId) -> Vec<u16> {
        self.sweeps
            .iter()
            .filter(|((_, machine), _)| *machine == owner)
            .map(|((kind, _), _)| *kind)
            .collect()
    }

    /// Returns the live changes of an actor after `from`, ascending.
    pub(crate) fn ops_after(&self, actor: Actor, from: u64) -> impl Iterator<Item = &Arc<Op>> {
        let start = actor.dot(from);
        self.ops
            .iter_from(move |dot| *dot <= start)
            .take_while(move |(dot, _)| dot.actor == actor)
            .map(|(_, kept)| &kept.op)
    }

    /// Returns all live changes.
    pub(crate) fn ops(&self) -> impl Iterator<Item = &Arc<Op>> {
        self.ops.iter().map(|(_, kept)| &kept.op)
    }

    pub(crate) fn has_op(&self, dot: Dot) -> bool {
        self.ops.get(&dot).is_some()
    }

    /// Returns the live changes above their actor's watermark.
    pub(crate) fn above_gaps(&self) -> impl Iterator<Item = Dot> {
        self.above_gaps.iter().map(|(dot, ())| *dot)
    }

    pub(crate) fn quarantined(&self) -> impl Iterator<Item = &Arc<Op>> {
        self.quarantine.iter().map(|(_, op)| op)
    }

    pub(crate) fn opaque(&self) -> usize {
        self.opaque
    }

    /// Makes an own change with the next version.
    pub(crate) fn apply_own(
        &mut self,
        make: impl FnOnce(Dot) -> Op,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Result<(), Rejected> {
        let dot = self.me.dot(self.own_version() + 1);
        // Raise the watermark first, so that the change is never above it.
        self.raise(self.me, dot.version, changes);
        self.apply(&Arc::new(make(dot)), now_ms, changes)
    }

    /// Merges what a peer sent.
    pub(crate) fn apply_batch(
        &mut self,
        batch: &Batch,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Result<(), Rejected> {
        // Release quarantined changes first, so that changes are merged in the order of stamps. A
        // writer that replaces a waiting change has seen everything that the waiting one replaced,
        // and need not name it.
        self.release(now_ms, changes)?;
        // Decide which changes are new before the watermarks are raised.
        let new = |op: &&Arc<Op>| batch.repair || op.dot.version > self.watermark(op.dot.actor);
        let new: Vec<&Arc<Op>> = batch.ops.iter().filter(new).collect();
        // Raise the watermarks first, so that the changes they cover are never above them.
        for (actor, version) in &batch.watermarks {
            self.raise(*actor, *version, changes);
        }
        for op in new {
            if self.rejoining.is_none() && self.is_forgotten_ack(op) {
                return Err(Rejected::Forgotten);
            }
            self.apply(op, now_ms, changes)?;
        }
        for (actor, version) in &batch.gc_watermarks {
            self.raise_gc_watermark(*actor, *version, changes);
        }
        Ok(())
    }

    /// Merges quarantined changes whose stamp is no longer too far ahead.
    pub(crate) fn release(&mut self, now_ms: u64, changes: &mut Changes) -> Result<(), Rejected> {
        let due: Vec<_> = self
            .quarantine
            .iter()
            .take_while(|((hlc, _), _)| !too_far_ahead(*hlc, now_ms))
            .map(|(key, op)| (*key, Arc::clone(op)))
            .collect();
        for (key, op) in due {
            self.quarantine.remove(&key);
            self.forget(op.dot, changes);
            self.apply(&op, now_ms, changes)?;
        }
        Ok(())
    }

    fn apply(&mut self, op: &Arc<Op>, now_ms: u64, changes: &mut Changes) -> Result<(), Rejected> {
        if self.ops.get(&op.dot).is_some() {
            return Ok(());
        }
        // Our own stamps are above our clock after it stepped back, and they are valid anyway.
        let believed = op.dot.actor.machine == self.me.machine
            || op.hlc().is_none_or(|hlc| !too_far_ahead(hlc, now_ms));
        if believed && let Some(hlc) = op.hlc() {
            self.hlc.observe(hlc);
        }
        match &op.content {
            Content::Intent(intent) if !believed => {
                self.quarantine.insert((intent.hlc, op.dot), Arc::clone(op));
                self.keep(op, changes);
            }
            // A claim stamped ahead of time loses anyway, and members must be known immediately.
            Content::Intent(_) | Content::Claim(_) => self.merge(op, changes),
            Content::Registry { .. } => self.apply_registry(op, changes),
            Content::Fact(value) => self.apply_fact(op, 0, value.clone(), changes),
            Content::Entry { ms, value } => self.apply_fact(op, *ms, Some(value.clone()), changes),
            Content::Sweep { floor } => self.apply_sweep(op, *floor, changes),
            Content::Opaque => {
                if self.opaque >= MAX_OPAQUE {
                    return Err(Rejected::TooManyOpaque);
                }
                self.opaque += 1;
                self.keep(op, changes);
                self.digests.add(op);
            }
        }
        Ok(())
    }

    fn merge(&mut self, op: &Arc<Op>, changes: &mut Changes) {
        let Some(record) = op.record() else { return };
        let old = self.registers.get(&record).cloned();
        let mut register = old.as_deref().cloned().unwrap_or_default();
        let merged = register.merge(op);
        if !merged.kept {
            changes.pass_over(op);
            return;
        }
        for dot in merged.replaced {
            self.replace(dot, changes);
        }
        changes.records.insert(RecordId {
            kind: op.kind,
            owner: None,
            key: Arc::clone(&op.key),
        });
        self.keep(op, changes);
        self.set_register(record, old.as_deref(), Some(register));
    }

    /// Replaces a register, and updates what is derived from it.
    fn set_register(&mut self, record: RecordKey, old: Option<&Register>, new: Option<Register>) {
        // The keys under which the register is listed in `tombstones` and `contested`.
        let mark = |register: Option<&Register>| {
            register.map_or((None, false), |register| {
                (register.deleted_at(), register.is_contested())
            })
        };
        let (before, after) = (mark(old), mark(new.as_ref()));
        if before.0 != after.0 {
            if let Some(hlc) = before.0 {
                self.tombstones.remove(&(hlc, record.clone()));
            }
            if let Some(hlc) = after.0 {
                self.tombstones.insert((hlc, record.clone()), ());
            }
        }
        if before.1 && !after.1 {
            self.contested.remove(&record);
        } else if after.1 && !before.1 {
            self.contested.insert(record.clone(), ());
        }
        // Tombstones that nothing contradicts can be collected here sooner than on other machines.
        // So they are not part of the digest.
        if let (Some(old), None) = (old, before.0) {
            old.items().iter().for_each(|op| self.digests.subtract(op));
        }
        if let (Some(new), None) = (&new, after.0) {
            new.items().iter().for_each(|op| self.digests.add(op));
        }
        match new {
            Some(register) => self.registers.insert(record, Arc::new(register)),
            None => self.registers.remove(&record),
        };
    }

    fn apply_registry(&mut self, op: &Arc<Op>, changes: &mut Changes) {
        let key = (op.kind, Arc::clone(&op.key));
        let hidden = members::declared(op).is_some_and(|(machine, _)| self.hides(machine));
        if let Some(old) = self.registry.get(&key).cloned() {
            if old.rank() > op.rank() {
                changes.pass_over(op);
                return;
            }
            self.digests.subtract(&old);
            self.replace(old.dot, changes);
        }
        changes.records.insert(RecordId {
            kind: op.kind,
            owner: None,
            key: Arc::clone(&op.key),
        });
        self.registry.insert(key, Arc::clone(op));
        self.digests.add(op);
        self.keep(op, changes);
        if op.kind == kind::MEMBERS {
            self.look_at_facts(&op.key, hidden, changes);
        }
    }

    fn apply_fact(&mut self, op: &Arc<Op>, ms: u64, value: Option<Bytes>, changes: &mut Changes) {
        let owner = op.dot.actor.machine;
        let key: FactKey = (op.kind, owner, Arc::clone(&op.key));
        let swept = self
            .sweep(op.kind, owner)
            .is_some_and(|sweep| order(op.dot) < sweep.floor);
        let former = self.drops(owner);
        let old = self.facts.get(&key).cloned();
        if old
            .as_ref()
            .is_some_and(|old| order(old.dot) > order(op.dot))
        {
            changes.pass_over(op);
            return;
        }
        if swept || former {
            changes.ops.insert(op.dot, Fate::Gone);
            return;
        }
        if old.as_ref().and_then(|old| old.value.as_ref()) != value.as_ref() {
            changes.records.insert(RecordId {
                kind: op.kind,
                owner: Some(owner),
                key: Arc::clone(&op.key),
            });
        }
        if let Some(old) = old
            && let Some(old) = self.replace(old.dot, changes)
        {
            self.digests.subtract(&old);
        }
        self.facts.insert(
            key,
            Fact {
                dot: op.dot,
                ms,
                value,
            },
        );
        self.digests.add(op);
        self.keep(op, changes);
    }

    fn apply_sweep(&mut self, op: &Arc<Op>, floor: (u64, u64), changes: &mut Changes) {
        let owner = op.dot.actor.machine;
        let former = self.drops(owner);
        let old = self.sweep(op.kind, owner).copied();
        if former || old.is_some_and(|old| order(old.dot) > order(op.dot)) {
            changes.ops.insert(op.dot, Fate::Gone);
            return;
        }
        if let Some(old) = old {
            self.forget_counted(old.dot, changes);
        }
        self.sweeps
            .insert((op.kind, owner), Sweep { dot: op.dot, floor });
        self.digests.add(op);
        self.keep(op, changes);
        let swept = self
            .facts_of(op.kind, owner)
            .filter(|(_, fact)| order(fact.dot) < floor);
        let swept: Vec<_> = swept.map(|(key, _)| key.clone()).collect();
        for key in swept {
            self.drop_fact(&key, changes);
        }
    }

    /// Forgets an own log entry that will be written again.
    pub(crate) fn drop_entry(&mut self, op: &Op, changes: &mut Changes) {
        self.drop_fact(
            &(op.kind, op.dot.actor.machine, Arc::clone(&op.key)),
            changes,
        );
    }

    fn drop_fact(&mut self, key: &FactKey, changes: &mut Changes) {
        if let Some(fact) = self.facts.remove(key) {
            self.forget_counted(fact.dot, changes);
            if fact.value.is_some() {
                let (kind, owner, key) = key.clone();
                changes.records.insert(RecordId {
                    kind,
                    owner: Some(owner),
                    key,
                });
            }
        }
    }

    fn keep(&mut self, op: &Arc<Op>, changes: &mut Changes) {
        changes.ops.insert(op.dot, Fate::Kept(Arc::clone(op)));
        self.seq += 1;
        match op.lane() {
            Lane::Intent => self.intent_lane.insert(self.seq, Arc::clone(op)),
            Lane::Fact => self.fact_lane.insert(self.seq, Arc::clone(op)),
        };
        self.ops.insert(
            op.dot,
            Kept {
                op: Arc::clone(op),
                seq: self.seq,
            },
        );
        if op.dot.version > self.watermark(op.dot.actor) {
            self.above_gaps.insert(op.dot, ());
        }
    }

    /// Removes a change for good. Nothing takes its place.
    fn forget(&mut self, dot: Dot, changes: &mut Changes) -> Option<Arc<Op>> {
        changes.ops.insert(dot, Fate::Gone);
        self.take_out(dot)
    }

    /// Removes a change that another one replaces.
    fn replace(&mut self, dot: Dot, changes: &mut Changes) -> Option<Arc<Op>> {
        let op = self.take_out(dot)?;
        changes.pass_over(&op);
        Some(op)
    }

    fn take_out(&mut self, dot: Dot) -> Option<Arc<Op>> {
        let kept = self.ops.remove(&dot)?;
        match kept.op.lane() {
            Lane::Intent => self.intent_lane.remove(&kept.seq),
            Lane::Fact => self.fact_lane.remove(&kept.seq),
        };
        self.above_gaps.remove(&dot);
        Some(kept.op)
    }

    /// Forgets a change that is itself part of the digest.
    fn forget_counted(&mut self, dot: Dot, changes: &mut Changes) {
        if let Some(op) = self.forget(dot, changes) {
            self.digests.subtract(&op);
        }
    }
}

/// The order of one machine's changes.
pub(crate) fn order(dot: Dot) -> (u64, u64) {
    (dot.actor.incarnation, dot.version)
}

#[cfg(test)]
mod tests;
