//! Decides when a container that was just started is ready. Pure: takes a snapshot and the time
//! since the start, and returns a verdict.

use std::time::Duration;

use uc_api::v1;

use super::Container;

/// How long a container without a healthcheck must run, unless the caller sets another time.
pub(crate) const MONITOR: Duration = Duration::from_secs(2);
/// Added to the healthcheck's own limits, for starting the probe and noticing its result.
const SLACK: Duration = Duration::from_secs(5);
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
    /// The container did neither within the time limit.
    TimedOut(Duration),
}

/// The times that a verdict depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ObservedTimes {
    /// Time since the start.
    pub elapsed: Duration,
    /// Time since the healthcheck began to succeed without interruption.
    pub healthy: Duration,
    /// How long the container must run before it counts as ready. `None` means [`MONITOR`], or no
    /// extra time for a container with a healthcheck.
    pub monitor: Option<Duration>,
}

/// Decides whether a container is ready.
pub(crate) fn judge_readiness(container: &Container, times_seen: ObservedTimes) -> Verdict {
    let ObservedTimes {
        elapsed,
        healthy,
        monitor,
    } = times_seen;
    use v1::ReplicaState as State;
    let record = &container.record;
    if let State::Exited | State::Dead = record.state() {
        let stays_ended = matches!(
            container.restart,
            v1::RestartPolicy::No | v1::RestartPolicy::OnFailure
        );
        if record.exit_code == Some(0) && stays_ended && container.start_error.is_empty() {
            return Verdict::Ready;
        }
    }
    if let State::Exited | State::Dead | State::Restarting = record.state() {
        return Verdict::Failed(ended(container));
    }
    if record.restart_count > 0 {
        return Verdict::Failed(format!(
            "it exited and was restarted {}",
            times(record.restart_count)
        ));
    }
    match container.healthcheck {
        Some(limits) => match record.health() {
            v1::Health::Healthy if healthy >= monitor.unwrap_or(Duration::ZERO) => Verdict::Ready,
            v1::Health::Healthy => Verdict::Wait,
            v1::Health::Unhealthy => Verdict::Failed(format!(
                "its healthcheck failed {} in a row",
                times(limits.retries)
            )),
            _ if elapsed >= limits.limit() => Verdict::TimedOut(limits.limit()),
            _ => Verdict::Wait,
        },
        None => {
            let monitor = monitor.unwrap_or(MONITOR);
            let stuck = monitor.saturating_add(STUCK);
            match record.state() {
                State::Running if elapsed >= monitor => Verdict::Ready,
                _ if elapsed >= stuck => Verdict::TimedOut(stuck),
                _ => Verdict::Wait,
            }
        }
    }
}

fn ended(container: &Container) -> String {
    if !container.start_error.is_empty() {
        return format!("it cannot be started: {}", container.start_error);
    }
    let code = container
        .record
        .exit_code
        .map_or_else(|| "unknown".to_owned(), |code| code.to_string());
    if container.oom_killed {
        return format!("it ran out of memory and was killed (exit code {code})");
    }
    format!("it exited with code {code}")
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
            step: String::new(),
            healthcheck: None,
            restart: v1::RestartPolicy::UnlessStopped,
            restart_attempts: 0,
            stop_grace: Duration::from_secs(10),
            oom_killed: false,
            start_error: String::new(),
            network_of: String::new(),
            on_machine_network: false,
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

    fn after(container: &Container, seconds: u64) -> Verdict {
        let elapsed = Duration::from_secs(seconds);
        judge_readiness(
            container,
            ObservedTimes {
                elapsed,
                healthy: Duration::ZERO,
                monitor: None,
            },
        )
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
            Verdict::Failed("its healthcheck failed 3 times in a row".into())
        );
    }

    #[test]
    fn judge_with_monitor_period_requires_lasting_health() {
        let after = |container: &Container, healthy| {
            let monitor = Some(Duration::from_secs(5));
            judge_readiness(
                container,
                ObservedTimes {
                    elapsed: Duration::from_secs(200),
                    healthy,
                    monitor,
                },
            )
        };
        let healthy = with_health(v1::Health::Healthy);
        assert_eq!(
            after(&healthy, Duration::from_secs(4)),
            Verdict::Wait,
            "beyond the healthcheck's own limit"
        );
        assert_eq!(after(&healthy, Duration::from_secs(5)), Verdict::Ready);
        let failing = with_health(v1::Health::Unhealthy);
        assert!(matches!(
            after(&failing, Duration::ZERO),
            Verdict::Failed(_)
        ));
        let running = container(v1::ReplicaState::Running, None);
        let at = |seconds| {
            let monitor = Some(Duration::from_secs(5));
            judge_readiness(
                &running,
                ObservedTimes {
                    elapsed: Duration::from_secs(seconds),
                    healthy: Duration::ZERO,
                    monitor,
                },
            )
        };
        assert_eq!((at(4), at(5)), (Verdict::Wait, Verdict::Ready));
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
        let restarting = container(v1::ReplicaState::Restarting, Some(1));
        assert_eq!(
            after(&restarting, 9),
            Verdict::Failed("it exited with code 1".into())
        );
        let mut back = container(v1::ReplicaState::Running, None);
        back.record.restart_count = 2;
        assert_eq!(
            after(&back, 9),
            Verdict::Failed("it exited and was restarted 2 times".into())
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
        assert_eq!(after(&done, 0), Verdict::Ready);
        done.record.exit_code = Some(1);
        assert!(matches!(after(&done, 0), Verdict::Failed(_)));
    }
}
