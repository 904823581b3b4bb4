//! Runs the command that precedes a deployment's changes to a service (`x-pre_deploy`). It runs in
//! its own container, which is made like a replica but is not one. That container has no published
//! ports, no names and no healthcheck. It is never restarted, and it is removed before its end is
//! reported. If the daemon dies, the next one removes it.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use uc_api::layout::label;
use uc_api::v1::run_pre_deploy_event::Event;
use uc_api::{Code, Failure, v1};

use super::create::NewContainer;
use super::{NodeService, QUEUE, Replies, given};
use crate::engine::{EngineError, LogOptions, logs};

/// Default time limit. A migration can take minutes, but one that hangs must not block a deployment
/// forever.
const TIMEOUT: Duration = Duration::from_mins(5);
/// Time between two looks at a container whose log has ended. The container ends at about the same
/// time.
const POLL: Duration = Duration::from_millis(100);
/// Lines of the container's log in a failure.
const LOG_TAIL: usize = 10;

impl NodeService {
    /// Runs the command in a task of its own and streams its output. If the caller disconnects, the
    /// command is killed.
    pub(crate) fn run_pre_deploy_from(
        &self,
        request: v1::RunPreDeployRequest,
    ) -> Result<Replies<v1::RunPreDeployEvent>, Failure> {
        self.identity()?;
        let spec = given(request.spec.clone(), "spec")?;
        let hook = spec.pre_deploy.clone();
        let hook = hook
            .filter(|hook| !hook.command.is_empty())
            .ok_or_else(|| {
                let message = format!("service `{}` has no pre-deploy command", spec.name);
                Failure::new(Code::Invalid, message)
            })?;
        let limit = if hook.timeout_ms == 0 {
            TIMEOUT
        } else {
            Duration::from_millis(hook.timeout_ms)
        };
        let (events, receiver) = mpsc::channel(QUEUE);
        let mark = format!("{}-{:016x}", self.runner, rand::random::<u64>());
        let spec = container_spec(spec, hook, &mark);
        let node = self.clone();
        self.tasks.spawn(async move {
            let run = Run { node: &node, events: &events };
            let ended = tokio::select! {
                ended = run.run_to_end(&spec, &request, limit) => Some(ended),
                () = node.cancel.cancelled() => Some(Err(Failure::new(Code::Unreachable, "the daemon is shutting down"))),
                () = events.closed() => None,
            };
            // Remove the container before its end is reported, so that nothing of it is left when
            // the deployment continues.
            if let Err(error) = node.remove_pre_deploys(|hook| hook == mark).await {
                tracing::warn!(%error, "cannot remove the container of a pre-deploy command; it remains until the next start");
            }
            let last = match ended {
                None => return,
                Some(Ok(code)) => Ok(event(Event::ExitCode(code))),
                Some(Err(failure)) => Err(node.status(failure)),
            };
            let _caller_may_be_gone = events.send(last).await;
        });
        Ok(ReceiverStream::new(receiver).boxed())
    }

    /// Removes containers of pre-deploy commands that an earlier process of this daemon ran.
    pub(crate) async fn remove_left_pre_deploys(&self) -> Result<(), EngineError> {
        let removed = self
            .remove_pre_deploys(|hook| !hook.starts_with(&*self.runner))
            .await?;
        if removed > 0 {
            tracing::info!(removed, "removed containers left by pre-deploy commands");
        }
        Ok(())
    }

    /// Removes containers by mark, not by id: the engine can have created a container without
    /// anyone receiving its id.
    async fn remove_pre_deploys(
        &self,
        which: impl Fn(&str) -> bool + Send,
    ) -> Result<usize, EngineError> {
        let mut removed = 0;
        for container in self.engine.containers().await? {
            if !container.hook.is_empty() && which(&container.hook) {
                self.engine.remove(&container.record.container_id).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Reduces the service's spec to what a command that runs once can use.
fn container_spec(spec: v1::ServiceSpec, hook: v1::PreDeploy, mark: &str) -> v1::ServiceSpec {
    let v1::ServiceSpec {
        mut labels,
        mut environment,
        mut secret_environment,
        user,
        ..
    } = spec.clone();
    labels.insert(label::HOOK.to_owned(), mark.to_owned());
    // The command's own variables win, also over secrets.
    secret_environment.retain(|name, _| !hook.environment.contains_key(name));
    environment.extend(hook.environment);
    v1::ServiceSpec {
        command: Some(v1::StringList {
            values: hook.command,
        }),
        labels,
        environment,
        secret_environment,
        user: if hook.user.is_empty() {
            user
        } else {
            hook.user
        },
        privileged: hook.privileged.unwrap_or(spec.privileged),
        healthcheck: Some(v1::Healthcheck {
            test: vec!["NONE".to_owned()],
            ..v1::Healthcheck::default()
        }),
        restart: v1::RestartPolicy::No.into(),
        restart_attempts: 0,
        ports: Vec::new(),
        aliases: Vec::new(),
        hostname: String::new(),
        mac_address: String::new(),
        post_start: Vec::new(),
        pre_stop: Vec::new(),
        pre_deploy: None,
        ..spec
    }
}

fn event(event: Event) -> v1::RunPreDeployEvent {
    v1::RunPreDeployEvent { event: Some(event) }
}

type Events = mpsc::Sender<Result<v1::RunPreDeployEvent, tonic::Status>>;

struct Run<'a> {
    node: &'a NodeService,
    events: &'a Events,
}

impl Run<'_> {
    /// Runs the command and returns its exit code.
    async fn run_to_end(
        &self,
        spec: &v1::ServiceSpec,
        request: &v1::RunPreDeployRequest,
        limit: Duration,
    ) -> Result<i32, Failure> {
        if let Err(error) = self.node.remove_left_pre_deploys().await {
            tracing::warn!(%error, "cannot remove containers of earlier pre-deploy commands");
        }
        let new = NewContainer {
            spec,
            revision: &request.revision,
            deployment: &request.deployment_id,
            step: "",
            replaces: "",
        };
        // A slow reader misses some of the progress.
        let say = |text| drop(self.events.try_send(Ok(event(Event::Progress(text)))));
        let id = self.node.create_container(new, &say).await?;
        self.node.engine.start(&id).await.map_err(|error| {
            let failure = Failure::from(error);
            let message = format!("cannot start the pre-deploy command: {}", failure.message);
            Failure { message, ..failure }
        })?;
        if let Ok(ended) = timeout(limit, self.wait_for_exit(&id)).await {
            return ended;
        }
        let log_tail = logs::tail(&*self.node.engine, &id, LOG_TAIL).await;
        let message = format!(
            "the pre-deploy command did not end within {} s and was killed",
            limit.as_secs_f64()
        );
        Err(Failure::new(Code::TimedOut, message)
            .log_tail(log_tail)
            .hint("allow more time with `timeout` in `x-pre_deploy`"))
    }

    async fn wait_for_exit(&self, id: &str) -> Result<i32, Failure> {
        let options = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        // A log that cannot be read (the log driver need not keep one) is not a failure.
        if let Ok(mut lines) = self.node.engine.logs(id, options).await {
            while let Some(Ok(line)) = lines.next().await {
                self.send_event(Event::Line(line.message.to_vec())).await;
            }
        }
        loop {
            let container = self.node.engine.inspect(id).await?;
            if let v1::ReplicaState::Exited | v1::ReplicaState::Dead = container.record.state() {
                return Ok(container.record.exit_code.unwrap_or(-1));
            }
            sleep(POLL).await;
        }
    }

    /// Sends an event and waits for a slow reader. A reader that has disconnected ends the run
    /// elsewhere.
    async fn send_event(&self, what: Event) {
        let _reader_gone = self.events.send(Ok(event(what))).await;
    }
}

#[cfg(test)]
mod tests;
