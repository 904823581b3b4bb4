//! What must hold after everything was exchanged.

use std::collections::BTreeSet;

use super::{Broken, World, covers};
use crate::id::Dot;

/// Far more rounds than a cluster of three needs.
const ROUNDS: usize = 30;

/// Exchanges everything, first among the members, then with the machines that return to the
/// cluster.
pub(super) fn settles(world: &World, broken: Option<Broken>) -> Result<(), &'static str> {
    let mut world = world.clone();
    exchange(&mut world, broken, false)?;
    let members: Vec<usize> = (0..world.machines.len())
        .filter(|n| !world.is_out(*n))
        .collect();
    agree(&world, &members)?;
    if members.len() < world.machines.len() {
        exchange(&mut world, broken, true)?;
    }
    let all: Vec<usize> = (0..world.machines.len()).collect();
    agree(&world, &all)?;
    if world
        .machines
        .iter()
        .any(|machine| machine.state.above_gaps().next().is_some())
    {
        return Err("a change stays above the watermarks");
    }
    if world
        .machines
        .iter()
        .any(|machine| machine.state.tombstones() > 0)
    {
        return Err("a tombstone is never collected");
    }
    let kept: BTreeSet<Dot> = world.machines[0].shown().map(|op| op.dot).collect();
    for op in &world.written {
        let replaced = world.written.iter().any(|by| covers(by, op));
        let delete = op.asked().is_some_and(|asked| asked.groups.is_none());
        if replaced && kept.contains(&op.dot) {
            return Err("a write that was replaced is shown");
        }
        if !replaced && !delete && !kept.contains(&op.dot) {
            return Err("a write that was not replaced is lost");
        }
    }
    if world.nothing_rises() {
        Ok(())
    } else {
        Err("what was deleted and collected is shown again")
    }
}

/// All machines send everything to each other and collect deletes until nothing changes.
fn exchange(world: &mut World, broken: Option<Broken>, rejoin: bool) -> Result<(), &'static str> {
    let count = world.machines.len();
    for _ in 0..ROUNDS {
        let marks = |world: &World| {
            world
                .machines
                .iter()
                .map(|machine| machine.mark)
                .collect::<Vec<_>>()
        };
        let before = marks(world);
        for a in 0..count {
            for b in (0..count).filter(|b| *b != a) {
                if !world.refuse(a, b, broken) {
                    world.deliver(a, b, false);
                } else if rejoin && world.must_rejoin(a, b) {
                    world.rejoin(a, b);
                }
            }
        }
        for n in 0..count {
            world.acknowledge(n);
            world.collect(n, broken);
        }
        if let Some(fault) = world.fault {
            return Err(fault);
        }
        if marks(world) == before {
            return Ok(());
        }
    }
    Err("the exchange never ends")
}

fn agree(world: &World, members: &[usize]) -> Result<(), &'static str> {
    let Some(first) = members.first().map(|n| &world.machines[*n].state) else {
        return Ok(());
    };
    for state in members.iter().map(|n| &world.machines[*n].state) {
        if state.vector() != first.vector() {
            return Err("watermarks differ");
        }
        if state.watermarks_hash() != first.watermarks_hash() {
            return Err("changes above the watermarks differ");
        }
        if state.digest() != first.digest() {
            return Err("digests differ");
        }
    }
    Ok(())
}
