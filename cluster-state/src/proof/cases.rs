//! Merge cases as data. Each case lists what happens on which machine, and what must then be
//! visible there. The files in `cases/` hold them. If another store behaves differently, `why`
//! gives the reason for the difference.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::{Actor, Dot, MachineId};
use crate::kind::Slot;
use crate::local::{self, Txn, Write};
use crate::op::Op;
use crate::state::{Batch, Changes, MemberStatus, State};

const SPEC: u16 = 1;
const FACT: u16 = 2;
const FILES: [&str; 2] = [
    include_str!("cases/merge.json"),
    include_str!("cases/named.json"),
];

struct Node {
    state: State,
    disk: State,
    clock: u64,
    mark: (Vec<Dot>, [u8; 32], u64),
}

#[derive(Default)]
struct World {
    nodes: BTreeMap<String, Node>,
    /// Every change ever made, so that an old one can still arrive.
    made: BTreeMap<Dot, Arc<Op>>,
}

fn machine(name: &str) -> MachineId {
    MachineId([name.as_bytes()[0]; 16])
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn text(value: Option<&[u8]>) -> String {
    value.map_or("-".to_owned(), |value| {
        String::from_utf8_lossy(value).into_owned()
    })
}

fn seen(state: &State) -> (Vec<Dot>, [u8; 32], u64) {
    (
        state.ops().map(|op| op.dot).collect(),
        state.digest(),
        state.own_version(),
    )
}

fn everything(state: &State) -> Batch {
    let (watermarks, gc_watermarks) = (
        state.watermarks().collect(),
        state.gc_watermarks().collect(),
    );
    Batch {
        ops: state.ops().cloned().collect(),
        watermarks,
        gc_watermarks,
        repair: false,
    }
}

fn same(what: &str, found: &str, wanted: &str) -> Result<(), String> {
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{what} is {found}, not {wanted}"))
    }
}

impl World {
    fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.entry(name.to_owned()).or_insert_with(|| {
            let state = State::new(Actor {
                machine: machine(name),
                incarnation: 1,
            });
            Node {
                disk: state.clone(),
                mark: seen(&state),
                state,
                clock: 1_000_000_000,
            }
        })
    }

    fn write(&mut self, name: &str, write: Write) {
        let node = self.node(name);
        Txn::new(&mut node.state, node.clock, &mut Changes::default())
            .write(&[write])
            .unwrap();
    }

    fn receive(&mut self, name: &str, batch: &Batch) {
        let node = self.node(name);
        node.state
            .apply_batch(batch, node.clock, &mut Changes::default())
            .unwrap();
    }

    fn declare(&mut self, by: &str, whom: &str, status: MemberStatus) {
        let node = self.node(by);
        Txn::new(&mut node.state, node.clock, &mut Changes::default())
            .write(&[Write::Declare {
                machine: machine(whom),
                status,
            }])
            .unwrap();
    }

    fn restart(&mut self, name: &str) {
        let node = self.node(name);
        let old = node.disk.me();
        let me = Actor {
            incarnation: old.incarnation + 1,
            ..old
        };
        let ops = node.disk.ops().cloned().collect();
        node.state = State::load(
            me,
            node.disk.hlc,
            &node.disk.vector(),
            &node.disk.gc_watermarks().collect(),
            ops,
            node.clock,
        )
        .unwrap()
        .0;
    }

    fn rejoin(&mut self, name: &str, from: &str) {
        let whole = everything(&self.node(from).state);
        let node = self.node(name);
        let mut fresh = State::fetched(node.state.me());
        let mut changes = Changes::default();
        fresh.apply_batch(&whole, node.clock, &mut changes).unwrap();
        node.state = local::rejoin(&node.state, fresh, 1_000, node.clock, &mut changes).unwrap();
    }

    /// Executes one step: a verb, a machine, and the arguments of the verb.
    fn step(&mut self, step: &str) -> Result<(), String> {
        for node in self.nodes.values_mut() {
            node.clock += 1;
        }
        let words: Vec<&str> = step.split_whitespace().collect();
        match words.as_slice() {
            ["put", n, k, v] => {
                self.write(
                    n,
                    Write::Put {
                        kind: SPEC,
                        key: (*k).to_owned(),
                        value: bytes(v),
                    },
                );
            }
            ["edit", n, k, group, v] => {
                let groups = vec![(group.parse().unwrap(), (*v != "-").then(|| bytes(v)))];
                self.write(
                    n,
                    Write::Edit {
                        kind: SPEC,
                        key: (*k).to_owned(),
                        groups,
                    },
                );
            }
            ["del", n, k] => self.write(
                n,
                Write::Delete {
                    kind: SPEC,
                    key: (*k).to_owned(),
                },
            ),
            ["many", n, count] => {
                for key in 0..count.parse::<u32>().unwrap() {
                    self.write(
                        n,
                        Write::Put {
                            kind: SPEC,
                            key: format!("many-{key}"),
                            value: bytes("v"),
                        },
                    );
                }
            }
            ["publish", n, rows @ ..] => {
                let pair = |row: &&str| {
                    row.split_once('=')
                        .map(|(k, v)| (Arc::from(k), bytes(v)))
                        .unwrap()
                };
                let rows = rows.iter().map(pair).collect();
                let node = self.node(n);
                Txn::new(&mut node.state, node.clock, &mut Changes::default())
                    .publish(FACT, &rows)
                    .unwrap();
            }
            ["future", n, k] => {
                let node = self.node(n);
                let make = |dot| Op::decode(dot, 77, 99, Arc::from(*k), bytes("later").into(), &[]);
                node.state
                    .apply_own(make, node.clock, &mut Changes::default())
                    .unwrap();
            }
            ["sync", a, b] => {
                let batch = everything(&self.node(a).state);
                self.receive(b, &batch);
            }
            ["both", a, b] => {
                self.step(&format!("sync {a} {b}"))?;
                self.step(&format!("sync {b} {a}"))?;
            }
            // Single changes of the machine's own, as they were made. Nothing is announced about
            // the versions below them.
            ["send", a, b, versions @ ..] => {
                let actor = self.node(a).state.me();
                let dots = versions.iter().map(|version| Dot {
                    actor,
                    version: version.parse().unwrap(),
                });
                let ops = dots.map(|dot| Arc::clone(&self.made[&dot])).collect();
                self.receive(
                    b,
                    &Batch {
                        ops,
                        ..Batch::default()
                    },
                );
            }
            ["clock", n, ms] => {
                let node = self.node(n);
                node.clock = node.clock.saturating_add_signed(ms.parse().unwrap());
                node.state
                    .release(node.clock, &mut Changes::default())
                    .unwrap();
            }
            ["save", n] => self.node(n).disk = self.node(n).state.clone(),
            ["crash", n] => self.restart(n),
            ["restart", n] => {
                self.step(&format!("save {n}"))?;
                self.restart(n);
            }
            ["enrol", by, whom] => self.declare(by, whom, MemberStatus::Member),
            ["evict", by, whom] => self.declare(by, whom, MemberStatus::Evicted),
            ["rejoin", n, from] => self.rejoin(n, from),
            ["ack", n] => {
                let node = self.node(n);
                Txn::new(&mut node.state, node.clock, &mut Changes::default())
                    .acknowledge()
                    .unwrap();
            }
            ["collect", n] => self.node(n).state.collect(&mut Changes::default()),
            ["mark", n] => self.node(n).mark = seen(&self.node(n).state),
            _ => return self.expect(&words),
        }
        let made = self.nodes.values().flat_map(|node| node.state.ops());
        self.made
            .extend(made.map(|op| (op.dot, Arc::clone(op))).collect::<Vec<_>>());
        Ok(())
    }

    fn expect(&mut self, words: &[&str]) -> Result<(), String> {
        let (verb, n) = (words[0], words[1]);
        let state = self.node(n).state.clone();
        let register = |k: &str| {
            state
                .register(Slot::Intent, SPEC, k)
                .cloned()
                .unwrap_or_default()
        };
        match &words[2..] {
            [k, wanted] if verb == "is" => same(k, &text(register(k).value()), wanted),
            [k, group, wanted] if verb == "group" => {
                let register = register(k);
                let group = register.active(group.parse().unwrap());
                same(k, &text(group.map(|group| &*group.value)), wanted)
            }
            [k, wanted @ ..] if verb == "shows" => {
                let register = register(k);
                let found: Vec<String> = register
                    .candidates(0)
                    .iter()
                    .map(|c| text(c.value))
                    .collect();
                same(k, &found.join(" "), &wanted.join(" "))
            }
            [k, wanted] if verb == "kept" => {
                same(k, &register(k).items().len().to_string(), wanted)
            }
            [owner, k, wanted] if verb == "fact" => {
                let fact = state
                    .fact(FACT, machine(owner), k)
                    .and_then(|fact| fact.value.clone());
                same(k, &text(fact.as_deref()), wanted)
            }
            [] if verb == "still" => {
                let quiet = seen(&state) == self.node(n).mark;
                if quiet {
                    Ok(())
                } else {
                    Err(format!("something changed on {n}"))
                }
            }
            others if verb == "equal" => others.iter().try_for_each(|other| {
                let other_state = &self.node(other).state;
                let equal = seen(&state).0 == seen(other_state).0
                    && state.digest() == other_state.digest()
                    && state.vector() == other_state.vector();
                if equal {
                    Ok(())
                } else {
                    Err(format!("{n} and {other} differ"))
                }
            }),
            [wanted] => {
                let found = match verb {
                    "version" => state.own_version(),
                    "incarnation" => state.me().incarnation,
                    "records" => state.registers(Slot::Intent, SPEC).count() as u64,
                    "held" => state.quarantined().count() as u64,
                    "buried" => state.tombstones() as u64,
                    "opaque" => state.opaque() as u64,
                    "loose" => state.above_gaps().count() as u64,
                    _ => return Err("unknown step".to_owned()),
                };
                same(verb, &found.to_string(), wanted)
            }
            _ => Err("unknown step".to_owned()),
        }
    }
}

#[test]
fn merge_cases_end_as_expected() {
    let mut failed = Vec::new();
    for file in FILES {
        let cases: Vec<serde_json::Value> = serde_json::from_str(file).unwrap();
        assert!(!cases.is_empty());
        for case in &cases {
            let name = case["name"].as_str().unwrap();
            let mut world = World::default();
            for step in case["steps"].as_array().unwrap() {
                let step = step.as_str().unwrap();
                if let Err(why) = world.step(step) {
                    failed.push(format!("{name}: at `{step}`: {why}"));
                    break;
                }
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}
