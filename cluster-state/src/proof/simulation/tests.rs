//! Small clusters, many seeds and every fault, and tests of the simulator itself.

use std::time::Duration;

use super::*;

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn quiet(machines: usize, latency: Latency) -> Scenario {
    Scenario {
        name: "quiet".to_owned(),
        machines,
        latency,
        loss: 0.0,
        disk: Disk::default(),
        workload: Workload {
            changes: 30,
            observations: 50,
            deletes: 0,
            keys: 30,
            bytes: 100,
            rows: 2,
        },
        faults: Vec::new(),
        clock_skew: Duration::ZERO,
        duration: Duration::from_secs(12),
        patience: Duration::from_secs(30),
        seed: 7,
    }
}

fn sound(scenario: &Scenario) -> Report {
    let report = run(scenario);
    assert!(report.is_sound(), "{report}");
    report
}

#[test]
fn simulation_gives_same_report_for_same_seed() {
    let scenario = chaos(6, 3);
    let report = run(&scenario);
    assert_eq!(report, run(&scenario));
    let other = Scenario {
        seed: 4,
        ..scenario
    };
    assert_ne!(report.events, run(&other).events);
}

#[test]
fn simulation_agrees_after_chaos_among_three_to_five() {
    for seed in 0..40 {
        sound(&chaos(3 + seed as usize % 3, seed));
    }
}

#[test]
fn simulation_agrees_after_chaos_among_ten() {
    for seed in 100..112 {
        sound(&chaos(10, seed));
    }
}

#[test]
fn simulation_agrees_after_chaos_among_thirty() {
    for seed in 200..203 {
        sound(&chaos(30, seed));
    }
}

#[test]
fn simulation_change_takes_half_a_round_trip_and_two_commits() {
    let round_trip = millis(50);
    let report = sound(&quiet(5, Latency::Lan { round_trip }));
    assert_eq!(report.changes, 30);
    assert_eq!(report.visible.count, 30 * 4);
    // The measurement starts at its own commit. The receiver's commit takes 20 us.
    assert_eq!(report.visible.p50, 25_020);
    assert!(report.visible.max < 60_000, "{report}");
    assert!(report.messages >= 0.8, "{report}");
}

#[test]
fn simulation_delivers_lost_segments_later() {
    let latency = Latency::Wan {
        round_trip: millis(50),
    };
    let without = sound(&quiet(3, latency));
    let with = sound(&Scenario {
        loss: 0.3,
        ..quiet(3, latency)
    });
    assert!(
        with.visible.p90 > without.visible.p90 + 100_000,
        "{without}{with}"
    );
}

#[test]
fn simulation_loses_nothing_in_a_partition() {
    let fault = Fault::Partition {
        at: millis(3_000),
        lasts: millis(6_000),
        share: 50,
    };
    let scenario = Scenario {
        faults: vec![fault],
        ..quiet(
            8,
            Latency::Lan {
                round_trip: millis(1),
            },
        )
    };
    let report = sound(&scenario);
    assert!(report.visible.max > 1_000_000, "{report}");
    assert_eq!(report.visible.count, 30 * 7);
}

#[test]
fn simulation_relays_changes_in_a_large_cluster() {
    let scenario = Scenario {
        workload: Workload {
            changes: 5,
            ..quiet(
                3,
                Latency::Lan {
                    round_trip: millis(1),
                },
            )
            .workload
        },
        duration: Duration::from_secs(4),
        ..quiet(
            70,
            Latency::Lan {
                round_trip: millis(10),
            },
        )
    };
    let report = sound(&scenario);
    assert_eq!(report.visible.count, 5 * 69);
    assert!(
        report.visible.p50 > 5_020 && report.visible.max < 60_000,
        "{report}"
    );
    assert!((0.9..9.5).contains(&report.messages), "{report}");
}

#[test]
fn simulation_changes_overlay_on_join_and_leave() {
    let faults = vec![
        Fault::Join {
            at: millis(3_000),
            machines: 3,
        },
        Fault::Leave {
            at: millis(4_000),
            machine: 5,
        },
        Fault::Leave {
            at: millis(4_500),
            machine: 65,
        },
        Fault::Crash {
            at: millis(4_000),
            lasts: millis(2_000),
            machine: 9,
            power: true,
        },
    ];
    let base = quiet(
        64,
        Latency::Lan {
            round_trip: millis(10),
        },
    );
    let workload = Workload {
        changes: 6,
        ..base.workload
    };
    sound(&Scenario {
        faults,
        workload,
        duration: Duration::from_secs(6),
        ..base
    });
}

#[test]
fn simulation_without_agreement_reports_its_seed() {
    let fault = Fault::Crash {
        at: millis(11_000),
        lasts: millis(60_000),
        machine: 0,
        power: false,
    };
    let scenario = Scenario {
        faults: vec![fault],
        patience: Duration::ZERO,
        ..quiet(
            3,
            Latency::Lan {
                round_trip: Duration::from_secs(8),
            },
        )
    };
    let report = run(&scenario);
    assert!(!report.is_sound());
    let text = report.to_string();
    assert!(
        text.contains("no agreement") && text.contains("seed: 7"),
        "{text}"
    );
}

#[test]
fn simulation_collects_acknowledged_deletes() {
    let base = quiet(
        4,
        Latency::Lan {
            round_trip: millis(1),
        },
    );
    let workload = Workload {
        changes: 60,
        observations: 0,
        deletes: 40,
        keys: 4,
        ..base.workload
    };
    let report = sound(&Scenario { workload, ..base });
    assert!(report.commits > 60 * 4, "{report}");
}
