//! Model checking of every order of writes, deletes, exchanges (whole and broken off),
//! acknowledgements, collections, crashes, evictions and returns within the bounds. It uses the
//! real merge, collection and rejoin. From every reachable state, exchanging everything must make
//! all machines equal, without a trace of deletes and without losing a write. What was deleted and
//! collected must never return.
//!
//! Three things are modelled instead of taken from the product. Sending: all that the receiver
//! lacks and then watermarks, or one change without watermarks. The disk: own writes and
//! acknowledgements are durable, and what was received becomes durable with the next of these.
//! Which machine refuses which because of its gc watermarks. Clocks stand still; stamps grow by
//! counting.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use stateright::{Model, Property};

use crate::id::{Actor, MachineId};
use crate::kind::Slot;
use crate::local::{self, Txn, Write};
use crate::op::{Lane, Op};
use crate::state::{Batch, Changes, MemberStatus, State};
use crate::vector::VersionVector;

mod settle;
mod tests;

const SPEC: u16 = 1;
const NOW: u64 = 1_000_000;

/// A rule to break, to check that the model checker would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// Deletes are collected without asking which members have them.
    ByAge,
    /// A crash loses received changes but remembers that they were received.
    FilterBeforeCommit,
    /// An own write is sent to others but not merged with what arrives from them.
    Aside,
    /// No machine checks whether another lacks deletes that were forgotten.
    NoCut,
}

/// How many actions of each type one history can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Bounds {
    writes: u8,
    deliveries: u8,
    partials: u8,
    upkeeps: u8,
    crashes: u8,
    evictions: u8,
}

#[derive(Debug, Clone)]
struct Cluster {
    machines: usize,
    keys: u8,
    bounds: Bounds,
    broken: Option<Broken>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Put {
        on: usize,
        key: u8,
    },
    Delete {
        on: usize,
        key: u8,
    },
    /// Sends all that the receiver lacks, and watermarks.
    Deliver {
        from: usize,
        to: usize,
    },
    /// Sends the first change that the receiver lacks; then the sender falls silent.
    Partial {
        from: usize,
        to: usize,
    },
    Acknowledge {
        on: usize,
    },
    Collect {
        on: usize,
    },
    Crash {
        on: usize,
    },
    Evict {
        by: usize,
        whom: usize,
    },
    Rejoin {
        on: usize,
        from: usize,
    },
}

#[derive(Debug, Clone)]
struct Machine {
    state: State,
    /// What a crash leaves.
    disk: State,
    /// Only for a broken rule: own writes that the state does not have.
    aside: Vec<Arc<Op>>,
    /// A hash of all of the above.
    mark: [u8; 32],
}

/// One state of the whole cluster.
#[derive(Debug, Clone)]
struct World {
    machines: Vec<Machine>,
    left: Bounds,
    /// Every write ever made, including repetitions after a return.
    written: Vec<Arc<Op>>,
    /// Values whose writes were all deleted, with a delete that some machine has collected.
    dead: BTreeSet<Vec<u8>>,
    /// Something that must never happen, and that did.
    fault: Option<&'static str>,
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        let marks = |world: &Self| {
            world
                .machines
                .iter()
                .map(|machine| machine.mark)
                .collect::<Vec<_>>()
        };
        let writes = |world: &Self| world.written.iter().map(|op| op.hash).collect::<Vec<_>>();
        (self.left, &self.dead, self.fault, marks(self), writes(self))
            == (
                other.left,
                &other.dead,
                other.fault,
                marks(other),
                writes(other),
            )
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.left, &self.dead, self.fault).hash(hasher);
        self.machines
            .iter()
            .for_each(|machine| machine.mark.hash(hasher));
        self.written.iter().for_each(|op| op.hash.hash(hasher));
    }
}

fn id(n: usize) -> MachineId {
    MachineId([n as u8 + 1; 16])
}

/// Returns the visible value that an intent sets. `None` for a delete.
fn value(op: &Op) -> Option<Vec<u8>> {
    op.asked()?.group(0).map(|group| group.value.to_vec())
}

fn covers(by: &Op, op: &Op) -> bool {
    by.key == op.key && by.asked().is_some_and(|asked| asked.context.covers(op.dot))
}

/// Makes a state with other watermarks and without some of its changes, which only a broken rule
/// does.
fn reloaded(
    state: &State,
    me: Actor,
    watermarks: &VersionVector,
    keep: impl Fn(&Op) -> bool,
) -> State {
    let ops = state.ops().filter(|op| keep(op)).cloned().collect();
    State::load(
        me,
        state.hlc,
        watermarks,
        &state.gc_watermarks().collect(),
        ops,
        NOW,
    )
    .unwrap()
    .0
}

impl Machine {
    fn new(state: State) -> Self {
        let mut machine = Self {
            disk: state.clone(),
            state,
            aside: Vec::new(),
            mark: [0; 32],
        };
        machine.remark();
        machine
    }

    fn remark(&mut self) {
        let mut hasher = blake3::Hasher::new();
        for state in [&self.state, &self.disk] {
            hasher.update(&state.me().incarnation.to_le_bytes());
            hasher.update(&state.hlc.last().to_le_bytes());
            hasher.update(&state.watermarks_hash());
            for (actor, gc_watermark) in state.gc_watermarks() {
                hasher.update(&actor.machine.0);
                hasher.update(&actor.incarnation.to_le_bytes());
                hasher.update(&gc_watermark.to_le_bytes());
            }
            // In the order of sending.
            for next in state.lane_after(Lane::Intent, 0) {
                hasher.update(&next.item.hash.to_le_bytes());
            }
        }
        for op in &self.aside {
            hasher.update(&op.hash.to_le_bytes());
        }
        self.mark = *hasher.finalize().as_bytes();
    }

    fn sync(&mut self) {
        self.disk = self.state.clone();
    }

    fn is_durable(&self) -> bool {
        self.state.watermarks_hash() == self.disk.watermarks_hash()
            && self.state.ops().eq(self.disk.ops())
    }

    /// Returns what it shows and lists for all keys.
    fn shown(&self) -> impl Iterator<Item = &Arc<Op>> {
        let kept = self
            .state
            .registers(Slot::Intent, SPEC)
            .flat_map(|(_, register)| register.items());
        kept.chain(&self.aside)
    }
}

impl World {
    fn new(machines: usize, left: Bounds) -> Self {
        let mut founder = State::new(Actor {
            machine: id(0),
            incarnation: 1,
        });
        for n in 0..machines {
            Txn::new(&mut founder, NOW, &mut Changes::default())
                .write(&[Write::Declare {
                    machine: id(n),
                    status: MemberStatus::Member,
                }])
                .unwrap();
        }
        let states = (0..machines).map(|n| {
            State::new(Actor {
                machine: id(n),
                incarnation: 1,
            })
        });
        let machines = states.map(Machine::new).collect();
        let mut world = Self {
            machines,
            left,
            written: Vec::new(),
            dead: BTreeSet::new(),
            fault: None,
        };
        world.machines[0] = Machine::new(founder);
        for n in 1..world.machines.len() {
            world.deliver(0, n, false);
            world.machines[n].sync();
            world.machines[n].remark();
        }
        world
    }

    /// Reports whether `at` has forgotten deletes that `whom` may lack, as `session::Core::judge`
    /// does.
    fn lacks(&self, whom: usize, at: usize) -> bool {
        let (whom, at) = (&self.machines[whom].state, &self.machines[at].state);
        let met = !whom.is_new()
            || at
                .watermarks()
                .any(|(actor, _)| actor.machine == whom.me().machine);
        met && at
            .gc_watermarks()
            .any(|(actor, gc_watermark)| whom.watermark(actor) < gc_watermark)
    }

    fn refuse(&self, a: usize, b: usize, broken: Option<Broken>) -> bool {
        broken != Some(Broken::NoCut) && (self.lacks(a, b) || self.lacks(b, a))
    }

    fn is_out(&self, n: usize) -> bool {
        (0..self.machines.len()).any(|by| by != n && self.must_rejoin(n, by))
    }

    /// Reports whether the next session with `from` makes `on` fetch everything again.
    fn must_rejoin(&self, on: usize, from: usize) -> bool {
        let standing = |n: usize| (self.machines[n].state.standing(), Reverse(id(n)));
        self.lacks(on, from) && (!self.lacks(from, on) || standing(on) < standing(from))
    }

    /// Makes an own change, which is durable before any other machine receives it.
    fn own(&mut self, on: usize, change: impl FnOnce(&mut State)) {
        let machine = &mut self.machines[on];
        let (me, before) = (machine.state.me(), machine.state.own_version());
        change(&mut machine.state);
        machine.sync();
        let from = if machine.state.me() == me { before } else { 0 };
        let new = machine
            .state
            .ops_after(machine.state.me(), from)
            .filter(|op| op.kind == SPEC);
        self.written.extend(new.cloned());
        machine.remark();
    }

    fn write(&mut self, on: usize, write: Write, broken: Option<Broken>) {
        let machine = &self.machines[on];
        let (was, disk) = (machine.state.clone(), machine.disk.clone());
        self.own(on, |state| {
            Txn::new(state, NOW, &mut Changes::default())
                .write(&[write])
                .unwrap();
        });
        if broken == Some(Broken::Aside) {
            let machine = &mut self.machines[on];
            let vector = machine.state.vector();
            let new: Vec<_> = machine
                .state
                .ops_after(was.me(), was.own_version())
                .cloned()
                .collect();
            machine.aside.extend(new);
            machine.state = reloaded(&was, was.me(), &vector, |_| true);
            machine.disk = reloaded(&disk, was.me(), &vector, |_| true);
            machine.remark();
        }
    }

    fn deliver(&mut self, from: usize, to: usize, partial: bool) {
        let (sender, receiver) = (&self.machines[from].state, &self.machines[to].state);
        let has = receiver.vector();
        let lane = sender.lane_after(Lane::Intent, 0).map(|next| next.item);
        let lacks = lane
            .filter(|op| !has.includes(op.dot) && !receiver.has_op(op.dot))
            .cloned();
        let mut batch = Batch {
            ops: lacks.collect(),
            ..Batch::default()
        };
        batch.ops.extend(
            self.machines[from]
                .aside
                .iter()
                .filter(|op| !has.includes(op.dot))
                .cloned(),
        );
        if partial {
            batch.ops.truncate(1);
        } else {
            batch.watermarks = sender
                .watermarks()
                .filter(|(actor, version)| *version > has.get(*actor))
                .collect();
            batch.gc_watermarks = batch
                .watermarks
                .iter()
                .map(|(actor, _)| (*actor, sender.gc_watermark(*actor)))
                .collect();
        }
        let receiver = &mut self.machines[to];
        if receiver
            .state
            .apply_batch(&batch, NOW, &mut Changes::default())
            .is_err()
        {
            self.fault = Some("a batch was refused");
        }
        if has.above(&receiver.state.vector()).next().is_some() {
            self.fault = Some("a watermark decreased");
        }
        receiver.remark();
    }

    fn acknowledge(&mut self, on: usize) {
        self.own(on, |state| {
            Txn::new(state, NOW, &mut Changes::default())
                .acknowledge()
                .unwrap();
        });
    }

    fn collect(&mut self, on: usize, broken: Option<Broken>) {
        let machine = &mut self.machines[on];
        let was = machine.state.clone();
        if broken == Some(Broken::ByAge) {
            let buried = |op: &Op| {
                op.kind == SPEC
                    && was
                        .register(Slot::Intent, SPEC, &op.key)
                        .is_some_and(|r| r.deleted_at().is_some())
            };
            machine.state = reloaded(&was, was.me(), &was.vector(), |op| !buried(op));
        } else {
            machine.state.collect(&mut Changes::default());
        }
        for delete in was
            .ops()
            .filter(|op| op.kind == SPEC && !machine.state.has_op(op.dot))
        {
            for op in self.written.iter().filter(|op| covers(delete, op)) {
                let Some(value) = value(op) else { continue };
                let mut same = self
                    .written
                    .iter()
                    .filter(|op| self::value(op).as_ref() == Some(&value));
                if same.all(|op| self.written.iter().any(|by| covers(by, op))) {
                    self.dead.insert(value);
                }
            }
        }
        machine.remark();
    }

    fn crash(&mut self, on: usize, broken: Option<Broken>) {
        let machine = &mut self.machines[on];
        let disk = &machine.disk;
        let me = Actor {
            incarnation: disk.me().incarnation + 1,
            ..disk.me()
        };
        let watermarks = match broken {
            Some(Broken::FilterBeforeCommit) => machine.state.vector(),
            _ => disk.vector(),
        };
        machine.state = reloaded(disk, me, &watermarks, |_| true);
        machine.sync();
        machine.remark();
    }

    fn evict(&mut self, by: usize, whom: usize) {
        self.own(by, |state| {
            Txn::new(state, NOW, &mut Changes::default())
                .write(&[Write::Declare {
                    machine: id(whom),
                    status: MemberStatus::Evicted,
                }])
                .unwrap();
        });
    }

    fn rejoin(&mut self, on: usize, from: usize) {
        let peer = &self.machines[from].state;
        let batch = Batch {
            ops: peer
                .lane_after(Lane::Intent, 0)
                .map(|next| Arc::clone(next.item))
                .collect(),
            watermarks: peer.watermarks().collect(),
            gc_watermarks: peer.gc_watermarks().collect(),
            repair: false,
        };
        let known = |op: &Op| {
            let register = peer.register(Slot::Intent, SPEC, &op.key);
            register.is_some_and(|register| register.context().covers(op.dot))
        };
        let before = self.written.len();
        let same = |a: &Op, b: &Op| value(a) == value(b);
        let replaced: Vec<_> = self
            .written
            .iter()
            .filter(|op| !peer.has_op(op.dot))
            .filter(|op| {
                self.written
                    .iter()
                    .all(|other| !same(op, other) || known(other))
            })
            .filter_map(|op| value(op))
            .collect();
        self.own(on, |state| {
            let mut fresh = State::fetched(state.me());
            fresh
                .apply_batch(&batch, NOW, &mut Changes::default())
                .unwrap();
            *state = local::rejoin(state, fresh, 1, NOW, &mut Changes::default()).unwrap();
        });
        let mut again = self.written.iter().skip(before).filter_map(|op| value(op));
        if again.any(|value| replaced.contains(&value)) {
            self.fault = Some("a write that had been seen and replaced was written again");
        }
    }

    /// Reports whether no member shows what was deleted and collected.
    fn nothing_rises(&self) -> bool {
        self.dead.is_empty()
            || (0..self.machines.len())
                .filter(|n| !self.is_out(*n))
                .all(|n| {
                    let mut shown = self.machines[n].shown();
                    shown.all(|op| value(op).is_none_or(|value| !self.dead.contains(&value)))
                })
    }
}

impl Model for Cluster {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.machines, self.bounds)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let left = &world.left;
        // The choice of the first machine and the first key makes no difference.
        let first = world.written.is_empty() && left.writes == self.bounds.writes;
        let pairs = || (0..self.machines).flat_map(|a| (0..self.machines).map(move |b| (a, b)));
        for on in 0..self.machines {
            for key in 0..self.keys {
                let writes = left.writes > 0 && (!first || on == 0 && key == 0);
                let fresh = key > 0 && world.written.is_empty();
                if writes && !fresh {
                    actions.extend([Action::Put { on, key }, Action::Delete { on, key }]);
                }
            }
            if left.upkeeps > 0 {
                actions.extend([Action::Acknowledge { on }, Action::Collect { on }]);
            }
            if left.crashes > 0 && !world.machines[on].is_durable() {
                actions.push(Action::Crash { on });
            }
        }
        for (a, b) in pairs().filter(|(a, b)| a != b) {
            let out = world.refuse(a, b, self.broken);
            if left.deliveries > 0 && !out {
                actions.push(Action::Deliver { from: a, to: b });
            }
            if left.partials > 0 && !out {
                actions.push(Action::Partial { from: a, to: b });
            }
            if left.evictions > 0 && !out {
                actions.push(Action::Evict { by: a, whom: b });
            }
            if world.must_rejoin(a, b) {
                actions.push(Action::Rejoin { on: a, from: b });
            }
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        let key = |key: u8| format!("k{key}");
        match action {
            Action::Put { on, key: name } => {
                let value = vec![last.left.writes];
                world.write(
                    on,
                    Write::Put {
                        kind: SPEC,
                        key: key(name),
                        value,
                    },
                    self.broken,
                );
                world.left.writes -= 1;
            }
            Action::Delete { on, key: name } => {
                world.write(
                    on,
                    Write::Delete {
                        kind: SPEC,
                        key: key(name),
                    },
                    self.broken,
                );
                world.left.writes -= 1;
            }
            Action::Deliver { from, to } => {
                world.deliver(from, to, false);
                world.left.deliveries -= 1;
            }
            Action::Partial { from, to } => {
                world.deliver(from, to, true);
                world.left.partials -= 1;
            }
            Action::Acknowledge { on } => {
                world.acknowledge(on);
                world.left.upkeeps -= 1;
            }
            Action::Collect { on } => {
                world.collect(on, self.broken);
                world.left.upkeeps -= 1;
            }
            Action::Crash { on } => {
                world.crash(on, self.broken);
                world.left.crashes -= 1;
            }
            Action::Evict { by, whom } => {
                world.evict(by, whom);
                world.left.evictions -= 1;
            }
            Action::Rejoin { on, from } => {
                world.rejoin(on, from);
            }
        }
        let moved = world
            .machines
            .iter()
            .zip(&last.machines)
            .any(|(new, old)| new.mark != old.mark);
        (moved || world.fault.is_some()).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no fault", |_, world: &World| world.fault.is_none()),
            Property::always(
                "what was deleted and collected stays gone",
                |_, world: &World| world.nothing_rises(),
            ),
            Property::always(
                "exchanging everything settles everything",
                |model: &Self, world: &World| settle::settles(world, model.broken).is_ok(),
            ),
        ]
    }
}
