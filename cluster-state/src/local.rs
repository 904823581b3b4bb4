//! Own changes: how `write` and `publish` change the state. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Stamp;
use crate::error::WriteError;
use crate::id::{Dot, MAX_COUNTER, MachineId};
use crate::kind::{
    self, ACKS, Class, Kind, MAX_KEY, MAX_RECORD, MAX_TRANSACTION, MEMBERS, RecordKey,
};
use crate::op::{Content, Context, MAX_CONTEXT, MAX_GROUPS, Op, Wanted, WantedGroup, encode};
use crate::register::{MAX_SIBLINGS, Register};
use crate::state::{Changes, Member, MemberStatus, State, order};

mod rejoin;
pub(crate) use rejoin::rejoin;

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
) -> Result<Rows, WriteError> {
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

/// A transaction of this machine: the state that it changes, the time, and what it has changed.
pub(crate) struct Txn<'a> {
    state: &'a mut State,
    now_ms: u64,
    changes: &'a mut Changes,
}

/// The complete set of a machine's observations of a kind, by key.
pub(crate) type Rows = BTreeMap<Arc<str>, Vec<u8>>;

/// Groups of fields to set, by number. `None` removes a group.
type Set<'a> = Vec<(u16, Option<&'a [u8]>)>;

impl<'a> Txn<'a> {
    pub(crate) fn new(state: &'a mut State, now_ms: u64, changes: &'a mut Changes) -> Self {
        Self {
            state,
            now_ms,
            changes,
        }
    }

    /// Applies writes, each with its own version and stamp.
    pub(crate) fn write(&mut self, writes: &[Write]) -> Result<(), WriteError> {
        writes.iter().try_for_each(|write| self.write_one(write))
    }

    /// Makes a change with the next version.
    fn apply(&mut self, make: impl FnOnce(Dot) -> Op) -> Result<(), WriteError> {
        Ok(self.state.apply_own(make, self.now_ms, self.changes)?)
    }

    /// Writes an intent or a claim with a new stamp. Without `creation` it creates the record.
    /// Without `groups` it is a tombstone.
    fn ask(
        &mut self,
        record: &RecordKey,
        creation: Option<Stamp>,
        context: Context,
        groups: Option<Vec<WantedGroup>>,
    ) -> Result<(), WriteError> {
        let wanted = Wanted {
            record: record.clone(),
            hlc: self.state.hlc.tick(self.now_ms),
            creation,
            context,
            groups,
        };
        self.apply(|dot| Op::intent(dot, &wanted))
    }

    fn raise(
        &mut self,
        kind: u16,
        key: Arc<str>,
        epoch: u64,
        value: &[u8],
    ) -> Result<(), WriteError> {
        let hlc = self.state.hlc.tick(self.now_ms);
        self.apply(|dot| Op::registry(dot, kind, key, epoch, hlc, value))
    }

    fn write_one(&mut self, write: &Write) -> Result<(), WriteError> {
        match write {
            Write::Put { kind, key, value } => {
                let set = vec![(0, Some(value.as_slice()))];
                self.put(&RecordKey::intent(*kind, key), set, false)
            }
            Write::Edit { kind, key, groups } => {
                let set = groups.iter().map(|(id, value)| (*id, value.as_deref()));
                self.put(&RecordKey::intent(*kind, key), set.collect(), true)
            }
            Write::Delete { kind, key } => self.delete(&RecordKey::intent(*kind, key)),
            Write::Claim { kind, key, value } => self.claim(&RecordKey::claim(*kind, key), value),
            Write::Release { kind, key } => self.release(&RecordKey::claim(*kind, key)),
            Write::Revoke { kind, key } => self.delete(&RecordKey::claim(*kind, key)),
            Write::Raise {
                kind,
                key,
                epoch,
                value,
            } => {
                let known = match self.state.registered(*kind, key).map(|op| &op.content) {
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
                self.raise(*kind, Arc::from(key.as_str()), *epoch, value)
            }
            Write::Settle {
                kind,
                key,
                group,
                seen,
                value,
            } => {
                let record = RecordKey::intent(*kind, key);
                self.settle(&record, *group, seen, value.as_deref())
            }
            Write::Declare { machine, status } => {
                let member = self.state.membership_of(*machine, *status);
                self.declare(*machine, member)
            }
        }
    }

    /// Returns the context of a write: what this machine has seen of the record.
    fn seen(&self, record: &RecordKey) -> Result<Context, WriteError> {
        let context = self
            .state
            .register_of(record)
            .map_or_else(|| self.state.absent_context(), Register::context);
        check_context(record, &context)?;
        Ok(context)
    }

    /// Returns the record's creation, unless the record is deleted or does not exist.
    fn creation(&self, record: &RecordKey) -> Option<Stamp> {
        self.state.register_of(record).and_then(Register::creation)
    }

    /// Sets groups of fields. With `merge`, the record's other groups are kept.
    fn put(&mut self, record: &RecordKey, set: Set<'_>, merge: bool) -> Result<(), WriteError> {
        let mut groups = BTreeMap::new();
        if merge && let Some(register) = self.state.register_of(record) {
            let ids = register.group_ids();
            let kept = ids.into_iter().filter_map(|id| register.active(id));
            groups.extend(kept.map(|group| {
                let set = Some((group.dot, group.hlc));
                (group.id, (set, group.value.clone()))
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
                kind: record.kind,
                key: record.key.to_string(),
                groups: groups.len(),
            });
        }
        if groups.is_empty() {
            // A record without any group does not exist.
            return self.delete(record);
        }
        let values: usize = groups.values().map(|(_, value)| value.len()).sum();
        let bytes = record.key.len() + values;
        if bytes > MAX_RECORD {
            return Err(WriteError::RecordTooLarge {
                kind: record.kind,
                key: record.key.to_string(),
                bytes,
            });
        }
        let groups = groups
            .into_iter()
            .map(|(id, (set, value))| (id, set, value))
            .collect();
        self.ask(
            record,
            self.creation(record),
            self.seen(record)?,
            Some(groups),
        )
    }

    fn settle(
        &mut self,
        record: &RecordKey,
        group: u16,
        seen: &[Dot],
        value: Option<&[u8]>,
    ) -> Result<(), WriteError> {
        let register = self.state.register_of(record);
        let candidates = register.map_or_else(Vec::new, |register| register.candidates(group));
        let now: BTreeSet<Dot> = candidates
            .iter()
            .take(MAX_SIBLINGS)
            .map(|candidate| candidate.dot)
            .collect();
        if now != seen.iter().copied().collect() {
            return Err(WriteError::Changed {
                kind: record.kind,
                key: record.key.to_string(),
            });
        }
        match value {
            Some(value) => self.put(record, vec![(group, Some(value))], true),
            None => self.write_tombstone(record),
        }
    }

    /// Deletes everything that is known of a record, if it exists.
    fn delete(&mut self, record: &RecordKey) -> Result<(), WriteError> {
        match self.creation(record) {
            Some(_) => self.write_tombstone(record),
            None => Ok(()),
        }
    }

    /// Writes a tombstone for everything that is known of a record.
    fn write_tombstone(&mut self, record: &RecordKey) -> Result<(), WriteError> {
        self.ask(record, self.creation(record), self.seen(record)?, None)
    }

    /// Returns the creation of this machine's own claim of a key, and the context of a write that
    /// replaces only this machine's claims.
    fn own_claims(&self, record: &RecordKey) -> (Option<Stamp>, Context) {
        let me = self.state.me().machine;
        let mut context = Context::default();
        let mut creation = None;
        let Some(register) = self.state.register_of(record) else {
            return (None, self.state.absent_context());
        };
        // Released claims are replaced as well, so that they do not pile up.
        for (op, asked) in register.asked() {
            let given_back = asked.groups.is_none();
            if asked.creation.actor.machine == me || given_back {
                context.join(&asked.context);
                context.add(op.dot);
            }
            if asked.creation.actor.machine == me && !given_back {
                creation = Some(creation.map_or(asked.creation, |creation: Stamp| {
                    creation.min(asked.creation)
                }));
            }
        }
        (creation, context)
    }

    fn claim(&mut self, record: &RecordKey, value: &[u8]) -> Result<(), WriteError> {
        let holder = self.state.register_of(record).and_then(Register::holder);
        if let Some((_, asked)) = holder
            && asked.creation.actor.machine != self.state.me().machine
        {
            return Err(WriteError::Claimed {
                kind: record.kind,
                key: record.key.to_string(),
                by: asked.creation.actor.machine,
            });
        }
        let (creation, context) = self.own_claims(record);
        check_context(record, &context)?;
        let groups = vec![(0, None, Bytes::copy_from_slice(value))];
        self.ask(record, creation, context, Some(groups))
    }

    fn release(&mut self, record: &RecordKey) -> Result<(), WriteError> {
        match self.own_claims(record) {
            (None, _) => Ok(()),
            (creation, context) => self.ask(record, creation, context, None),
        }
    }

    /// Declares a machine's membership, unless it is already declared.
    fn declare(&mut self, machine: MachineId, member: Member) -> Result<(), WriteError> {
        match self.state.member(machine) {
            Some((_, known)) if known == member => Ok(()),
            known => self.declare_above(machine, member, known.map_or(0, |(epoch, _)| epoch)),
        }
    }

    /// Declares a machine's membership with an epoch above `above`.
    fn declare_above(
        &mut self,
        machine: MachineId,
        member: Member,
        above: u64,
    ) -> Result<(), WriteError> {
        self.write_one(&Write::Raise {
            kind: MEMBERS,
            key: machine.to_string(),
            epoch: above + 1,
            value: encode(&member).to_vec(),
        })
    }

    /// Appends to this machine's log of a kind and trims it.
    pub(crate) fn append(
        &mut self,
        kind: u16,
        entries: &[Vec<u8>],
        keep: Retention,
    ) -> Result<(), WriteError> {
        let now_ms = self.now_ms;
        for entry in entries {
            self.apply(|dot| Op::entry(dot, kind, now_ms, entry))?;
        }
        let me = self.state.me();
        let oldest = now_ms.saturating_sub(keep.age_ms);
        let mut places: Vec<((u64, u64), u64)> = self
            .state
            .facts_of(kind, me.machine)
            .map(|(_, fact)| (order(fact.dot), fact.ms))
            .collect();
        places.sort_unstable();
        let surplus = places.len().saturating_sub(keep.entries.max(1));
        let aged = places.iter().take_while(|(_, ms)| *ms < oldest).count();
        // Trimming a few entries at a time would need as many sweeps as entries.
        let slack = (keep.entries / 8).max(1);
        let trimmed = surplus.max(aged);
        if trimmed >= slack || self.state.sweep(kind, me.machine).is_none() {
            let next = (me.incarnation, self.state.own_version() + 1);
            let floor = places.get(trimmed).map_or(next, |place| place.0);
            self.apply(|dot| Op::sweep(dot, kind, floor))?;
        }
        Ok(())
    }

    /// Acknowledges up to where this machine has the actors whose deletes other members keep. If it
    /// was evicted, also declares that it is back.
    pub(crate) fn acknowledge(&mut self) -> Result<(), WriteError> {
        let me = self.state.me().machine;
        if self.state.is_evicted() && !self.state.is_rejoining() {
            let member = self.state.membership_of(me, MemberStatus::Member);
            self.declare(me, member)?;
        }
        let Some(list) = self.state.due_acknowledgements() else {
            return Ok(());
        };
        let record = RecordKey::intent(ACKS, &me.to_string());
        self.put(&record, vec![(0, Some(&encode(&list)))], false)
    }

    /// Makes `rows` the complete set of own observations of `kind`. Unchanged rows cause no change.
    pub(crate) fn publish(&mut self, kind: u16, rows: &Rows) -> Result<(), WriteError> {
        let me = self.state.me();
        // Observations of an earlier incarnation are replaced as a whole, because this one may not
        // know all of them.
        let current = self
            .state
            .sweep(kind, me.machine)
            .is_some_and(|sweep| sweep.dot.actor == me);
        let mut gone = Vec::new();
        let mut marks = 0;
        for ((_, _, key), fact) in self.state.facts_of(kind, me.machine) {
            if rows.contains_key(key) {
                continue;
            }
            match fact.value {
                None => marks += 1,
                Some(_) => gone.push(Arc::clone(key)),
            }
        }
        if !current || marks + gone.len() > MAX_GONE.max(rows.len()) {
            return self.republish(kind, rows);
        }
        for (key, value) in rows {
            let known = self
                .state
                .fact(kind, me.machine, key)
                .and_then(|fact| fact.value.as_deref());
            if known != Some(value.as_slice()) {
                self.apply(|dot| Op::fact(dot, kind, Arc::clone(key), Some(value)))?;
            }
        }
        for key in gone {
            self.apply(|dot| Op::fact(dot, kind, key, None))?;
        }
        Ok(())
    }

    /// Writes all rows again and then sweeps everything older. The rows come first, so that no row
    /// that is kept is ever missing.
    fn republish(&mut self, kind: u16, rows: &Rows) -> Result<(), WriteError> {
        let floor = (self.state.me().incarnation, self.state.own_version() + 1);
        for (key, value) in rows {
            self.apply(|dot| Op::fact(dot, kind, Arc::clone(key), Some(value)))?;
        }
        self.apply(|dot| Op::sweep(dot, kind, floor))
    }
}

fn check_context(record: &RecordKey, context: &Context) -> Result<(), WriteError> {
    if context.len() >= MAX_CONTEXT {
        return Err(WriteError::TooManyWriters {
            kind: record.kind,
            key: record.key.to_string(),
        });
    }
    Ok(())
}
