//! Collects tombstones by acknowledgement, never by age.
//!
//! Each member acknowledges, fsynced, up to where it has the actors whose deletes any member still
//! keeps. The acknowledgement is an intent with the member's id as its key. A tombstone that all
//! current members have acknowledged is removed.
//!
//! Three rules make that safe:
//!
//! - A machine remembers what it has acknowledged even after a power cut.
//! - Acknowledgements are sent after their causes. So a machine that has all of them has every
//!   write that did not know the delete.
//! - A writer that creates a record includes everything acknowledged in its context. So its write
//!   replaces a tombstone that other machines still keep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Changes, Member, MemberStatus, State, members};
use crate::id::{Actor, Dot, MachineId};
use crate::kind::{ACKS, Slot};
use crate::op::{Context, MAX_CONTEXT, Op};

/// Maximum number of tombstones examined in one round. The rest waits for the next.
const ROUND: usize = 4_096;

/// Up to where a member has an actor's changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Acknowledged {
    pub(crate) actor: Actor,
    /// Everything up to this version has arrived and is merged.
    pub(crate) version: u64,
    /// The member still keeps deletes of this actor.
    pub(crate) keeps: bool,
}

pub(crate) type Acknowledgements = Vec<Acknowledged>;

impl State {
    /// Returns what a member has acknowledged. Returns nothing if its acknowledgements contradict
    /// each other.
    pub(crate) fn acknowledged(&self, machine: MachineId) -> Acknowledgements {
        let Some(register) = self.register(Slot::Intent, ACKS, &machine.to_string()) else {
            return Vec::new();
        };
        let [only] = register.items() else {
            return Vec::new();
        };
        if only.dot.actor.machine != machine || only.dot.actor.incarnation < self.floor(machine) {
            return Vec::new();
        }
        let Some(value) = register.value() else {
            return Vec::new();
        };
        match postcard::take_from_bytes(value) {
            Ok((list, _)) => list,
            Err(error) => {
                // Deletes are kept until the member sends an acknowledgement that can be decoded.
                tracing::debug!(%machine, %error, "cannot decode an acknowledgement");
                Vec::new()
            }
        }
    }

    /// Returns what this machine should acknowledge, if it has not acknowledged exactly that.
    pub(crate) fn due_acknowledgements(&self) -> Option<Acknowledgements> {
        let me = self.me().machine;
        let others: Vec<MachineId> = self
            .current_members()
            .filter(|machine| *machine != me)
            .collect();
        if others.is_empty() || self.is_rejoining() {
            return None;
        }
        // First the actors whose tombstones this machine keeps itself, with their highest version.
        let mut own: BTreeMap<Actor, u64> = BTreeMap::new();
        for dot in self.tombstone_dots().take(ROUND) {
            let version = own.entry(dot.actor).or_default();
            *version = dot.version.max(*version);
        }
        let mut list: BTreeMap<Actor, Acknowledged> = BTreeMap::new();
        for (actor, version) in own {
            let version = self.merged_up_to(actor, version);
            list.insert(
                actor,
                Acknowledged {
                    actor,
                    version,
                    keeps: true,
                },
            );
        }
        // Then the actors whose tombstones other members keep, so that those can collect them.
        for wanted in others
            .iter()
            .flat_map(|machine| self.acknowledged(*machine))
            .filter(|ack| ack.keeps)
        {
            let version = self.merged_up_to(wanted.actor, wanted.version);
            let entry = list.entry(wanted.actor).or_insert(Acknowledged {
                actor: wanted.actor,
                version,
                keeps: false,
            });
            entry.version = entry.version.max(version);
        }
        let list: Acknowledgements = list
            .into_values()
            .filter(|ack| ack.version > 0)
            .take(MAX_CONTEXT / 2)
            .collect();
        (list != self.acknowledged(me)).then_some(list)
    }

    /// Returns `version` if everything of the actor up to it has arrived and is merged, and 0
    /// otherwise.
    fn merged_up_to(&self, actor: Actor, version: u64) -> u64 {
        let waiting = self
            .quarantine
            .iter()
            .any(|(_, op)| op.dot.actor == actor && op.dot.version <= version);
        if waiting || self.watermark(actor) < version {
            0
        } else {
            version
        }
    }

    /// Removes the tombstones that every member has.
    pub(crate) fn collect(&mut self, changes: &mut Changes) {
        let me = self.me().machine;
        let members: BTreeSet<MachineId> = self.current_members().collect();
        if self.tombstones.iter().next().is_none() || !members.contains(&me) || self.is_rejoining()
        {
            return;
        }
        let others = members.into_iter().filter(|machine| *machine != me);
        let acknowledged: Vec<BTreeMap<Actor, u64>> = others
            .map(|machine| {
                self.acknowledged(machine)
                    .into_iter()
                    .map(|ack| (ack.actor, ack.version))
                    .collect()
            })
            .collect();
        // A tombstone is stable when this machine has merged everything up to it and every other
        // member has acknowledged it.
        let stable = |dot: Dot| {
            self.merged_up_to(dot.actor, dot.version) > 0
                && acknowledged
                    .iter()
                    .all(|acks| acks.get(&dot.actor).is_some_and(|v| *v >= dot.version))
        };
        let mut gone = Vec::new();
        for ((_, record), ()) in self.tombstones.iter().take(ROUND) {
            let Some(register) = self.registers.get(record) else {
                continue;
            };
            if register
                .items()
                .iter()
                .all(|op| stable(op.dot) && self.has_seen_all(op))
            {
                gone.push((record.clone(), Arc::clone(register)));
            }
        }
        for (record, register) in gone {
            for op in register.items() {
                // From now on, a peer with a lower watermark may show what this tombstone deleted.
                self.raise_gc_watermark(op.dot.actor, op.dot.version, changes);
                self.forget(op.dot, changes);
                changes.collected += 1;
            }
            self.set_register(record, Some(&register), None);
        }
    }

    /// Reports whether the watermarks cover what a delete replaced, and nothing of the record waits
    /// in quarantine. A machine that was evicted can return with a write that only this delete
    /// proves to be old; the machine itself accounts for that when it rejoins.
    fn has_seen_all(&self, op: &Op) -> bool {
        let waits = self
            .quarantine
            .iter()
            .any(|(_, waiting)| waiting.kind == op.kind && waiting.key == op.key);
        !waits
            && op.asked().is_none_or(|asked| {
                asked.context.iter().all(|(actor, version)| {
                    let left = |(_, member): (u64, Member)| member.status == MemberStatus::Left;
                    self.watermark(actor) >= version || self.member(actor.machine).is_some_and(left)
                })
            })
    }

    /// Returns the number of records that wait for acknowledgements of their deletes.
    pub(crate) fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    fn tombstone_dots(&self) -> impl Iterator<Item = Dot> {
        self.tombstones
            .iter()
            .filter_map(|((_, record), ())| self.register_of(record))
            .flat_map(|register| register.items().iter().map(|op| op.dot))
    }

    /// Returns the context of a write to a record that does not exist: all deletes that were ever
    /// forgotten here. Only those that a member may still keep must be included.
    pub(crate) fn absent_context(&self) -> Context {
        let mut context = Context::default();
        let members: Vec<MachineId> = self
            .registry(crate::kind::MEMBERS)
            .filter_map(|(key, _)| members::parse(key))
            .collect();
        for ack in members
            .into_iter()
            .flat_map(|machine| self.acknowledged(machine))
        {
            // Nothing above the acknowledged version is included: a power cut may have undone it,
            // so that no machine would ever have it. What is in quarantine was not seen either.
            let waiting = self
                .quarantine
                .iter()
                .filter(|(_, op)| op.dot.actor == ack.actor);
            let waiting = waiting
                .map(|(_, op)| op.dot.version - 1)
                .min()
                .unwrap_or(u64::MAX);
            let version = self.watermark(ack.actor).min(ack.version).min(waiting);
            if version > 0 && context.len() < MAX_CONTEXT / 2 {
                context.add(ack.actor.dot(version));
            }
        }
        context
    }
}
