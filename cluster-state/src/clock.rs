//! Time: the wall clock as a parameter, and the hybrid logical clock that stamps intents.
//!
//! A stamp has 48 bits of milliseconds and a 16-bit counter. It is above every stamp seen before,
//! so a write that follows a read wins whatever the wall clocks show. Clocks decide only between
//! truly concurrent writes.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::id::Actor;

/// A stamp further ahead of our wall clock than this is kept and relayed, but not active.
pub const MAX_AHEAD_MS: u64 = 60_000;

/// The year 3084. This limit keeps stamps within SQLite's integers whatever a clock shows.
const MAX_MS: u64 = 1 << 45;

/// The wall clock.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Milliseconds since 1970. Can jump in either direction.
    fn now_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            })
    }
}

/// When and by which actor an intent was written. Totally ordered by time, then actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// Hybrid time: milliseconds << 16 | counter.
    pub hlc: u64,
    /// The writer.
    pub actor: Actor,
}

impl Stamp {
    /// Milliseconds since 1970 by the writer's hybrid clock.
    pub fn ms(&self) -> u64 {
        self.hlc >> 16
    }
}

/// The hybrid logical clock: the highest stamp issued or seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Hlc {
    last: u64,
}

impl Hlc {
    /// Continues from a stamp read from disk.
    pub(crate) fn starting_at(last: u64) -> Self {
        Self { last }
    }

    /// Issues the next stamp. A full counter overflows into the milliseconds, which keeps the
    /// order.
    pub(crate) fn tick(&mut self, now_ms: u64) -> u64 {
        self.last = self.last.saturating_add(1).max(now_ms.min(MAX_MS) << 16);
        self.last
    }

    /// Notes a stamp that was accepted.
    pub(crate) fn observe(&mut self, hlc: u64) {
        self.last = self.last.max(hlc);
    }

    /// Returns the highest stamp so far.
    pub(crate) fn last(self) -> u64 {
        self.last
    }
}

/// Reports whether a stamp is too far ahead of the wall clock to be accepted.
pub(crate) fn too_far_ahead(hlc: u64, now_ms: u64) -> bool {
    hlc >> 16 > now_ms.saturating_add(MAX_AHEAD_MS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hlc_stamps_grow_whatever_the_clock_does(steps in prop::collection::vec((0u64..1 << 42, any::<bool>()), 1..60)) {
            let mut hlc = Hlc::default();
            let mut last = 0;
            for (value, observe) in steps {
                if observe {
                    hlc.observe(value << 16);
                    last = last.max(value << 16);
                } else {
                    let stamp = hlc.tick(value);
                    prop_assert!(stamp > last);
                    prop_assert!(stamp >> 16 >= value);
                    last = stamp;
                }
            }
        }
    }

    #[test]
    fn hlc_stays_monotone_when_clock_steps_back() {
        let mut hlc = Hlc::starting_at(3_600_000 << 16);
        let first = hlc.tick(10);
        let second = hlc.tick(11);
        assert!(first > 3_600_000 << 16 && second > first);
    }

    #[test]
    fn too_far_ahead_starts_at_sixty_seconds() {
        assert!(!too_far_ahead(61_000 << 16, 1_000));
        assert!(too_far_ahead(61_001 << 16, 1_000));
    }
}
