//! Tells jobs from servers among the containers of services that set no restart policy.
//!
//! Docker Compose restarts none of them. A server must survive a restart of its machine, and a job,
//! such as a migration, must not run again after it succeeded. No policy of the engine does both:
//! `unless-stopped` runs the job forever, and `on-failure` loses a server that exits with code 0
//! when the engine stops it. So such a container begins with `on-failure`, and gets
//! `unless-stopped` once it has shown that it is a server: its healthcheck passes, or it runs for
//! [`SERVER_AFTER`].
//!
//! When the daemon stops, the machine may be shutting down, and a server that is still undecided
//! would be lost. So what runs then gets `always`, which restarts it after a boot as well. No
//! decided container has this policy, so the next daemon knows that it is undecided. A job that
//! ends in the meantime is repeated until that daemon has started.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uc_api::v1;

use super::{Container, Engine, EngineError};

/// A container that has run this long without a restart is a server. Jobs that wait for a database
/// take seconds; one that takes longer needs `restart: "no"` or a service that waits for it.
pub(crate) const SERVER_AFTER: Duration = Duration::from_mins(1);
/// Time between two looks at an undecided container.
const POLL: Duration = Duration::from_secs(1);

/// What is known about an undecided container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// How long it has run without a restart.
    running: Duration,
    /// The engine did not answer since the container was last seen running, so the engine may have
    /// stopped it.
    engine_was_away: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Wait,
    /// Restart it like `unless-stopped` from now on.
    Server,
    /// An earlier daemon left it undecided when it stopped.
    Undecide,
    /// The engine stopped it together with itself. A server would run again.
    StartAgain,
    /// It is decided already, it has ended, or a user stopped it.
    Leave,
}

/// Reports whether it is not yet known if the container is a job or a server.
pub(crate) fn is_undecided(container: &Container) -> bool {
    container.restart_by_default
        && (container.restart == v1::RestartPolicy::OnFailure || is_left_undecided(container))
}

/// Reports whether a daemon stopped while it was not known if the container is a job or a server.
fn is_left_undecided(container: &Container) -> bool {
    container.restart_by_default && container.restart == v1::RestartPolicy::Always
}

fn decide(container: &Container, seen: Seen) -> Decision {
    if !is_undecided(container) {
        return Decision::Leave;
    }
    let record = &container.record;
    match record.state() {
        v1::ReplicaState::Running if record.health() == v1::Health::Healthy => Decision::Server,
        v1::ReplicaState::Running if seen.running >= SERVER_AFTER => Decision::Server,
        v1::ReplicaState::Exited if record.finished && seen.engine_was_away => Decision::StartAgain,
        v1::ReplicaState::Running | v1::ReplicaState::Restarting | v1::ReplicaState::Paused => {
            if is_left_undecided(container) {
                Decision::Undecide
            } else {
                Decision::Wait
            }
        }
        _ => Decision::Leave,
    }
}

/// Watches a container that was just started until it is decided. A container that still runs when
/// `cancel` fires is restarted after a boot, because the machine may be shutting down.
pub(crate) async fn decide_restart(engine: Arc<dyn Engine>, id: String, cancel: CancellationToken) {
    let mut running_since = Instant::now();
    let mut restarts = 0;
    let mut engine_was_away = false;
    loop {
        let stopping = cancel.is_cancelled();
        match engine.inspect(&id).await {
            Ok(container) => {
                let record = &container.record;
                let runs = record.state() == v1::ReplicaState::Running;
                if !runs || record.restart_count != restarts {
                    running_since = Instant::now();
                    restarts = record.restart_count;
                }
                let seen = Seen {
                    running: running_since.elapsed(),
                    engine_was_away,
                };
                let done = match decide(&container, seen) {
                    Decision::Wait if stopping && runs => {
                        set_restart(&*engine, &id, v1::RestartPolicy::Always).await
                    }
                    Decision::Wait => stopping,
                    Decision::Server => {
                        let policy = v1::RestartPolicy::UnlessStopped;
                        set_restart(&*engine, &id, policy).await || stopping
                    }
                    // It stays as it is for the next daemon.
                    Decision::Undecide if stopping => true,
                    Decision::Undecide => {
                        let policy = v1::RestartPolicy::OnFailure;
                        set_restart(&*engine, &id, policy).await;
                        false
                    }
                    Decision::StartAgain => {
                        match engine.start(&id).await {
                            Ok(()) => engine_was_away = false,
                            Err(error) => {
                                tracing::warn!(container = %record.container_name, %error, "cannot start a container that the engine stopped");
                            }
                        }
                        stopping
                    }
                    Decision::Leave => return,
                };
                if done {
                    return;
                }
                engine_was_away &= !runs;
            }
            Err(EngineError::NotFound { .. }) => return,
            Err(_) if stopping => return,
            Err(_) => engine_was_away = true,
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = cancel.cancelled() => {}
        }
    }
}

/// Returns whether the policy is changed. If not, the next look tries again.
async fn set_restart(engine: &dyn Engine, id: &str, policy: v1::RestartPolicy) -> bool {
    let changed = engine.set_restart(id, policy, 0).await;
    if let Err(error) = &changed {
        tracing::warn!(container = id, %error, "cannot change the restart policy");
    }
    changed.is_ok()
}

#[cfg(test)]
mod tests;
