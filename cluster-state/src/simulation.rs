//! A discrete-event simulator of whole clusters: virtual time, one queue of events, one seeded
//! source of chance.
//!
//! The machines run the real `State`, `session::Core`, `local::write` and `local::publish`; what is
//! simulated is what lies around them: the network (`network`), the disk and its group commit, wall
//! clocks, crashes, members that come and go. The same scenario gives the same report, to the last
//! figure, on every run.
//!
//! What is left out: processor time, the bandwidth cap, and finding out who is alive (sessions with
//! a machine that crashed end at once; those across a partition end after 15 s of silence, as in
//! the driver).

use std::time::Duration;

mod check;
mod faults;
mod machine;
mod network;
mod report;
mod scenarios;
mod track;
mod world;

pub use network::Latency;
pub use report::{Percentiles, Report};
pub use scenarios::{chaos, standard_scenarios};

/// What is to happen. Everything else follows from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// For people.
    pub name: String,
    /// Machines at the start, 1 to 65,536. They know each other and have exchanged everything.
    pub machines: usize,
    /// How long a frame takes.
    pub latency: Latency,
    /// Share of the TCP segments that are lost, 0 to below 1.
    pub loss: f64,
    /// The machines' disks.
    pub disk: Disk,
    /// What people and machines write.
    pub workload: Workload,
    /// What goes wrong, in any order.
    pub faults: Vec<Fault>,
    /// Wall clocks are off by up to this, either way.
    pub clock_skew: Duration,
    /// Changes and faults end here. They begin after two seconds, when all sessions are there.
    pub duration: Duration,
    /// How long after that the machines may take to agree.
    pub patience: Duration,
    /// Of everything that is left to chance.
    pub seed: u64,
}

/// How long commits take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disk {
    /// Median of a durable commit.
    pub fsync: Duration,
    /// Longest durable commit.
    pub slowest: Duration,
    /// Every other commit.
    pub write: Duration,
}

impl Default for Disk {
    /// A data-centre SSD: 0.2 ms, at most 2.4 ms; 20 µs without fsync.
    fn default() -> Self {
        Self {
            fsync: Duration::from_micros(200),
            slowest: Duration::from_micros(2_400),
            write: Duration::from_micros(20),
        }
    }
}

/// Changes, spread evenly at random over the duration and over the machines that are up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// How many calls of `write` and `publish` in all.
    pub changes: usize,
    /// Of 100 changes: how many are observations that a machine publishes of itself.
    pub observations: u32,
    /// Of 100 changes: how many are deletes. The rest are writes of intent.
    pub deletes: u32,
    /// Intents are written to this many keys: few make conflicts, at least 1.
    pub keys: usize,
    /// Bytes of each value.
    pub bytes: usize,
    /// Observations that each machine has from the start.
    pub rows: usize,
}

/// Something that goes wrong, or at least changes, at a time after the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The machines fall into two parts that cannot reach each other.
    Partition {
        /// When.
        at: Duration,
        /// For how long.
        lasts: Duration,
        /// Of 100 machines: how many are on the smaller side, picked at random.
        share: u32,
    },
    /// A machine stops and comes back as a new incarnation.
    Crash {
        /// When.
        at: Duration,
        /// For how long.
        lasts: Duration,
        /// Counted round the machines.
        machine: usize,
        /// What was not fsynced is lost, too.
        power: bool,
    },
    /// New, empty machines.
    Join {
        /// When.
        at: Duration,
        /// How many.
        machines: usize,
    },
    /// A machine stops for ever and is no member any more.
    Leave {
        /// When.
        at: Duration,
        /// Counted round the machines.
        machine: usize,
    },
    /// A wall clock jumps.
    ClockJump {
        /// When.
        at: Duration,
        /// Counted round the machines.
        machine: usize,
        /// Milliseconds, either way.
        by_ms: i64,
    },
}

impl Fault {
    fn at(&self) -> Duration {
        match self {
            Self::Partition { at, .. }
            | Self::Crash { at, .. }
            | Self::Join { at, .. }
            | Self::Leave { at, .. }
            | Self::ClockJump { at, .. } => *at,
        }
    }
}

/// Runs a scenario to its end. The report says what went wrong, if anything did.
pub fn run(scenario: &Scenario) -> Report {
    world::World::new(scenario).run()
}

/// Virtual microseconds.
fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
