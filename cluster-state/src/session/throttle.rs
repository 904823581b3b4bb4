//! The bandwidth limit: a token bucket for all sessions of a store together. Intents, watermarks
//! and greetings are sent even when the bucket is empty, but they are charged to it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Bytes that can be sent in one burst after a pause: this many milliseconds of the rate.
const BURST_MS: u64 = 250;

#[derive(Debug)]
pub(crate) struct Throttle {
    /// Bytes per second. 0 means no limit.
    rate: u64,
    level: Mutex<Level>,
}

#[derive(Debug)]
struct Level {
    /// Can be negative. Then nothing is sent until it no longer is.
    tokens: i64,
    at: Instant,
}

impl Throttle {
    pub(crate) fn new(rate: u64, now: Instant) -> Self {
        Self {
            rate,
            level: Mutex::new(Level {
                tokens: Self::burst(rate),
                at: now,
            }),
        }
    }

    fn burst(rate: u64) -> i64 {
        (rate / 1_000 * BURST_MS).max(64 * 1024) as i64
    }

    /// Returns how long to wait before sending. `None` means now.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        if self.rate == 0 {
            return None;
        }
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let us = now.saturating_duration_since(level.at).as_micros() as u64;
        let earned = us.saturating_mul(self.rate) / 1_000_000;
        if earned > 0 {
            level.tokens = level
                .tokens
                .saturating_add(earned as i64)
                .min(Self::burst(self.rate));
            level.at = now;
        }
        if level.tokens >= 0 {
            return None;
        }
        let missing = level.tokens.unsigned_abs();
        Some(Duration::from_micros(
            missing.saturating_mul(1_000_000) / self.rate + 1,
        ))
    }

    pub(crate) fn charge(&self, bytes: usize) {
        if self.rate > 0 {
            let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
            level.tokens = level.tokens.saturating_sub(bytes as i64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttle_sends_at_most_rate_plus_one_burst() {
        let start = Instant::now();
        let throttle = Throttle::new(1_000_000, start);
        let mut now = start;
        let mut sent = 0;
        while now < start + Duration::from_secs(10) {
            match throttle.wait(now) {
                None => {
                    throttle.charge(16_384);
                    sent += 16_384;
                }
                Some(wait) => now += wait,
            }
        }
        assert!((10_000_000..10_300_000).contains(&sent), "{sent}");
    }

    #[test]
    fn throttle_without_limit_never_waits() {
        let now = Instant::now();
        let throttle = Throttle::new(0, now);
        throttle.charge(usize::MAX);
        assert_eq!(throttle.wait(now), None);
    }
}
