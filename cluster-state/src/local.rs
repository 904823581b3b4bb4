//! Own changes: what `write` and `publish` mean for the state. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::Actor;
use crate::kind::{Class, Kind, MAX_KEY, MAX_RECORD, MAX_TRANSACTION};
use crate::op::{Content, MAX_CONTEXT, Op};
use crate::register::Register;
use crate::state::{Changes, State};
use crate::writer::WriteError;

/// Marks of vanished observations kept before all are written anew and swept, if there are more than live ones.
const MAX_GONE: usize = 64;

/// A change to an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets the value; replaces everything this machine has seen of the record.
    Put {
        /// A declared kind of class intent.
        kind: u16,
        /// 1 to `MAX_KEY` bytes.
        key: String,
        /// Key and value together at most `MAX_RECORD` bytes.
        value: Vec<u8>,
    },
    /// Deletes what this machine has seen of the record. Deleting what is not there is no error.
    Delete {
        /// A declared kind of class intent.
        kind: u16,
        /// 1 to `MAX_KEY` bytes.
        key: String,
    },
}

impl Write {
    fn target(&self) -> (u16, &str, usize) {
        match self {
            Self::Put { kind, key, value } => (*kind, key, value.len()),
            Self::Delete { kind, key } => (*kind, key, 0),
        }
    }
}

fn check(kinds: &[Kind], class: Class, kind: u16, key: &str, value: usize) -> Result<(), WriteError> {
    check_kind(kinds, class, kind)?;
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(WriteError::BadKey { kind, bytes: key.len() });
    }
    let bytes = key.len() + value;
    if bytes > MAX_RECORD {
        return Err(WriteError::RecordTooLarge { kind, key: key.to_owned(), bytes });
    }
    Ok(())
}

fn check_kind(kinds: &[Kind], class: Class, kind: u16) -> Result<(), WriteError> {
    let declared =
        kinds.iter().find(|declared| declared.id == kind).ok_or(WriteError::UnknownKind { kind })?;
    if declared.class != class {
        return Err(WriteError::WrongClass { kind, name: declared.name, class: declared.class });
    }
    Ok(())
}

/// Whether the writes are within the limits; nothing is changed.
pub(crate) fn check_writes(kinds: &[Kind], writes: &[Write]) -> Result<(), WriteError> {
    if writes.len() > MAX_TRANSACTION {
        return Err(WriteError::TransactionTooLarge { records: writes.len() });
    }
    for write in writes {
        let (kind, key, value) = write.target();
        check(kinds, Class::Intent, kind, key, value)?;
    }
    Ok(())
}

/// The rows as a set, if they are within the limits.
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
            return Err(WriteError::DuplicateKey { kind, key: key.to_string() });
        }
    }
    Ok(set)
}

/// Applies writes of intent, each with its own version and stamp.
pub(crate) fn write(
    state: &mut State,
    writes: &[Write],
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    for write in writes {
        let (kind, key, value) = match write {
            Write::Put { kind, key, value } => (*kind, key, Some(value.as_slice())),
            Write::Delete { kind, key } => (*kind, key, None),
        };
        let register = state.register(kind, key);
        if value.is_none() && register.is_none_or(|register| register.value().is_none()) {
            continue;
        }
        let context = register.map(Register::context).unwrap_or_default();
        if context.len() >= MAX_CONTEXT {
            return Err(WriteError::TooManyWriters { kind, key: key.clone() });
        }
        let hlc = state.hlc.tick(now_ms);
        let key = Arc::from(key.as_str());
        state.apply_own(|dot| Op::intent(dot, kind, key, hlc, context, value), now_ms, changes)?;
    }
    Ok(())
}

/// Makes `rows` the complete set of own observations of `kind`. Unchanged rows change nothing.
pub(crate) fn publish(
    state: &mut State,
    kind: u16,
    rows: &BTreeMap<Arc<str>, Vec<u8>>,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let me = state.me();
    let current = state.sweep(kind, me.machine).is_some_and(|sweep| sweep.dot.actor == me);
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
        let known = state.fact(kind, me.machine, key).and_then(|fact| fact.value.as_deref());
        if known != Some(value.as_slice()) {
            state.apply_own(|dot| Op::fact(dot, kind, Arc::clone(key), Some(value)), now_ms, changes)?;
        }
    }
    for key in gone {
        state.apply_own(|dot| Op::fact(dot, kind, key, None), now_ms, changes)?;
    }
    Ok(())
}

/// Writes all rows anew and sweeps everything older, rows first, so that nothing that stays is ever missing.
pub(crate) fn republish(
    state: &mut State,
    kind: u16,
    rows: &BTreeMap<Arc<str>, Vec<u8>>,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let floor = (state.me().incarnation, state.own_version() + 1);
    for (key, value) in rows {
        state.apply_own(|dot| Op::fact(dot, kind, Arc::clone(key), Some(value)), now_ms, changes)?;
    }
    state.apply_own(|dot| Op::sweep(dot, kind, floor), now_ms, changes)?;
    Ok(())
}

/// Goes on as a new incarnation: own observations are said again, and so are the own intents of this run, whose
/// versions were used before with other content, which is to come from the peers.
pub(crate) fn reincarnate(
    state: &mut State,
    incarnation: u64,
    opened_at: u64,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), WriteError> {
    let old = state.me();
    let suspects: Vec<_> =
        state.ops_after(old, opened_at).filter(|op| op.stamp().is_some()).cloned().collect();
    state.become_actor(Actor { incarnation, ..old }, opened_at, changes);
    for op in suspects {
        if let Content::Intent(intent) = &op.content {
            // It replaces the write it repeats and whatever that had replaced, nothing else.
            let mut context = intent.context.clone();
            context.add(op.dot);
            let hlc = state.hlc.tick(now_ms);
            let value = intent.value.as_deref();
            let make = |dot| Op::intent(dot, op.kind, Arc::clone(&op.key), hlc, context, value);
            state.apply_own(make, now_ms, changes)?;
        }
    }
    for kind in state.published_kinds(old.machine) {
        let rows = state
            .facts_of(kind, old.machine)
            .filter_map(|((_, _, key), fact)| {
                fact.value.as_ref().map(|value| (Arc::clone(key), value.to_vec()))
            })
            .collect();
        republish(state, kind, &rows, now_ms, changes)?;
    }
    Ok(())
}
