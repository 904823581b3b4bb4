//! Waits between retries: doubling, jittered and bounded. All retries use this.

use std::time::Duration;

/// Waits that start with `first` and double up to `limit`. Each is shortened at random by up to
/// half, so that many machines do not retry at the same time.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, limit: Duration) -> Self {
        Self {
            first,
            limit,
            next: first,
        }
    }

    /// The next wait. `random` is between 0 and 1, and 1 shortens it most.
    pub(crate) fn wait(&mut self, random: f64) -> Duration {
        let wait = self.next.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0);
        self.next = (self.next * 2).min(self.limit);
        wait
    }

    /// Starts again with the first wait, after a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let waits: Vec<u64> = (0..4).map(|_| backoff.wait(0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5]);
        backoff.reset();
        assert_eq!(backoff.wait(1.0), Duration::from_millis(500));
    }
}
