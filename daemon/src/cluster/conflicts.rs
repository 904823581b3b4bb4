//! Conflicts: records that were changed on two sides of a partition. Lists them, and turns the
//! user's choice into the write that settles one. Pure: a snapshot in, messages or a write out. The
//! choice names the writes that the user saw; other writes are not replaced.

mod describe;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use uc_api::nearest::did_you_mean;
use uc_api::v1::{self, MachineRecord, SettleConflictRequest};
use uc_api::{Code, Failure};
use uc_cluster_state::{Class, Conflict, Dot, Sibling, Snapshot, Write};

use crate::cluster::records::KINDS;

/// Hexadecimal digits of an id: short enough to type, and hardly ever equal among thousands of
/// conflicts.
const ID_DIGITS: usize = 8;

/// A record with concurrent writes.
#[derive(Debug, Clone)]
struct Unsettled<'a> {
    kind: u16,
    key: &'a str,
    /// 0 unless the record has groups of fields.
    group: u16,
    /// The version that every machine uses until the conflict is settled.
    active: Sibling<'a>,
    others: Vec<Sibling<'a>>,
}

impl<'a> Unsettled<'a> {
    /// In the order in which users see them numbered: the active one first.
    fn sides(&self) -> impl Iterator<Item = &Sibling<'a>> {
        std::iter::once(&self.active).chain(&self.others)
    }

    /// `kind/key`.
    fn name(&self) -> String {
        name(&kind_name(self.kind), self.key, u32::from(self.group))
    }

    fn dots(&self) -> BTreeSet<String> {
        self.sides().map(|side| side.dot.to_string()).collect()
    }

    /// An id of exactly these writes.
    fn id(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(&self.kind.to_be_bytes())
            .update(&self.group.to_be_bytes())
            .update(self.key.as_bytes());
        for dot in self.dots() {
            hasher.update(b"\0").update(dot.as_bytes());
        }
        let mut id = hasher.finalize().to_hex().to_string();
        id.truncate(ID_DIGITS);
        id
    }
}

/// All unsettled conflicts, by kind and key. Records of which all sides are equal, or all are
/// deletes, are not conflicts.
fn unsettled(snapshot: &Snapshot) -> Vec<Unsettled<'_>> {
    snapshot
        .conflicts()
        .into_iter()
        .map(
            |Conflict {
                 kind,
                 key,
                 group,
                 active,
                 others,
             }| Unsettled {
                kind,
                key,
                group,
                active,
                others,
            },
        )
        .collect()
}

fn kind_name(id: u16) -> String {
    KINDS
        .iter()
        .find(|kind| kind.id == id)
        .map_or_else(|| format!("kind-{id}"), |kind| kind.name.to_owned())
}

fn name(kind: &str, key: &str, group: u32) -> String {
    if group == 0 {
        format!("{kind}/{key}")
    } else {
        format!("{kind}/{key}#{group}")
    }
}

/// The current conflicts as messages; `machines` gives the names of the writers.
pub(crate) fn list(snapshot: &Snapshot, machines: &[MachineRecord]) -> Vec<v1::Conflict> {
    unsettled(snapshot)
        .iter()
        .map(|conflict| message(conflict, machines))
        .collect()
}

fn message(conflict: &Unsettled<'_>, machines: &[MachineRecord]) -> v1::Conflict {
    let active = conflict
        .active
        .value
        .map(|bytes| describe::decode(conflict.kind, bytes));
    let side = |sibling: &Sibling<'_>| {
        let value = sibling
            .value
            .map(|bytes| describe::decode(conflict.kind, bytes));
        let machine_id = sibling.stamp.actor.machine.to_string();
        v1::ConflictSide {
            dot: sibling.dot.to_string(),
            machine_name: machine_name(machines, &machine_id).unwrap_or_default(),
            machine_id,
            written_at_ms: written_at(sibling),
            deleted: value.is_none(),
            fields: describe::compare(active.as_ref(), value.as_ref()),
            value,
        }
    };
    v1::Conflict {
        id: conflict.id(),
        name: conflict.name(),
        kind: kind_name(conflict.kind),
        key: conflict.key.to_owned(),
        group: conflict.group.into(),
        sides: conflict.sides().map(side).collect(),
    }
}

fn machine_name(machines: &[MachineRecord], id: &str) -> Option<String> {
    machines
        .iter()
        .find(|machine| machine.id == id)
        .map(|machine| machine.name.clone())
}

fn written_at(sibling: &Sibling<'_>) -> i64 {
    i64::try_from(sibling.stamp.ms()).unwrap_or(i64::MAX)
}

/// The write that settles a conflict as the user chose. Refused if the user saw other versions than
/// there are now.
pub(crate) fn settle(
    snapshot: &Snapshot,
    machines: &[MachineRecord],
    request: &SettleConflictRequest,
) -> Result<Write, Failure> {
    let wanted = name(&request.kind, &request.key, request.group);
    let conflicts = unsettled(snapshot);
    let Some(conflict) = conflicts.iter().find(|conflict| conflict.name() == wanted) else {
        return Err(not_found(snapshot, machines, request, &wanted, &conflicts));
    };
    let seen: BTreeSet<String> = request.seen.iter().cloned().collect();
    if conflict.dots() != seen {
        let new = conflict
            .sides()
            .filter(|side| !seen.contains(&side.dot.to_string()));
        return Err(changed(
            &wanted,
            &new.map(|side| describe_write(side, machines))
                .collect::<Vec<_>>(),
        ));
    }
    let kept = conflict
        .sides()
        .find(|side| side.dot.to_string() == request.keep)
        .ok_or_else(|| {
            Failure::new(
                Code::Invalid,
                format!("{wanted} does not have the version to keep"),
            )
            .hint(format!(
                "list its versions with `uc conflicts show {wanted}`"
            ))
        })?;
    let (kind, key) = (conflict.kind, conflict.key.to_owned());
    let (group, value) = (conflict.group, kept.value.map(<[u8]>::to_vec));
    // The store compares again, so a write that arrives from a peer before this one is not
    // replaced.
    let seen = conflict.sides().map(|side| side.dot).collect();
    Ok(Write::Settle {
        kind,
        key,
        group,
        seen,
        value,
    })
}

/// Why the conflict is not found: it was settled, never was one, or there is no such record.
fn not_found(
    snapshot: &Snapshot,
    machines: &[MachineRecord],
    request: &SettleConflictRequest,
    wanted: &str,
    conflicts: &[Unsettled<'_>],
) -> Failure {
    let kind = KINDS
        .iter()
        .find(|kind| kind.name == request.kind && kind.class == Class::Intent);
    let siblings = kind.map_or_else(Vec::new, |kind| snapshot.siblings(kind.id, &request.key));
    if let Some(one) = siblings.first() {
        let seen: Vec<Dot> = siblings.iter().map(|sibling| sibling.dot).collect();
        let how = if seen
            .iter()
            .any(|dot| request.seen.contains(&dot.to_string()))
        {
            "is no longer in conflict".to_owned()
        } else {
            format!("was already resolved: {}", describe_write(one, machines))
        };
        return Failure::new(Code::Refused, format!("{wanted} {how}"))
            .hint("`uc conflicts ls` lists the conflicts that are left");
    }
    let names: Vec<String> = conflicts.iter().map(Unsettled::name).collect();
    let near = did_you_mean(wanted, names.iter().map(String::as_str));
    Failure::new(Code::NotFound, format!("conflict `{wanted}` not found"))
        .hint(near.unwrap_or_else(|| "`uc conflicts ls` lists the conflicts".to_owned()))
}

fn changed(wanted: &str, new: &[String]) -> Failure {
    let what = if new.is_empty() {
        "some of its versions were replaced".to_owned()
    } else {
        new.join("; ")
    };
    Failure::new(
        Code::Refused,
        format!("{wanted} has changed since it was shown: {what}; nothing was changed"),
    )
    .hint(format!("show it again with `uc conflicts show {wanted}`"))
}

/// `m2 wrote it at 2026-11-21T12:00:00Z`.
fn describe_write(sibling: &Sibling<'_>, machines: &[MachineRecord]) -> String {
    let id = sibling.stamp.actor.machine.to_string();
    let machine = machine_name(machines, &id).unwrap_or(id);
    let did = if sibling.value.is_some() {
        "wrote"
    } else {
        "removed"
    };
    format!(
        "{machine} {did} it at {}",
        describe::time(written_at(sibling))
    )
}
