//! Watches one command until its end, with or without a caller that waits for it.
//!
//! The exit code 0 counts only if the command ended on its own. A command that Docker or the
//! machine ended can exit with code 0 as well, because many programs do so on SIGTERM. So the
//! engine has to answer from the time at which the command was seen running until after its end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::time::{Instant, sleep};
use uc_api::{Code, Failure, v1};

use super::{Command, Stage, TIMEOUT};
use crate::clock::now_ms;
use crate::engine::{Container, EngineError, LogLine, LogOptions, logs};
use crate::node::NodeService;

/// Time between two looks at a command that runs. The end of its log is the reason for another one.
const LOOK: Duration = Duration::from_secs(1);
/// Time between two looks at a container whose log has ended. The container ends at about the same
/// time.
const POLL: Duration = Duration::from_millis(100);
/// Lines of the container's log in a failure.
const LOG_TAIL: usize = 10;

impl NodeService {
    /// Has a task watch a command, and start it if it was never started. The command's turn is
    /// locked.
    pub(super) fn watch_pre_deploy(&self, command: &Arc<Command>, container: &Container) {
        command.stage.send_replace(Stage::Starting);
        let is_new = container.record.state() == v1::ReplicaState::Created;
        // The limit counts from the start, also if an earlier process started the command.
        let age = if is_new {
            Duration::ZERO
        } else {
            let started_at_ms = container.started_at_ms.unwrap_or(now_ms());
            let age_ms = now_ms().saturating_sub(started_at_ms);
            Duration::from_millis(age_ms.max(0).unsigned_abs())
        };
        // An earlier version did not write it down.
        let limit = if container.hook_limit.is_zero() {
            TIMEOUT
        } else {
            container.hook_limit
        };
        let watch = Watch {
            node: self.clone(),
            id: container.record.container_id.clone(),
            limit,
            deadline: Instant::now() + limit.saturating_sub(age),
        };
        let command = Arc::clone(command);
        self.tasks.spawn(async move {
            let stage = |stage: Stage| drop(command.stage.send_replace(stage));
            let last = tokio::select! {
                last = watch.run(is_new, &stage) => last,
                () = watch.node.cancel.cancelled() => {
                    let message = "the daemon is shutting down";
                    Stage::Unwatched(Some(Failure::new(Code::Unreachable, message)))
                }
            };
            stage(last);
        });
    }
}

/// One command that is watched.
struct Watch {
    node: NodeService,
    id: String,
    limit: Duration,
    deadline: Instant,
}

/// What is known of the command.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// It was seen running, and the engine has answered since.
    running: bool,
    /// It was seen ended, and the engine has answered since.
    ended: bool,
}

impl Watch {
    /// Returns the last stage.
    async fn run(&self, is_new: bool, stage: &(impl Fn(Stage) + Sync)) -> Stage {
        if is_new && let Err(error) = self.node.engine.start(&self.id).await {
            let failure = Failure::from(error);
            let message = format!("cannot start the pre-deploy command: {}", failure.message);
            return Stage::Unwatched(Some(Failure { message, ..failure }));
        }
        stage(Stage::Running(self.id.clone()));
        let ended = self.until_end(is_new, stage).await;
        Stage::Ended(self.id.clone(), ended)
    }

    async fn until_end(
        &self,
        is_new: bool,
        stage: &(impl Fn(Stage) + Sync),
    ) -> Result<i32, Failure> {
        let mut seen = Seen {
            running: is_new,
            ended: false,
        };
        let mut log = self.log().await;
        loop {
            match self.node.engine.inspect(&self.id).await {
                Ok(container) if has_ended(&container) => {
                    let code = container.record.exit_code.unwrap_or(-1);
                    let is_certain =
                        code != 0 || seen.ended || self.node.pre_deploys.ends.has(&self.id);
                    if is_certain {
                        self.node.pre_deploys.ends.add(&self.id);
                        return Ok(code);
                    }
                    if !seen.running {
                        return Err(interrupted());
                    }
                    seen.ended = true;
                }
                Ok(_) if Instant::now() >= self.deadline => return Err(self.kill().await),
                Ok(_) => {
                    if !seen.running {
                        seen.running = true;
                        stage(Stage::Running(self.id.clone()));
                    }
                }
                Err(error @ EngineError::NotFound { .. }) => return Err(error.into()),
                Err(error) => {
                    seen = Seen {
                        running: false,
                        ended: false,
                    };
                    stage(Stage::EngineAway(error.into()));
                }
            }
            if seen.ended {
                sleep(POLL).await;
            } else if !seen.running {
                sleep(LOOK).await;
            } else if let Some(lines) = &mut log {
                tokio::select! {
                    // Lines of the log do not matter here.
                    () = lines.for_each(|_| std::future::ready(())) => log = None,
                    () = sleep(LOOK.min(self.deadline - Instant::now())) => {}
                }
            } else {
                sleep(POLL).await;
            }
        }
    }

    /// The log from now on, to notice its end.
    async fn log(&self) -> Option<BoxStream<'static, Result<LogLine, EngineError>>> {
        let options = LogOptions {
            follow: true,
            tail: Some(0),
            ..LogOptions::default()
        };
        self.node.engine.logs(&self.id, options).await.ok()
    }

    /// Ends a command whose time is over. The container is kept, so that a deployment that asks
    /// again does not run the command again.
    async fn kill(&self) -> Failure {
        let log_tail = logs::tail(&*self.node.engine, &self.id, LOG_TAIL).await;
        if let Err(error) = self.node.engine.stop(&self.id, Duration::ZERO).await {
            tracing::warn!(%error, "cannot kill a pre-deploy command; the end of its deployment does");
        }
        let message = format!(
            "the pre-deploy command did not end within {} s and was killed",
            self.limit.as_secs_f64()
        );
        Failure::new(Code::Refused, message)
            .log_tail(log_tail)
            .hint("allow more time with `timeout` in `x-pre_deploy`")
    }
}

fn has_ended(container: &Container) -> bool {
    let state = container.record.state();
    matches!(state, v1::ReplicaState::Exited | v1::ReplicaState::Dead)
}

fn interrupted() -> Failure {
    let message = "the machine, Docker or ucd ended in the middle of the pre-deploy command, so it \
                   is not known how far the command was";
    Failure::new(Code::Refused, message)
        .hint("deploy again: the command then runs again, so it has to be safe to repeat")
}
