//! One figure: its line, whether it is within its budget, and percentiles.

use std::fmt;
use std::io::Write as _;

/// What a figure must keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Budget {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// Anything: it is measured to be compared.
    Free,
}

/// What another program did in the same run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rival {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    /// The figure divided by the rival's must keep this, too.
    pub(crate) ratio: Budget,
}

/// One measured figure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    /// `BENCH/figure`.
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) budget: Budget,
    pub(crate) rivals: Vec<Rival>,
}

impl Budget {
    /// `None` if anything is allowed.
    fn limit(self) -> Option<f64> {
        match self {
            Self::AtMost(limit) | Self::AtLeast(limit) => Some(limit),
            Self::Free => None,
        }
    }

    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
            Self::Free => true,
        }
    }
}

impl Figure {
    /// A figure without a rival.
    pub(crate) fn new(name: &'static str, value: f64, unit: &'static str, budget: Budget) -> Self {
        Self {
            name,
            value,
            unit,
            budget,
            rivals: Vec::new(),
        }
    }

    fn ratio(rival: &Rival, value: f64) -> f64 {
        value / rival.value
    }

    /// Within the budget, and far enough from the rival.
    pub(crate) fn is_within(&self) -> bool {
        let keeps = |rival: &Rival| rival.ratio.holds(Self::ratio(rival, self.value));
        self.budget.holds(self.value) && self.rivals.iter().all(keeps)
    }

    /// Whether it can be over anything.
    fn has_verdict(&self) -> bool {
        let ratios = self.rivals.iter().map(|rival| rival.ratio);
        ratios
            .chain([self.budget])
            .any(|budget| budget.limit().is_some())
    }

    /// Writes the line to standard output.
    pub(crate) fn report(&self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{self}")?;
        out.flush()?;
        Ok(())
    }
}

/// Three significant digits, or whole numbers from 100 on.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            value,
            unit,
            budget,
            rivals,
        } = self;
        write!(f, "{name} {} {unit}", short(*value))?;
        if let Some(limit) = budget.limit() {
            write!(f, " budget={}", short(limit))?;
        }
        for rival in rivals {
            let ratio = Self::ratio(rival, *value);
            write!(
                f,
                " rival={} rival_value={} ratio={}",
                rival.name,
                short(rival.value),
                short(ratio)
            )?;
        }
        match (self.has_verdict(), self.is_within()) {
            (false, _) => Ok(()),
            (true, true) => f.write_str(" within"),
            (true, false) => f.write_str(" over"),
        }
    }
}

/// The smallest sample that at least `percent` of the samples do not exceed; 0 without samples.
/// Sorts them.
pub(crate) fn percentile(samples: &mut [u64], percent: f64) -> u64 {
    samples.sort_unstable();
    let rank = (percent / 100.0 * samples.len() as f64).ceil() as usize;
    samples.get(rank.max(1) - 1).map_or(0, |sample| *sample)
}

/// p50 and p99 of nanoseconds, in milliseconds.
pub(crate) fn p50_p99_ms(samples: &mut [u64]) -> (f64, f64) {
    (
        percentile(samples, 50.0) as f64 / 1e6,
        percentile(samples, 99.0) as f64 / 1e6,
    )
}

/// One line for the person, on standard error.
pub(crate) fn note(line: &str) {
    // Nobody may be reading.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_sample() {
        let mut samples: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(percentile(&mut samples, 50.0), 50);
        assert_eq!(percentile(&mut samples, 99.0), 99);
        assert_eq!(percentile(&mut samples, 100.0), 100);
        assert_eq!(percentile(&mut [7], 1.0), 7);
        assert_eq!(percentile(&mut [3, 1], 50.0), 1);
        assert_eq!(percentile(&mut [], 50.0), 0);
        assert_eq!(p50_p99_ms(&mut [2_000_000, 1_500_000]), (1.5, 2.0));
    }

    #[test]
    fn a_line_says_figure_budget_and_verdict() {
        let figure = Figure::new("store/write_p50", 1.234, "ms", Budget::AtMost(1.5));
        assert_eq!(
            figure.to_string(),
            "store/write_p50 1.23 ms budget=1.50 within"
        );
        let figure = Figure {
            value: 1.6,
            ..figure
        };
        assert_eq!(
            figure.to_string(),
            "store/write_p50 1.60 ms budget=1.50 over"
        );
    }

    #[test]
    fn a_rival_is_named_and_its_ratio_counts() {
        let rival = Rival {
            name: "etcd",
            value: 1_500.0,
            ratio: Budget::AtLeast(5.0),
        };
        let figure = Figure {
            rivals: vec![rival],
            ..Figure::new("store/writes_64", 6_000.0, "/s", Budget::AtLeast(5_000.0))
        };
        assert_eq!(
            figure.to_string(),
            "store/writes_64 6000 /s budget=5000 rival=etcd rival_value=1500 ratio=4.00 over"
        );
        let figure = Figure {
            value: 7_500.0,
            ..figure
        };
        assert_eq!(
            figure.to_string(),
            "store/writes_64 7500 /s budget=5000 rival=etcd rival_value=1500 ratio=5.00 within"
        );
        assert!(
            !Figure {
                value: 4_999.0,
                rivals: Vec::new(),
                ..figure
            }
            .is_within()
        );
    }

    #[test]
    fn line_shows_all_rivals_and_no_verdict_without_a_budget() {
        let rival = |name, value| Rival {
            name,
            value,
            ratio: Budget::Free,
        };
        let figure = Figure {
            rivals: vec![rival("docker-run", 2.0), rival("swarm", 4.0)],
            ..Figure::new("deploy/first_ended", 3.0, "s", Budget::Free)
        };
        assert_eq!(
            figure.to_string(),
            "deploy/first_ended 3.00 s rival=docker-run rival_value=2.00 ratio=1.50 \
             rival=swarm rival_value=4.00 ratio=0.75"
        );
        let figure = Figure {
            budget: Budget::AtMost(2.6),
            ..figure
        };
        assert_eq!(
            figure.to_string(),
            "deploy/first_ended 3.00 s budget=2.60 rival=docker-run rival_value=2.00 ratio=1.50 \
             rival=swarm rival_value=4.00 ratio=0.75 over"
        );
    }
}
