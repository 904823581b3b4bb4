//! Runs the command that precedes a deployment's changes to a service (`x-pre_deploy`). It runs in
//! its own container, which is made like a replica but is not one. That container has no published
//! ports, no names and no healthcheck, and it is never restarted.
//!
//! A deployment runs the command of a service once. The container is found by its label, so a
//! deployment that asks again, because a daemon or the engine was away, joins the command or gets
//! its exit code. A task of its own watches the command until its end, see [`watch`], so the
//! command and its time limit do not depend on a caller. The container is removed when the
//! deployment ends on this machine.

mod ends;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ends::Ends;
use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch as state};
use tokio_stream::wrappers::ReceiverStream;
use uc_api::layout::label;
use uc_api::v1::run_pre_deploy_event::Event;
use uc_api::{Code, Failure, v1};

use super::create::NewContainer;
use super::{NodeService, QUEUE, Replies, given};
use crate::engine::{Container, EngineError, LogOptions};

/// Default time limit. A migration can take minutes, but one that hangs must not block a deployment
/// forever.
const TIMEOUT: Duration = Duration::from_mins(5);

/// How far a command is, for the callers that wait for it.
#[derive(Debug, Clone)]
enum Stage {
    /// No task watches it: it was not started, or this process does not know of its container. The
    /// failure is that of the last start.
    Unwatched(Option<Failure>),
    Starting,
    /// It runs in this container.
    Running(String),
    /// The engine does not answer. The task continues to watch.
    EngineAway(Failure),
    /// It ran in this container, and its exit code can be trusted.
    Ended(String, Result<i32, Failure>),
}

/// One command of one deployment.
#[derive(Debug)]
struct Command {
    /// Locked while the command's container is looked for and created, so that of two calls only
    /// one creates it.
    turn: tokio::sync::Mutex<()>,
    stage: state::Sender<Stage>,
}

impl Default for Command {
    fn default() -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            stage: state::Sender::new(Stage::Unwatched(None)),
        }
    }
}

/// The commands that deployments run here, or have run and not settled yet.
#[derive(Debug)]
pub(crate) struct PreDeploys {
    /// By deployment and then by step.
    steps: Mutex<BTreeMap<String, BTreeMap<String, Arc<Command>>>>,
    ends: Ends,
}

impl PreDeploys {
    /// Keeps the ends of commands in this directory.
    pub(crate) fn open(directory: &Path) -> Self {
        Self {
            steps: Mutex::default(),
            ends: Ends::open(directory),
        }
    }

    fn enter(&self, deployment: &str, step: &str) -> Arc<Command> {
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
        self.refuse_late_pre_deploy(&spec.project, &request.deployment_id)?;
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
                ended = run.run_to_end(&spec, &request) => ended,
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

    /// Refuses a call that was delayed on its way: its deployment has ended, or lost the project
    /// while its machine was cut off.
    fn refuse_late_pre_deploy(&self, project: &str, deployment: &str) -> Result<(), Failure> {
        let now = tokio::time::Instant::now();
        self.leases.refuse_foreign(project, deployment, now)?;
        if self.has_ended(deployment) {
            let message = format!("deployment {deployment} has ended");
            return Err(Failure::new(Code::Refused, message));
        }
        Ok(())
    }

    /// Takes over the containers that an earlier process of this daemon ran for deployments. Those
    /// of deployments that do not run any longer are removed.
    pub(crate) async fn take_over_pre_deploys(
        &self,
        runs: impl Fn(&str) -> bool + Send,
    ) -> Result<(), EngineError> {
        let containers = self.engine.containers().await?;
        let hooks = containers.iter().filter(|of| !of.hook.is_empty());
        let ids = hooks.map(|of| of.record.container_id.as_str()).collect();
        self.pre_deploys.ends.forget_others(&ids);
        for container in containers {
            if container.hook.is_empty() {
                continue;
            }
            if !runs(&container.hook) {
                self.remove_pre_deploy(&container).await?;
                continue;
            }
            let command = self.pre_deploys.enter(&container.hook, &container.step);
            let _turn = command.turn.lock().await;
            // One that was not started waits for its deployment.
            if container.record.state() != v1::ReplicaState::Created && command.is_unwatched() {
                self.watch_pre_deploy(&command, &container);
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
                self.remove_pre_deploy(&container).await?;
            }
        }
        self.pre_deploys.forget(deployment);
        Ok(())
    }

    /// Kills a command if it still runs, and removes its container.
    async fn remove_pre_deploy(&self, container: &Container) -> Result<(), EngineError> {
        let id = &container.record.container_id;
        self.engine.remove(id).await?;
        self.pre_deploys.ends.forget(id);
        Ok(())
    }
}

impl Command {
    fn is_unwatched(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Unwatched(_))
    }
}

/// The time limit of a command in milliseconds.
fn limit_ms(hook: &v1::PreDeploy) -> u128 {
    if hook.timeout_ms == 0 {
        TIMEOUT.as_millis()
    } else {
        hook.timeout_ms.into()
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
    labels.insert(label::HOOK_LIMIT.to_owned(), limit_ms(&hook).to_string());
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

/// One call that runs or joins a command.
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
    ) -> Result<i32, Failure> {
        let mut stage = self.watched(spec, request).await?;
        let begun = reached(&mut stage, |stage| !matches!(stage, Stage::Starting)).await;
        if let Stage::Running(id) | Stage::Ended(id, _) = &begun {
            let mut away = stage.clone();
            tokio::select! {
                () = self.send_log(id) => {}
                _ = reached(&mut away, is_away) => {}
            }
        }
        let has_ended = |stage: &Stage| is_away(stage) || matches!(stage, Stage::Ended(..));
        match reached(&mut stage, has_ended).await {
            Stage::Ended(_, ended) => ended,
            Stage::EngineAway(failure) | Stage::Unwatched(Some(failure)) => Err(failure),
            Stage::Unwatched(None) | Stage::Starting | Stage::Running(_) => Err(Failure::new(
                Code::Unreachable,
                "the command is not watched",
            )),
        }
    }

    /// Has a task watch the command, unless one does. Only a command that was never started is
    /// started.
    async fn watched(
        &self,
        spec: &v1::ServiceSpec,
        request: &v1::RunPreDeployRequest,
    ) -> Result<state::Receiver<Stage>, Failure> {
        let node = self.node;
        let command = node.pre_deploys.enter(&request.deployment_id, self.step);
        let _only_one_creates_it = command.turn.lock().await;
        if matches!(
            *command.stage.borrow(),
            Stage::Running(_) | Stage::Starting | Stage::Ended(..)
        ) {
            return Ok(command.stage.subscribe());
        }
        let containers = node.engine.containers().await?;
        if !command.is_unwatched() {
            // The engine answers again, and the task notices it within a second.
            let mut stage = command.stage.subscribe();
            reached(&mut stage, |stage| !matches!(stage, Stage::EngineAway(_))).await;
            return Ok(stage);
        }
        // Of two, one came late and was not started.
        let there = containers
            .iter()
            .filter(|container| container.step == self.step)
            .max_by_key(|container| container.record.state() != v1::ReplicaState::Created);
        let container = if let Some(there) = there {
            there.clone()
        } else {
            self.remove_those_of_others(spec, request, &containers)
                .await?;
            let id = self.create(spec, request).await?;
            // Creating can take as long as a pull.
            node.refuse_late_pre_deploy(&spec.project, &request.deployment_id)?;
            node.engine.inspect(&id).await?
        };
        node.watch_pre_deploy(&command, &container);
        Ok(command.stage.subscribe())
    }

    /// Ends the commands that earlier deployments left here: two migrations must not run at the
    /// same time. The machine that executed such a deployment has died.
    async fn remove_those_of_others(
        &self,
        spec: &v1::ServiceSpec,
        request: &v1::RunPreDeployRequest,
        containers: &[Container],
    ) -> Result<(), Failure> {
        let others = containers.iter().filter(|of| {
            let is_other = !of.hook.is_empty() && of.hook != request.deployment_id;
            is_other && of.record.project == spec.project && of.record.service == spec.name
        });
        for other in others {
            self.say(format!(
                "removing the pre-deploy command of deployment {}, which did not end it",
                other.hook
            ));
            self.node.remove_pre_deploy(other).await?;
        }
        Ok(())
    }

    async fn create(
        &self,
        spec: &v1::ServiceSpec,
        request: &v1::RunPreDeployRequest,
    ) -> Result<String, Failure> {
        let new = NewContainer {
            spec,
            revision: &request.revision,
            deployment: &request.deployment_id,
            step: self.step,
            replaces: "",
        };
        self.node
            .create_container(new, &|text| self.say(text))
            .await
    }

    /// A slow reader misses some of the progress.
    fn say(&self, text: String) {
        drop(self.events.try_send(Ok(event(Event::Progress(text)))));
    }

    /// Sends the log until the container ends, and waits for a slow reader. A log that cannot be
    /// read (the log driver need not keep one) is not a failure.
    async fn send_log(&self, id: &str) {
        let options = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        if let Ok(mut lines) = self.node.engine.logs(id, options).await {
            while let Some(Ok(line)) = lines.next().await {
                let line = event(Event::Line(line.message.to_vec()));
                // A reader that has disconnected ends the run elsewhere.
                let _reader_gone = self.events.send(Ok(line)).await;
            }
        }
    }
}

/// Whether nothing is known at the moment about what a caller waits for.
fn is_away(stage: &Stage) -> bool {
    matches!(stage, Stage::EngineAway(_) | Stage::Unwatched(_))
}

/// Waits for a stage.
async fn reached(stage: &mut state::Receiver<Stage>, wanted: impl FnMut(&Stage) -> bool) -> Stage {
    match stage.wait_for(wanted).await {
        Ok(stage) => stage.clone(),
        // The deployment was settled.
        Err(_) => {
            let message = "the deployment of this pre-deploy command has ended";
            Stage::Unwatched(Some(Failure::new(Code::Refused, message)))
        }
    }
}

#[cfg(test)]
mod tests;
