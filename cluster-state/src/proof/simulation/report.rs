//! The result of a run, for users and for benchmarks.

use std::fmt;
use std::time::Duration;

use super::Scenario;

/// A distribution, in microseconds of virtual time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Percentiles {
    /// Number of samples.
    pub count: usize,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Maximum.
    pub max: u64,
}

impl Percentiles {
    pub(super) fn of(mut samples: Vec<u64>) -> Self {
        samples.sort_unstable();
        let pick = |share| Self::pick(&samples, share).unwrap_or(0);
        Self {
            count: samples.len(),
            p50: pick(0.5),
            p90: pick(0.9),
            p99: pick(0.99),
            max: pick(1.0),
        }
    }

    /// Returns the smallest of ascending samples that at least this share of them does not exceed.
    pub(super) fn pick(sorted: &[u64], share: f64) -> Option<u64> {
        let rank = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied()
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1_000.0;
        write!(
            f,
            "p50 {:.1} p90 {:.1} p99 {:.1} max {:.1} ms",
            ms(self.p50),
            ms(self.p90),
            ms(self.p99),
            ms(self.max)
        )
    }
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The input of the run, with which it can be repeated.
    pub scenario: Scenario,
    /// Changes that were committed where they were made.
    pub changes: usize,
    /// Time from a change's commit until it is visible, over all pairs of a change and another
    /// machine that was up.
    pub visible: Percentiles,
    /// Time from a change's commit until it is visible on half of the other machines, over all
    /// changes.
    pub half: Percentiles,
    /// The same for 99 of 100 machines.
    pub most: Percentiles,
    /// The same for all machines.
    pub all: Percentiles,
    /// Frames with changes, for each change and machine.
    pub messages: f64,
    /// Bytes of these frames, for each change and machine.
    pub bytes: f64,
    /// Frames that only announce that nothing is missing, for each change and machine.
    pub watermarks: f64,
    /// All other bytes (greetings, the report of each second, digests), for each machine and
    /// second.
    pub control: f64,
    /// Time from the end of the faults until all machines agreed. `None` if they never did.
    pub settled: Option<Duration>,
    /// Sessions that were opened.
    pub sessions: u64,
    /// Commits on all machines.
    pub commits: u64,
    /// Simulated events.
    pub events: u64,
    /// What went wrong. Empty if all machines have the same records, and the right ones, and miss
    /// nothing.
    pub failures: Vec<String>,
}

impl Report {
    /// Reports whether nothing went wrong.
    pub fn is_sound(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario {
            name,
            machines,
            seed,
            ..
        } = &self.scenario;
        writeln!(
            f,
            "{name}: {machines} machines, {} changes, seed {seed}",
            self.changes
        )?;
        writeln!(f, "  visible on a machine       {}", self.visible)?;
        writeln!(f, "  on half of the machines    {}", self.half)?;
        writeln!(f, "  on 99 % of the machines    {}", self.most)?;
        writeln!(f, "  on all machines            {}", self.all)?;
        writeln!(
            f,
            "  a change and machine       {:.2} messages of {:.0} bytes in all, {:.2} watermarks alone",
            self.messages, self.bytes, self.watermarks
        )?;
        writeln!(
            f,
            "  a machine and second       {:.0} bytes of control",
            self.control
        )?;
        match self.settled {
            Some(settled) => writeln!(
                f,
                "  all agreed after           {:.1} s",
                settled.as_secs_f64()
            )?,
            None => writeln!(f, "  all agreed after           never")?,
        }
        writeln!(
            f,
            "  simulated                  {} sessions, {} commits, {} events",
            self.sessions, self.commits, self.events
        )?;
        if !self.failures.is_empty() {
            writeln!(f, "  FAILED, {:?}", self.scenario)?;
        }
        self.failures
            .iter()
            .try_for_each(|failure| writeln!(f, "  - {failure}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_samples() {
        let some = Percentiles::of((1..=200).rev().collect());
        assert_eq!(
            some,
            Percentiles {
                count: 200,
                p50: 100,
                p90: 180,
                p99: 198,
                max: 200
            }
        );
        assert_eq!(
            Percentiles::of(vec![7]),
            Percentiles {
                count: 1,
                p50: 7,
                p90: 7,
                p99: 7,
                max: 7
            }
        );
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }
}
