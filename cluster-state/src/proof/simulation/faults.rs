//! What users do to a cluster and what happens to it: changes, partitions, crashes, joins and
//! leaves, clocks.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::RngExt;

use super::machine::{Machine, Rows, Work};
use super::network::Stream;
use super::world::{Event, Origin, World};
use super::{Fault, us};
use crate::id::MachineId;
use crate::overlay;

/// How far clocks advance after the faults, when they agree again. This is more than any of them
/// was ahead.
const CATCH_UP_MS: i64 = 7_200_000;
/// Machines that want a session at the same time try within this time, in microseconds.
const CONNECT: u64 = 500_000;

impl World<'_> {
    pub(super) fn machine_id(&mut self, n: usize) -> MachineId {
        let mut id = [0; 16];
        let (number, chance) = id.split_at_mut(4);
        // The first bytes give the order of the machines; the rest spreads the ids.
        number.copy_from_slice(&(n as u32 + 1).to_be_bytes());
        for byte in chance.iter_mut() {
            *byte = self.rng.random();
        }
        MachineId(id)
    }

    pub(super) fn first_rows(&mut self) -> Rows {
        (0..self.scenario.workload.rows)
            .map(|row| (Arc::from(format!("row-{row}")), self.value()))
            .collect()
    }

    fn value(&mut self) -> Vec<u8> {
        (0..self.scenario.workload.bytes)
            .map(|_| self.rng.random())
            .collect()
    }

    pub(super) fn power_cuts(&self) -> bool {
        self.scenario
            .faults
            .iter()
            .any(|fault| matches!(fault, Fault::Crash { power: true, .. }))
    }

    pub(super) fn is_cut(&self, a: usize, b: usize) -> bool {
        self.partitions
            .values()
            .any(|side| side.contains(&a) != side.contains(&b))
    }

    /// Returns the first machine from `from` on, modulo their number, that is up.
    fn up_from(&self, from: usize) -> Option<usize> {
        let count = self.nodes.len();
        (from..from + count)
            .map(|n| n % count)
            .find(|n| self.nodes[*n].up)
    }

    fn anybody(&mut self) -> Option<usize> {
        let from = self.rng.random_range(0..self.nodes.len());
        self.up_from(from)
    }

    pub(super) fn change(&mut self) {
        let Some(n) = self.anybody() else { return };
        let workload = self.scenario.workload;
        let dice = self.rng.random_range(0..100);
        let key = self.rng.random_range(0..workload.keys.max(1));
        let work = if dice < workload.observations {
            let row: Arc<str> =
                Arc::from(format!("row-{}", self.rng.random_range(0..=workload.rows)));
            let value = self.value();
            let vanishes = self.rng.random_range(0..5) == 0;
            let truth = &mut self.nodes[n].truth;
            if !vanishes || truth.remove(&row).is_none() {
                truth.insert(row, value);
            }
            Work::Publish(truth.clone())
        } else if dice < workload.observations + workload.deletes {
            Work::delete(key)
        } else {
            Work::put(key, self.value())
        };
        self.enqueue(n, work, Origin::Change);
    }

    pub(super) fn fault(&mut self, number: usize) {
        let Some(fault) = self.scenario.faults.get(number).copied() else {
            return;
        };
        match fault {
            Fault::Partition { lasts, share, .. } => self.part(number, us(lasts), share),
            Fault::Crash {
                lasts,
                machine,
                power,
                ..
            } => self.crash(machine, us(lasts), power),
            Fault::Join { machines, .. } => self.join(machines),
            Fault::Leave { machine, .. } => self.leave(machine),
            Fault::ClockJump { machine, by_ms, .. } => {
                let n = machine % self.nodes.len();
                self.nodes[n].clock_ms += by_ms;
            }
        }
    }

    fn part(&mut self, number: usize, lasts: u64, share: u32) {
        let side = (0..self.nodes.len())
            .filter(|_| self.rng.random_range(0..100) < share)
            .collect();
        self.partitions.insert(number, side);
        for l in 0..self.links.len() {
            let [a, b] = self.links[l].ends;
            if self.is_cut(a, b) {
                let now = self.now;
                self.links[l]
                    .streams
                    .iter_mut()
                    .for_each(|stream| stream.stall(now));
            }
        }
        self.after(lasts, Event::Heal { number });
    }

    pub(super) fn heal(&mut self, number: usize) {
        if self.partitions.remove(&number).is_none() {
            return;
        }
        for l in 0..self.links.len() {
            let [a, b] = self.links[l].ends;
            if self.is_cut(a, b) {
                continue;
            }
            let path = self.scenario.latency.path(a, b);
            for side in [0, 1] {
                let stream: &mut Stream = &mut self.links[l].streams[side];
                stream.resume(self.now, path, &mut self.rng);
                self.expect(l, side);
            }
        }
    }

    /// Ends a machine's process. A commit in progress may or may not reach the disk.
    fn stop(&mut self, n: usize) {
        self.nodes[n].up = false;
        if !self.nodes[n].committing.is_empty() && self.rng.random() {
            self.commit(n);
        }
        let node = &mut self.nodes[n];
        node.life += 1;
        node.queue.clear();
        node.committing.clear();
        self.close_all(n);
    }

    fn crash(&mut self, machine: usize, lasts: u64, power: bool) {
        let Some(n) = self.up_from(machine) else {
            return;
        };
        self.stop(n);
        let life = self.nodes[n].life;
        self.after(
            lasts,
            Event::Restart {
                node: n,
                life,
                power,
            },
        );
    }

    pub(super) fn restart(&mut self, n: usize, life: u32, power: bool) {
        if self.nodes[n].life != life || self.nodes[n].up {
            return;
        }
        let seed = self.rng.random();
        let now_ms = self.clock(n);
        let node = &mut self.nodes[n];
        if let Err(error) = node.machine.restart(power, seed, now_ms) {
            return self.fail(&error);
        }
        node.up = true;
        node.since = self.now;
        self.after(1, Event::Maintain { node: n, life });
        self.publish(n);
    }

    /// A daemon that starts publishes what it finds on its machine.
    fn publish(&mut self, n: usize) {
        let rows = self.nodes[n].truth.clone();
        self.enqueue(n, Work::Publish(rows), Origin::Own);
    }

    fn join(&mut self, machines: usize) {
        for _ in 0..machines {
            let sponsor = self.anybody();
            let n = self.nodes.len();
            let id = self.machine_id(n);
            let truth = self.first_rows();
            self.add_node(id, Machine::new(id, self.power_cuts()), truth);
            if let Some(sponsor) = sponsor {
                self.enqueue(sponsor, Work::declare(id, true), Origin::Own);
            }
            self.publish(n);
        }
        self.arrange();
    }

    fn leave(&mut self, machine: usize) {
        let Some(n) = self.up_from(machine) else {
            return;
        };
        if self.nodes.iter().filter(|node| node.up).count() < 2 {
            return;
        }
        self.stop(n);
        let node = &mut self.nodes[n];
        node.member = false;
        node.truth.clear();
        let id = node.id;
        if let Some(sponsor) = self.anybody() {
            self.enqueue(sponsor, Work::declare(id, false), Origin::Own);
        }
        self.arrange();
    }

    /// Sessions follow the overlay of the present members. All machines learn of a change
    /// immediately.
    pub(super) fn arrange(&mut self) {
        let members: BTreeSet<MachineId> = self
            .nodes
            .iter()
            .filter(|node| node.member)
            .map(|node| node.id)
            .collect();
        let mut wanted = BTreeSet::new();
        for (a, node) in self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.member)
        {
            for peer in overlay::neighbours(node.id, &members) {
                let b =
                    u32::from_be_bytes([peer.0[0], peer.0[1], peer.0[2], peer.0[3]]) as usize - 1;
                wanted.insert((a.min(b), a.max(b)));
            }
        }
        for l in 0..self.links.len() {
            let [a, b] = self.links[l].ends;
            if self.links[l].wanted && !wanted.contains(&(a, b)) {
                self.links[l].wanted = false;
                self.close(l);
            }
        }
        for (a, b) in wanted {
            let l = match self.pairs.get(&(a, b)) {
                Some(l) => *l,
                None => self.add_link([a, b]),
            };
            self.pairs.insert((a, b), l);
            if !self.links[l].wanted {
                self.links[l].wanted = true;
                self.links[l].epoch += 1;
                let epoch = self.links[l].epoch;
                let delay = self.rng.random_range(0..CONNECT);
                self.after(delay, Event::Connect { link: l, epoch });
            }
        }
    }

    /// Ends changes, repairs all faults, and sets the clocks to a common time that none of them has
    /// seen.
    pub(super) fn calm_down(&mut self) {
        self.calm = true;
        for number in self.partitions.keys().copied().collect::<Vec<_>>() {
            self.heal(number);
        }
        let power = self.power_cuts();
        for n in 0..self.nodes.len() {
            if self.nodes[n].member && !self.nodes[n].up {
                self.restart(n, self.nodes[n].life, power);
            }
        }
        let latest = self
            .nodes
            .iter()
            .map(|node| node.clock_ms)
            .max()
            .unwrap_or(0);
        let agreed = if self.nodes.iter().all(|node| node.clock_ms == 0) {
            0
        } else {
            latest + CATCH_UP_MS
        };
        self.nodes
            .iter_mut()
            .for_each(|node| node.clock_ms = agreed);
        self.after(1_000_000, Event::Check);
    }
}
