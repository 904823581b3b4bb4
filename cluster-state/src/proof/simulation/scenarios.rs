//! Ready-made scenarios: those with published figures, and chaos for the tests.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{Disk, Fault, Latency, Scenario, Workload};

const LAN: Latency = Latency::Lan {
    round_trip: Duration::from_micros(200),
};
const WAN: Latency = Latency::Wan {
    round_trip: Duration::from_millis(50),
};

/// The scenarios of the benchmark: 3 to 1,000 machines in one place and 50 ms apart, with and
/// without losses, 200 changes in 20 s. Each runs alone. 1,000 machines take about 2 GB and, in a
/// release build, less than a minute.
pub fn standard_scenarios() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for machines in [3, 10, 50, 200, 1_000] {
        scenarios.push(calm(
            &format!("{machines} machines, LAN"),
            machines,
            LAN,
            0.0,
        ));
        scenarios.push(calm(
            &format!("{machines} machines, 50 ms"),
            machines,
            WAN,
            0.0,
        ));
        scenarios.push(calm(
            &format!("{machines} machines, 50 ms, 1 % loss"),
            machines,
            WAN,
            0.01,
        ));
    }
    scenarios
}

fn calm(name: &str, machines: usize, latency: Latency, loss: f64) -> Scenario {
    Scenario {
        name: name.to_owned(),
        machines,
        latency,
        loss,
        disk: Disk::default(),
        workload: Workload {
            changes: 200,
            observations: 50,
            deletes: 0,
            keys: 200,
            bytes: 200,
            rows: 2,
        },
        faults: Vec::new(),
        clock_skew: Duration::from_millis(50),
        duration: Duration::from_secs(22),
        patience: Duration::from_secs(60),
        seed: 1,
    }
}

/// A short run with every fault. The seed decides where, when and how many.
pub fn chaos(machines: usize, seed: u64) -> Scenario {
    let mut rng = SmallRng::seed_from_u64(seed);
    let seconds = 24;
    let faults = (0..rng.random_range(2..8))
        .map(|_| fault(machines, seconds, &mut rng))
        .collect();
    let latency = match rng.random_range(0..3) {
        0 => LAN,
        1 => WAN,
        _ => Latency::Regions {
            regions: 3,
            near: Duration::from_micros(300),
            far: Duration::from_millis(120),
        },
    };
    Scenario {
        name: format!("chaos {seed}"),
        machines,
        latency,
        loss: [0.0, 0.01, 0.05][rng.random_range(0..3)],
        disk: Disk::default(),
        workload: Workload {
            changes: rng.random_range(20..80),
            observations: 30,
            deletes: 15,
            keys: rng.random_range(1..10),
            bytes: [8, 200, 5_000][rng.random_range(0..3)],
            rows: 3,
        },
        faults,
        clock_skew: Duration::from_millis([0, 200, 90_000][rng.random_range(0..3)]),
        duration: Duration::from_secs(seconds),
        patience: Duration::from_secs(120),
        seed,
    }
}

fn fault(machines: usize, seconds: u64, rng: &mut SmallRng) -> Fault {
    let mut millis = |range: std::ops::Range<u64>| Duration::from_millis(rng.random_range(range));
    let at = millis(2_000..seconds * 1_000);
    let lasts = millis(100..20_000);
    let machine = rng.random_range(0..machines);
    match rng.random_range(0..10) {
        0..3 => Fault::Partition {
            at,
            lasts,
            share: rng.random_range(10..=50),
        },
        3..6 => Fault::Crash {
            at,
            lasts,
            machine,
            power: rng.random(),
        },
        6 => Fault::Join {
            at,
            machines: rng.random_range(1..3),
        },
        7 => Fault::Leave { at, machine },
        _ => Fault::ClockJump {
            at,
            machine,
            by_ms: rng.random_range(-3_600_000..3_600_000),
        },
    }
}
