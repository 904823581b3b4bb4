//! Which connections are dialled when. Each dial is a login on a machine, so as few as possible are
//! started: one, then one more each time that one fails or takes too long, and never more than four
//! at a time. The first that succeeds wins.

use std::future::Future;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep_until};

/// When a further connection is dialled while the earlier ones have not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// How long the first one is alone.
    pub(super) head_start: Duration,
    /// Time between any two further ones.
    pub(super) stagger: Duration,
    /// Most dials at a time.
    pub(super) at_most: usize,
    /// After this long, no further dial is started: hundreds of dead machines must not keep the
    /// user waiting for minutes.
    pub(super) give_up: Duration,
}

impl Pace {
    /// For connections of which none is known to work. A warm connection answers within
    /// milliseconds, so 300 ms do not start a second login where the first machine is up.
    pub(super) const fn cold() -> Self {
        Self {
            head_start: Duration::from_millis(300),
            stagger: Duration::from_millis(300),
            at_most: 4,
            give_up: Duration::from_secs(30),
        }
    }

    /// For a first connection that worked the last time: a login over a slow line or with a
    /// hardware key takes a second or two, and should stay the only one.
    pub(super) const fn warm() -> Self {
        Self {
            head_start: Duration::from_secs(2),
            ..Self::cold()
        }
    }
}

/// How a race ended without a winner.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost<E> {
    /// The failures, with the index of each, in the order of the indices.
    pub(super) failures: Vec<(usize, E)>,
}

/// The winner of a race.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Won<T, E> {
    pub(super) index: usize,
    pub(super) value: T,
    /// What had failed by then, with the index of each, in the order of the indices.
    pub(super) failures: Vec<(usize, E)>,
}

/// Dials the connections 0 to `count - 1` in this order until one answers. The dials that are still
/// under way then are dropped.
pub(super) async fn race<T, E, F>(
    count: usize,
    pace: &Pace,
    dial: impl Fn(usize) -> F,
) -> Result<Won<T, E>, Lost<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let start = Instant::now();
    let mut under_way = FuturesUnordered::new();
    let mut failures: Vec<(usize, E)> = Vec::new();
    let mut next = 0;
    loop {
        let more = next < count && start.elapsed() < pace.give_up;
        if more && under_way.len() < pace.at_most {
            let (index, result) = (next, dial(next));
            under_way.push(async move { (index, result.await) });
            next += 1;
        }
        if under_way.is_empty() {
            failures.sort_by_key(|(index, _)| *index);
            return Err(Lost { failures });
        }
        let wait = if next == 1 {
            pace.head_start
        } else {
            pace.stagger
        };
        let room = next < count && under_way.len() < pace.at_most;
        tokio::select! {
            Some((index, result)) = under_way.next() => match result {
                Ok(value) => {
                    failures.sort_by_key(|(index, _)| *index);
                    return Ok(Won { index, value, failures });
                }
                // The next one is dialled immediately.
                Err(error) => failures.push((index, error)),
            },
            () = sleep_until(Instant::now() + wait), if room => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::time::sleep;

    use super::*;

    /// What a connection does: its answer after so many milliseconds.
    type Script = (u64, Result<(), &'static str>);

    const DEAD: Script = (20_000, Err("no answer"));
    const REFUSES: Script = (1, Err("refused"));

    /// When each connection was dialled (milliseconds), who won and when, and most dials at a time.
    async fn run(pace: Pace, scripts: &[Script]) -> (Vec<u128>, Option<usize>, u128, usize) {
        let start = Instant::now();
        let dialled = RefCell::new(Vec::new());
        let (now, most) = (Cell::new(0_usize), Cell::new(0));
        struct Ended<'a>(&'a Cell<usize>);
        impl Drop for Ended<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        let result = race(scripts.len(), &pace, |index| {
            dialled.borrow_mut().push(start.elapsed().as_millis());
            now.set(now.get() + 1);
            most.set(most.get().max(now.get()));
            let (ended, (after, answer)) = (Ended(&now), scripts[index]);
            async move {
                let _ended = ended;
                sleep(Duration::from_millis(after)).await;
                answer
            }
        })
        .await;
        let winner = result.ok().map(|won| won.index);
        (
            dialled.take(),
            winner,
            start.elapsed().as_millis(),
            most.get(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn race_with_fast_first_dials_no_other() {
        let (dialled, winner, _, _) = run(Pace::cold(), &[(200, Ok(())); 20]).await;
        assert_eq!((dialled, winner), (vec![0], Some(0)));
        let (dialled, winner, _, _) = run(Pace::warm(), &[(1_900, Ok(())); 20]).await;
        assert_eq!((dialled, winner), (vec![0], Some(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn race_with_silent_first_staggers_the_others() {
        let scripts = [DEAD, DEAD, (5, Ok(()))];
        let (dialled, winner, _, _) = run(Pace::cold(), &scripts).await;
        assert_eq!((dialled, winner), (vec![0, 300, 600], Some(2)));
        let (dialled, winner, _, _) = run(Pace::warm(), &scripts).await;
        assert_eq!((dialled, winner), (vec![0, 2_000, 2_300], Some(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn race_after_failure_dials_the_next_immediately() {
        let scripts = [REFUSES, REFUSES, (5, Ok(()))];
        let (dialled, winner, _, most) = run(Pace::warm(), &scripts).await;
        assert_eq!((dialled, winner, most), (vec![0, 1, 2], Some(2), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn race_with_many_silent_dials_at_most_four_at_a_time() {
        let mut scripts = vec![DEAD; 20];
        scripts[19] = (5, Ok(()));
        let (dialled, winner, _, most) = run(Pace::cold(), &scripts).await;
        assert_eq!(winner, None, "it gave up before the last one");
        assert_eq!(most, 4);
        assert_eq!(dialled.len(), 8, "two rounds of 20 s start within 30 s");
    }

    #[tokio::test(start_paused = true)]
    async fn race_without_winner_returns_all_failures_in_order() {
        let pace = Pace::cold();
        let slow_first = [(50, Err("a")), (1, Err("b"))];
        let lost = race(2, &pace, |index: usize| async move {
            let (after, answer): Script = slow_first[index];
            sleep(Duration::from_millis(after)).await;
            answer
        })
        .await
        .unwrap_err();
        assert_eq!(lost.failures, [(0, "a"), (1, "b")]);
    }
}
