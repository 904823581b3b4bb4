//! The bounds that are checked, and the broken rules that must be noticed.

use std::time::Instant;

use stateright::{Checker, Model};

use super::{Bounds, Broken, Cluster, settle};

const NONE: Bounds = Bounds {
    writes: 0,
    deliveries: 0,
    partials: 0,
    upkeeps: 0,
    crashes: 0,
    evictions: 0,
};

fn explore(name: &str, model: &Cluster) -> Vec<String> {
    let started = Instant::now();
    let checker = model.clone().checker().spawn_bfs().join();
    let bounds = model.bounds;
    println!(
        "{name}: {} states, {} different, depth {}, {:.1} s, {} machines, {bounds:?}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f32(),
        model.machines,
    );
    let found = checker.discoveries().into_iter().map(|(property, path)| {
        let why = settle::settles(path.last_state(), model.broken);
        format!("{property}: {:?} {why:?}", path.into_actions())
    });
    found.inspect(|found| println!("  {found}")).collect()
}

fn check(name: &str, machines: usize, bounds: Bounds) {
    let found = explore(
        name,
        &Cluster {
            machines,
            keys: 2,
            bounds,
            broken: None,
        },
    );
    assert!(found.is_empty(), "{found:#?}");
}

fn notices(broken: Broken, machines: usize, bounds: Bounds) {
    let model = Cluster {
        machines,
        keys: 2,
        bounds,
        broken: Some(broken),
    };
    assert!(
        !explore("broken", &model).is_empty(),
        "{broken:?} goes unnoticed"
    );
    // The same bounds give no counterexample when the rule is kept.
    let model = Cluster {
        broken: None,
        ..model
    };
    let found = explore("kept", &model);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn model_holds_for_merging_and_collecting() {
    check(
        "merge",
        3,
        Bounds {
            writes: 4,
            deliveries: 1,
            ..NONE
        },
    );
    check(
        "collect",
        2,
        Bounds {
            writes: 2,
            deliveries: 3,
            upkeeps: 4,
            ..NONE
        },
    );
}

#[test]
fn model_holds_for_broken_exchanges_and_crashes() {
    check(
        "crash",
        3,
        Bounds {
            writes: 2,
            deliveries: 2,
            partials: 1,
            crashes: 1,
            ..NONE
        },
    );
}

#[test]
fn model_holds_for_evictions_and_returns() {
    check(
        "evict",
        2,
        Bounds {
            writes: 2,
            deliveries: 1,
            partials: 1,
            upkeeps: 1,
            evictions: 1,
            ..NONE
        },
    );
    check(
        "return",
        3,
        Bounds {
            writes: 1,
            deliveries: 1,
            partials: 1,
            evictions: 1,
            ..NONE
        },
    );
    // If both others are evicted, the third forgets immediately, and they must fetch everything.
    check(
        "fetch",
        3,
        Bounds {
            writes: 2,
            deliveries: 1,
            upkeeps: 1,
            evictions: 2,
            ..NONE
        },
    );
}

#[test]
#[ignore = "minutes: nextest run --run-ignored only, in release"]
fn more_of_everything() {
    check(
        "merge",
        3,
        Bounds {
            writes: 4,
            deliveries: 2,
            ..NONE
        },
    );
    check(
        "collect",
        3,
        Bounds {
            writes: 2,
            deliveries: 3,
            upkeeps: 2,
            ..NONE
        },
    );
    check(
        "crash",
        3,
        Bounds {
            writes: 2,
            deliveries: 2,
            partials: 2,
            upkeeps: 1,
            crashes: 1,
            ..NONE
        },
    );
    check(
        "evict",
        2,
        Bounds {
            writes: 4,
            deliveries: 2,
            partials: 1,
            upkeeps: 2,
            evictions: 2,
            ..NONE
        },
    );
    check(
        "return",
        3,
        Bounds {
            writes: 2,
            deliveries: 2,
            partials: 1,
            upkeeps: 1,
            evictions: 1,
            ..NONE
        },
    );
}

#[test]
fn model_notices_collection_by_age() {
    notices(
        Broken::ByAge,
        3,
        Bounds {
            writes: 2,
            deliveries: 3,
            upkeeps: 1,
            ..NONE
        },
    );
}

#[test]
fn model_notices_receipt_remembered_before_it_is_durable() {
    notices(
        Broken::FilterBeforeCommit,
        3,
        Bounds {
            writes: 1,
            deliveries: 1,
            crashes: 1,
            ..NONE
        },
    );
}

#[test]
fn model_notices_write_outside_the_merge() {
    notices(
        Broken::Aside,
        3,
        Bounds {
            writes: 2,
            deliveries: 1,
            ..NONE
        },
    );
}

#[test]
fn model_notices_missing_check_of_forgotten_deletes() {
    notices(
        Broken::NoCut,
        2,
        Bounds {
            writes: 2,
            deliveries: 1,
            upkeeps: 1,
            evictions: 1,
            ..NONE
        },
    );
}
