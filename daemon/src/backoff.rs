//! The one way to wait before trying again: doubling, jittered, bounded.

use std::time::Duration;

/// Waits of `first`, twice that, … up to `limit`, each shortened at random by up to half so that
/// many do not try at once.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins with `first`.
    pub(crate) fn new(first: Duration, limit: Duration) -> Self {
        Self {
            first,
            limit,
            next: first,
        }
    }

    /// The next wait; `random` is in 0..=1.
    pub(crate) fn wait(&mut self, random: f64) -> Duration {
        let wait = self.next.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0);
        self.next = (self.next * 2).min(self.limit);
        wait
    }

    /// After a success: begin again with the first wait.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_to_its_limit_and_resets() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let waits: Vec<u64> = (0..4).map(|_| backoff.wait(0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5]);
        backoff.reset();
        assert_eq!(backoff.wait(1.0), Duration::from_millis(500));
    }
}
