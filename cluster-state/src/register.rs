//! The multi-value register of one record that any machine can write. Concurrent writes are all
//! kept; a write that has seen another replaces it. Merging is commutative, associative and
//! idempotent, because its result depends only on the set of writes: those that no other write of
//! the set has seen remain. What is shown of them is decided when the record is read.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::clock::Stamp;
use crate::id::Dot;
use crate::op::{Content, Context, Group, Intent, Op};

/// Maximum number of values shown for a conflict. The number of stored values is bounded by the
/// actors that wrote concurrently, since an actor's next write replaces its last. Dropping a value
/// here would make stores differ, because a later delete can have seen the kept values but not the
/// dropped one.
pub const MAX_SIBLINGS: usize = 8;

/// The writes of one record that no other write has seen, ordered by dot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Register {
    items: Vec<Arc<Op>>,
}

/// What a merge did to the set of kept writes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Merged {
    /// True if the write was new and is kept.
    pub(crate) kept: bool,
    /// The writes that it replaced.
    pub(crate) replaced: Vec<Dot>,
}

/// One of the values of a group of fields, and its write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) dot: Dot,
    pub(crate) hlc: u64,
    /// `None` means that the write deletes the record.
    pub(crate) value: Option<&'a [u8]>,
}

impl Group {
    fn candidate(&self) -> Candidate<'_> {
        Candidate {
            dot: self.dot,
            hlc: self.hlc,
            value: Some(&*self.value),
        }
    }
}

impl Candidate<'_> {
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp {
            hlc: self.hlc,
            actor: self.dot.actor,
        }
    }
}

impl Register {
    /// Merges one write. A change that is neither an intent nor a claim has no effect.
    pub(crate) fn merge(&mut self, op: &Arc<Op>) -> Merged {
        let mut merged = Merged {
            kept: false,
            replaced: Vec::new(),
        };
        let Some(new) = op.asked() else { return merged };
        let known = self.items.iter().any(|item| {
            item.dot == op.dot || item.asked().is_some_and(|old| old.context.covers(op.dot))
        });
        if known {
            return merged;
        }
        merged.kept = true;
        self.items.retain(|item| {
            let seen = new.context.covers(item.dot);
            if seen {
                merged.replaced.push(item.dot);
            }
            !seen
        });
        let at = self.items.partition_point(|item| item.dot < op.dot);
        self.items.insert(at, Arc::clone(op));
        merged
    }

    /// Returns all kept writes, ordered by dot.
    pub(crate) fn items(&self) -> &[Arc<Op>] {
        &self.items
    }

    /// Returns the context of a writer that reads this record now.
    pub(crate) fn context(&self) -> Context {
        let mut context = Context::default();
        for item in &self.items {
            if let Some(asked) = item.asked() {
                context.join(&asked.context);
            }
            context.add(item.dot);
        }
        context
    }

    /// If only tombstones remain, returns the time of the earliest.
    pub(crate) fn deleted_at(&self) -> Option<u64> {
        let dead = !self.items.is_empty() && self.values().next().is_none();
        dead.then(|| self.items.iter().filter_map(|item| item.hlc()).min())
            .flatten()
    }

    /// Reports whether several writes are kept and at least one has a value, so that there may be a
    /// conflict. A released claim does not count.
    pub(crate) fn is_contested(&self) -> bool {
        let claim = |(op, _): (&Op, &Intent)| matches!(op.content, Content::Claim(_));
        match self.values().next() {
            None => false,
            Some(first) if claim(first) => self.values().count() > 1,
            Some(_) => self.items.len() > 1,
        }
    }

    pub(crate) fn asked(&self) -> impl Iterator<Item = (&Op, &Intent)> {
        self.items
            .iter()
            .filter_map(|item| item.asked().map(|asked| (&**item, asked)))
    }

    fn values(&self) -> impl Iterator<Item = (&Op, &Intent)> {
        self.asked().filter(|(_, asked)| asked.groups.is_some())
    }

    /// Returns the newest creation that is not deleted. An edit concurrent with a delete keeps the
    /// record.
    pub(crate) fn creation(&self) -> Option<Stamp> {
        self.values().map(|(_, asked)| asked.creation).max()
    }

    fn of_creation(&self, creation: Stamp) -> impl Iterator<Item = (&Op, &Intent)> {
        self.values()
            .filter(move |(_, asked)| asked.creation == creation)
    }

    /// Returns the groups of fields of the shown creation, ascending.
    pub(crate) fn group_ids(&self) -> Vec<u16> {
        let Some(creation) = self.creation() else {
            return Vec::new();
        };
        let mut ids: Vec<u16> = self
            .of_creation(creation)
            .flat_map(|(_, asked)| asked.groups.iter().flatten().map(|group| group.id))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        // A group that one write has removed, and that the others have merely not changed, no
        // longer exists.
        ids.retain(|id| self.active(*id).is_some());
        ids
    }

    /// Returns the newest writes of a group within the shown creation that do not know each other,
    /// the active one first.
    fn newest(&self, id: u16) -> Vec<&Group> {
        let Some(creation) = self.creation() else {
            return Vec::new();
        };
        let mut groups: Vec<&Group> = self
            .of_creation(creation)
            .filter_map(|(_, asked)| asked.group(id))
            .collect();
        groups.sort_by_key(|group| Reverse((group.hlc, group.dot)));
        groups.dedup_by_key(|group| group.dot);
        // A write that has seen another write of the group, and has a different value or none, has
        // replaced that one.
        groups.retain(|group| {
            !self.of_creation(creation).any(|(op, asked)| {
                let seen = asked.context.covers(group.dot) || op.dot == group.dot;
                seen && asked.group(id).is_none_or(|own| own.dot != group.dot)
            })
        });
        groups
    }

    /// Returns the active value of a group and its writer.
    pub(crate) fn active(&self, id: u16) -> Option<&Group> {
        if let [only] = self.items.as_slice() {
            return only.asked().and_then(|asked| asked.group(id));
        }
        self.newest(id).first().copied()
    }

    /// Returns the active value of group 0, which is the value of a record without groups.
    pub(crate) fn value(&self) -> Option<&[u8]> {
        self.active(0).map(|group| &*group.value)
    }

    /// Returns the active value of a group, and the different values that were written concurrently
    /// with it: other values of the group, values of other creations, and deletes.
    pub(crate) fn candidates(&self, id: u16) -> Vec<Candidate<'_>> {
        let newest = self.newest(id);
        let delete = |op: &Op, asked: &Intent| Candidate {
            dot: op.dot,
            hlc: asked.hlc,
            value: None,
        };
        let creation = self.creation();
        let Some(active) = newest.first() else {
            let deleted = creation.is_none();
            let all = self.asked().filter(|_| deleted);
            return all.map(|(op, asked)| delete(op, asked)).collect();
        };
        let mut found: Vec<Candidate<'_>> = newest.iter().map(|group| group.candidate()).collect();
        for (op, asked) in self.asked() {
            if asked.groups.is_none() {
                found.push(delete(op, asked));
            } else if Some(asked.creation) != creation {
                found.extend(asked.group(id).map(Group::candidate));
            }
        }
        if let Some((_, others)) = found.split_first_mut() {
            others.sort_by_key(|candidate| Reverse((candidate.hlc, candidate.dot)));
        }
        let mut first = true;
        found.retain(|candidate| {
            std::mem::take(&mut first) || candidate.value != Some(&*active.value)
        });
        found
    }

    /// Returns the claim that holds: the earliest.
    pub(crate) fn holder(&self) -> Option<(&Op, &Intent)> {
        self.values().min_by_key(|(_, asked)| asked.creation)
    }

    /// Returns all claims that were not released, the holding one first.
    pub(crate) fn claims(&self) -> Vec<(&Op, &Intent)> {
        let mut claims: Vec<_> = self.values().collect();
        claims.sort_by_key(|(_, asked)| asked.creation);
        claims
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::{Actor, MachineId};
    use crate::kind::RecordKey;
    use crate::op::Wanted;

    const CREATION: Stamp = Stamp {
        hlc: 1,
        actor: Actor {
            machine: MachineId([9; 16]),
            incarnation: 1,
        },
    };

    fn stamp(hlc: u64, n: u8) -> Stamp {
        let machine = MachineId([n; 16]);
        let actor = Actor {
            machine,
            incarnation: 1,
        };
        Stamp { hlc, actor }
    }

    type Set<'a> = (u16, Option<(Dot, u64)>, &'a str);

    fn op(
        n: u8,
        version: u64,
        hlc: u64,
        creation: Stamp,
        context: Context,
        groups: Option<&[Set<'_>]>,
    ) -> Arc<Op> {
        let dot = Dot {
            actor: Actor {
                machine: MachineId([n; 16]),
                incarnation: 1,
            },
            version,
        };
        let group =
            |(id, by, value): &Set<'_>| (*id, *by, Bytes::copy_from_slice(value.as_bytes()));
        let groups = groups.map(|groups| groups.iter().map(group).collect());
        let wanted = Wanted {
            record: RecordKey::intent(1, "k"),
            hlc,
            creation: Some(creation),
            context,
            groups,
        };
        Arc::new(Op::intent(dot, &wanted))
    }

    fn write(n: u8, version: u64, hlc: u64, context: Context, value: Option<&str>) -> Arc<Op> {
        let set = value.map(|value| [(0, None, value)]);
        op(
            n,
            version,
            hlc,
            CREATION,
            context,
            set.as_ref().map(|set| &set[..]),
        )
    }

    fn merged(ops: &[&Arc<Op>]) -> Register {
        let mut register = Register::default();
        for op in ops {
            register.merge(op);
        }
        register
    }

    #[test]
    fn register_keeps_concurrent_writes_and_activates_the_later() {
        let a = write(1, 1, 10, Context::default(), Some("a"));
        let b = write(2, 1, 20, Context::default(), Some("b"));
        for register in [merged(&[&a, &b]), merged(&[&b, &a]), merged(&[&a, &b, &a])] {
            assert_eq!(register.value(), Some(&b"b"[..]));
            assert_eq!(register.items().len(), 2);
        }
    }

    #[test]
    fn register_activates_later_write_over_frequent_stale_ones() {
        let mut stale = Register::default();
        for version in 1..=3 {
            stale.merge(&write(1, version, version, stale.context(), Some("stale")));
        }
        stale.merge(&write(2, 1, 50, Context::default(), Some("late")));
        assert_eq!(stale.value(), Some(&b"late"[..]));
    }

    #[test]
    fn register_settles_conflict_with_write_that_saw_both() {
        let a = write(1, 1, 10, Context::default(), Some("a"));
        let b = write(2, 1, 20, Context::default(), Some("b"));
        let both = write(1, 2, 21, merged(&[&a, &b]).context(), Some("c"));
        for order in [[&a, &b, &both], [&both, &a, &b], [&b, &both, &a]] {
            let register = merged(&order);
            assert_eq!(register.items().len(), 1);
            assert_eq!(register.value(), Some(&b"c"[..]));
        }
    }

    #[test]
    fn register_keeps_edit_concurrent_with_delete() {
        let base = write(1, 1, 10, Context::default(), Some("base"));
        let seen = merged(&[&base]).context();
        let edit = write(1, 2, 20, seen.clone(), Some("edit"));
        let delete = write(2, 1, 30, seen, None);
        for order in [[&base, &edit, &delete], [&delete, &edit, &base]] {
            let register = merged(&order);
            assert_eq!(register.value(), Some(&b"edit"[..]));
            assert_eq!(register.items().len(), 2);
        }
    }

    #[test]
    fn register_deletes_what_the_delete_saw_for_good() {
        let base = write(1, 1, 10, Context::default(), Some("base"));
        let delete = write(2, 1, 30, merged(&[&base]).context(), None);
        for order in [[&base, &delete], [&delete, &base]] {
            assert_eq!(merged(&order).value(), None);
            assert_eq!(merged(&order).items().len(), 1);
        }
    }

    #[test]
    fn register_converges_on_equal_deletes() {
        let base = write(1, 1, 10, Context::default(), Some("base"));
        let seen = merged(&[&base]).context();
        let (a, b) = (
            write(1, 2, 20, seen.clone(), None),
            write(2, 1, 20, seen, None),
        );
        let (one, other) = (merged(&[&base, &a, &b]), merged(&[&base, &b, &a]));
        assert_eq!(one.value(), None);
        let dots = |register: &Register| {
            register
                .items()
                .iter()
                .map(|item| item.dot)
                .collect::<Vec<_>>()
        };
        assert_eq!(dots(&one), dots(&other));
    }

    #[test]
    fn register_conflicts_within_a_group_only() {
        let base = op(
            1,
            1,
            10,
            CREATION,
            Context::default(),
            Some(&[(0, None, "image"), (1, None, "1")]),
        );
        let by_base = Some((base.dot, 10));
        let seen = merged(&[&base]).context();
        let scale = op(
            1,
            2,
            20,
            CREATION,
            seen.clone(),
            Some(&[(0, by_base, "image"), (1, None, "3")]),
        );
        let upgrade = op(
            2,
            1,
            30,
            CREATION,
            seen.clone(),
            Some(&[(0, None, "image:2"), (1, by_base, "1")]),
        );
        let rescale = op(
            3,
            1,
            40,
            CREATION,
            seen,
            Some(&[(0, by_base, "image"), (1, None, "5")]),
        );
        for order in [[&base, &scale, &upgrade], [&upgrade, &scale, &base]] {
            let register = merged(&order);
            assert_eq!(register.value(), Some(&b"image:2"[..]));
            assert_eq!(
                register.active(1).map(|group| &*group.value),
                Some(&b"3"[..])
            );
            assert_eq!(register.candidates(0).len(), 1);
            assert_eq!(register.candidates(1).len(), 1);
        }
        let register = merged(&[&scale, &upgrade, &rescale]);
        let values: Vec<_> = register
            .candidates(1)
            .iter()
            .map(|c| c.value.unwrap().to_vec())
            .collect();
        assert_eq!(values, [b"5".to_vec(), b"3".to_vec()]);
        assert_eq!(register.candidates(0).len(), 1);
    }

    #[test]
    fn register_shows_newer_creation_and_lists_the_other() {
        let old = op(
            1,
            1,
            10,
            stamp(10, 1),
            Context::default(),
            Some(&[(0, None, "a"), (1, None, "9")]),
        );
        let new = op(
            2,
            1,
            20,
            stamp(20, 2),
            Context::default(),
            Some(&[(0, None, "b")]),
        );
        // A later write to the older creation does not mix the two.
        let late = op(
            1,
            2,
            90,
            stamp(10, 1),
            merged(&[&old]).context(),
            Some(&[(0, None, "c"), (1, Some((old.dot, 10)), "9")]),
        );
        let register = merged(&[&late, &new, &old]);
        assert_eq!(register.group_ids(), [0]);
        assert_eq!(register.value(), Some(&b"b"[..]));
        let values: Vec<_> = register
            .candidates(0)
            .iter()
            .map(|c| c.value.unwrap().to_vec())
            .collect();
        assert_eq!(values, [b"b".to_vec(), b"c".to_vec()]);
    }

    #[test]
    fn register_with_equal_values_has_no_conflict() {
        let a = write(1, 1, 10, Context::default(), Some("same"));
        let b = write(2, 1, 20, Context::default(), Some("same"));
        assert_eq!(merged(&[&a, &b]).candidates(0).len(), 1);
        let delete = write(3, 1, 5, Context::default(), None);
        assert_eq!(merged(&[&a, &b, &delete]).candidates(0).len(), 2);
    }

    #[test]
    fn register_gives_claim_to_the_first() {
        let first = op(
            2,
            1,
            10,
            stamp(10, 2),
            Context::default(),
            Some(&[(0, None, "mine")]),
        );
        let second = op(
            1,
            1,
            20,
            stamp(20, 1),
            Context::default(),
            Some(&[(0, None, "no, mine")]),
        );
        for order in [[&first, &second], [&second, &first]] {
            let register = merged(&order);
            assert_eq!(register.holder().unwrap().0.dot, first.dot);
            assert_eq!(register.claims().len(), 2);
        }
    }
}
