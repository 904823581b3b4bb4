//! One machine and its ends of sessions. Only this file uses the store's internals. It does what
//! `writer`, `store` and `session::driver` do, but without their threads, files and channels.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::id::{Actor, ClusterId, Dot, MachineId};
use crate::kind::{Class, Kind};
use crate::local::{self, Txn, Write};
use crate::op::{Content, Op};
use crate::session::{Core, Effect, SessionError};
use crate::state::{Batch, Changes, MemberStatus, State};
use crate::vector::VersionVector;
use crate::writer;

/// The kind of the intents.
pub(super) const SPEC: u16 = 1;
/// The kind of the observations.
pub(super) const FACT: u16 = 2;

static KINDS: [Kind; 2] = [
    Kind {
        id: SPEC,
        name: "spec",
        class: Class::Intent,
    },
    Kind {
        id: FACT,
        name: "fact",
        class: Class::Observation,
    },
];

const CLUSTER: ClusterId = ClusterId([9; 16]);
/// The first byte of a frame with changes (see `wire`).
const TAG_CHANGES: u8 = 3;
/// As in `store`: how much longer a round of acknowledgements gets with each member.
const ACKNOWLEDGE_PER_MEMBER_MS: u64 = 60;

pub(super) type Rows = BTreeMap<Arc<str>, Vec<u8>>;

/// A machine's store.
#[derive(Debug)]
pub(super) struct Machine {
    state: State,
    /// What a power cut leaves. Kept only if there can be one, because a copy makes the next
    /// change more expensive.
    durable: Option<State>,
    opened_at: u64,
}

/// Work for the writer.
#[derive(Debug)]
pub(super) enum Work {
    Write(Vec<Write>),
    Publish(Rows),
    Apply(Batch),
    Reincarnate(u64),
    /// Fetch everything again, from a peer that has at least this. `None` stops that.
    Rejoin(Option<VersionVector>),
    /// Continue with what was fetched.
    Replace(Box<State>),
    Maintain {
        acknowledge: bool,
    },
}

impl Work {
    pub(super) fn put(key: usize, value: Vec<u8>) -> Self {
        Self::Write(vec![Write::Put {
            kind: SPEC,
            key: format!("spec-{key}"),
            value,
        }])
    }

    pub(super) fn delete(key: usize) -> Self {
        Self::Write(vec![Write::Delete {
            kind: SPEC,
            key: format!("spec-{key}"),
        }])
    }

    pub(super) fn declare(machine: MachineId, member: bool) -> Self {
        let status = if member {
            MemberStatus::Member
        } else {
            MemberStatus::Left
        };
        Self::Write(vec![Write::Declare { machine, status }])
    }

    /// Reports whether its commit is fsynced.
    pub(super) fn is_durable(&self) -> bool {
        !matches!(self, Self::Publish(_) | Self::Apply(_))
    }
}

/// The result of a commit.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// For each piece of work, the last own change that it made, if any.
    pub(super) made: Vec<Option<Dot>>,
    /// The intents among them.
    pub(super) intents: Vec<Arc<Op>>,
    /// The machine continues as a new incarnation, or starts or stops fetching everything. So its
    /// sessions end.
    pub(super) begins_anew: bool,
    /// The machine has a new incarnation.
    reincarnated: bool,
}

impl Machine {
    /// Makes an empty machine.
    pub(super) fn new(id: MachineId, power_cuts: bool) -> Self {
        Self::with(
            State::new(Actor {
                machine: id,
                incarnation: 1,
            }),
            power_cuts,
        )
    }

    fn with(state: State, power_cuts: bool) -> Self {
        let opened_at = state.own_version();
        Self {
            durable: power_cuts.then(|| state.clone()),
            state,
            opened_at,
        }
    }

    /// Makes machines that are all members, have published their rows, and have exchanged
    /// everything.
    pub(super) fn founders(
        founders: &[(MachineId, Rows)],
        now_ms: u64,
        power_cuts: bool,
    ) -> Result<Vec<Self>, String> {
        let mut vector = VersionVector::default();
        let mut ops = Vec::new();
        let mut hlc = crate::clock::Hlc::default();
        for (id, rows) in founders {
            let mut alone = Self::new(*id, false);
            let works = [Work::declare(*id, true), Work::Publish(rows.clone())];
            alone.commit(&works, now_ms)?;
            hlc.observe(alone.state.hlc.last());
            vector.raise(alone.state.me(), alone.state.own_version());
            ops.extend(alone.state.ops().cloned());
        }
        let Some((first, _)) = founders.first() else {
            return Ok(Vec::new());
        };
        let me = Actor {
            machine: *first,
            incarnation: 1,
        };
        let (base, _) = State::load(me, hlc, &vector, &VersionVector::default(), ops, now_ms)
            .map_err(|error| error.to_string())?;
        // The states share their common parts until one of them changes.
        let machines = founders.iter().map(|(id, _)| {
            let mut state = base.clone();
            state.become_actor(
                Actor {
                    machine: *id,
                    incarnation: 1,
                },
                u64::MAX,
                &mut Changes::default(),
            );
            Self::with(state, power_cuts)
        });
        Ok(machines.collect())
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Executes one transaction, as `writer::Writer::transact` does.
    pub(super) fn commit(&mut self, works: &[Work], now_ms: u64) -> Result<Committed, String> {
        let mut changes = Changes::default();
        let mut done = Committed::default();
        let (first, fetching) = (self.state.me(), self.state.is_rejoining());
        let written = self.state.own_version();
        let mut durable = false;
        for work in works {
            let before = (self.state.me(), self.state.own_version());
            self.execute(work, now_ms, &mut changes)?;
            let after = (self.state.me(), self.state.own_version());
            durable |= before.0 != after.0 || work.is_durable() && before != after;
            done.made.push((before != after).then_some(Dot {
                actor: after.0,
                version: after.1,
            }));
        }
        done.reincarnated = self.state.me() != first;
        done.begins_anew = done.reincarnated || self.state.is_rejoining() != fetching;
        let written = if done.reincarnated { 0 } else { written };
        let asked = |op: &&Arc<Op>| op.kind == SPEC && matches!(op.content, Content::Intent(_));
        done.intents.extend(
            self.state
                .ops_after(self.state.me(), written)
                .filter(asked)
                .cloned(),
        );
        if durable && let Some(disk) = &mut self.durable {
            disk.clone_from(&self.state);
        }
        Ok(done)
    }

    fn execute(&mut self, work: &Work, now_ms: u64, changes: &mut Changes) -> Result<(), String> {
        let state = &mut self.state;
        let outcome = match work {
            Work::Write(writes) => local::check_writes(&KINDS, writes)
                .and_then(|()| Txn::new(state, now_ms, changes).write(writes)),
            Work::Publish(rows) => Txn::new(state, now_ms, changes).publish(FACT, rows),
            Work::Maintain { acknowledge } => {
                state
                    .release(now_ms, changes)
                    .map_err(|error| error.to_string())?;
                if *acknowledge {
                    Txn::new(state, now_ms, changes)
                        .acknowledge()
                        .map_err(|error| error.to_string())?;
                }
                state.collect(changes);
                Ok(())
            }
            Work::Rejoin(fetch) => {
                match fetch {
                    Some(wanted) => state.begin_rejoin(wanted.clone()),
                    None => state.end_rejoin(),
                }
                Ok(())
            }
            Work::Replace(fresh) => {
                let stride = writer::stride(now_ms ^ state.me().incarnation);
                let fresh = State::clone(fresh);
                local::rejoin(state, fresh, stride, now_ms, changes)
                    .map(|rejoined| *state = rejoined)
            }
            Work::Reincarnate(above) => return self.reincarnate(*above, now_ms, changes),
            Work::Apply(batch) => {
                let me = state.me();
                let own = state.own_version();
                let dots = batch.ops.iter().map(|op| (op.dot.actor, op.dot.version));
                let ahead = dots
                    .chain(batch.watermarks.iter().copied())
                    .filter(|(actor, _)| actor.machine == me.machine)
                    .filter(|(actor, version)| {
                        actor.incarnation > me.incarnation || *actor == me && *version > own
                    })
                    .map(|(actor, _)| actor.incarnation)
                    .max();
                if let Some(above) = ahead {
                    self.reincarnate(above, now_ms, changes)?;
                }
                return self
                    .state
                    .apply_batch(batch, now_ms, changes)
                    .map_err(|error| format!("{}: {error}", me.machine));
            }
        };
        outcome.map_err(|error| error.to_string())
    }

    fn reincarnate(
        &mut self,
        above: u64,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Result<(), String> {
        if above < self.state.me().incarnation {
            return Ok(());
        }
        let incarnation = above + writer::stride(now_ms ^ above);
        let opened_at = std::mem::take(&mut self.opened_at);
        Txn::new(&mut self.state, now_ms, changes)
            .reincarnate(incarnation, opened_at)
            .map_err(|error| error.to_string())
    }

    /// Restarts after an unclean end. A power cut loses what was not fsynced.
    pub(super) fn restart(&mut self, power: bool, seed: u64, now_ms: u64) -> Result<(), String> {
        let left = self
            .durable
            .as_ref()
            .filter(|_| power)
            .unwrap_or(&self.state);
        let old = left.me();
        let me = Actor {
            incarnation: old.incarnation + writer::stride(seed),
            ..old
        };
        let ops = left.ops().cloned().collect();
        let (state, _) = State::load(
            me,
            left.hlc,
            &left.vector(),
            &left.gc_watermarks().collect(),
            ops,
            now_ms,
        )
        .map_err(|error| error.to_string())?;
        *self = Self::with(state, self.durable.is_some());
        Ok(())
    }

    /// Returns the work that the store does on its own each second, as in `store::maintain`.
    pub(super) fn maintenance(&self, round: u64, members: u64) -> Option<Work> {
        let every = (members * ACKNOWLEDGE_PER_MEMBER_MS).div_ceil(1_000).max(2);
        let acknowledge =
            round.is_multiple_of(every) && self.state.due_acknowledgements().is_some();
        let idle = self.state.quarantined().next().is_none()
            && self.state.tombstones() == 0
            && !acknowledge;
        (!idle).then_some(Work::Maintain { acknowledge })
    }
}

/// One end of a session.
#[derive(Debug)]
pub(super) struct End {
    core: Core,
    /// For a machine that fetches everything, what it has so far.
    fresh: Option<State>,
}

/// Why a session ended. `None` if it ended normally; otherwise what no correct machine sends.
pub(super) type Ended = Option<String>;

impl End {
    pub(super) fn new(peer: MachineId, machine: &Machine) -> Self {
        let state = &machine.state;
        let fresh = state.is_rejoining().then(|| State::fetched(state.me()));
        Self {
            core: Core::new(CLUSTER, &KINDS, peer, state),
            fresh,
        }
    }

    /// Processes a frame. The returned work must be committed, and then `applied` must be called.
    pub(super) fn handle(
        &mut self,
        frame: &Bytes,
        machine: &Machine,
        now_ms: u64,
    ) -> Result<Option<Work>, Ended> {
        let effect = self
            .core
            .handle(frame, &machine.state)
            .map_err(|error| match error {
                SessionError::Rejoining
                | SessionError::PeerBehind { .. }
                | SessionError::Refused { .. } => None,
                wrong => Some(wrong.to_string()),
            })?;
        let work = match (effect, &mut self.fresh) {
            (Some(Effect::Apply(batch)), Some(fresh)) => {
                let applied = fresh.apply_batch(&batch, now_ms, &mut Changes::default());
                applied.map_err(|error| Some(error.to_string()))?;
                self.core.applied();
                None
            }
            (Some(Effect::Apply(batch)), None) => Some(Work::Apply(batch)),
            (Some(Effect::Reincarnate(above)), _) => Some(Work::Reincarnate(above)),
            (Some(Effect::Rejoin(wanted)), _) => Some(Work::Rejoin(Some(wanted))),
            (Some(Effect::GoOn), _) => Some(Work::Rejoin(None)),
            (None, _) => None,
        };
        let complete = self.fresh.take_if(|fresh| self.core.has_fetched(fresh));
        Ok(complete
            .map(|fresh| Work::Replace(Box::new(fresh)))
            .or(work))
    }

    pub(super) fn applied(&mut self) {
        self.core.applied();
    }

    pub(super) fn tick(&mut self, machine: &Machine) {
        self.core.tick(&machine.state);
    }

    pub(super) fn next_frame(&mut self, machine: &Machine) -> Option<Bytes> {
        self.core.next_frame(&machine.state, true)
    }

    /// Reports whether the session must end, because deletes were forgotten that the peer may not
    /// have.
    pub(super) fn is_outgrown(&self) -> bool {
        self.core.is_outgrown()
    }

    /// Returns how often digests differed although the watermarks were equal.
    pub(super) fn differences(&self) -> u64 {
        self.core.differences()
    }
}

/// The purpose of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It carries changes.
    Changes,
    /// It announces only that nothing is missing up to some versions.
    Watermarks,
    /// Greetings, the report of each second, digests.
    Control,
}

pub(super) fn purpose(frame: &Bytes) -> Purpose {
    match (frame.first(), frame.get(1)) {
        (Some(&TAG_CHANGES), Some(0)) => Purpose::Watermarks,
        (Some(&TAG_CHANGES), _) => Purpose::Changes,
        _ => Purpose::Control,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purpose_is_visible_in_the_frame() {
        let id = MachineId([1; 16]);
        let founders = [(id, Rows::from([(Arc::from("a"), vec![1])]))];
        let machine = &Machine::founders(&founders, 1, false).unwrap()[0];
        let ops: Vec<_> = machine.state().ops().cloned().collect();
        assert_eq!(ops.len(), 3);
        let full = Batch {
            ops,
            ..Batch::default()
        };
        assert_eq!(
            purpose(&crate::wire::encode_changes(&full)),
            Purpose::Changes
        );
        let watermarks = Batch {
            watermarks: vec![(machine.state().me(), 3)],
            ..Batch::default()
        };
        assert_eq!(
            purpose(&crate::wire::encode_changes(&watermarks)),
            Purpose::Watermarks
        );
        let hello = End::new(MachineId([2; 16]), machine)
            .next_frame(machine)
            .unwrap();
        assert_eq!(purpose(&hello), Purpose::Control);
    }
}
