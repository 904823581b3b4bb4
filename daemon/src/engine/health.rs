//! Decides when a container that was just started is ready. Pure: takes snapshots with the time
//! since the start, and returns verdicts.

use std::time::Duration;

use uc_api::v1;

use super::Container;

/// How long a container without a healthcheck must run, unless the caller sets another time.
pub(crate) const MONITOR: Duration = Duration::from_secs(2);
/// Added to the healthcheck's own limits, for starting the probe and noticing its result.
const SLACK: Duration = Duration::from_secs(5);
/// How long, beyond the monitor period, a container can exit and be started again by the engine.
/// The engine's pauses between restarts double from 100 ms, so this is about seven tries.
const RESTARTS: Duration = Duration::from_secs(10);
/// A container without a healthcheck that neither runs nor has exited (for example, paused by hand)
/// is given up after this time.
const STUCK: Duration = Duration::from_secs(30);

/// A healthcheck's times, with defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HealthLimits {
    /// Time between two probes.
    pub interval: Duration,
    /// Time limit of one probe.
    pub timeout: Duration,
    /// Failures within this time after the start do not count.
    pub start_period: Duration,
    /// Consecutive failures that make the container unhealthy.
    pub retries: u32,
}

impl HealthLimits {
    /// Returns the time after which the container is healthy or will not become so: `start_period +
    /// retries × (interval + timeout) + 5 s`.
    pub(crate) fn limit(&self) -> Duration {
        let rounds = (self.interval.saturating_add(self.timeout)).saturating_mul(self.retries);
        self.start_period
            .saturating_add(rounds)
            .saturating_add(SLACK)
    }
}

/// Whether the container is ready, has failed, or needs more time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not yet decided.
    Wait,
    /// The container is ready. A job that is not restarted is ready when it has exited with code 0.
    Ready,
    /// The container failed; the text gives the cause.
    Failed(String),
    /// It runs, but its healthcheck failed; the text says how often.
    Unhealthy(String),
    /// The container did neither within the time limit.
    TimedOut(Duration),
}

/// Watches a container that was just started: remembers between two looks since when it runs and is
/// healthy.
#[derive(Debug)]
pub(crate) struct ReadinessWatch {
    /// How long the container must run before it counts as ready. `None` means [`MONITOR`], or no
    /// extra time for a container with a healthcheck.
    monitor: Option<Duration>,
    /// These are times since the start.
    healthy_since: Option<Duration>,
    running_since: Option<Duration>,
    last_restart: Duration,
    restarts: u32,
    /// The engine forgets it when it starts the container again.
    exit_code: Option<i32>,
}

impl ReadinessWatch {
    pub(crate) fn new(monitor: Option<Duration>) -> Self {
        Self {
            monitor,
            healthy_since: None,
            running_since: None,
            last_restart: Duration::ZERO,
            restarts: 0,
            exit_code: None,
        }
    }

    /// Decides whether the container, as it is `elapsed` after its start, is ready.
    pub(crate) fn judge(&mut self, container: &Container, elapsed: Duration) -> Verdict {
        let record = &container.record;
        if record.restart_count != self.restarts {
            self.restarts = record.restart_count;
            self.last_restart = elapsed;
            self.running_since = None;
            self.healthy_since = None;
        }
        self.exit_code = record.exit_code.or(self.exit_code);
        let since = |since: &mut Option<Duration>, holds: bool| {
            let start = *since.get_or_insert(elapsed);
            if !holds {
                *since = None;
            }
            since.map_or(Duration::ZERO, |_| elapsed.saturating_sub(start))
        };
        let is_running = record.state() == v1::ReplicaState::Running;
        let is_healthy = record.health() == v1::Health::Healthy;
        let times_seen = ObservedTimes {
            elapsed,
            running: since(&mut self.running_since, is_running),
            healthy: since(&mut self.healthy_since, is_healthy),
            last_restart: self.last_restart,
        };
        judge_readiness(container, self.exit_code, self.monitor, times_seen)
    }
}

/// The times that a verdict depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ObservedTimes {
    /// Time since the start.
    elapsed: Duration,
    /// Time since the container began to run without interruption.
    running: Duration,
    /// Time since the healthcheck began to succeed without interruption.
    healthy: Duration,
    /// The engine started the container again at this time after the start. Zero if it did not.
    last_restart: Duration,
}

/// How long after its start a container can exit if the engine then starts it again, as one does
/// whose database is not there yet: the healthcheck's start period, or [`RESTARTS`] and the
/// monitor period.
fn restarts_tolerated(container: &Container, monitor: Option<Duration>) -> Duration {
    let start_period = container
        .healthcheck
        .map_or(Duration::ZERO, |limits| limits.start_period);
    start_period.max(RESTARTS.saturating_add(monitor.unwrap_or(MONITOR)))
}

fn judge_readiness(
    container: &Container,
    exit_code: Option<i32>,
    monitor: Option<Duration>,
    times_seen: ObservedTimes,
) -> Verdict {
    let ObservedTimes {
        elapsed,
        running,
        healthy,
        last_restart,
    } = times_seen;
    use v1::ReplicaState as State;
    let record = &container.record;
    let tolerated = restarts_tolerated(container, monitor);
    match record.state() {
        State::Exited | State::Dead if record.finished => return Verdict::Ready,
        State::Exited | State::Dead => return Verdict::Failed(ended(container, exit_code)),
        State::Restarting if elapsed < tolerated => return Verdict::Wait,
        State::Restarting => return Verdict::Failed(ended(container, exit_code)),
        _ if last_restart >= tolerated => return Verdict::Failed(ended(container, exit_code)),
        _ => {}
    }
    match container.healthcheck {
        Some(limits) => match record.health() {
            v1::Health::Healthy if healthy >= monitor.unwrap_or(Duration::ZERO) => Verdict::Ready,
            v1::Health::Healthy => Verdict::Wait,
            v1::Health::Unhealthy => Verdict::Unhealthy(format!(
                "its healthcheck failed {} in a row",
                times(limits.retries)
            )),
            _ if elapsed >= last_restart.saturating_add(limits.limit()) => {
                Verdict::TimedOut(limits.limit())
            }
            _ => Verdict::Wait,
        },
        None => {
            let monitor = monitor.unwrap_or(MONITOR);
            let stuck = last_restart.saturating_add(monitor).saturating_add(STUCK);
            match record.state() {
                State::Running if running >= monitor => Verdict::Ready,
                _ if elapsed >= stuck => Verdict::TimedOut(stuck),
                _ => Verdict::Wait,
            }
        }
    }
}

fn ended(container: &Container, exit_code: Option<i32>) -> String {
    if !container.start_error.is_empty() {
        return format!("it cannot be started: {}", container.start_error);
    }
    let code = exit_code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
    if container.oom_killed {
        return format!("it ran out of memory and was killed (exit code {code})");
    }
    match container.record.restart_count {
        0 => format!("it exited with code {code}"),
        count => format!(
            "it exited with code {code} and was restarted {}",
            times(count)
        ),
    }
}

fn times(count: u32) -> String {
    if count == 1 {
        "once".to_owned()
    } else {
        format!("{count} times")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HealthLimits = HealthLimits {
        interval: Duration::from_secs(30),
        timeout: Duration::from_secs(10),
        start_period: Duration::from_secs(7),
        retries: 3,
    };

    fn container(state: v1::ReplicaState, exit_code: Option<i32>) -> Container {
        Container {
            record: v1::ReplicaRecord {
                state: state.into(),
                exit_code,
                ..Default::default()
            },
            managed: true,
            hook: String::new(),
            hook_limit: Duration::ZERO,
            started_at_ms: None,
            step: String::new(),
            healthcheck: None,
            restart: v1::RestartPolicy::UnlessStopped,
            restart_attempts: 0,
            restart_by_default: false,
            stop_grace: Duration::from_secs(10),
            oom_killed: false,
            start_error: String::new(),
            network_of: String::new(),
            on_machine_network: false,
            anonymous_volumes: Vec::new(),
            post_start: Vec::new(),
            pre_stop: Vec::new(),
        }
    }

    fn with_health(health: v1::Health) -> Container {
        let mut container = container(v1::ReplicaState::Running, None);
        container.healthcheck = Some(LIMITS);
        container.record.set_health(health);
        container
    }

    /// Looks every second from the start, and returns the first verdict or the last `Wait`.
    fn watch(
        monitor: Option<Duration>,
        seconds: u64,
        at: impl Fn(u64) -> Container,
    ) -> (u64, Verdict) {
        let mut watch = ReadinessWatch::new(monitor);
        for second in 0..seconds {
            let verdict = watch.judge(&at(second), Duration::from_secs(second));
            if verdict != Verdict::Wait {
                return (second, verdict);
            }
        }
        let last = watch.judge(&at(seconds), Duration::from_secs(seconds));
        (seconds, last)
    }

    fn after(container: &Container, seconds: u64) -> Verdict {
        watch(None, seconds, |_| container.clone()).1
    }

    #[test]
    fn judge_without_healthcheck_waits_for_monitor_period() {
        let running = container(v1::ReplicaState::Running, None);
        assert_eq!(after(&running, 1), Verdict::Wait);
        assert_eq!(after(&running, 2), Verdict::Ready);
        let paused = container(v1::ReplicaState::Paused, None);
        assert_eq!(after(&paused, 31), Verdict::Wait);
        assert_eq!(
            after(&paused, 32),
            Verdict::TimedOut(Duration::from_secs(32))
        );
    }

    #[test]
    fn judge_with_healthcheck_follows_its_result() {
        assert_eq!(after(&with_health(v1::Health::Starting), 60), Verdict::Wait);
        assert_eq!(after(&with_health(v1::Health::Healthy), 0), Verdict::Ready);
        assert_eq!(
            after(&with_health(v1::Health::Unhealthy), 0),
            Verdict::Unhealthy("its healthcheck failed 3 times in a row".into())
        );
    }

    #[test]
    fn judge_with_monitor_period_requires_lasting_health() {
        let monitor = Some(Duration::from_secs(5));
        let healthy = with_health(v1::Health::Healthy);
        assert_eq!(watch(monitor, 9, |_| healthy.clone()), (5, Verdict::Ready));
        // It is healthy beyond the limit of its healthcheck.
        let late = |second| {
            with_health(if second < 130 {
                v1::Health::Starting
            } else {
                v1::Health::Healthy
            })
        };
        assert_eq!(watch(monitor, 200, late), (135, Verdict::Ready));
        let failing = with_health(v1::Health::Unhealthy);
        let verdict = watch(monitor, 9, |_| failing.clone()).1;
        assert!(matches!(verdict, Verdict::Unhealthy(_)));
        let running = container(v1::ReplicaState::Running, None);
        assert_eq!(watch(monitor, 9, |_| running.clone()), (5, Verdict::Ready));
    }

    /// A container that exits and is started again, in turn, until it runs from `good` on.
    fn restarted_until(good: u64, healthcheck: Option<HealthLimits>) -> impl Fn(u64) -> Container {
        move |second| {
            let waits = second < good && second % 2 == 1;
            let state = if waits {
                v1::ReplicaState::Restarting
            } else {
                v1::ReplicaState::Running
            };
            let mut container = container(state, waits.then_some(1));
            container.record.restart_count = u32::try_from(second.min(good) / 2).unwrap();
            container.healthcheck = healthcheck;
            if healthcheck.is_some() {
                container.record.set_health(v1::Health::Starting);
            }
            container
        }
    }

    #[test]
    fn judge_tolerates_early_restarts() {
        assert_eq!(
            watch(None, 99, restarted_until(6, None)),
            (8, Verdict::Ready),
            "it ran for the monitor period"
        );
        assert_eq!(
            watch(None, 99, restarted_until(10, None)),
            (12, Verdict::Ready)
        );
        let (second, verdict) = watch(None, 99, restarted_until(99, None));
        assert_eq!(second, 12, "10 s and the monitor period");
        assert_eq!(
            verdict,
            Verdict::Failed("it exited with code 1 and was restarted 6 times".into())
        );
        let monitor = Some(Duration::from_secs(15));
        assert_eq!(watch(monitor, 99, restarted_until(99, None)).0, 25);
    }

    #[test]
    fn judge_tolerates_restarts_within_start_period() {
        let limits = HealthLimits {
            start_period: Duration::from_mins(1),
            ..LIMITS
        };
        let (second, verdict) = watch(None, 99, restarted_until(99, Some(limits)));
        assert_eq!(second, 60);
        assert!(matches!(verdict, Verdict::Failed(_)), "{verdict:?}");
        // The healthcheck has all of its time after the last restart.
        let limit = limits.limit();
        assert_eq!(
            watch(None, 999, restarted_until(50, Some(limits))),
            (50 + limit.as_secs(), Verdict::TimedOut(limit))
        );
    }

    #[test]
    fn limit_follows_the_healthcheck() {
        // 7 + 3 × (30 + 10) + 5
        assert_eq!(LIMITS.limit(), Duration::from_secs(132));
        let starting = with_health(v1::Health::Starting);
        assert_eq!(after(&starting, 131), Verdict::Wait);
        assert_eq!(
            after(&starting, 132),
            Verdict::TimedOut(Duration::from_secs(132))
        );
        let huge = HealthLimits {
            interval: Duration::MAX,
            ..LIMITS
        };
        assert_eq!(huge.limit(), Duration::MAX);
    }

    #[test]
    fn judge_reports_exit_with_its_code() {
        let exited = container(v1::ReplicaState::Exited, Some(3));
        assert_eq!(
            after(&exited, 0),
            Verdict::Failed("it exited with code 3".into())
        );
        let mut restarting = container(v1::ReplicaState::Restarting, Some(1));
        assert_eq!(after(&restarting, 11), Verdict::Wait);
        assert_eq!(
            after(&restarting, 12),
            Verdict::Failed("it exited with code 1".into())
        );
        restarting.record.restart_count = 2;
        assert_eq!(
            after(&restarting, 12),
            Verdict::Failed("it exited with code 1 and was restarted 2 times".into())
        );
        let mut hungry = container(v1::ReplicaState::Exited, Some(137));
        hungry.oom_killed = true;
        assert!(matches!(after(&hungry, 0), Verdict::Failed(why) if why.contains("memory")));
        let mut broken = container(v1::ReplicaState::Exited, Some(127));
        broken.start_error = "no such file".into();
        assert!(matches!(after(&broken, 0), Verdict::Failed(why) if why.contains("no such file")));
    }

    #[test]
    fn judge_accepts_finished_job() {
        let mut done = container(v1::ReplicaState::Exited, Some(0));
        assert!(
            matches!(after(&done, 0), Verdict::Failed(_)),
            "a service must not exit"
        );
        done.restart = v1::RestartPolicy::No;
        done.record.finished = true;
        assert_eq!(after(&done, 0), Verdict::Ready);
    }
}
