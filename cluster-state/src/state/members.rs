//! Membership by the registry: for whose acknowledgements tombstones wait, and whose observations
//! count.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Changes, FactKey, State};
use crate::id::MachineId;
use crate::kind::{ACKS, MEMBERS, RecordId, Slot};
use crate::op::{Content, Op};

/// The membership of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MemberStatus {
    /// It belongs to the cluster. Deletes are kept until it has them. A machine that is not
    /// declared a member itself never forgets a delete.
    Member,
    /// It was silent for too long. No machine waits for it, and its observations are not shown.
    /// When it returns, it declares itself a member again. If deletes were forgotten that it
    /// never had, it fetches everything again and writes again what only it had.
    Evicted,
    /// It left, or a user removed it. No machine waits for it, and its observations are dropped.
    Left,
}

/// The body of a membership record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) status: MemberStatus,
    /// Acknowledgements of older incarnations do not count.
    pub(crate) floor: u64,
}

/// Decides which of two machines gives way when each has forgotten deletes that the other does not
/// have: the one with fewer members. If they have equally many, the one without the lowest machine
/// id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) members: u32,
    pub(crate) first: Reverse<[u8; 16]>,
}

impl State {
    /// Returns a machine's membership and its epoch.
    pub(crate) fn member(&self, machine: MachineId) -> Option<(u64, Member)> {
        self.registered(MEMBERS, &machine.to_string())
            .and_then(membership)
    }

    /// Reports whether this machine was evicted and has not declared since that it is back.
    pub(crate) fn is_evicted(&self) -> bool {
        self.member(self.me().machine)
            .is_some_and(|(_, member)| member.status == MemberStatus::Evicted)
    }

    /// Returns all machines that were ever members.
    pub(crate) fn members(&self) -> BTreeMap<MachineId, (u64, Member)> {
        let parsed = |(key, op): (&str, &Op)| Some((parse(key)?, membership(op)?));
        self.registry(MEMBERS).filter_map(parsed).collect()
    }

    /// Returns the present members.
    pub(crate) fn current_members(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.registry(MEMBERS).filter_map(|(key, op)| {
            let (_, member) = membership(op)?;
            (member.status == MemberStatus::Member)
                .then(|| parse(key))
                .flatten()
        })
    }

    pub(crate) fn standing(&self) -> Standing {
        let members: Vec<MachineId> = self.current_members().collect();
        let first = members.iter().min().map_or([0xff; 16], |machine| machine.0);
        Standing {
            members: members.len() as u32,
            first: Reverse(first),
        }
    }

    /// Acknowledgements by incarnations of a machine below this do not count.
    pub(super) fn floor(&self, machine: MachineId) -> u64 {
        self.member(machine).map_or(0, |(_, member)| member.floor)
    }

    /// Reports whether a machine's observations are dropped, because it has left for good.
    pub(super) fn drops(&self, owner: MachineId) -> bool {
        self.member(owner)
            .is_some_and(|(_, member)| member.status == MemberStatus::Left)
    }

    /// Reports whether a machine's observations are hidden, because it was evicted or has left.
    /// They are kept in the store. So it makes no difference which machines heard of an eviction
    /// that was revoked.
    pub(crate) fn hides(&self, owner: MachineId) -> bool {
        self.member(owner)
            .is_some_and(|(_, member)| member.status != MemberStatus::Member)
    }

    /// Returns the machines whose observations are hidden.
    pub(crate) fn hidden(&self) -> BTreeSet<MachineId> {
        let out = self
            .members()
            .into_iter()
            .filter(|(_, (_, member))| member.status != MemberStatus::Member);
        out.map(|(machine, _)| machine).collect()
    }

    /// Makes the membership record for a status.
    pub(crate) fn membership_of(&self, machine: MachineId, status: MemberStatus) -> Member {
        Member {
            status,
            floor: self.floor(machine),
        }
    }

    /// Called when a machine's membership has changed. Shows, hides or drops its observations.
    pub(super) fn look_at_facts(&mut self, key: &str, hidden_before: bool, changes: &mut Changes) {
        let Some(owner) = parse(key) else { return };
        if self.hides(owner) != hidden_before {
            let shown = self
                .facts
                .iter()
                .filter(|((_, of, _), fact)| *of == owner && fact.value.is_some());
            let record = |(kind, of, key): &FactKey| RecordId {
                kind: *kind,
                owner: Some(*of),
                key: Arc::clone(key),
            };
            changes.records.extend(shown.map(|(key, _)| record(key)));
        }
        if !self.drops(owner) {
            return;
        }
        let facts = self.facts.iter().filter(|((_, of, _), _)| *of == owner);
        let facts: Vec<_> = facts.map(|(key, _)| key.clone()).collect();
        for key in facts {
            self.drop_fact(&key, changes);
        }
        let sweeps = self.sweeps.iter().filter(|((_, of), _)| *of == owner);
        let sweeps: Vec<_> = sweeps.map(|(key, sweep)| (*key, sweep.dot)).collect();
        for (key, dot) in sweeps {
            self.sweeps.remove(&key);
            self.forget_counted(dot, changes);
        }
    }

    /// Reports whether an acknowledgement is from this machine but not remembered by it. A file
    /// that was empty remembers nothing, but it contains nothing stale either.
    pub(super) fn is_forgotten_ack(&self, op: &Op) -> bool {
        let me = self.me().machine;
        let mine = op.kind == ACKS && op.dot.actor.machine == me && *op.key == *me.to_string();
        if !mine || self.blank || self.has_op(op.dot) {
            return false;
        }
        let seen = self
            .register(Slot::Intent, ACKS, &op.key)
            .map(crate::register::Register::context);
        !seen.is_some_and(|seen| seen.covers(op.dot))
    }
}

/// Returns the machine that a membership record is about, and its content.
pub(crate) fn declared(op: &Op) -> Option<(MachineId, (u64, Member))> {
    Some((parse(&op.key)?, membership(op)?))
}

fn membership(op: &Op) -> Option<(u64, Member)> {
    match &op.content {
        Content::Registry { epoch, value, .. } => postcard::take_from_bytes(value)
            .ok()
            .map(|(member, _)| (*epoch, member)),
        _ => None,
    }
}

pub(super) fn parse(key: &str) -> Option<MachineId> {
    let mut id = [0; 16];
    if key.len() != 32 || !key.is_ascii() {
        return None;
    }
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(key.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(MachineId(id))
}
