//! Continues as a new incarnation, with what this machine has or with what the cluster has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::{declare_above, republish, seen};
use crate::error::WriteError;
use crate::id::{Actor, Dot};
use crate::kind::{ACKS, MEMBERS};
use crate::op::{Content, Context, Group, MAX_CONTEXT, Op, Wanted};
use crate::state::{Acknowledgements, Batch, Changes, Member, MemberStatus, State, declared};

/// Continues as a new incarnation. Observations are published again. The intents of this run are
/// written again, because their versions had been used before with other content. The peers send
/// that content.
pub(crate) fn reincarnate(
    state: &mut State,
    incarnation: u64,
    opened_at: u64,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let old = state.me();
    // Versions made since the store was opened may have been used before with other content.
    let suspects: Vec<_> = state.ops_after(old, opened_at).cloned().collect();
    state.become_actor(Actor { incarnation, ..old }, opened_at, changes);
    for op in suspects {
        match &op.content {
            Content::Entry { ms, value } => {
                state.drop_entry(&op, changes);
                state.apply_own(|dot| Op::entry(dot, op.kind, *ms, value), now_ms, changes)?;
            }
            Content::Registry { epoch, value, .. } => {
                let hlc = state.hlc.tick(now_ms);
                let key = Arc::clone(&op.key);
                state.apply_own(
                    |dot| Op::registry(dot, op.kind, key, *epoch, hlc, value),
                    now_ms,
                    changes,
                )?;
            }
            _ => repeat(state, &op, now_ms, changes)?,
        }
    }
    for kind in state.published_kinds(old.machine) {
        // The entries of a log have a time. They were written again above.
        if state
            .facts_of(kind, old.machine)
            .any(|(_, fact)| fact.ms > 0)
        {
            continue;
        }
        let rows = state
            .facts_of(kind, old.machine)
            .filter_map(|((_, _, key), fact)| {
                fact.value
                    .as_ref()
                    .map(|value| (Arc::clone(key), value.to_vec()))
            })
            .collect();
        republish(state, kind, &rows, now_ms, changes)?;
    }
    Ok(())
}

/// Writes an intent or a claim again. The repetition replaces what it repeats and what that had
/// replaced, and nothing else. If the record does not exist, it may have been deleted and forgotten
/// in the meantime. Then it is written as a new record.
fn repeat(
    state: &mut State,
    op: &Op,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let Some(asked) = op.asked() else {
        return Ok(());
    };
    let claim = matches!(op.content, Content::Claim(_));
    let mut context = match state.register(claim, op.kind, &op.key) {
        Some(_) => Context::default(),
        None => state.absent_context(),
    };
    context.join(&asked.context);
    context.add(op.dot);
    let hlc = state.hlc.tick(now_ms);
    let group = |group: &Group| {
        let set = (group.dot != op.dot).then_some((group.dot, group.hlc));
        (group.id, set, group.value.clone())
    };
    let groups = asked
        .groups
        .as_ref()
        .map(|groups| groups.iter().map(group).collect());
    let (kind, key) = (op.kind, Arc::clone(&op.key));
    let wanted = Wanted {
        kind,
        claim,
        key,
        hlc,
        life: Some(asked.life),
        context,
        groups,
    };
    state.apply_own(|dot| Op::intent(dot, &wanted), now_ms, changes)?;
    Ok(())
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
    let me = old.me().machine;
    // The new incarnation must be above every one of this machine that the cluster has seen.
    let known = fresh
        .heights()
        .filter(|(actor, _)| actor.machine == me)
        .map(|(actor, _)| actor.incarnation);
    let loose = fresh
        .ops()
        .filter(|op| op.dot.actor.machine == me)
        .map(|op| op.dot.actor.incarnation);
    let incarnation = known
        .chain(loose)
        .max()
        .unwrap_or(0)
        .max(old.me().incarnation)
        + stride;
    fresh.become_actor(
        Actor {
            machine: me,
            incarnation,
        },
        u64::MAX,
        changes,
    );
    // New stamps must be above everything that this machine has ever written.
    fresh.hlc.observe(old.hlc.last());
    fresh.end_rejoin();
    let unsent = unsent(old, &fresh);
    return_to(old, &mut fresh, now_ms, changes)?;
    for op in unsent {
        match &op.content {
            // Its time has not come, so it keeps waiting unchanged.
            _ if old.quarantined().any(|waiting| waiting.dot == op.dot) => {
                let batch = Batch {
                    ops: vec![op],
                    ..Batch::default()
                };
                fresh.apply_batch(&batch, now_ms, changes)?;
            }
            Content::Registry { .. } if op.kind == MEMBERS => {
                declare_again(&mut fresh, &op, now_ms, changes)?;
            }
            Content::Registry { epoch, value, .. } => {
                let hlc = fresh.hlc.tick(now_ms);
                let key = Arc::clone(&op.key);
                fresh.apply_own(
                    |dot| Op::registry(dot, op.kind, key, *epoch, hlc, value),
                    now_ms,
                    changes,
                )?;
            }
            Content::Intent(_) | Content::Claim(_) if op.kind != ACKS => {
                repeat(&mut fresh, &op, now_ms, changes)?;
            }
            Content::Intent(asked) if *op.key == *me.to_string() => {
                // This machine no longer has what it acknowledged, and some peer may have the
                // acknowledgement. So it is withdrawn.
                let mut context = seen(&fresh, false, ACKS, &op.key)?;
                context.join(&asked.context);
                context.add(op.dot);
                let none = postcard::to_stdvec(&Acknowledgements::new()).unwrap_or_default();
                let hlc = fresh.hlc.tick(now_ms);
                let groups = Some(vec![(0, None, Bytes::from(none))]);
                let key = Arc::clone(&op.key);
                let wanted = Wanted {
                    kind: ACKS,
                    claim: false,
                    key,
                    hlc,
                    life: None,
                    context,
                    groups,
                };
                fresh.apply_own(|dot| Op::intent(dot, &wanted), now_ms, changes)?;
            }
            Content::Entry { ms, value } if op.dot.actor.machine == me => {
                fresh.apply_own(|dot| Op::entry(dot, op.kind, *ms, value), now_ms, changes)?;
            }
            _ => {}
        }
    }
    delete_again(old, &mut fresh, now_ms, changes)?;
    // Nothing of this machine's earlier incarnations is missing now, and no other machine could
    // ever announce that.
    for (actor, version) in old.heights().filter(|(actor, _)| actor.machine == me) {
        fresh.close(actor, version, changes);
        fresh.raise_cut(actor, old.cut(actor), changes);
    }
    for kind in old.published_kinds(me) {
        let rows: BTreeMap<Arc<str>, Vec<u8>> = old
            .facts_of(kind, me)
            .filter(|(_, fact)| fact.ms == 0)
            .filter_map(|((_, _, key), fact)| {
                Some((Arc::clone(key), fact.value.as_ref()?.to_vec()))
            })
            .collect();
        let log = old.facts_of(kind, me).any(|(_, fact)| fact.ms > 0);
        if !log {
            republish(&mut fresh, kind, &rows, now_ms, changes)?;
        }
    }
    Ok(fresh)
}

/// Returns what `old` has and the cluster does not know, in the order of stamps. A change also
/// counts as known if the cluster replaced or deleted it without having all changes before it.
fn unsent(old: &State, fresh: &State) -> Vec<Arc<Op>> {
    let replaced = |op: &Op| match &op.content {
        Content::Registry { .. } => fresh
            .registered(op.kind, &op.key)
            .is_some_and(|by| by.rank() > op.rank()),
        content => {
            let register = fresh.register(matches!(content, Content::Claim(_)), op.kind, &op.key);
            register.is_some_and(|register| register.context().covers(op.dot))
        }
    };
    let unknown = |op: &&Arc<Op>| {
        op.dot.version > fresh.height(op.dot.actor) && !fresh.has_op(op.dot) && !replaced(op)
    };
    let mut unsent: Vec<Arc<Op>> = old.ops().filter(unknown).cloned().collect();
    unsent.sort_by_key(|op| (op.hlc(), op.dot));
    unsent
}

/// Declares that this machine is a member again.
fn return_to(
    old: &State,
    fresh: &mut State,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let me = fresh.me();
    let (before, now) = (old.member(me.machine), fresh.member(me.machine));
    let (Some(known), false) = (
        now.or(before),
        now.is_some_and(|(_, now)| now.status == MemberStatus::Left),
    ) else {
        return Ok(());
    };
    let above = before.map_or(0, |(epoch, _)| epoch).max(known.0);
    let member = Member {
        status: MemberStatus::Member,
        floor: me.incarnation,
    };
    declare_above(fresh, me.machine, member, above, now_ms, changes)
}

/// Declares again what this machine declared about another one, above the epochs that both sides
/// knew. A machine that the cluster considers a member is not evicted again.
fn declare_again(
    fresh: &mut State,
    op: &Op,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let Some((machine, (epoch, member))) =
        declared(op).filter(|(machine, _)| *machine != fresh.me().machine)
    else {
        return Ok(());
    };
    let known = fresh.member(machine);
    let above = known.map_or(0, |(epoch, _)| epoch).max(epoch);
    let member = match (known, member.status) {
        (Some((_, known)), MemberStatus::Member | MemberStatus::Evicted) => known,
        _ => member,
    };
    declare_above(fresh, machine, member, above, now_ms, changes)
}

/// Deletes again the cluster's writes that this machine has seen and no longer has. They were
/// deleted, and the remaining members forgot the delete after they had evicted the others.
fn delete_again(
    old: &State,
    fresh: &mut State,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let mut deleted: BTreeMap<(u16, bool, Arc<str>), BTreeSet<Actor>> = BTreeMap::new();
    for op in fresh.ops() {
        let value = op.kind != ACKS && op.asked().is_some_and(|asked| asked.groups.is_some());
        if !value || op.dot.version > old.height(op.dot.actor) || old.has_op(op.dot) {
            continue;
        }
        let claim = matches!(op.content, Content::Claim(_));
        let replaced = old
            .register(claim, op.kind, &op.key)
            .is_some_and(|by| by.context().covers(op.dot));
        if !replaced {
            deleted
                .entry((op.kind, claim, Arc::clone(&op.key)))
                .or_default()
                .insert(op.dot.actor);
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
    for ((kind, claim, key), actors) in deleted {
        // The new delete has seen what the forgotten one had seen, and the forgotten delete itself,
        // which may still exist somewhere.
        let mut context = Context::default();
        let (first, others): (Vec<_>, Vec<_>) = old
            .heights()
            .partition(|(actor, _)| actor.machine == old.me().machine || actors.contains(actor));
        for (actor, version) in first.into_iter().chain(others).take(MAX_CONTEXT / 2) {
            let version = later
                .get(&(kind, &*key, actor))
                .map_or(version, |first| first - 1);
            if version > 0 {
                context.add(Dot { actor, version });
            }
        }
        let hlc = fresh.hlc.tick(now_ms);
        let wanted = Wanted {
            kind,
            claim,
            key,
            hlc,
            life: None,
            context,
            groups: None,
        };
        fresh.apply_own(|dot| Op::intent(dot, &wanted), now_ms, changes)?;
    }
    Ok(())
}
