//! Own changes: how `write` and `publish` change the state. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::WriteError;
use crate::id::{Actor, Dot, MAX_COUNTER, MachineId};
use crate::kind::{self, ACKS, Class, Kind, MAX_KEY, MAX_RECORD, MAX_TRANSACTION, MEMBERS};
use crate::op::{Content, Context, MAX_CONTEXT, MAX_GROUPS, Op, Wanted};
use crate::register::{MAX_SIBLINGS, Register};
use crate::state::{Changes, Member, MemberStatus, State};

mod rejoin;
pub(crate) use rejoin::{reincarnate, rejoin};

/// Tombstones of observations that are kept before all rows are written again and swept, if there
/// are more of them than rows.
const MAX_GONE: usize = 64;

/// A change that a caller requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets the whole record. Replaces everything that this machine has seen of it.
    Put {
        /// A declared kind of class intent.
        kind: u16,
        /// 1 to `MAX_KEY` bytes.
        key: String,
        /// Key and value together have at most `MAX_RECORD` bytes.
        value: Vec<u8>,
    },
    /// Sets or removes groups of fields of a record and keeps the others. Concurrent edits of
    /// different groups do not conflict. Creates the record if it does not exist.
    Edit {
        /// A declared kind of class intent.
        kind: u16,
        /// 1 to `MAX_KEY` bytes.
        key: String,
        /// Groups by number, at most `MAX_GROUPS` in the record. Group 0 is the one that `Put`
        /// sets. `None` removes a group.
        groups: Vec<(u16, Option<Vec<u8>>)>,
    },
    /// Deletes what this machine has seen of the record. Deleting a record that does not exist is
    /// not an error.
    Delete {
        /// A declared kind of class intent.
        kind: u16,
        /// 1 to `MAX_KEY` bytes.
        key: String,
    },
    /// Claims a key, or changes the value of this machine's own claim. Fails if another machine's
    /// claim is known. Two claims made on two sides of a partition are both kept until one is
    /// released; the earlier one holds.
    Claim {
        /// A declared kind of class claim.
        kind: u16,
        /// 1 to `MAX_KEY` bytes.
        key: String,
        /// Key and value together have at most `MAX_RECORD` bytes.
        value: Vec<u8>,
    },
    /// Releases this machine's own claim, whether it holds or has lost.
    Release {
        /// A declared kind of class claim.
        kind: u16,
        /// 1 to `MAX_KEY` bytes.
        key: String,
    },
    /// Releases all claims of a key that this machine knows. For claims of machines that no longer
    /// exist.
    Revoke {
        /// A declared kind of class claim.
        kind: u16,
        /// 1 to `MAX_KEY` bytes.
        key: String,
    },
    /// Raises a registry record. Fails unless `epoch` is above the record's.
    Raise {
        /// A declared kind of class registry.
        kind: u16,
        /// 1 to `MAX_KEY` bytes.
        key: String,
        /// 1 for the first.
        epoch: u64,
        /// Key and value together have at most `MAX_RECORD` bytes.
        value: Vec<u8>,
    },
    /// Settles a conflict, as `Edit` or `Delete` does. Fails if the values are no longer those that
    /// the user chose from.
    Settle {
        /// A declared kind of class intent.
        kind: u16,
        /// 1 to `MAX_KEY` bytes.
        key: String,
        /// The group of fields. 0 for records without groups.
        group: u16,
        /// The writes that the user saw: those of `Conflict::active` and `Conflict::others`.
        seen: Vec<Dot>,
        /// `None` deletes the record.
        value: Option<Vec<u8>>,
    },
    /// Declares a machine's membership: whether deletes wait for it, and whether its observations
    /// count. Does nothing if that is already declared. Other writes that depend on the declaration
    /// must be in the same call.
    Declare {
        machine: MachineId,
        status: MemberStatus,
    },
}

impl Write {
    fn target(&self) -> (Class, u16, &str, usize) {
        match self {
            Self::Put { kind, key, value } => (Class::Intent, *kind, key, value.len()),
            Self::Edit { kind, key, groups } => {
                let bytes = groups
                    .iter()
                    .flat_map(|(_, value)| value)
                    .map(|value| value.len() + 48)
                    .sum();
                (Class::Intent, *kind, key, bytes)
            }
            Self::Delete { kind, key } => (Class::Intent, *kind, key, 0),
            Self::Claim { kind, key, value } => (Class::Claim, *kind, key, value.len()),
            Self::Release { kind, key } | Self::Revoke { kind, key } => {
                (Class::Claim, *kind, key, 0)
            }
            Self::Raise {
                kind, key, value, ..
            } => (Class::Registry, *kind, key, value.len()),
            Self::Settle {
                kind, key, value, ..
            } => (
                Class::Intent,
                *kind,
                key,
                value.as_ref().map_or(0, Vec::len),
            ),
            Self::Declare { .. } => (Class::Registry, MEMBERS, "machine", 0),
        }
    }
}

/// How much of its log of one kind a machine keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Maximum number of entries, at least 1.
    pub entries: usize,
    /// Maximum age of an entry in milliseconds.
    pub age_ms: u64,
}

fn check(
    kinds: &[Kind],
    class: Class,
    kind: u16,
    key: &str,
    value: usize,
) -> Result<(), WriteError> {
    check_kind(kinds, class, kind)?;
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(WriteError::BadKey {
            kind,
            bytes: key.len(),
        });
    }
    let bytes = key.len() + value;
    if bytes > MAX_RECORD {
        return Err(WriteError::RecordTooLarge {
            kind,
            key: key.to_owned(),
            bytes,
        });
    }
    Ok(())
}

fn check_kind(kinds: &[Kind], class: Class, kind: u16) -> Result<(), WriteError> {
    let declared = kind::find(kinds, kind).ok_or(WriteError::UnknownKind { kind })?;
    if declared.class != class {
        return Err(WriteError::WrongClass {
            kind,
            name: declared.name,
            class: declared.class,
        });
    }
    Ok(())
}

/// Checks that the writes are within the limits. Changes nothing.
pub(crate) fn check_writes(kinds: &[Kind], writes: &[Write]) -> Result<(), WriteError> {
    if writes.len() > MAX_TRANSACTION {
        return Err(WriteError::TransactionTooLarge {
            records: writes.len(),
        });
    }
    for write in writes {
        let (class, kind, key, value) = write.target();
        check(kinds, class, kind, key, value)?;
    }
    Ok(())
}

/// Checks that the entries are within the limits.
pub(crate) fn check_entries(
    kinds: &[Kind],
    kind: u16,
    entries: &[Vec<u8>],
) -> Result<(), WriteError> {
    if entries.len() > MAX_TRANSACTION {
        return Err(WriteError::TransactionTooLarge {
            records: entries.len(),
        });
    }
    check_kind(kinds, Class::Log, kind)?;
    // An entry's key is made when it is appended and has 33 bytes.
    entries
        .iter()
        .try_for_each(|entry| check(kinds, Class::Log, kind, &"0".repeat(33), entry.len()))
}

/// Returns the rows as a map, if they are within the limits.
pub(crate) fn check_rows(
    kinds: &[Kind],
    kind: u16,
    rows: Vec<(String, Vec<u8>)>,
) -> Result<BTreeMap<Arc<str>, Vec<u8>>, WriteError> {
    check_kind(kinds, Class::Observation, kind)?;
    let mut set = BTreeMap::new();
    for (key, value) in rows {
        check(kinds, Class::Observation, kind, &key, value.len())?;
        let key: Arc<str> = key.into();
        if set.insert(Arc::clone(&key), value).is_some() {
            return Err(WriteError::DuplicateKey {
                kind,
                key: key.to_string(),
            });
        }
    }
    Ok(set)
}

/// Applies writes, each with its own version and stamp.
pub(crate) fn write(
    state: &mut State,
    writes: &[Write],
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    for write in writes {
        match write {
            Write::Put { kind, key, value } => {
                put(
                    state,
                    (*kind, key),
                    vec![(0, Some(value.as_slice()))],
                    false,
                    now_ms,
                    changes,
                )?;
            }
            Write::Edit { kind, key, groups } => {
                let groups = groups
                    .iter()
                    .map(|(id, value)| (*id, value.as_deref()))
                    .collect();
                put(state, (*kind, key), groups, true, now_ms, changes)?;
            }
            Write::Delete { kind, key } => {
                if state
                    .register(false, *kind, key)
                    .is_some_and(|register| register.life().is_some())
                {
                    bury(state, false, (*kind, key), now_ms, changes)?;
                }
            }
            Write::Claim { kind, key, value } => {
                claim(state, (*kind, key), value, now_ms, changes)?;
            }
            Write::Release { kind, key } => release(state, (*kind, key), now_ms, changes)?,
            Write::Revoke { kind, key } => {
                if state
                    .register(true, *kind, key)
                    .is_some_and(|register| register.life().is_some())
                {
                    bury(state, true, (*kind, key), now_ms, changes)?;
                }
            }
            Write::Settle {
                kind,
                key,
                group,
                seen,
                value,
            } => {
                settle(
                    state,
                    (*kind, key),
                    *group,
                    seen,
                    value.as_deref(),
                    now_ms,
                    changes,
                )?;
            }
            Write::Declare { machine, status } => {
                let member = state.membership_of(*machine, *status);
                declare(state, *machine, member, now_ms, changes)?;
            }
            Write::Raise {
                kind,
                key,
                epoch,
                value,
            } => {
                let known = match state.registered(*kind, key).map(|op| &op.content) {
                    Some(Content::Registry { epoch, .. }) => *epoch,
                    _ => 0,
                };
                if *epoch <= known || *epoch >= MAX_COUNTER {
                    return Err(WriteError::EpochTooLow {
                        kind: *kind,
                        key: key.clone(),
                        known,
                        epoch: *epoch,
                    });
                }
                let hlc = state.hlc.tick(now_ms);
                let key = Arc::from(key.as_str());
                state.apply_own(
                    |dot| Op::registry(dot, *kind, key, *epoch, hlc, value),
                    now_ms,
                    changes,
                )?;
            }
        }
    }
    Ok(())
}

/// Returns the context of a write: what this machine has seen of the record.
fn seen(state: &State, claim: bool, kind: u16, key: &str) -> Result<Context, WriteError> {
    let context = state
        .register(claim, kind, key)
        .map_or_else(|| state.absent_context(), Register::context);
    if context.len() >= MAX_CONTEXT {
        return Err(WriteError::TooManyWriters {
            kind,
            key: key.to_owned(),
        });
    }
    Ok(context)
}

/// Sets groups of fields. With `merge`, the record's other groups are kept.
fn put(
    state: &mut State,
    (kind, key): (u16, &str),
    set: Vec<(u16, Option<&[u8]>)>,
    merge: bool,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let context = seen(state, false, kind, key)?;
    let register = state.register(false, kind, key);
    let life = register.and_then(Register::life);
    let mut groups = BTreeMap::new();
    if merge && let Some(register) = register {
        let ids = register.group_ids();
        let kept = ids.into_iter().filter_map(|id| register.active(id));
        groups.extend(kept.map(|group| {
            (
                group.id,
                (Some((group.dot, group.hlc)), group.value.clone()),
            )
        }));
    }
    for (id, value) in set {
        match value {
            Some(value) => drop(groups.insert(id, (None, Bytes::copy_from_slice(value)))),
            None => drop(groups.remove(&id)),
        }
    }
    if groups.len() > MAX_GROUPS {
        return Err(WriteError::TooManyGroups {
            kind,
            key: key.to_owned(),
            groups: groups.len(),
        });
    }
    if groups.is_empty() {
        // A record without any group does not exist.
        return if life.is_some() {
            bury(state, false, (kind, key), now_ms, changes)
        } else {
            Ok(())
        };
    }
    let bytes = key.len() + groups.values().map(|(_, value)| value.len()).sum::<usize>();
    if bytes > MAX_RECORD {
        return Err(WriteError::RecordTooLarge {
            kind,
            key: key.to_owned(),
            bytes,
        });
    }
    let hlc = state.hlc.tick(now_ms);
    let groups = groups
        .into_iter()
        .map(|(id, (set, value))| (id, set, value))
        .collect();
    let wanted = Wanted {
        kind,
        claim: false,
        key: Arc::from(key),
        hlc,
        life,
        context,
        groups: Some(groups),
    };
    state.apply_own(|dot| Op::intent(dot, &wanted), now_ms, changes)?;
    Ok(())
}

fn settle(
    state: &mut State,
    (kind, key): (u16, &str),
    group: u16,
    seen: &[Dot],
    value: Option<&[u8]>,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let candidates = state
        .register(false, kind, key)
        .map(|register| register.candidates(group));
    let now: BTreeSet<Dot> = candidates
        .unwrap_or_default()
        .iter()
        .take(MAX_SIBLINGS)
        .map(|candidate| candidate.dot)
        .collect();
    if now != seen.iter().copied().collect() {
        return Err(WriteError::Changed {
            kind,
            key: key.to_owned(),
        });
    }
    match value {
        Some(value) => put(
            state,
            (kind, key),
            vec![(group, Some(value))],
            true,
            now_ms,
            changes,
        ),
        None => bury(state, false, (kind, key), now_ms, changes),
    }
}

/// Deletes everything that is known of a record.
fn bury(
    state: &mut State,
    claim: bool,
    (kind, key): (u16, &str),
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let context = seen(state, claim, kind, key)?;
    let life = state.register(claim, kind, key).and_then(Register::life);
    let hlc = state.hlc.tick(now_ms);
    let wanted = Wanted {
        kind,
        claim,
        key: Arc::from(key),
        hlc,
        life,
        context,
        groups: None,
    };
    state.apply_own(|dot| Op::intent(dot, &wanted), now_ms, changes)?;
    Ok(())
}

/// Returns the creation of this machine's own claim of a key, and the context of a write that
/// replaces only this machine's claims.
fn own_claims(state: &State, kind: u16, key: &str) -> (Option<(u64, Actor)>, Context) {
    let me = state.me().machine;
    let mut context = Context::default();
    let mut life = None;
    let Some(register) = state.register(true, kind, key) else {
        return (None, state.absent_context());
    };
    // Released claims are replaced as well, so that they do not pile up.
    for op in register.items() {
        let Some(asked) = op.asked() else { continue };
        let given_back = asked.groups.is_none();
        if asked.life.1.machine == me || given_back {
            context.join(&asked.context);
            context.add(op.dot);
        }
        if asked.life.1.machine == me && !given_back {
            life = Some(life.map_or(asked.life, |life: (u64, Actor)| life.min(asked.life)));
        }
    }
    (life, context)
}

fn claim(
    state: &mut State,
    (kind, key): (u16, &str),
    value: &[u8],
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let holder = state.register(true, kind, key).and_then(Register::holder);
    if let Some((_, asked)) = holder
        && asked.life.1.machine != state.me().machine
    {
        return Err(WriteError::Claimed {
            kind,
            key: key.to_owned(),
            by: asked.life.1.machine,
        });
    }
    let (life, context) = own_claims(state, kind, key);
    if context.len() >= MAX_CONTEXT {
        return Err(WriteError::TooManyWriters {
            kind,
            key: key.to_owned(),
        });
    }
    let hlc = state.hlc.tick(now_ms);
    let groups = Some(vec![(0, None, Bytes::copy_from_slice(value))]);
    let wanted = Wanted {
        kind,
        claim: true,
        key: Arc::from(key),
        hlc,
        life,
        context,
        groups,
    };
    state.apply_own(|dot| Op::intent(dot, &wanted), now_ms, changes)?;
    Ok(())
}

fn release(
    state: &mut State,
    (kind, key): (u16, &str),
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let (life, context) = own_claims(state, kind, key);
    if life.is_none() {
        return Ok(());
    }
    let hlc = state.hlc.tick(now_ms);
    let wanted = Wanted {
        kind,
        claim: true,
        key: Arc::from(key),
        hlc,
        life,
        context,
        groups: None,
    };
    state.apply_own(|dot| Op::intent(dot, &wanted), now_ms, changes)?;
    Ok(())
}

/// Appends to this machine's log of a kind and trims it.
pub(crate) fn append(
    state: &mut State,
    kind: u16,
    entries: &[Vec<u8>],
    keep: Retention,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    for entry in entries {
        state.apply_own(|dot| Op::entry(dot, kind, now_ms, entry), now_ms, changes)?;
    }
    let me = state.me().machine;
    let oldest = now_ms.saturating_sub(keep.age_ms);
    let mut places: Vec<((u64, u64), u64)> = state
        .facts_of(kind, me)
        .map(|(_, fact)| ((fact.dot.actor.incarnation, fact.dot.version), fact.ms))
        .collect();
    places.sort_unstable();
    let surplus = places.len().saturating_sub(keep.entries.max(1));
    let aged = places.iter().take_while(|(_, ms)| *ms < oldest).count();
    // Trimming a few entries at a time would need as many sweeps as entries.
    let slack = (keep.entries / 8).max(1);
    let trimmed = surplus.max(aged);
    if trimmed >= slack || state.sweep(kind, me).is_none() {
        let floor = places
            .get(trimmed)
            .map_or((state.me().incarnation, state.own_version() + 1), |place| {
                place.0
            });
        state.apply_own(|dot| Op::sweep(dot, kind, floor), now_ms, changes)?;
    }
    Ok(())
}

/// Acknowledges up to where this machine has the actors whose deletes other members keep. If it was
/// evicted, also declares that it is back.
pub(crate) fn acknowledge(
    state: &mut State,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    if state.is_evicted() && !state.is_rejoining() {
        let me = state.me().machine;
        declare(
            state,
            me,
            state.membership_of(me, MemberStatus::Member),
            now_ms,
            changes,
        )?;
    }
    let Some(list) = state.due_acknowledgements() else {
        return Ok(());
    };
    let value = postcard::to_stdvec(&list).unwrap_or_default();
    let key = state.me().machine.to_string();
    put(
        state,
        (ACKS, &key),
        vec![(0, Some(value.as_slice()))],
        false,
        now_ms,
        changes,
    )
}

/// Declares a machine's membership, unless it is already declared.
pub(crate) fn declare(
    state: &mut State,
    machine: MachineId,
    member: Member,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let known = state.member(machine);
    if known.is_some_and(|(_, known)| known == member) {
        return Ok(());
    }
    declare_above(
        state,
        machine,
        member,
        known.map_or(0, |(epoch, _)| epoch),
        now_ms,
        changes,
    )
}

/// Declares a machine's membership with an epoch above `above`.
fn declare_above(
    state: &mut State,
    machine: MachineId,
    member: Member,
    above: u64,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let epoch = above + 1;
    let value = postcard::to_stdvec(&member).unwrap_or_default();
    let raise = Write::Raise {
        kind: MEMBERS,
        key: machine.to_string(),
        epoch,
        value,
    };
    write(state, &[raise], now_ms, changes)
}

/// Makes `rows` the complete set of own observations of `kind`. Unchanged rows cause no change.
pub(crate) fn publish(
    state: &mut State,
    kind: u16,
    rows: &BTreeMap<Arc<str>, Vec<u8>>,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let me = state.me();
    // Observations of an earlier incarnation are replaced as a whole, because this one may not know
    // all of them.
    let current = state
        .sweep(kind, me.machine)
        .is_some_and(|sweep| sweep.dot.actor == me);
    let mut gone = Vec::new();
    let mut marks = 0;
    for ((_, _, key), fact) in state.facts_of(kind, me.machine) {
        if fact.value.is_none() {
            marks += usize::from(!rows.contains_key(key));
        } else if !rows.contains_key(key) {
            gone.push(Arc::clone(key));
        }
    }
    if !current || marks + gone.len() > MAX_GONE.max(rows.len()) {
        return republish(state, kind, rows, now_ms, changes);
    }
    for (key, value) in rows {
        let known = state
            .fact(kind, me.machine, key)
            .and_then(|fact| fact.value.as_deref());
        if known != Some(value.as_slice()) {
            state.apply_own(
                |dot| Op::fact(dot, kind, Arc::clone(key), Some(value)),
                now_ms,
                changes,
            )?;
        }
    }
    for key in gone {
        state.apply_own(|dot| Op::fact(dot, kind, key, None), now_ms, changes)?;
    }
    Ok(())
}

/// Writes all rows again and then sweeps everything older. The rows come first, so that no row that
/// is kept is ever missing.
pub(crate) fn republish(
    state: &mut State,
    kind: u16,
    rows: &BTreeMap<Arc<str>, Vec<u8>>,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let floor = (state.me().incarnation, state.own_version() + 1);
    for (key, value) in rows {
        state.apply_own(
            |dot| Op::fact(dot, kind, Arc::clone(key), Some(value)),
            now_ms,
            changes,
        )?;
    }
    state.apply_own(|dot| Op::sweep(dot, kind, floor), now_ms, changes)?;
    Ok(())
}
