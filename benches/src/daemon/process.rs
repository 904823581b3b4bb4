//! What a process costs, by the kernel's accounts: processor time and memory.

use std::time::{Duration, Instant};

use anyhow::Context as _;

/// The processor time of a process at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    at: Instant,
    ticks: u64,
}

impl Spent {
    /// Reads it: user and system time of all threads, also of those that ended. The kernel gives
    /// it in ticks, of which a second usually has 100.
    pub(super) fn read(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(Self {
            at: Instant::now(),
            ticks: ticks(&stat).with_context(|| format!("no times in {path}"))?,
        })
    }

    /// The processor time from an earlier moment to this one.
    pub(super) fn since(&self, earlier: &Self) -> Usage {
        let ticks = (self.ticks - earlier.ticks) as f64;
        let seconds = ticks / rustix::param::clock_ticks_per_second() as f64;
        Usage {
            elapsed: self.at - earlier.at,
            processor: Duration::from_secs_f64(seconds),
        }
    }
}

/// Processor time over a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    elapsed: Duration,
    pub(super) processor: Duration,
}

impl Usage {
    /// In per cent of one core.
    pub(super) fn percent(&self) -> f64 {
        100.0 * self.processor.as_secs_f64() / self.elapsed.as_secs_f64()
    }
}

/// `utime` and `stime`, fields 14 and 15 of proc_pid_stat(5). Field 2 is the program's name in
/// parentheses, which can contain spaces and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let (_, from_field_3) = stat.rsplit_once(") ")?;
    let mut times = from_field_3.split_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some(user + system)
}

/// The memory of a process in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// All resident pages.
    pub(super) resident: u64,
    /// The same, but a page that several processes share counts as a part for each: the sum over
    /// processes of one program counts its code once.
    pub(super) proportional: u64,
}

impl Memory {
    /// Reads it.
    pub(super) fn read(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let rollup =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let bytes = |name| bytes(&rollup, name).with_context(|| format!("no {name} in {path}"));
        Ok(Self {
            resident: bytes("Rss:")?,
            proportional: bytes("Pss:")?,
        })
    }
}

fn bytes(rollup: &str, name: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let rest = "S 1 7 7 0 -1 4194560 900 0 2 0 34 12 0 0 20 0 5 0 77 1000 200";
        assert_eq!(ticks(&format!("7 (ucd) {rest}")), Some(46));
        assert_eq!(ticks(&format!("7 (a) b (c) {rest}")), Some(46));
        assert_eq!(ticks("7 (ucd) S 1"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let rollup =
            "55d0-7ffe ---p 0 00:00 0 [rollup]\nRss:   20 kB\nPss:   12 kB\nPss_Dirty: 8 kB\n";
        assert_eq!(bytes(rollup, "Rss:"), Some(20 * 1_024));
        assert_eq!(bytes(rollup, "Pss:"), Some(12 * 1_024));
        assert_eq!(bytes(rollup, "Swap:"), None);
    }

    #[test]
    fn usage_is_in_per_cent_of_a_core() {
        let usage = Usage {
            elapsed: Duration::from_secs(20),
            processor: Duration::from_millis(500),
        };
        assert!((usage.percent() - 2.5).abs() < 1e-9);
    }
}
