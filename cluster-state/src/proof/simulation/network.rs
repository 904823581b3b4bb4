//! The network: how long a frame takes, and what TCP makes of a lost segment.
//!
//! A session runs over one TCP stream, so nothing is reordered or missing: a lost segment delays
//! everything behind it until it has been sent again. It is sent again
//! - one round trip later, if three segments sent after it have arrived (fast retransmit), as with
//!   a frame of several segments or on a busy stream;
//! - otherwise after the retransmission time-out, a round trip plus 200 ms (Linux' lower bound),
//!   which doubles each time.
//!
//! A small frame on a quiet stream, the usual case here, therefore waits for the full time-out.
//! (Linux' tail loss probe would save a little of it when two segments or more are in transit; it
//! is left out.) Within a partition nothing arrives. Afterwards the back-off must expire first,
//! which takes up to as long as the partition lasted.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::SmallRng;

use super::us;

/// Payload of a segment within WireGuard.
const SEGMENT: usize = 1_360;
/// Linux' TCP_RTO_MIN, in microseconds.
const RTO_MIN: u64 = 200_000;
/// Number of segments after a lost one that inform the sender of the loss.
const DUPLICATES: usize = 3;
/// Bytes in transit at which the sender waits: socket buffers and the session's queue.
const WINDOW: usize = 256 * 1024;
/// The constant part of a wide-area path's latency.
const FLOOR: f64 = 0.9;

/// Round-trip times between machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// The same everywhere, without jitter.
    Lan {
        /// Round trip.
        round_trip: Duration,
    },
    /// The same everywhere, with a long tail: nine tenths are constant, and one tenth is the median
    /// of a log-normal part.
    Wan {
        /// Median round trip.
        round_trip: Duration,
    },
    /// Machines are distributed over regions. Within a region the network is like `Lan`, between
    /// two regions like `Wan`.
    Regions {
        /// Number of regions, at least 1.
        regions: usize,
        /// Round trip within a region.
        near: Duration,
        /// Median round trip between regions.
        far: Duration,
    },
}

/// The path between two machines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    /// Median round trip in microseconds.
    pub(super) round_trip: u64,
    jitter: bool,
}

impl Latency {
    pub(super) fn path(&self, a: usize, b: usize) -> Path {
        match self {
            Self::Lan { round_trip } => Path {
                round_trip: us(*round_trip),
                jitter: false,
            },
            Self::Wan { round_trip } => Path {
                round_trip: us(*round_trip),
                jitter: true,
            },
            Self::Regions { regions, near, .. } if a % regions == b % regions => Path {
                round_trip: us(*near),
                jitter: false,
            },
            Self::Regions { far, .. } => Path {
                round_trip: us(*far),
                jitter: true,
            },
        }
    }
}

impl Path {
    /// Returns the microseconds that a segment takes in one direction.
    pub(super) fn one_way(&self, rng: &mut SmallRng) -> u64 {
        let median = self.round_trip as f64 / 2.0;
        if !self.jitter {
            return median as u64;
        }
        (median * (FLOOR + (1.0 - FLOOR) * normal(rng).exp())) as u64
    }
}

/// Returns a normally distributed number, by Box and Muller.
pub(super) fn normal(rng: &mut SmallRng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

#[derive(Debug)]
struct InFlight {
    frame: Bytes,
    arrives: u64,
    /// Set while a segment is lost and the sender does not know it yet: the number of later
    /// segments that have arrived.
    hole: Option<usize>,
}

/// One direction of a session's connection.
#[derive(Debug, Default)]
pub(super) struct Stream {
    in_flight: VecDeque<InFlight>,
    /// Includes what the receiver has not read yet.
    bytes: usize,
    holes: usize,
    /// Start of the partition that cuts it.
    stalled: Option<u64>,
}

impl Stream {
    /// Reports whether the sender can send another frame.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < WINDOW
    }

    pub(super) fn send(
        &mut self,
        frame: Bytes,
        now: u64,
        path: Path,
        loss: f64,
        rng: &mut SmallRng,
    ) {
        self.bytes += frame.len();
        let segments = frame.len().div_ceil(SEGMENT).max(1);
        let mut arrives = now + path.one_way(rng);
        let mut hole = None;
        let mut arrived = segments;
        if loss > 0.0 {
            for _ in 0..segments {
                if rng.random_bool(loss) {
                    arrived -= 1;
                    hole.get_or_insert(0);
                } else if let Some(after) = &mut hole {
                    *after += 1;
                }
            }
        }
        if self.holes > 0 {
            self.report_holes(arrived, now, path, loss, rng);
        }
        if hole.is_some_and(|after| after >= DUPLICATES) {
            hole = None;
            arrives = again(now + path.round_trip, path, loss, rng);
        } else if hole.is_some() {
            self.holes += 1;
            arrives = again(now + time_out(path), path, loss, rng);
        }
        if self.stalled.is_some() {
            arrives = u64::MAX;
        }
        self.in_flight.push_back(InFlight {
            frame,
            arrives,
            hole,
        });
    }

    /// Later segments have arrived, so the sender learns of the holes before them.
    fn report_holes(
        &mut self,
        arrived: usize,
        now: u64,
        path: Path,
        loss: f64,
        rng: &mut SmallRng,
    ) {
        for frame in &mut self.in_flight {
            let Some(after) = &mut frame.hole else {
                continue;
            };
            *after += arrived;
            if *after >= DUPLICATES {
                frame.hole = None;
                self.holes -= 1;
                let sooner = again(now + path.round_trip, path, loss, rng);
                frame.arrives = frame.arrives.min(sooner);
            }
        }
    }

    /// Returns when the next frame arrives, if one is in transit and not lost.
    pub(super) fn next_arrival(&self) -> Option<u64> {
        self.in_flight
            .front()
            .map(|frame| frame.arrives)
            .filter(|arrives| *arrives < u64::MAX)
    }

    /// Returns the next frame, if it has arrived.
    pub(super) fn receive(&mut self, now: u64) -> Option<Bytes> {
        let frame = self.in_flight.pop_front_if(|frame| frame.arrives <= now)?;
        self.holes -= usize::from(frame.hole.is_some());
        Some(frame.frame)
    }

    /// The receiver has processed a frame.
    pub(super) fn handled(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// A partition starts: nothing in transit arrives.
    pub(super) fn stall(&mut self, now: u64) {
        self.stalled.get_or_insert(now);
        self.in_flight
            .iter_mut()
            .for_each(|frame| frame.arrives = u64::MAX);
    }

    /// The partition ends. Everything is sent again when the back-off has expired.
    pub(super) fn resume(&mut self, now: u64, path: Path, rng: &mut SmallRng) {
        let Some(since) = self.stalled.take() else {
            return;
        };
        let arrives = now + rng.random_range(0..=now - since) + path.one_way(rng);
        self.in_flight
            .iter_mut()
            .for_each(|frame| frame.arrives = arrives);
    }
}

/// The retransmission time-out.
fn time_out(path: Path) -> u64 {
    path.round_trip + RTO_MIN
}

/// Returns when a segment that is sent again at `at` arrives. It can be lost again.
fn again(mut at: u64, path: Path, loss: f64, rng: &mut SmallRng) -> u64 {
    let mut wait = time_out(path);
    while loss > 0.0 && rng.random_bool(loss) {
        at += wait;
        wait *= 2;
    }
    at + path.one_way(rng)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const PATH: Path = Path {
        round_trip: 50_000,
        jitter: false,
    };

    fn arrival(sizes: &[usize], lost: usize) -> u64 {
        // A loss of zero and a loss of almost 1 select the frame that is hit.
        let mut stream = Stream::default();
        let mut rng = SmallRng::seed_from_u64(1);
        for (at, size) in sizes.iter().enumerate() {
            stream.send(Bytes::from(vec![0; *size]), 0, PATH, 0.0, &mut rng);
            if at == lost {
                let frame = stream.in_flight.back_mut().unwrap();
                frame.hole = Some(0);
                frame.arrives = time_out(PATH) + 25_000;
                stream.holes += 1;
            }
        }
        stream.next_arrival().unwrap()
    }

    #[test]
    fn stream_waits_for_time_out_only_when_quiet() {
        assert_eq!(arrival(&[100], 9), 25_000);
        assert_eq!(arrival(&[100], 0), 275_000);
        assert_eq!(arrival(&[100, 100, 100], 0), 275_000);
        assert_eq!(arrival(&[100, 100, 100, 100], 0), 75_000);
        assert_eq!(arrival(&[100, 4_000], 0), 75_000);
    }

    #[test]
    fn stream_delivers_everything_in_order() {
        for seed in 0..20 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut stream = Stream::default();
            for n in 0..50u8 {
                stream.send(
                    Bytes::from(vec![n; 3_000]),
                    u64::from(n),
                    PATH,
                    0.3,
                    &mut rng,
                );
            }
            stream.stall(60);
            assert_eq!(stream.next_arrival(), None);
            stream.resume(70, PATH, &mut rng);
            let mut now = 0;
            for n in 0..50u8 {
                now = now.max(stream.next_arrival().unwrap());
                assert_eq!(stream.receive(now).unwrap()[0], n, "seed {seed}");
            }
            assert_eq!(
                (stream.next_arrival(), stream.holes),
                (None, 0),
                "seed {seed}"
            );
        }
    }

    #[test]
    fn stream_with_full_window_makes_sender_wait() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut stream = Stream::default();
        while stream.has_room() {
            stream.send(Bytes::from(vec![0; 16_384]), 0, PATH, 0.0, &mut rng);
        }
        assert_eq!(stream.in_flight.len(), 16);
        stream.handled(16_384);
        assert!(stream.has_room());
    }
}
