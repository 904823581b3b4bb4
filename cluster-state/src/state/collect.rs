//! Tombstones go by acknowledgement, never by age.
//!
//! Each member writes down, fsynced, up to where it has the actors whose deletes somebody still
//! keeps (its acknowledgement, an intent of its own key). A delete that all current members have
//! acknowledged is removed. Three rules make that safe: what a machine acknowledges it will
//! remember after a power cut; acknowledgements travel in the order of causes, so who has them all
//! has every write that did not know the delete; and who writes a record that is not there says
//! that it has seen all that was acknowledged, so that the write replaces a delete which others
//! still keep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Changes, Member, MemberStatus, State, members};
use crate::id::{Actor, Dot, MachineId};
use crate::kind::ACKS;
use crate::op::{Context, MAX_CONTEXT, Op};

/// Deletes that are looked at in one round; the rest waits for the next.
const ROUND: usize = 4_096;

/// How far a member has an actor's changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Acknowledged {
    pub(crate) actor: Actor,
    /// Everything up to here is here and merged.
    pub(crate) version: u64,
    /// The member still keeps deletes of this actor.
    pub(crate) keeps: bool,
}

pub(crate) type Acknowledgements = Vec<Acknowledged>;

impl State {
    /// What a member has acknowledged; nothing if it contradicts itself.
    pub(crate) fn acknowledged(&self, machine: MachineId) -> Acknowledgements {
        let Some(register) = self.register(false, ACKS, &machine.to_string()) else {
            return Vec::new();
        };
        let [only] = register.items() else {
            return Vec::new();
        };
        if only.dot.actor.machine != machine || only.dot.actor.incarnation < self.floor(machine) {
            return Vec::new();
        }
        let value = register.value().unwrap_or_default();
        postcard::take_from_bytes(value)
            .map(|(list, _)| list)
            .unwrap_or_default()
    }

    /// What this machine should acknowledge, if that is not what it has acknowledged.
    pub(crate) fn due_acknowledgements(&self) -> Option<Acknowledgements> {
        let me = self.me().machine;
        let others: Vec<MachineId> = self
            .current_members()
            .filter(|machine| *machine != me)
            .collect();
        if others.is_empty() || self.is_rejoining() {
            return None;
        }
        let mut own: BTreeMap<Actor, u64> = BTreeMap::new();
        for (dot, _) in self.buried_dots().take(ROUND) {
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

    /// `version` if everything of the actor up to it is here and merged, else 0.
    fn merged_up_to(&self, actor: Actor, version: u64) -> u64 {
        let waiting = self
            .quarantine
            .iter()
            .any(|(_, op)| op.dot.actor == actor && op.dot.version <= version);
        if waiting || self.height(actor) < version {
            0
        } else {
            version
        }
    }

    /// Removes the deletes that every member has.
    pub(crate) fn collect(&mut self, changes: &mut Changes) {
        let me = self.me().machine;
        let members: BTreeSet<MachineId> = self.current_members().collect();
        if self.buried.iter().next().is_none() || !members.contains(&me) || self.is_rejoining() {
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
        let stable = |dot: Dot| {
            self.merged_up_to(dot.actor, dot.version) > 0
                && acknowledged
                    .iter()
                    .all(|acks| acks.get(&dot.actor).is_some_and(|v| *v >= dot.version))
        };
        let mut gone = Vec::new();
        for ((_, claim, key), ()) in self.buried.iter().take(ROUND) {
            let Some(register) = self.registers_of(*claim).get(key) else {
                continue;
            };
            if register
                .items()
                .iter()
                .all(|op| stable(op.dot) && self.has_seen_all(op))
            {
                gone.push((*claim, key.clone(), Arc::clone(register)));
            }
        }
        for (claim, key, register) in gone {
            for op in register.items() {
                self.raise_cut(op.dot.actor, op.dot.version, changes);
                self.forget(op.dot, changes);
                changes.collected += 1;
            }
            self.set_register(claim, key, Some(&register), None);
        }
    }

    /// Whether the heights remember what a delete replaced, and nothing of it waits in quarantine.
    /// A machine that was evicted may come back with a write of which only the delete knows that it
    /// was ever seen here; it says so itself then.
    fn has_seen_all(&self, op: &Op) -> bool {
        let waits = self
            .quarantine
            .iter()
            .any(|(_, waiting)| waiting.kind == op.kind && waiting.key == op.key);
        !waits
            && op.asked().is_none_or(|asked| {
                asked.context.iter().all(|(actor, version)| {
                    let left = |(_, member): (u64, Member)| member.status == MemberStatus::Left;
                    self.height(actor) >= version || self.member(actor.machine).is_some_and(left)
                })
            })
    }

    /// Number of deletes that wait for acknowledgements.
    pub(crate) fn buried(&self) -> usize {
        self.buried.len()
    }

    fn buried_dots(&self) -> impl Iterator<Item = (Dot, u64)> + '_ {
        self.buried.iter().flat_map(|((hlc, claim, key), ())| {
            let items = self
                .registers_of(*claim)
                .get(key)
                .map(|register| register.items().to_vec());
            items
                .unwrap_or_default()
                .into_iter()
                .map(move |op| (op.dot, *hlc))
        })
    }

    /// What a writer has seen of a record that is not there: all deletes that were ever forgotten
    /// here. Only those that somebody may still keep need saying.
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
            // No further: what lies above may have been taken back by a power cut, and nobody would
            // ever have it; and what is in quarantine is not seen.
            let waiting = self
                .quarantine
                .iter()
                .filter(|(_, op)| op.dot.actor == ack.actor);
            let waiting = waiting
                .map(|(_, op)| op.dot.version - 1)
                .min()
                .unwrap_or(u64::MAX);
            let version = self.height(ack.actor).min(ack.version).min(waiting);
            if version > 0 && context.len() < MAX_CONTEXT / 2 {
                context.add(Dot {
                    actor: ack.actor,
                    version,
                });
            }
        }
        context
    }
}
