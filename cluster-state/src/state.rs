//! Everything the store knows, as one immutable value per commit, and the rules by which a change alters it.
//!
//! The state is the set of live changes (`ops`) plus the version vector; the other maps are views of that set.
//! Applying is idempotent and independent of order. No clock and no disk: the time comes in, what has to be written
//! comes out in `Changes`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::chunk_map::ChunkMap;
use crate::clock::{Hlc, too_far_ahead};
use crate::id::{Actor, Dot, MachineId};
use crate::kind::RecordId;
use crate::op::{Content, Op};
use crate::register::Register;
use crate::vector::VersionVector;

/// Most changes kept without being understood: of a newer peer's classes, or damaged.
pub(crate) const MAX_OPAQUE: usize = 10_000;

pub(crate) type FactKey = (u16, MachineId, Arc<str>);

/// An observation: the newest change its owner made to it.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub(crate) dot: Dot,
    /// None: gone.
    pub(crate) value: Option<Bytes>,
}

/// The last sweep of an owner's facts of a kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sweep {
    pub(crate) dot: Dot,
    /// Facts before this (incarnation, version) are gone.
    pub(crate) floor: (u64, u64),
}

/// Consecutive changes of one actor: all that is left of versions `from + 1` to `to`.
/// Only who is complete up to `to` may say so.
#[derive(Debug, Clone)]
pub(crate) struct Range {
    pub(crate) actor: Actor,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Ascending by version.
    pub(crate) ops: Vec<Arc<Op>>,
}

/// What a transaction changes on disk and for watchers.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Changes to store, or (none) to remove.
    pub(crate) ops: BTreeMap<Dot, Option<Arc<Op>>>,
    /// New heights of the version vector.
    pub(crate) complete: BTreeMap<Actor, u64>,
    /// Records whose visible value may have changed.
    pub(crate) records: BTreeSet<RecordId>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.complete.is_empty() && self.records.is_empty()
    }
}

/// More changes that cannot be understood than the store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_OPAQUE} records of unknown form: upgrade this machine")]
pub(crate) struct TooManyOpaque;

/// How a range met the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reception {
    /// All of it was known.
    Duplicate,
    /// It continues what is known.
    Advanced,
    /// Something before it is missing: its changes are applied, the vector stays.
    Gap,
}

#[derive(Debug, Clone)]
pub(crate) struct State {
    me: Actor,
    pub(crate) hlc: Hlc,
    vector: Arc<VersionVector>,
    intents: ChunkMap<(u16, Arc<str>), Arc<Register>>,
    facts: ChunkMap<FactKey, Fact>,
    sweeps: ChunkMap<(u16, MachineId), Sweep>,
    ops: ChunkMap<Dot, Arc<Op>>,
    /// Stamped too far ahead, by time: kept and relayed, not merged yet.
    quarantine: ChunkMap<(u64, Dot), Arc<Op>>,
    opaque: usize,
}

impl State {
    pub(crate) fn new(me: Actor) -> Self {
        Self {
            me,
            hlc: Hlc::default(),
            vector: Arc::default(),
            intents: ChunkMap::default(),
            facts: ChunkMap::default(),
            sweeps: ChunkMap::default(),
            ops: ChunkMap::default(),
            quarantine: ChunkMap::default(),
            opaque: 0,
        }
    }

    /// From what was stored.
    pub(crate) fn load(
        me: Actor,
        hlc: Hlc,
        vector: VersionVector,
        ops: Vec<Arc<Op>>,
        now_ms: u64,
    ) -> Result<(Self, Changes), TooManyOpaque> {
        let mut state = Self::new(me);
        state.hlc = hlc;
        state.vector = Arc::new(vector);
        let mut changes = Changes::default();
        for op in ops {
            state.apply(op, now_ms, &mut changes)?;
        }
        // What was stored is stored; only what loading threw away is news for the disk.
        changes.ops.retain(|_, op| op.is_none());
        Ok((state, changes))
    }

    pub(crate) fn me(&self) -> Actor {
        self.me
    }

    pub(crate) fn vector(&self) -> &VersionVector {
        &self.vector
    }

    pub(crate) fn own_version(&self) -> u64 {
        self.vector.get(self.me)
    }

    /// Goes on as a new incarnation; of the old one, what came after `sound` is not known after all.
    pub(crate) fn become_actor(&mut self, me: Actor, sound: u64, changes: &mut Changes) {
        let old = std::mem::replace(&mut self.me, me);
        Arc::make_mut(&mut self.vector).set(old, sound);
        changes.complete.insert(old, sound);
    }

    pub(crate) fn register(&self, kind: u16, key: &str) -> Option<&Register> {
        self.intents.get_by(|(other, name)| (*other, &**name).cmp(&(kind, key))).map(Arc::as_ref)
    }

    pub(crate) fn registers(&self, kind: u16) -> impl Iterator<Item = (&str, &Register)> {
        self.intents
            .iter_from(move |(other, _)| *other < kind)
            .take_while(move |((other, _), _)| *other == kind)
            .map(|((_, key), register)| (&**key, &**register))
    }

    pub(crate) fn fact(&self, kind: u16, owner: MachineId, key: &str) -> Option<&Fact> {
        self.facts.get_by(|(other, machine, name)| (*other, *machine, &**name).cmp(&(kind, owner, key)))
    }

    /// All facts of a kind, or only those from `owner` on, gone ones included.
    pub(crate) fn facts_from(
        &self,
        kind: u16,
        owner: Option<MachineId>,
    ) -> impl Iterator<Item = (&FactKey, &Fact)> {
        self.facts
            .iter_from(move |(other, machine, _)| (*other, Some(*machine)) < (kind, owner))
            .take_while(move |((other, _, _), _)| *other == kind)
    }

    pub(crate) fn facts_of(&self, kind: u16, owner: MachineId) -> impl Iterator<Item = (&FactKey, &Fact)> {
        self.facts_from(kind, Some(owner)).take_while(move |((_, machine, _), _)| *machine == owner)
    }

    pub(crate) fn sweep(&self, kind: u16, owner: MachineId) -> Option<&Sweep> {
        self.sweeps.get(&(kind, owner))
    }

    /// The kinds of which `owner` has published.
    pub(crate) fn published_kinds(&self, owner: MachineId) -> Vec<u16> {
        self.sweeps.iter().filter(|((_, machine), _)| *machine == owner).map(|((kind, _), _)| *kind).collect()
    }

    /// The live changes of an actor after `from`, ascending.
    pub(crate) fn ops_after(&self, actor: Actor, from: u64) -> impl Iterator<Item = &Arc<Op>> {
        let start = Dot { actor, version: from };
        self.ops
            .iter_from(move |dot| *dot <= start)
            .take_while(move |(dot, _)| dot.actor == actor)
            .map(|(_, op)| op)
    }

    /// All live changes.
    #[cfg(test)]
    pub(crate) fn ops(&self) -> impl Iterator<Item = &Arc<Op>> {
        self.ops.iter().map(|(_, op)| op)
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
    ) -> Result<(), TooManyOpaque> {
        let dot = Dot { actor: self.me, version: self.own_version() + 1 };
        self.apply(Arc::new(make(dot)), now_ms, changes)?;
        self.advance(self.me, dot.version, changes);
        Ok(())
    }

    /// Takes in what a peer sent.
    pub(crate) fn apply_range(
        &mut self,
        range: &Range,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Result<Reception, TooManyOpaque> {
        let known = self.vector.get(range.actor);
        if range.to <= known {
            return Ok(Reception::Duplicate);
        }
        for op in range.ops.iter().filter(|op| op.dot.version > known) {
            self.apply(Arc::clone(op), now_ms, changes)?;
        }
        if range.from > known {
            return Ok(Reception::Gap);
        }
        self.advance(range.actor, range.to, changes);
        Ok(Reception::Advanced)
    }

    /// Merges what was stamped too far ahead and no longer is.
    pub(crate) fn release(&mut self, now_ms: u64, changes: &mut Changes) -> Result<(), TooManyOpaque> {
        let due: Vec<_> = self
            .quarantine
            .iter()
            .take_while(|((hlc, _), _)| !too_far_ahead(*hlc, now_ms))
            .map(|(key, op)| (*key, Arc::clone(op)))
            .collect();
        for (key, op) in due {
            self.quarantine.remove(&key);
            self.ops.remove(&op.dot);
            changes.ops.insert(op.dot, None);
            self.apply(op, now_ms, changes)?;
        }
        Ok(())
    }

    fn advance(&mut self, actor: Actor, version: u64, changes: &mut Changes) {
        Arc::make_mut(&mut self.vector).raise(actor, version);
        changes.complete.insert(actor, version);
    }

    fn apply(&mut self, op: Arc<Op>, now_ms: u64, changes: &mut Changes) -> Result<(), TooManyOpaque> {
        if self.ops.get(&op.dot).is_some() {
            return Ok(());
        }
        let owner = op.dot.actor.machine;
        match &op.content {
            Content::Intent(intent) => {
                // Our own stamps are above our clock after it stepped back; they are ours all the same.
                if owner != self.me.machine && too_far_ahead(intent.hlc, now_ms) {
                    self.quarantine.insert((intent.hlc, op.dot), Arc::clone(&op));
                    self.keep(op, changes);
                } else {
                    self.hlc.observe(intent.hlc);
                    self.merge(op, changes);
                }
            }
            Content::Fact(value) => self.apply_fact(&op, value.clone(), changes),
            Content::Sweep { floor } => self.apply_sweep(&op, *floor, changes),
            Content::Opaque => {
                if self.opaque >= MAX_OPAQUE {
                    return Err(TooManyOpaque);
                }
                self.opaque += 1;
                self.keep(op, changes);
            }
        }
        Ok(())
    }

    fn merge(&mut self, op: Arc<Op>, changes: &mut Changes) {
        let key = (op.kind, Arc::clone(&op.key));
        let mut register = self.intents.get(&key).map(|register| (**register).clone()).unwrap_or_default();
        let before = register.active().map(|op| op.dot);
        let merged = register.merge(&op);
        if !merged.kept {
            changes.ops.insert(op.dot, None);
            return;
        }
        for dot in merged.replaced {
            self.forget(dot, changes);
        }
        if register.active().map(|op| op.dot) != before {
            changes.records.insert(RecordId { kind: op.kind, owner: None, key: Arc::clone(&op.key) });
        }
        self.intents.insert(key, Arc::new(register));
        self.keep(op, changes);
    }

    fn apply_fact(&mut self, op: &Arc<Op>, value: Option<Bytes>, changes: &mut Changes) {
        let owner = op.dot.actor.machine;
        let order = |dot: Dot| (dot.actor.incarnation, dot.version);
        let key: FactKey = (op.kind, owner, Arc::clone(&op.key));
        let swept = self.sweep(op.kind, owner).is_some_and(|sweep| order(op.dot) < sweep.floor);
        let old = self.facts.get(&key).cloned();
        if swept || old.as_ref().is_some_and(|old| order(old.dot) > order(op.dot)) {
            changes.ops.insert(op.dot, None);
            return;
        }
        if old.as_ref().and_then(|old| old.value.as_ref()) != value.as_ref() {
            changes.records.insert(RecordId { kind: op.kind, owner: Some(owner), key: Arc::clone(&op.key) });
        }
        if let Some(old) = old {
            self.forget(old.dot, changes);
        }
        self.facts.insert(key, Fact { dot: op.dot, value });
        self.keep(Arc::clone(op), changes);
    }

    fn apply_sweep(&mut self, op: &Arc<Op>, floor: (u64, u64), changes: &mut Changes) {
        let owner = op.dot.actor.machine;
        let order = |dot: Dot| (dot.actor.incarnation, dot.version);
        if let Some(old) = self.sweep(op.kind, owner).copied() {
            if order(old.dot) > order(op.dot) {
                changes.ops.insert(op.dot, None);
                return;
            }
            self.forget(old.dot, changes);
        }
        self.sweeps.insert((op.kind, owner), Sweep { dot: op.dot, floor });
        self.keep(Arc::clone(op), changes);
        let swept: Vec<_> = self
            .facts_of(op.kind, owner)
            .filter(|(_, fact)| order(fact.dot) < floor)
            .map(|(key, fact)| (key.clone(), fact.dot, fact.value.is_some()))
            .collect();
        for (key, dot, visible) in swept {
            self.facts.remove(&key);
            self.forget(dot, changes);
            if visible {
                changes.records.insert(RecordId { kind: key.0, owner: Some(owner), key: key.2 });
            }
        }
    }

    fn keep(&mut self, op: Arc<Op>, changes: &mut Changes) {
        changes.ops.insert(op.dot, Some(Arc::clone(&op)));
        self.ops.insert(op.dot, op);
    }

    fn forget(&mut self, dot: Dot, changes: &mut Changes) {
        changes.ops.insert(dot, None);
        self.ops.remove(&dot);
    }
}

#[cfg(test)]
mod tests;
