//! Who is a member, by the registry: whose acknowledgements tombstones wait for, and whose facts count.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Changes, State};
use crate::id::MachineId;
use crate::kind::{ACKS, MEMBERS};
use crate::op::{Content, Op};

/// What a machine is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MemberStatus {
    /// It belongs to the cluster; tombstones wait for it.
    Member,
    /// It was silent for too long. When it comes back it fetches everything anew.
    Evicted,
    /// It left, or was removed by a person.
    Left,
    /// It is fetching everything anew: tombstones wait for it, and what it acknowledged before does not count.
    Returning,
}

impl MemberStatus {
    /// Whether tombstones wait for it.
    fn is_waited_for(self) -> bool {
        matches!(self, Self::Member | Self::Returning)
    }

    /// Whether it has to fetch everything anew before it is talked to.
    pub(crate) fn has_to_rejoin(self) -> bool {
        matches!(self, Self::Evicted | Self::Returning)
    }
}

/// The body of a membership record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) status: MemberStatus,
    /// Facts of older incarnations do not count.
    pub(crate) floor: u64,
}

/// Which side of a mutual eviction gives way: the smaller one; of equals, the one without the lowest machine id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) members: u32,
    pub(crate) first: Reverse<[u8; 16]>,
}

impl State {
    /// A machine's membership and the epoch it has been so since.
    pub(crate) fn member(&self, machine: MachineId) -> Option<(u64, Member)> {
        self.registered(MEMBERS, &machine.to_string()).and_then(membership)
    }

    /// All machines that ever were members.
    pub(crate) fn members(&self) -> BTreeMap<MachineId, (u64, Member)> {
        let parsed = |(key, op): (&str, &Op)| Some((parse(key)?, membership(op)?));
        self.registry(MEMBERS).filter_map(parsed).collect()
    }

    /// Machines that are members now, those that are returning included.
    pub(crate) fn current_members(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.registry(MEMBERS).filter_map(|(key, op)| {
            let (_, member) = membership(op)?;
            member.status.is_waited_for().then(|| parse(key)).flatten()
        })
    }

    pub(crate) fn standing(&self) -> Standing {
        let members: Vec<MachineId> = self.current_members().collect();
        let first = members.iter().min().map_or([0xff; 16], |machine| machine.0);
        Standing { members: members.len() as u32, first: Reverse(first) }
    }

    /// Facts of `owner` of incarnations below this do not count.
    pub(super) fn floor(&self, owner: MachineId) -> u64 {
        match self.member(owner) {
            Some((_, Member { status, floor })) if status.is_waited_for() => floor,
            Some(_) => u64::MAX,
            None => 0,
        }
    }

    /// What to write down of a machine before it is sent everything: from then on tombstones wait for what it is about
    /// to have. Nothing if that is written down, or if it does not belong to the cluster.
    pub(crate) fn returning(&self, machine: MachineId) -> Option<Member> {
        let (_, known) = self.member(machine)?;
        let floor = match known.status {
            MemberStatus::Left | MemberStatus::Returning => return None,
            // Its facts are gone everywhere, and stay so until it says them again.
            MemberStatus::Evicted => u64::MAX,
            MemberStatus::Member => known.floor,
        };
        Some(Member { status: MemberStatus::Returning, floor })
    }

    /// The floor of the machine that is the record's key has changed.
    pub(super) fn drop_former_facts(&mut self, key: &str, changes: &mut Changes) {
        let Some(owner) = parse(key) else { return };
        let floor = self.floor(owner);
        if floor == 0 {
            return;
        }
        let facts =
            self.facts.iter().filter(|((_, of, _), fact)| *of == owner && fact.dot.actor.incarnation < floor);
        let facts: Vec<_> = facts.map(|(key, _)| key.clone()).collect();
        for key in facts {
            self.drop_fact(&key, changes);
        }
        let sweeps =
            self.sweeps.iter().filter(|((_, of), sweep)| *of == owner && sweep.dot.actor.incarnation < floor);
        let sweeps: Vec<_> = sweeps.map(|(key, sweep)| (*key, sweep.dot)).collect();
        for (key, dot) in sweeps {
            self.sweeps.remove(&key);
            self.forget_counted(dot, changes);
        }
    }

    /// An acknowledgement of this machine's that it does not remember. A file that was empty remembers nothing, but
    /// nothing stale is in it either.
    pub(super) fn is_forgotten_ack(&self, op: &Op) -> bool {
        let me = self.me().machine;
        let mine = op.kind == ACKS && op.dot.actor.machine == me && *op.key == *me.to_string();
        if !mine || self.blank || self.has_op(op.dot) {
            return false;
        }
        let seen = self.register(false, ACKS, &op.key).map(crate::register::Register::context);
        !seen.is_some_and(|seen| seen.covers(op.dot))
    }
}

fn membership(op: &Op) -> Option<(u64, Member)> {
    match &op.content {
        Content::Registry { epoch, value, .. } => {
            postcard::take_from_bytes(value).ok().map(|(member, _)| (*epoch, member))
        }
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
