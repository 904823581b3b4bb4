//! A discrete-event simulator of whole clusters, with virtual time, one queue of events, and one
//! seeded random source.
//!
//! The machines run the real `State`, `session::Core`, `local::write` and `local::publish`. The
//! simulator replaces their surroundings: the network (`network`), the disk with its group commit,
//! wall clocks, crashes, and members that join and leave. The same scenario gives exactly the same
//! report on every run.
//!
//! Processor time, the bandwidth limit and the failure detector are left out. Sessions with a
//! crashed machine end immediately. Sessions across a partition end after 15 s of silence, as in
//! the driver.

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

/// The input of a run, which determines everything else.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Name for reports.
    pub name: String,
    /// Machines at the start, 1 to 65,536. They know each other and have exchanged everything.
    pub machines: usize,
    /// How long a frame takes.
    pub latency: Latency,
    /// Share of the TCP segments that are lost, from 0 to below 1.
    pub loss: f64,
    /// The machines' disks.
    pub disk: Disk,
    /// What users and machines write.
    pub workload: Workload,
    /// The faults, in any order.
    pub faults: Vec<Fault>,
    /// Maximum error of the wall clocks, in either direction.
    pub clock_skew: Duration,
    /// Time until changes and faults end. They begin after two seconds, when all sessions are
    /// open.
    pub duration: Duration,
    /// How long the machines can take to agree after that.
    pub patience: Duration,
    /// Seed of all random choices.
    pub seed: u64,
}

/// How long commits take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disk {
    /// Median of a durable commit.
    pub fsync: Duration,
    /// Longest durable commit.
    pub slowest: Duration,
    /// Any other commit.
    pub write: Duration,
}

impl Default for Disk {
    /// An SSD in a data centre: 0.2 ms, at most 2.4 ms; 20 µs without fsync.
    fn default() -> Self {
        Self {
            fsync: Duration::from_micros(200),
            slowest: Duration::from_micros(2_400),
            write: Duration::from_micros(20),
        }
    }
}

/// Changes, spread at random over the duration and over the machines that are up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Total number of calls of `write` and `publish`.
    pub changes: usize,
    /// Percentage of changes that are observations of a machine about itself.
    pub observations: u32,
    /// Percentage of changes that are deletes. The remaining changes are intents.
    pub deletes: u32,
    /// Number of keys for intents, at least 1. Few keys make conflicts.
    pub keys: usize,
    /// Bytes of each value.
    pub bytes: usize,
    /// Observations that each machine has from the start.
    pub rows: usize,
}

/// A fault or another event at a time after the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The machines split into two sides that cannot reach each other.
    Partition {
        at: Duration,
        /// Duration.
        lasts: Duration,
        /// Percentage of machines on the smaller side, picked at random.
        share: u32,
    },
    /// A machine stops and returns as a new incarnation.
    Crash {
        at: Duration,
        /// Duration.
        lasts: Duration,
        /// Index of the machine, modulo their number.
        machine: usize,
        /// Whether everything that was not fsynced is lost as well.
        power: bool,
    },
    /// New, empty machines join.
    Join {
        at: Duration,
        /// Number of machines.
        machines: usize,
    },
    /// A machine stops forever and is no longer a member.
    Leave {
        at: Duration,
        /// Index of the machine, modulo their number.
        machine: usize,
    },
    /// A wall clock jumps.
    ClockJump {
        at: Duration,
        /// Index of the machine, modulo their number.
        machine: usize,
        /// Milliseconds, in either direction.
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

/// Runs a scenario to its end. The report lists what went wrong.
pub fn run(scenario: &Scenario) -> Report {
    world::World::new(scenario).run()
}

/// Converts to virtual microseconds.
fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
