//! Continues as a new incarnation, with what this machine has or with what the cluster has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Rows, Txn};
use crate::error::WriteError;
use crate::id::{Actor, Dot, MachineId};
use crate::kind::{ACKS, MEMBERS, RecordKey};
use crate::op::{Content, Context, Group, MAX_CONTEXT, Op, encode};
use crate::state::{
    Acknowledgements, Batch, Changes, Fact, FactKey, Member, MemberStatus, State, declared,
};

impl Txn<'_> {
    /// Continues as a new incarnation. Observations are published again. The intents of this run
    /// are written again, because their versions had been used before with other content. The peers
    /// send that content.
    pub(crate) fn reincarnate(
        &mut self,
        incarnation: u64,
        opened_at: u64,
    ) -> Result<(), WriteError> {
        let old = self.state.me();
        // Versions made since the store was opened may have been used before with other content.
        let suspects: Vec<_> = self.state.ops_after(old, opened_at).cloned().collect();
        let me = Actor { incarnation, ..old };
        self.state.become_actor(me, opened_at, self.changes);
        for op in suspects {
            match &op.content {
                Content::Entry { ms, value } => {
                    self.state.drop_entry(&op, self.changes);
                    self.apply(|dot| Op::entry(dot, op.kind, *ms, value))?;
                }
                Content::Registry { epoch, value, .. } => {
                    self.raise(op.kind, Arc::clone(&op.key), *epoch, value)?;
                }
                _ => self.repeat(&op)?,
            }
        }
        for (kind, rows) in published(self.state, old.machine) {
            self.republish(kind, &rows)?;
        }
        Ok(())
    }

    /// Writes an intent or a claim again. The repetition replaces what it repeats and what that had
    /// replaced, and nothing else. If the record does not exist, it may have been deleted and
    /// forgotten in the meantime. Then it is written as a new record.
    fn repeat(&mut self, op: &Op) -> Result<(), WriteError> {
        let Some((record, asked)) = op.record().zip(op.asked()) else {
            return Ok(());
        };
        let mut context = match self.state.register_of(&record) {
            Some(_) => Context::default(),
            None => self.state.absent_context(),
        };
        context.join(&asked.context);
        context.add(op.dot);
        let group = |group: &Group| {
            let set = (group.dot != op.dot).then_some((group.dot, group.hlc));
            (group.id, set, group.value.clone())
        };
        let groups = asked
            .groups
            .as_ref()
            .map(|groups| groups.iter().map(group).collect());
        self.ask(&record, Some(asked.creation), context, groups)
    }

    /// Writes again what the cluster does not know of the state before a rejoin.
    fn write_unsent(&mut self, old: &State, op: Arc<Op>) -> Result<(), WriteError> {
        let me = old.me().machine;
        match &op.content {
            // Its time has not come, so it keeps waiting unchanged.
            _ if old.quarantined().any(|waiting| waiting.dot == op.dot) => {
                let batch = Batch {
                    ops: vec![op],
                    ..Batch::default()
                };
                Ok(self.state.apply_batch(&batch, self.now_ms, self.changes)?)
            }
            Content::Registry { .. } if op.kind == MEMBERS => self.declare_again(&op),
            Content::Registry { epoch, value, .. } => {
                self.raise(op.kind, Arc::clone(&op.key), *epoch, value)
            }
            Content::Intent(_) | Content::Claim(_) if op.kind != ACKS => self.repeat(&op),
            Content::Intent(asked) if *op.key == *me.to_string() => {
                // This machine no longer has what it acknowledged, and some peer may have the
                // acknowledgement. So it is withdrawn.
                let record = RecordKey::intent(ACKS, &op.key);
                let mut context = self.seen(&record)?;
                context.join(&asked.context);
                context.add(op.dot);
                let none = encode(&Acknowledgements::new());
                self.ask(&record, None, context, Some(vec![(0, None, none)]))
            }
            Content::Entry { ms, value } if op.dot.actor.machine == me => {
                self.apply(|dot| Op::entry(dot, op.kind, *ms, value))
            }
            _ => Ok(()),
        }
    }

    /// Declares that this machine is a member again.
    fn return_to(&mut self, old: &State) -> Result<(), WriteError> {
        let me = self.state.me();
        let (before, now) = (old.member(me.machine), self.state.member(me.machine));
        let Some(known) = now.or(before) else {
            return Ok(());
        };
        if now.is_some_and(|(_, now)| now.status == MemberStatus::Left) {
            return Ok(());
        }
        let above = before.map_or(0, |(epoch, _)| epoch).max(known.0);
        let member = Member {
            status: MemberStatus::Member,
            floor: me.incarnation,
        };
        self.declare_above(me.machine, member, above)
    }

    /// Declares again what this machine declared about another one, above the epochs that both
    /// sides knew. A machine that the cluster considers a member is not evicted again.
    fn declare_again(&mut self, op: &Op) -> Result<(), WriteError> {
        let Some((machine, (epoch, member))) =
            declared(op).filter(|(machine, _)| *machine != self.state.me().machine)
        else {
            return Ok(());
        };
        let known = self.state.member(machine);
        let above = known.map_or(0, |(epoch, _)| epoch).max(epoch);
        let member = match (known, member.status) {
            (Some((_, known)), MemberStatus::Member | MemberStatus::Evicted) => known,
            _ => member,
        };
        self.declare_above(machine, member, above)
    }

    /// Deletes again the cluster's writes that this machine has seen and no longer has. They were
    /// deleted, and the remaining members forgot the delete after they had evicted the others.
    fn delete_again(&mut self, old: &State) -> Result<(), WriteError> {
        let mut deleted: BTreeMap<RecordKey, BTreeSet<Actor>> = BTreeMap::new();
        for op in self.state.ops() {
            let value = op.kind != ACKS && op.asked().is_some_and(|asked| asked.groups.is_some());
            if !value || op.dot.version > old.watermark(op.dot.actor) || old.has_op(op.dot) {
                continue;
            }
            let Some(record) = op.record() else { continue };
            if !has_seen(old, &record, op.dot) {
                deleted.entry(record).or_default().insert(op.dot.actor);
            }
        }
        // The forgotten delete had not seen what came later, or what waits in quarantine.
        let mut later: BTreeMap<(u16, &str, Actor), u64> = BTreeMap::new();
        for op in old.ops().filter(|op| op.asked().is_some()) {
            let first = later
                .entry((op.kind, &op.key, op.dot.actor))
                .or_insert(op.dot.version);
            *first = op.dot.version.min(*first);
        }
        for (record, actors) in deleted {
            // The new delete has seen what the forgotten one had seen, and the forgotten delete
            // itself, which may still exist somewhere.
            let mut context = Context::default();
            let (first, others): (Vec<_>, Vec<_>) = old.watermarks().partition(|(actor, _)| {
                actor.machine == old.me().machine || actors.contains(actor)
            });
            for (actor, version) in first.into_iter().chain(others).take(MAX_CONTEXT / 2) {
                let version = later
                    .get(&(record.kind, &*record.key, actor))
                    .map_or(version, |first| first - 1);
                if version > 0 {
                    context.add(actor.dot(version));
                }
            }
            self.ask(&record, None, context, None)?;
        }
        Ok(())
    }
}

/// Continues with the state of a peer (`fresh`), which was fetched as a whole, instead of this
/// machine's old state. What this machine wrote and the cluster does not know is written again, as
/// a new incarnation.
pub(crate) fn rejoin(
    old: &State,
    mut fresh: State,
    stride: u64,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<State, WriteError> {
    let machine = old.me().machine;
    // The new incarnation must be above every one of this machine that the cluster has seen.
    let seen = fresh.watermarks().map(|(actor, _)| actor);
    let incarnation = seen
        .chain(fresh.ops().map(|op| op.dot.actor))
        .filter(|actor| actor.machine == machine)
        .map(|actor| actor.incarnation)
        .fold(old.me().incarnation, u64::max)
        + stride;
    let me = Actor {
        machine,
        incarnation,
    };
    fresh.become_actor(me, u64::MAX, changes);
    // New stamps must be above everything that this machine has ever written.
    fresh.hlc.observe(old.hlc.last());
    fresh.end_rejoin();
    let unsent = unsent(old, &fresh);
    let mut txn = Txn::new(&mut fresh, now_ms, changes);
    txn.return_to(old)?;
    for op in unsent {
        txn.write_unsent(old, op)?;
    }
    txn.delete_again(old)?;
    // Nothing of this machine's earlier incarnations is missing now, and no other machine could
    // ever announce that.
    for (actor, version) in old
        .watermarks()
        .filter(|(actor, _)| actor.machine == machine)
    {
        txn.state.raise(actor, version, txn.changes);
        txn.state
            .raise_gc_watermark(actor, old.gc_watermark(actor), txn.changes);
    }
    for (kind, rows) in published(old, machine) {
        txn.republish(kind, &rows)?;
    }
    Ok(fresh)
}

/// Returns the observations that a machine has published, by kind.
fn published(state: &State, machine: MachineId) -> Vec<(u16, Rows)> {
    // The entries of a log have a time. They are written again as changes.
    let is_log = |kind: u16| state.facts_of(kind, machine).any(|(_, fact)| fact.ms > 0);
    let row =
        |(key, fact): (&FactKey, &Fact)| Some((Arc::clone(&key.2), fact.value.as_ref()?.to_vec()));
    let kinds = state.published_kinds(machine).into_iter();
    kinds
        .filter(|kind| !is_log(*kind))
        .map(|kind| {
            (
                kind,
                state.facts_of(kind, machine).filter_map(row).collect(),
            )
        })
        .collect()
}

/// Reports whether a state has a change of a record, or has replaced it.
fn has_seen(state: &State, record: &RecordKey, dot: Dot) -> bool {
    state
        .register_of(record)
        .is_some_and(|register| register.context().covers(dot))
}

/// Returns what `old` has and the cluster does not know, in the order of stamps. A change also
/// counts as known if the cluster replaced or deleted it without having all changes before it.
fn unsent(old: &State, fresh: &State) -> Vec<Arc<Op>> {
    let replaced = |op: &Op| match (&op.content, op.record()) {
        (Content::Registry { .. }, _) => fresh
            .registered(op.kind, &op.key)
            .is_some_and(|by| by.rank() > op.rank()),
        (_, Some(record)) => has_seen(fresh, &record, op.dot),
        _ => false,
    };
    let unknown = |op: &&Arc<Op>| {
        op.dot.version > fresh.watermark(op.dot.actor) && !fresh.has_op(op.dot) && !replaced(op)
    };
    let mut unsent: Vec<Arc<Op>> = old.ops().filter(unknown).cloned().collect();
    unsent.sort_by_key(|op| (op.hlc(), op.dot));
    unsent
}
