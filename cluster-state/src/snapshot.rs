//! The records of one commit, immutable. Reading takes no lock and never waits.

use std::sync::Arc;

use crate::clock::Stamp;
use crate::id::{Actor, Dot, MachineId};
use crate::kind::{FIRST_RESERVED, Slot};
use crate::op::{Content, Intent, Op};
use crate::register::{Candidate, MAX_SIBLINGS, Register};
use crate::state::{MemberStatus, State};
use crate::vector::VersionVector;

/// All records as of one commit.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(crate) state: State,
    pub(crate) number: u64,
}

/// One of several values that were written to a record concurrently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling<'a> {
    /// The write.
    pub dot: Dot,
    /// When it was written, by its writer's hybrid clock.
    pub stamp: Stamp,
    /// `None` means a delete.
    pub value: Option<&'a [u8]>,
}

/// A record that is kept and relayed, but not active, because its stamp is too far ahead of our
/// clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined<'a> {
    pub kind: u16,
    pub key: &'a str,
    /// The stamp that is too far ahead.
    pub stamp: Stamp,
}

/// Values of one group of fields of a record whose writers had not seen each other. Any later write
/// of the group settles the conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict<'a> {
    pub kind: u16,
    pub key: &'a str,
    /// The group of fields. 0 for a record without groups.
    pub group: u16,
    /// The active value, the same on every machine.
    pub active: Sibling<'a>,
    /// The other values, at most `MAX_SIBLINGS` - 1.
    pub others: Vec<Sibling<'a>>,
}

/// The claim of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder<'a> {
    /// The machine that made the claim.
    pub machine: MachineId,
    /// When it was first claimed, by that machine's hybrid clock.
    pub since: Stamp,
    /// The value written with the claim.
    pub value: &'a [u8],
}

/// An entry in a machine's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The machine that the log belongs to.
    pub machine: MachineId,
    /// Its position: the entries of one machine and kind sort by it.
    pub dot: Dot,
    /// When it was made, in milliseconds since 1970 by that machine's wall clock.
    pub ms: u64,
    /// The content of the entry.
    pub value: &'a [u8],
}

fn sibling(candidate: Candidate<'_>) -> Sibling<'_> {
    Sibling {
        dot: candidate.dot,
        stamp: candidate.stamp(),
        value: candidate.value,
    }
}

fn holder<'a>((_, asked): (&'a Op, &'a Intent)) -> Holder<'a> {
    let value = asked
        .group(0)
        .map(|group| &*group.value)
        .unwrap_or_default();
    Holder {
        machine: asked.creation.actor.machine,
        since: asked.creation,
        value,
    }
}

impl Snapshot {
    /// Returns the active value of an intent's group 0.
    pub fn get(&self, kind: u16, key: &str) -> Option<&[u8]> {
        self.state
            .register(Slot::Intent, kind, key)
            .and_then(Register::value)
    }

    /// Returns the active value of a group of fields of an intent.
    pub fn get_group(&self, kind: u16, key: &str, group: u16) -> Option<&[u8]> {
        self.state
            .register(Slot::Intent, kind, key)?
            .active(group)
            .map(|group| &*group.value)
    }

    /// Returns all intents of a kind that are not deleted and have a group 0, ordered by key.
    pub fn intents(&self, kind: u16) -> impl Iterator<Item = (&str, &[u8])> {
        self.state
            .registers(Slot::Intent, kind)
            .filter_map(|(key, register)| register.value().map(|value| (key, value)))
    }

    /// Returns all unsettled conflicts of intents, ordered by kind and key. Leaves out the store's
    /// own kinds.
    pub fn conflicts(&self) -> Vec<Conflict<'_>> {
        let mut found = Vec::new();
        for (kind, key, register) in self.state.contested(Slot::Intent) {
            if kind >= FIRST_RESERVED {
                continue;
            }
            for group in register.group_ids() {
                let mut candidates = register
                    .candidates(group)
                    .into_iter()
                    .map(sibling)
                    .take(MAX_SIBLINGS);
                let Some(active) = candidates.next() else {
                    continue;
                };
                let others: Vec<_> = candidates.collect();
                if !others.is_empty() {
                    found.push(Conflict {
                        kind,
                        key,
                        group,
                        active,
                        others,
                    });
                }
            }
        }
        found
    }

    /// Returns the holder of a claimed key.
    pub fn holder(&self, kind: u16, key: &str) -> Option<Holder<'_>> {
        self.state
            .register(Slot::Claim, kind, key)
            .and_then(Register::holder)
            .map(holder)
    }

    /// Returns all claimed keys of a kind with their holders.
    pub fn holders(&self, kind: u16) -> impl Iterator<Item = (&str, Holder<'_>)> {
        self.state
            .registers(Slot::Claim, kind)
            .filter_map(|(key, register)| Some((key, holder(register.holder()?))))
    }

    /// Returns a machine's claims that lost to an earlier claim. The machine must release them and
    /// claim something else.
    pub fn lost_claims(&self, machine: MachineId) -> Vec<(u16, &str, Holder<'_>)> {
        let mut lost = Vec::new();
        for (kind, key, register) in self.state.contested(Slot::Claim) {
            let claims = register.claims();
            let beaten = claims
                .iter()
                .skip(1)
                .any(|(_, asked)| asked.creation.actor.machine == machine);
            if let Some(first) = claims
                .first()
                .filter(|(_, asked)| beaten && asked.creation.actor.machine != machine)
            {
                lost.push((kind, key, holder(*first)));
            }
        }
        lost
    }

    /// Returns a registry record as epoch and value.
    pub fn registered(&self, kind: u16, key: &str) -> Option<(u64, &[u8])> {
        self.state
            .registered(kind, key)
            .and_then(|op| match &op.content {
                Content::Registry { epoch, value, .. } => Some((*epoch, &**value)),
                _ => None,
            })
    }

    /// Returns the log of a kind: the entries of all machines, each machine's in order.
    pub fn log(&self, kind: u16) -> impl Iterator<Item = Entry<'_>> {
        self.state
            .facts_from(kind, None)
            .filter_map(|((_, machine, _), fact)| {
                let value = fact.value.as_deref()?;
                Some(Entry {
                    machine: *machine,
                    dot: fact.dot,
                    ms: fact.ms,
                    value,
                })
            })
    }

    /// Returns the membership of each machine that was ever a member.
    pub fn members(&self) -> Vec<(MachineId, MemberStatus)> {
        self.state
            .members()
            .into_iter()
            .map(|(machine, (_, member))| (machine, member.status))
            .collect()
    }

    /// Returns a digest of all records. It is equal on machines that have exchanged everything.
    pub fn digest(&self) -> [u8; 32] {
        self.state.digest()
    }

    /// Reports whether this machine is fetching everything again, because the cluster continued
    /// without it. Until that is done, the snapshot shows the old state.
    pub fn is_rejoining(&self) -> bool {
        self.state.is_rejoining()
    }

    /// Returns all values written concurrently to a record's group 0, the active one first, at most
    /// `MAX_SIBLINGS`. A single entry means no conflict. For a deleted record, returns its
    /// tombstones while they are kept.
    pub fn siblings(&self, kind: u16, key: &str) -> Vec<Sibling<'_>> {
        let register = self.state.register(Slot::Intent, kind, key);
        register
            .into_iter()
            .flat_map(|register| register.candidates(0))
            .map(sibling)
            .take(MAX_SIBLINGS)
            .collect()
    }

    /// Returns one observation.
    pub fn observation(&self, kind: u16, owner: MachineId, key: &str) -> Option<&[u8]> {
        let fact = self
            .state
            .fact(kind, owner, key)
            .filter(|_| !self.state.hides(owner))?;
        fact.value.as_deref()
    }

    /// Returns all observations of a kind, ordered by owner and key.
    pub fn observations(&self, kind: u16) -> impl Iterator<Item = (MachineId, &str, &[u8])> {
        let hidden = self.state.hidden();
        self.state
            .facts_from(kind, None)
            .filter(move |((_, owner, _), _)| !hidden.contains(owner))
            .filter_map(|((_, owner, key), fact)| {
                fact.value.as_deref().map(|value| (*owner, &**key, value))
            })
    }

    /// Returns the observations of a kind by one machine, ordered by key.
    pub fn observations_of(
        &self,
        kind: u16,
        owner: MachineId,
    ) -> impl Iterator<Item = (&str, &[u8])> {
        let shown = !self.state.hides(owner);
        self.state
            .facts_of(kind, owner)
            .filter(move |_| shown)
            .filter_map(|((_, _, key), fact)| fact.value.as_deref().map(|value| (&**key, value)))
    }

    /// Returns the number of this commit. It grows by one with each commit since the store was
    /// opened.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the watermark of each actor.
    pub fn version_vector(&self) -> VersionVector {
        self.state.vector()
    }

    /// Returns the watermark of one actor, or 0.
    pub fn watermark(&self, actor: Actor) -> u64 {
        self.state.watermark(actor)
    }

    /// Returns the records that wait for our clock.
    pub fn quarantined(&self) -> impl Iterator<Item = Quarantined<'_>> {
        self.state.quarantined().filter_map(|op| {
            op.stamp().map(|stamp| Quarantined {
                kind: op.kind,
                key: &op.key,
                stamp,
            })
        })
    }

    /// Makes a shared snapshot, for tests and drivers.
    pub(crate) fn shared(state: State, number: u64) -> Arc<Self> {
        Arc::new(Self { state, number })
    }
}
