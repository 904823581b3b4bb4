//! Runs the command that precedes a deployment's changes to a service (`x-pre_deploy`). It runs in
//! its own container, which is made like a replica but is not one. That container has no published
//! ports, no names and no healthcheck, and it is never restarted.
//!
//! A deployment runs the command of a service once. The container is found by its label, so a
//! deployment that asks again, because a daemon or the engine was away, joins the command or gets
//! its exit code. The container is removed when the deployment ends on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
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

/// Held while the container of a command is looked for and started, so that of two calls only one
/// creates it.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// The commands that deployments run here, or have run and not settled yet.
#[derive(Debug, Default)]
pub(super) struct PreDeploys {
    /// By deployment and then by step.
    steps: Mutex<BTreeMap<String, BTreeMap<String, Turn>>>,
}

impl PreDeploys {
    fn enter(&self, deployment: &str, step: &str) -> Turn {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let of_deployment = steps.entry(deployment.to_owned()).or_default();
        Arc::clone(of_deployment.entry(step.to_owned()).or_default())
    }

    fn forget(&self, deployment: &str) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.remove(deployment);
    }

    fn deployments(&self) -> BTreeSet<String> {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.keys().cloned().collect()
    }
}

impl NodeService {
    /// Runs the command, or joins it if this deployment runs or has run it, and streams its output.
    /// It continues if the caller disconnects: the deployment asks again, or ends.
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
        if request.deployment_id.is_empty() {
            let message = "the request has no deployment";
            return Err(Failure::new(Code::Invalid, message));
        }
        let limit = if hook.timeout_ms == 0 {
            TIMEOUT
        } else {
            Duration::from_millis(hook.timeout_ms)
        };
        let (events, receiver) = mpsc::channel(QUEUE);
        let step = step_label(&request.deployment_id, &spec);
        let spec = container_spec(spec, hook, &request.deployment_id);
        let node = self.clone();
        self.tasks.spawn(async move {
            let run = Run {
                node: &node,
                events: &events,
                step: &step,
            };
            let ended = tokio::select! {
                ended = run.run_to_end(&spec, &request, limit) => ended,
                () = node.cancel.cancelled() => {
                    Err(Failure::new(Code::Unreachable, "the daemon is shutting down"))
                }
                () = events.closed() => return,
            };
            let last = match ended {
                Ok(code) => Ok(event(Event::ExitCode(code))),
                Err(failure) => Err(node.status(failure)),
            };
            let _caller_may_be_gone = events.send(last).await;
        });
        Ok(ReceiverStream::new(receiver).boxed())
    }

    /// Takes over the containers that an earlier process of this daemon ran for deployments. Those
    /// of deployments that do not run any longer are removed.
    pub(crate) async fn take_over_pre_deploys(
        &self,
        runs: impl Fn(&str) -> bool + Send,
    ) -> Result<(), EngineError> {
        for container in self.engine.containers().await? {
            if container.hook.is_empty() {
                continue;
            }
            if runs(&container.hook) {
                let _not_running = self.pre_deploys.enter(&container.hook, &container.step);
            } else {
                self.engine.remove(&container.record.container_id).await?;
            }
        }
        Ok(())
    }

    /// The deployments that have run commands here and are not settled.
    pub(crate) fn pre_deploy_deployments(&self) -> BTreeSet<String> {
        self.pre_deploys.deployments()
    }

    /// Removes what ran for a deployment, and kills what still runs. It goes by label and not by
    /// id: the engine can have created a container without anyone receiving its id.
    pub(super) async fn settle_pre_deploys(&self, deployment: &str) -> Result<(), EngineError> {
        if !self.pre_deploys.deployments().contains(deployment) {
            return Ok(());
        }
        for container in self.engine.containers().await? {
            if container.hook == deployment {
                self.engine.remove(&container.record.container_id).await?;
            }
        }
        self.pre_deploys.forget(deployment);
        Ok(())
    }
}

/// The value of the label by which the command's container is found again.
fn step_label(deployment: &str, spec: &v1::ServiceSpec) -> String {
    format!("{deployment}/{}/{}/pre_deploy", spec.project, spec.name)
}

/// Reduces the service's spec to what a command that runs once can use.
fn container_spec(spec: v1::ServiceSpec, hook: v1::PreDeploy, deployment: &str) -> v1::ServiceSpec {
    let v1::ServiceSpec {
        mut labels,
        mut environment,
        mut secret_environment,
        user,
        ..
    } = spec.clone();
    labels.insert(label::HOOK.to_owned(), deployment.to_owned());
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
    step: &'a str,
}

impl Run<'_> {
    /// Runs or joins the command and returns its exit code.
    async fn run_to_end(
        &self,
        spec: &v1::ServiceSpec,
        request: &v1::RunPreDeployRequest,
        limit: Duration,
    ) -> Result<i32, Failure> {
        let id = self.started(spec, request).await?;
        if let Ok(ended) = timeout(limit, self.wait_for_exit(&id)).await {
            return ended;
        }
        let log_tail = logs::tail(&*self.node.engine, &id, LOG_TAIL).await;
        // The container is kept, so that a deployment that asks again does not run the command
        // again.
        if let Err(error) = self.node.engine.stop(&id, Duration::ZERO).await {
            tracing::warn!(%error, "cannot kill a pre-deploy command; the end of its deployment does");
        }
        let message = format!(
            "the pre-deploy command did not end within {} s and was killed",
            limit.as_secs_f64()
        );
        Err(Failure::new(Code::Refused, message)
            .log_tail(log_tail)
            .hint("allow more time with `timeout` in `x-pre_deploy`"))
    }

    /// The id of the command's container, which was started at some time. Only one that was never
    /// started is started.
    async fn started(
        &self,
        spec: &v1::ServiceSpec,
        request: &v1::RunPreDeployRequest,
    ) -> Result<String, Failure> {
        let node = self.node;
        let entry = node.pre_deploys.enter(&request.deployment_id, self.step);
        let _only_one_creates_it = entry.lock().await;
        let containers = node.engine.containers().await?;
        // Of two, one came late and was not started.
        let there = containers
            .into_iter()
            .filter(|container| container.step == self.step)
            .max_by_key(|container| container.record.state() != v1::ReplicaState::Created);
        let id = match there {
            Some(there) if there.record.state() != v1::ReplicaState::Created => {
                return Ok(there.record.container_id);
            }
            Some(there) => there.record.container_id,
            None => {
                let new = NewContainer {
                    spec,
                    revision: &request.revision,
                    deployment: &request.deployment_id,
                    step: self.step,
                    replaces: "",
                };
                // A slow reader misses some of the progress.
                let say = |text| drop(self.events.try_send(Ok(event(Event::Progress(text)))));
                node.create_container(new, &say).await?
            }
        };
        node.engine.start(&id).await.map_err(|error| {
            let failure = Failure::from(error);
            let message = format!("cannot start the pre-deploy command: {}", failure.message);
            Failure { message, ..failure }
        })?;
        Ok(id)
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
