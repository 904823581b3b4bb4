//! The stores, what they do on their own, and the history of all of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::file::File;
use crate::error::WriteError;
use crate::id::{Actor, Dot, MachineId};
use crate::local::{Retention, Txn, Write};
use crate::op::{Content, Op};
use crate::session::Core;
use crate::state::{Batch, Changes, MemberStatus, Rejected, State};

pub(super) const SPEC: u16 = 1;
pub(super) const FACT: u16 = 2;
const CLAIM: u16 = 3;
const LOG: u16 = 4;
const REGISTRY: u16 = 5;
const START: u64 = 1_000_000_000;
const MAX_NODES: usize = 6;

pub(super) struct Node {
    pub(super) state: State,
    /// What a crash leaves.
    pub(super) disk: State,
    /// The file of that state.
    pub(super) file: File,
    /// Changes that are not in the file yet.
    pub(super) changes: Changes,
    /// The content of the last publication.
    pub(super) truth: BTreeMap<Arc<str>, Vec<u8>>,
    pub(super) clock: u64,
}

impl Node {
    fn new(n: usize) -> Self {
        let state = State::new(Actor {
            machine: machine(n),
            incarnation: 1,
        });
        let (disk, file) = (state.clone(), File::of(&state));
        Self {
            disk,
            file,
            changes: Changes::default(),
            state,
            truth: BTreeMap::new(),
            clock: START,
        }
    }

    pub(super) fn sync(&mut self) {
        self.file.commit(&std::mem::take(&mut self.changes));
        self.disk = self.state.clone();
    }

    /// Writes everything from scratch.
    pub(super) fn rewrite(&mut self) {
        self.changes = Changes::default();
        self.file = File::of(&self.state);
        self.disk = self.state.clone();
    }

    /// Merges everything that a peer sent, or nothing of it.
    pub(super) fn receive(&mut self, batch: &Batch) -> Result<(), Rejected> {
        let (mut state, mut changes) = (self.state.clone(), Changes::default());
        state.apply_batch(batch, self.clock, &mut changes)?;
        self.state = state;
        self.changes.ops.append(&mut changes.ops);
        Ok(())
    }
}

/// A session: the state machines of both ends, and the frames in transit.
pub(super) struct Link {
    pub(super) cores: [Core; 2],
    pub(super) wires: [VecDeque<Bytes>; 2],
    /// For a side that fetches everything, what it has so far.
    pub(super) fresh: [Option<State>; 2],
}

pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) links: BTreeMap<(usize, usize), Link>,
    pub(super) delivered: Vec<Batch>,
    /// Every intent ever made, repetitions included.
    pub(super) history: BTreeMap<Dot, Arc<Op>>,
    /// Whether the stores are members, so that deletes are acknowledged and collected.
    pub(super) founded: bool,
    lives: u64,
}

pub(super) fn machine(n: usize) -> MachineId {
    MachineId([n as u8 + 1; 16])
}

pub(super) fn put(key: u8, value: u16) -> Write {
    Write::Put {
        kind: SPEC,
        key: format!("k{key}"),
        value: value.to_be_bytes().to_vec(),
    }
}

impl World {
    pub(super) fn new(count: usize, founded: bool) -> Self {
        let nodes = (0..count).map(Node::new).collect();
        let (links, delivered, history) = Default::default();
        let mut world = Self {
            nodes,
            links,
            delivered,
            history,
            founded,
            lives: 0,
        };
        if founded {
            // The first store founds the cluster. A joining store knows that before it sends
            // anything.
            for n in 0..count {
                world.declare(0, n, MemberStatus::Member);
            }
            let state = &world.nodes[0].state;
            let all = Batch {
                ops: state.ops().cloned().collect(),
                watermarks: state.watermarks().collect(),
                ..Batch::default()
            };
            for node in &mut world.nodes[1..] {
                node.receive(&all).unwrap();
                node.sync();
            }
        }
        world
    }

    fn declare(&mut self, by: usize, whom: usize, status: MemberStatus) {
        let node = &mut self.nodes[by];
        Txn::new(&mut node.state, node.clock, &mut node.changes)
            .write(&[Write::Declare {
                machine: machine(whom),
                status,
            }])
            .unwrap();
        node.sync();
    }

    pub(super) fn write(&mut self, n: usize, writes: &[Write]) {
        let node = &mut self.nodes[n];
        let (me, before) = (node.state.me(), node.state.own_version());
        Txn::new(&mut node.state, node.clock, &mut node.changes)
            .write(writes)
            .unwrap();
        // An intent, and everything before it, is fsynced before any other store receives it.
        node.sync();
        for op in node.state.ops_after(me, before) {
            let intent = op.asked().unwrap();
            // A write after a read has a stamp above everything that was read.
            let read = self
                .history
                .values()
                .filter(|other| other.key == op.key && intent.context.covers(other.dot));
            assert!(read.map(|other| other.stamp()).max() < Some(op.stamp()));
        }
        self.remember(n, me, before);
    }

    /// Records the intents that a node has made.
    pub(super) fn remember(&mut self, n: usize, actor: Actor, after: u64) {
        let new = self.nodes[n]
            .state
            .ops_after(actor, after)
            .filter(|op| op.kind == SPEC);
        self.history.extend(new.map(|op| (op.dot, Arc::clone(op))));
    }

    pub(super) fn other(&mut self, n: usize, what: u8, key: u8, value: u8) {
        let name = format!("e{key}");
        let set = (!value.is_multiple_of(4)).then(|| vec![value]);
        let write = match what {
            0 | 1 => {
                let groups = vec![(u16::from(value % 3), set)];
                return self.write(
                    n,
                    &[Write::Edit {
                        kind: SPEC,
                        key: name,
                        groups,
                    }],
                );
            }
            2 => Write::Claim {
                kind: CLAIM,
                key: name,
                value: vec![value],
            },
            3 => Write::Release {
                kind: CLAIM,
                key: name,
            },
            4 => Write::Raise {
                kind: REGISTRY,
                key: name,
                epoch: u64::from(value),
                value: vec![value],
            },
            _ => return self.log(n, value),
        };
        let node = &mut self.nodes[n];
        match Txn::new(&mut node.state, node.clock, &mut node.changes).write(&[write]) {
            Ok(()) => node.sync(),
            Err(WriteError::Claimed { .. } | WriteError::EpochTooLow { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn log(&mut self, n: usize, value: u8) {
        let node = &mut self.nodes[n];
        let keep = Retention {
            entries: 4,
            age_ms: 600_000,
        };
        Txn::new(&mut node.state, node.clock, &mut node.changes)
            .append(LOG, &[vec![value]], keep)
            .unwrap();
        node.sync();
    }

    /// Publishes a row for each bit of `rows`.
    pub(super) fn say(&mut self, n: usize, rows: u8, value: u8) {
        let set = (0..8).filter(|bit| rows & (1 << bit) != 0);
        self.nodes[n].truth = set
            .map(|bit| (Arc::from(format!("r{bit}")), vec![value]))
            .collect();
        self.publish(n);
    }

    pub(super) fn publish(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        Txn::new(&mut node.state, node.clock, &mut node.changes)
            .publish(FACT, &node.truth)
            .unwrap();
    }

    /// Returns a number by which no incarnation in this history was raised before.
    pub(super) fn stride(&mut self) -> u64 {
        self.lives += 1;
        self.lives
    }

    pub(super) fn crash(&mut self, n: usize) {
        self.hang_up(n);
        let stride = self.stride();
        let node = &mut self.nodes[n];
        let disk = &node.disk;
        let me = Actor {
            incarnation: disk.me().incarnation + stride,
            ..disk.me()
        };
        let (rows, gc_watermarks) = (node.file.rows(), disk.gc_watermarks().collect());
        let (state, changes) = State::load(
            me,
            disk.hlc,
            &disk.vector(),
            &gc_watermarks,
            rows,
            node.clock,
        )
        .unwrap();
        node.state = state;
        node.changes = changes;
        node.sync();
        // A daemon that starts publishes what it finds on its machine.
        self.publish(n);
    }

    pub(super) fn upkeep(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let own = node.state.own_version();
        node.state.release(node.clock, &mut node.changes).unwrap();
        Txn::new(&mut node.state, node.clock, &mut node.changes)
            .acknowledge()
            .unwrap();
        node.state.collect(&mut node.changes);
        if node.state.own_version() != own {
            node.sync();
        }
    }

    /// A machine that is alone is not evicted, because some store must keep the data.
    pub(super) fn evict(&mut self, by: usize, whom: usize) {
        let state = &self.nodes[by].state;
        let member = |n: usize| {
            state
                .member(machine(n))
                .is_some_and(|(_, member)| member.status == MemberStatus::Member)
        };
        if member(by) && member(whom) && !state.is_rejoining() {
            self.declare(by, whom, MemberStatus::Evicted);
        }
    }

    pub(super) fn join(&mut self, by: usize) {
        let n = self.nodes.len();
        if n == MAX_NODES || self.nodes[by].state.is_rejoining() {
            return;
        }
        let mut node = Node::new(n);
        node.clock = self.nodes[by].clock;
        self.nodes.push(node);
        if self.founded {
            self.declare(by, n, MemberStatus::Member);
        }
    }

    /// Delivers a change again that was delivered once.
    pub(super) fn duplicate(&mut self, n: usize, which: usize) {
        if !self.delivered.is_empty() && !self.nodes[n].state.is_rejoining() {
            // Only changes that were sent can arrive again. The announcement that nothing is
            // missing belongs to its stream.
            let mut batch = self.delivered[which % self.delivered.len()].clone();
            batch.watermarks.clear();
            // An error here would end a session, and there is none.
            let _ = self.nodes[n].receive(&batch);
        }
    }
}

/// Reports whether an intent is a delete.
pub(super) fn is_delete(op: &Op) -> bool {
    matches!(&op.content, Content::Intent(intent) if intent.groups.is_none())
}
