//! The multi-value register of one intent record: concurrent writes are all kept, a write that has seen another
//! replaces it, one of the kept is active. Merging is commutative, associative and idempotent because it is a
//! function of the set of writes: those that no other write of the set has seen remain.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::clock::Stamp;
use crate::id::Dot;
use crate::op::{Content, Context, Intent, Op};

/// Most values of a record that `Snapshot::siblings` shows. What is stored is bounded by the machines that wrote
/// concurrently, since a machine's next write replaces its last: dropping here would let replicas differ, because a
/// later delete can have seen the kept ones and not the dropped.
pub const MAX_SIBLINGS: usize = 8;

/// The writes of one record that no other write has seen, the active one first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Register {
    items: Vec<Arc<Op>>,
}

/// What a merge did to the set of kept writes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Merged {
    /// The write was new and is kept.
    pub(crate) kept: bool,
    /// Writes it replaced.
    pub(crate) replaced: Vec<Dot>,
}

fn intent(op: &Op) -> Option<&Intent> {
    match &op.content {
        Content::Intent(intent) => Some(intent),
        _ => None,
    }
}

/// Values before tombstones (an edit concurrent with a delete stays active), then the highest stamp.
fn rank(op: &Op) -> (bool, Reverse<Option<Stamp>>) {
    (intent(op).is_none_or(|intent| intent.value.is_none()), Reverse(op.stamp()))
}

impl Register {
    /// Merges one write; anything but an intent changes nothing.
    pub(crate) fn merge(&mut self, op: &Arc<Op>) -> Merged {
        let mut merged = Merged { kept: false, replaced: Vec::new() };
        let Some(new) = intent(op) else { return merged };
        let known = self
            .items
            .iter()
            .any(|item| item.dot == op.dot || intent(item).is_some_and(|old| old.context.covers(op.dot)));
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
        let at = self.items.partition_point(|item| rank(item) < rank(op));
        self.items.insert(at, Arc::clone(op));
        merged
    }

    /// The write that everybody sees: none for a deleted record.
    pub(crate) fn active(&self) -> Option<&Op> {
        self.items
            .first()
            .map(Arc::as_ref)
            .filter(|op| intent(op).is_some_and(|intent| intent.value.is_some()))
    }

    /// The value that everybody sees.
    pub(crate) fn value(&self) -> Option<&[u8]> {
        self.active().and_then(intent).and_then(|intent| intent.value.as_deref())
    }

    /// All kept writes, the active one first.
    pub(crate) fn items(&self) -> &[Arc<Op>] {
        &self.items
    }

    /// What a writer that reads this record has seen.
    pub(crate) fn context(&self) -> Context {
        let mut context = Context::default();
        for item in &self.items {
            if let Some(intent) = intent(item) {
                context.join(&intent.context);
            }
            context.add(item.dot);
        }
        context
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Actor, MachineId};

    fn write(n: u8, version: u64, hlc: u64, context: Context, value: Option<&str>) -> Arc<Op> {
        let dot = Dot { actor: Actor { machine: MachineId([n; 16]), incarnation: 1 }, version };
        Arc::new(Op::intent(dot, 1, Arc::from("k"), hlc, context, value.map(str::as_bytes)))
    }

    fn merged(ops: &[&Arc<Op>]) -> Register {
        let mut register = Register::default();
        for op in ops {
            register.merge(op);
        }
        register
    }

    #[test]
    fn the_later_of_two_concurrent_writes_is_active_and_both_are_kept() {
        let a = write(1, 1, 10, Context::default(), Some("a"));
        let b = write(2, 1, 20, Context::default(), Some("b"));
        for register in [merged(&[&a, &b]), merged(&[&b, &a]), merged(&[&a, &b, &a])] {
            assert_eq!(register.value(), Some(&b"b"[..]));
            assert_eq!(register.items().len(), 2);
        }
    }

    #[test]
    fn stale_but_frequent_loses_to_the_later_write() {
        let mut stale = Register::default();
        for version in 1..=3 {
            stale.merge(&write(1, version, version, stale.context(), Some("stale")));
        }
        stale.merge(&write(2, 1, 50, Context::default(), Some("late")));
        assert_eq!(stale.value(), Some(&b"late"[..]));
    }

    #[test]
    fn a_write_that_saw_both_settles_the_conflict_in_any_order() {
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
    fn an_edit_concurrent_with_a_delete_stays_active() {
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
    fn a_delete_that_saw_everything_deletes_and_old_writes_do_not_come_back() {
        let base = write(1, 1, 10, Context::default(), Some("base"));
        let delete = write(2, 1, 30, merged(&[&base]).context(), None);
        for order in [[&base, &delete], [&delete, &base]] {
            assert_eq!(merged(&order).value(), None);
            assert_eq!(merged(&order).items().len(), 1);
        }
    }

    #[test]
    fn equal_deletes_converge_without_ping_pong() {
        let base = write(1, 1, 10, Context::default(), Some("base"));
        let seen = merged(&[&base]).context();
        let (a, b) = (write(1, 2, 20, seen.clone(), None), write(2, 1, 20, seen, None));
        let (one, other) = (merged(&[&base, &a, &b]), merged(&[&base, &b, &a]));
        assert_eq!(one.value(), None);
        let dots = |register: &Register| register.items().iter().map(|item| item.dot).collect::<Vec<_>>();
        assert_eq!(dots(&one), dots(&other));
    }
}
