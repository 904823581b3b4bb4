//! Property test with up to six stores. It runs random writes, edits, deletes, claims, log entries,
//! raises and publications; exchanges that break off, duplicates out of order, crashes that lose
//! what was not durable, and clock jumps; acknowledgements, collections, evictions, returns and
//! late arrivals. After everything has been exchanged, all stores hold the same changes. These
//! equal a fold over the whole history, and no delete that all stores have is left.

use proptest::prelude::*;

use crate::local::Write;

mod file;
mod links;
mod oracle;
mod world;

use world::{SPEC, World, put};

/// Number of histories in one run, unless `PROPTEST_CASES` sets another.
const CASES: u32 = 300;

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
    /// Groups of fields, claims, log entries and registry raises. They are checked by what is left
    /// and by agreement.
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
    /// A frame arrives at `b` and cannot be stored.
    Lose {
        a: usize,
        b: usize,
    },
    /// The stream breaks, and what is in transit is lost.
    Break {
        a: usize,
        b: usize,
    },
    /// A change that was delivered once arrives again.
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
    /// What the store does on its own each second or two.
    Upkeep {
        node: usize,
    },
    Evict {
        by: usize,
        whom: usize,
    },
    /// An empty store becomes a member.
    Join {
        by: usize,
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
        2 => pair.clone().prop_map(|(by, whom)| Step::Evict { by, whom }),
        5 => node.clone().prop_map(|node| Step::Upkeep { node }),
        1 => node.clone().prop_map(|by| Step::Join { by }),
        2 => pair.prop_map(|(a, b)| Step::Break { a, b }),
        3 => (node.clone(), any::<usize>()).prop_map(|(node, which)| Step::Duplicate { node, which }),
        2 => node.clone().prop_map(|node| Step::Sync { node }),
        2 => node.clone().prop_map(|node| Step::Crash { node }),
        1 => (node, -3_600_000i64..3_600_000).prop_map(|(node, ms)| Step::Jump { node, ms }),
    ]
}

fn run(world: &mut World, step: &Step) {
    for node in &mut world.nodes {
        node.clock += 1;
    }
    match step {
        Step::Put { node, key, value } => world.write(*node, &[put(*key, *value)]),
        Step::PutMany { node, from, value } => {
            let writes: Vec<_> = (0..3).map(|n| put((from + n) % 4, *value)).collect();
            world.write(*node, &writes);
        }
        Step::Delete { node, key } => {
            world.write(
                *node,
                &[Write::Delete {
                    kind: SPEC,
                    key: format!("k{key}"),
                }],
            );
        }
        Step::Other {
            node,
            what,
            key,
            value,
        } => world.other(*node, *what, *key, *value),
        Step::Publish { node, rows, value } => world.say(*node, *rows, *value),
        Step::Pump { a, b, frames } => world.pump(*a, *b, *frames),
        Step::Lose { a, b } => world.lose(*a, *b),
        Step::Break { a, b } => world.cut(*a, *b),
        Step::Duplicate { node, which } => world.duplicate(*node, *which),
        Step::Sync { node } => world.nodes[*node].sync(),
        Step::Crash { node } => world.crash(*node),
        Step::Jump { node, ms } => {
            let node = &mut world.nodes[*node];
            node.clock = node.clock.saturating_add_signed(*ms);
        }
        Step::Upkeep { node } => world.upkeep(*node),
        Step::Evict { by, whom } => world.evict(*by, *whom),
        Step::Join { by } => world.join(*by),
    }
}

fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(CASES),
        max_shrink_iters: 4_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    // proptest prints the failing history, shrunk, and its seed.
    #![proptest_config(config())]

    #[test]
    fn stores_agree_with_the_fold_after_exchanging_everything(
        founded in any::<bool>(),
        (nodes, steps) in (2usize..6).prop_flat_map(|nodes| (Just(nodes), prop::collection::vec(step(nodes), 1..80))),
    ) {
        let mut world = World::new(nodes, founded);
        for step in &steps {
            run(&mut world, step);
        }
        world.settle();
        world.check()?;
    }
}
