//! Property test: up to five replicas, random writes, edits, deletes, claims, log entries, raises, publications,
//! exchanges that break off, duplicates out of order, crashes that lose what was not durable, clock jumps. After everything has been exchanged all replicas
//! hold the same changes, and these are what a fold over the whole history says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use crate::id::{Actor, ClusterId, Dot, MachineId};
use crate::local::{self, Retention, Write};
use crate::op::{Content, Op};
use crate::register::Register;
use crate::session::{Core, Effect};
use crate::state::{Batch, Changes, State};
use crate::writer::WriteError;

const CLUSTER: ClusterId = ClusterId([9; 16]);
const SPEC: u16 = 1;
const FACT: u16 = 2;
const CLAIM: u16 = 3;
const LOG: u16 = 4;
const REGISTRY: u16 = 5;
const START: u64 = 1_000_000_000;

#[derive(Debug, Clone)]
enum Step {
    Put {
        node: usize,
        key: u8,
        value: u16,
    },
    Delete {
        node: usize,
        key: u8,
    },
    /// Several keys in one transaction.
    PutMany {
        node: usize,
        from: u8,
        value: u16,
    },
    /// Groups of fields, claims, log entries, registry raises: judged by what is left and by agreement.
    Other {
        node: usize,
        what: u8,
        key: u8,
        value: u8,
    },
    Publish {
        node: usize,
        rows: u8,
        value: u8,
    },
    /// Moves up to this many frames between two nodes.
    Pump {
        a: usize,
        b: usize,
        frames: usize,
    },
    /// A frame arrives at `b` and cannot be kept.
    Lose {
        a: usize,
        b: usize,
    },
    /// The stream breaks; what is on it is lost.
    Break {
        a: usize,
        b: usize,
    },
    /// Something that was delivered once comes again.
    Duplicate {
        node: usize,
        which: usize,
    },
    /// A received or own commit reaches the disk without being waited for.
    Sync {
        node: usize,
    },
    Crash {
        node: usize,
    },
    Jump {
        node: usize,
        ms: i64,
    },
}

fn step(nodes: usize) -> impl Strategy<Value = Step> {
    let node = 0..nodes;
    let pair = (0..nodes, 1..nodes).prop_map(move |(a, shift)| (a, (a + shift) % nodes));
    prop_oneof![
        6 => (node.clone(), 0u8..4, any::<u16>()).prop_map(|(node, key, value)| Step::Put { node, key, value }),
        3 => (node.clone(), 0u8..4).prop_map(|(node, key)| Step::Delete { node, key }),
        1 => (node.clone(), 0u8..4, any::<u16>()).prop_map(|(node, from, value)| Step::PutMany { node, from, value }),
        6 => (node.clone(), 0u8..6, 0u8..3, any::<u8>())
            .prop_map(|(node, what, key, value)| Step::Other { node, what, key, value }),
        4 => (node.clone(), any::<u8>(), 0u8..3).prop_map(|(node, rows, value)| Step::Publish { node, rows, value }),
        10 => (pair.clone(), 1usize..8).prop_map(|((a, b), frames)| Step::Pump { a, b, frames }),
        3 => pair.clone().prop_map(|(a, b)| Step::Lose { a, b }),
        2 => pair.prop_map(|(a, b)| Step::Break { a, b }),
        3 => (node.clone(), any::<usize>()).prop_map(|(node, which)| Step::Duplicate { node, which }),
        2 => node.clone().prop_map(|node| Step::Sync { node }),
        2 => node.clone().prop_map(|node| Step::Crash { node }),
        1 => (node, -3_600_000i64..3_600_000).prop_map(|(node, ms)| Step::Jump { node, ms }),
    ]
}

struct Node {
    state: State,
    /// What a crash leaves.
    disk: State,
    /// What the last publication said.
    truth: BTreeMap<Arc<str>, Vec<u8>>,
    clock: u64,
}

/// One direction each way, and what is on the wire.
struct Link {
    cores: [Core; 2],
    wires: [VecDeque<Bytes>; 2],
}

struct Cluster {
    nodes: Vec<Node>,
    links: BTreeMap<(usize, usize), Link>,
    delivered: Vec<Batch>,
    intents: BTreeMap<Dot, Arc<Op>>,
    crashes: u64,
}

fn machine(n: usize) -> MachineId {
    MachineId([n as u8 + 1; 16])
}

impl Cluster {
    fn new(count: usize) -> Self {
        let nodes = (0..count)
            .map(|n| {
                let state = State::new(Actor { machine: machine(n), incarnation: 1 });
                Node { disk: state.clone(), state, truth: BTreeMap::new(), clock: START }
            })
            .collect();
        Self { nodes, links: BTreeMap::new(), delivered: Vec::new(), intents: BTreeMap::new(), crashes: 0 }
    }

    fn run(&mut self, step: &Step) {
        for node in &mut self.nodes {
            node.clock += 1;
        }
        match step {
            Step::Put { node, key, value } => self.write(*node, &[put(*key, *value)]),
            Step::PutMany { node, from, value } => {
                let writes: Vec<_> = (0..3).map(|n| put((from + n) % 4, *value)).collect();
                self.write(*node, &writes);
            }
            Step::Delete { node, key } => {
                self.write(*node, &[Write::Delete { kind: SPEC, key: format!("k{key}") }]);
            }
            Step::Other { node, what, key, value } => self.other(*node, *what, *key, *value),
            Step::Publish { node, rows, value } => {
                let set = (0..8).filter(|bit| rows & (1 << bit) != 0);
                self.nodes[*node].truth =
                    set.map(|bit| (Arc::from(format!("r{bit}")), vec![*value])).collect();
                self.publish(*node);
            }
            Step::Pump { a, b, frames } => self.pump(*a, *b, *frames),
            Step::Lose { a, b } => self.lose(*a, *b),
            Step::Break { a, b } => drop(self.links.remove(&link(*a, *b))),
            Step::Duplicate { node, which } => {
                if !self.delivered.is_empty() {
                    // Only what was sent can come again; the word that nothing is missing belongs to its stream.
                    let mut batch = self.delivered[which % self.delivered.len()].clone();
                    batch.heights.clear();
                    self.apply(*node, &batch);
                }
            }
            Step::Sync { node } => self.nodes[*node].disk = self.nodes[*node].state.clone(),
            Step::Crash { node } => self.crash(*node),
            Step::Jump { node, ms } => {
                let node = &mut self.nodes[*node];
                node.clock = node.clock.saturating_add_signed(*ms);
            }
        }
    }

    fn write(&mut self, n: usize, writes: &[Write]) {
        let node = &mut self.nodes[n];
        let before = node.state.own_version();
        local::write(&mut node.state, writes, node.clock, &mut Changes::default()).unwrap();
        // Intent is fsynced before anybody hears of it, and everything before it with it.
        node.disk = node.state.clone();
        for op in node.state.ops_after(node.state.me(), before) {
            let Content::Intent(intent) = &op.content else { panic!("{op:?}") };
            let intent = intent.clone();
            // Writing after reading gives a stamp above everything read.
            let read = self.intents.values().filter(|other| intent.context.covers(other.dot));
            assert!(read.map(|other| other.stamp()).max() < Some(op.stamp()));
            self.intents.insert(op.dot, Arc::clone(op));
        }
    }

    fn other(&mut self, n: usize, what: u8, key: u8, value: u8) {
        let name = format!("e{key}");
        let set = (!value.is_multiple_of(4)).then(|| vec![value]);
        let write = match what {
            0 | 1 => {
                let groups = vec![(u16::from(value % 3), set)];
                return self.write(n, &[Write::Edit { kind: SPEC, key: name, groups }]);
            }
            2 => Write::Claim { kind: CLAIM, key: name, value: vec![value] },
            3 => Write::Release { kind: CLAIM, key: name },
            4 => Write::Raise { kind: REGISTRY, key: name, epoch: u64::from(value), value: vec![value] },
            _ => {
                let node = &mut self.nodes[n];
                let keep = Retention { entries: 4, age_ms: 600_000 };
                let entries = [vec![value]];
                local::append(&mut node.state, LOG, &entries, keep, node.clock, &mut Changes::default())
                    .unwrap();
                node.disk = node.state.clone();
                return;
            }
        };
        let node = &mut self.nodes[n];
        match local::write(&mut node.state, &[write], node.clock, &mut Changes::default()) {
            Ok(()) => node.disk = node.state.clone(),
            Err(WriteError::Claimed { .. } | WriteError::EpochTooLow { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn publish(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        local::publish(&mut node.state, FACT, &node.truth, node.clock, &mut Changes::default()).unwrap();
    }

    fn crash(&mut self, n: usize) {
        self.links.retain(|(a, b), _| *a != n && *b != n);
        self.crashes += 1;
        let node = &mut self.nodes[n];
        let disk = &node.disk;
        let me = Actor { incarnation: disk.me().incarnation + self.crashes, ..disk.me() };
        let ops = disk.ops().cloned().collect();
        let (state, _) = State::load(me, disk.hlc, &disk.vector(), ops, node.clock).unwrap();
        node.state = state;
        node.disk = node.state.clone();
        // A daemon that starts says what it finds on its machine.
        self.publish(n);
    }

    fn pump(&mut self, a: usize, b: usize, frames: usize) {
        let (low, high) = link(a, b);
        let mut link = self.links.remove(&(low, high)).unwrap_or_else(|| {
            let core = |me: usize, peer| Core::new(CLUSTER, &[], machine(peer), &self.nodes[me].state);
            Link { cores: [core(low, high), core(high, low)], wires: Default::default() }
        });
        for round in 0..frames {
            let ends = [low, high];
            for (side, end) in ends.into_iter().enumerate() {
                if round % 3 == 2 {
                    link.cores[side].tick(&self.nodes[end].state);
                }
                if let Some(frame) = link.cores[side].next_frame(&self.nodes[end].state, true) {
                    link.wires[1 - side].push_back(frame);
                }
            }
            // One frame stays on the wire now and then, so that a break loses something.
            for (side, end) in ends.into_iter().enumerate() {
                if link.wires[side].len() > round % 2
                    && let Some(frame) = link.wires[side].pop_front()
                {
                    self.deliver(end, &mut link.cores[side], &frame);
                }
            }
        }
        self.links.insert((low, high), link);
    }

    /// The frame is taken off the stream and cannot be kept: that ends the session.
    fn lose(&mut self, a: usize, b: usize) {
        let ends = link(a, b);
        let side = usize::from(b > a);
        if self.links.get_mut(&ends).is_some_and(|link| link.wires[side].pop_front().is_some()) {
            self.links.remove(&ends);
        }
    }

    fn deliver(&mut self, n: usize, core: &mut Core, frame: &Bytes) {
        match core.handle(frame, &self.nodes[n].state).unwrap() {
            Some(Effect::Apply(batch)) => {
                self.apply(n, &batch);
                self.delivered.push(batch);
                core.applied();
            }
            Some(Effect::Reincarnate(_)) => panic!("a crash left an incarnation that was used before"),
            Some(Effect::Rejoin | Effect::Expect) => panic!("nobody was evicted"),
            None => {}
        }
    }

    fn apply(&mut self, n: usize, batch: &Batch) {
        let node = &mut self.nodes[n];
        node.state.apply_batch(batch, node.clock, &mut Changes::default()).unwrap();
    }

    /// Everybody talks to everybody until nothing is left to say, with clocks that have caught up.
    fn settle(&mut self) {
        let late = self.nodes.iter().map(|node| node.clock).max().unwrap() + 7_200_000;
        for node in &mut self.nodes {
            node.clock = late;
        }
        for _ in 0..60 {
            for a in 0..self.nodes.len() {
                for b in a + 1..self.nodes.len() {
                    self.pump(a, b, 9);
                }
            }
        }
        for node in &mut self.nodes {
            node.state.release(late, &mut Changes::default()).unwrap();
        }
    }

    /// What a fold over all intents ever written says is left of each key.
    fn expected(&self, key: &str) -> (BTreeSet<Dot>, Option<Bytes>) {
        let history: Vec<&Arc<Op>> = self.intents.values().filter(|op| &*op.key == key).collect();
        let content = |op: &Op| match &op.content {
            Content::Intent(intent) => intent.clone(),
            other => panic!("{other:?}"),
        };
        let left: Vec<_> = history
            .iter()
            .filter(|op| !history.iter().any(|other| content(other).context.covers(op.dot)))
            .collect();
        let values = left.iter().filter(|op| content(op).groups.is_some());
        let active = values
            .max_by_key(|op| (content(op).life, op.stamp()))
            .and_then(|op| content(op).group(0).map(|group| group.value.clone()));
        (left.iter().map(|op| op.dot).collect(), active)
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let first = &self.nodes[0].state;
        for (n, node) in self.nodes.iter().enumerate() {
            prop_assert_eq!(node.state.vector(), first.vector(), "vector of node {}", n);
            let dots = |state: &State| state.ops().map(|op| op.dot).collect::<Vec<_>>();
            prop_assert_eq!(dots(&node.state), dots(first), "changes of node {}", n);
            prop_assert_eq!(node.state.digest(), first.digest(), "digest of node {}", n);
            prop_assert_eq!(node.state.loose().count(), 0, "node {}", n);
            for key in 0..4 {
                let key = format!("k{key}");
                let (left, active) = self.expected(&key);
                let register = node.state.register(false, SPEC, &key).cloned().unwrap_or_default();
                let kept: BTreeSet<Dot> = register.items().iter().map(|op| op.dot).collect();
                prop_assert_eq!(kept, left, "writes left of {} on node {}", key, n);
                prop_assert_eq!(Register::value(&register), active.as_deref(), "{} on node {}", key, n);
            }
            for key in 0..3 {
                let key = format!("e{key}");
                let register = node.state.register(false, SPEC, &key).cloned().unwrap_or_default();
                let kept: BTreeSet<Dot> = register.items().iter().map(|op| op.dot).collect();
                prop_assert_eq!(kept, self.expected(&key).0, "writes left of {} on node {}", key, n);
            }
            for (owner, of) in self.nodes.iter().enumerate() {
                let seen: BTreeMap<Arc<str>, Vec<u8>> = node
                    .state
                    .facts_of(FACT, machine(owner))
                    .filter_map(|((_, _, key), fact)| Some((Arc::clone(key), fact.value.as_ref()?.to_vec())))
                    .collect();
                prop_assert_eq!(&seen, &of.truth, "facts of node {} on node {}", owner, n);
            }
            // A restart changes nothing.
            let ops = node.state.ops().cloned().collect();
            let vector = node.state.vector();
            let (again, changes) =
                State::load(node.state.me(), node.state.hlc, &vector, ops, node.clock).unwrap();
            prop_assert!(changes.ops.is_empty());
            prop_assert_eq!(dots(&again), dots(first));
            prop_assert_eq!(again.digest(), first.digest());
        }
        Ok(())
    }
}

fn put(key: u8, value: u16) -> Write {
    Write::Put { kind: SPEC, key: format!("k{key}"), value: value.to_be_bytes().to_vec() }
}

fn link(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

proptest! {
    // proptest prints the failing history, shrunk, and its seed.
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn replicas_that_have_exchanged_everything_agree_with_the_fold(
        (nodes, steps) in (2usize..6).prop_flat_map(|nodes| (Just(nodes), prop::collection::vec(step(nodes), 1..80))),
    ) {
        let mut cluster = Cluster::new(nodes);
        for step in &steps {
            cluster.run(step);
        }
        cluster.settle();
        cluster.check()?;
    }
}
