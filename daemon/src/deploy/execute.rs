//! Carries out a plan, step by step, on the machines it names. Layers one after another, the services of a layer side by side; in a service
//! steps run in the plan's order and replicas are replaced one at a time. A step that fails undoes itself (the replica it would have replaced serves again) and ends the
//! execution; going back with everything else is the caller's, who plans that as well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use uc_api::v1::{
    DependencyCondition, DeployEvent, Health, Plan, ReplicaAction, ReplicaRecord, ReplicaState, ReplicaStep,
    ServicePlan, ServiceSpec, StepEvent, StepPhase, UpdateOrder, VolumeSpec, deploy_event,
};
use uc_api::{Code, Failure};

/// How often a dependency that this deployment did not start is looked at.
const DEPENDENCY_POLL: Duration = Duration::from_millis(500);
/// How long a dependency may take to be what its condition wants; a migration job may take minutes.
const DEPENDENCY_LIMIT: Duration = Duration::from_mins(10);

/// The machines, as the executor needs them. The real one calls each machine's `Node` service.
#[async_trait]
pub trait Fleet: Send + Sync {
    /// Makes a volume; one that is there with the same driver is no error.
    async fn create_volume(&self, machine: &str, volume: &VolumeSpec) -> Result<(), Failure>;
    /// Pulls and creates, does not start. Returns the container's id.
    async fn create(
        &self,
        machine: &str,
        new: &NewReplica<'_>,
        progress: &Progress,
    ) -> Result<String, Failure>;
    /// Starts; with `wait`, returns when it serves.
    async fn start(&self, machine: &str, container: &str, wait: bool) -> Result<(), Failure>;
    /// Stops within its grace period. One that does not run or is not there is no error.
    async fn stop(&self, machine: &str, container: &str) -> Result<(), Failure>;
    /// Removes. One that is not there is no error.
    async fn remove(&self, machine: &str, container: &str) -> Result<(), Failure>;
    /// The machine's replicas, from its engine now.
    async fn observe(&self, machine: &str) -> Result<Vec<ReplicaRecord>, Failure>;
}

/// A container to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewReplica<'a> {
    /// What it runs.
    pub spec: &'a ServiceSpec,
    /// The spec's revision.
    pub revision: &'a str,
    /// Which deployment makes it.
    pub deployment: &'a str,
}

/// Where events go. A reader that went away does not stop a deployment.
#[derive(Debug, Clone)]
pub struct Events(mpsc::Sender<DeployEvent>);

impl Events {
    /// Sends into this queue; when it is full, the deployment waits for its reader.
    pub fn new(sender: mpsc::Sender<DeployEvent>) -> Self {
        Self(sender)
    }

    /// Any event.
    pub async fn send(&self, event: deploy_event::Event) {
        let _reader_gone = self.0.send(DeployEvent { event: Some(event) }).await;
    }

    /// Something a person should read.
    pub async fn notice(&self, text: impl Into<String>) {
        self.send(deploy_event::Event::Notice(text.into())).await;
    }
}

/// Events of one step.
#[derive(Debug, Clone)]
pub struct Progress {
    events: Events,
    step: StepEvent,
}

impl Progress {
    /// What is happening right now.
    pub async fn say(&self, message: impl Into<String>) {
        self.phase(StepPhase::Progress, message.into(), Vec::new()).await;
    }

    async fn phase(&self, phase: StepPhase, message: String, log_tail: Vec<String>) {
        let event = StepEvent { phase: phase.into(), message, log_tail, ..self.step.clone() };
        self.events.send(deploy_event::Event::Step(event)).await;
    }

    async fn done<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        match &result {
            Ok(_) => self.phase(StepPhase::Done, String::new(), Vec::new()).await,
            Err(failure) => {
                self.phase(StepPhase::Failed, failure.to_string(), failure.log_tail.clone()).await;
            }
        }
        result
    }
}

/// Everything one execution needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Execution<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// Specs by service name, of all services that get new replicas or that others depend on.
    pub specs: &'a BTreeMap<String, ServiceSpec>,
    /// Machines to look at for replicas that the plan keeps.
    pub machines: &'a [String],
    /// Names the deployment on its containers.
    pub deployment: &'a str,
}

/// Runs the plan to its end or to its first failure.
pub async fn execute(fleet: &dyn Fleet, execution: Execution<'_>, events: &Events) -> Result<(), Failure> {
    create_volumes(fleet, execution.plan, events).await?;
    let layers: BTreeSet<u32> = execution.plan.services.iter().map(|service| service.layer).collect();
    for layer in layers {
        let services = execution.plan.services.iter().filter(|service| service.layer == layer);
        let results = join_all(services.map(|service| run_service(fleet, execution, service, events))).await;
        results.into_iter().collect::<Result<(), Failure>>()?;
    }
    Ok(())
}

async fn create_volumes(fleet: &dyn Fleet, plan: &Plan, events: &Events) -> Result<(), Failure> {
    for step in &plan.volumes {
        let Some(volume) = &step.volume else { continue };
        let progress = progress(events, &step.id, &format!("volume {}", volume.name), &step.machine_name);
        progress.phase(StepPhase::Started, "creating".to_owned(), Vec::new()).await;
        let result = fleet.create_volume(&step.machine_id, volume).await;
        progress.done(result.map_err(|failure| failure.on(&step.machine_name))).await?;
    }
    Ok(())
}

pub(super) fn progress(events: &Events, step_id: &str, service: &str, machine_name: &str) -> Progress {
    let step = StepEvent {
        step_id: step_id.to_owned(),
        service: service.to_owned(),
        machine_name: machine_name.to_owned(),
        ..StepEvent::default()
    };
    Progress { events: events.clone(), step }
}

async fn run_service(
    fleet: &dyn Fleet,
    execution: Execution<'_>,
    service: &ServicePlan,
    events: &Events,
) -> Result<(), Failure> {
    let spec = execution.specs.get(&service.service);
    if let Some(spec) = spec
        && !service.steps.is_empty()
    {
        wait_for_dependencies(fleet, execution, spec, events).await?;
    }
    let run = |step| run_step(fleet, execution, service, step, events);
    // The plan's order counts (a removal may free a port for a creation); neighbours of one kind do not wait for each other, but never
    // are two replicas replaced at once.
    for steps in service.steps.chunk_by(|a, b| a.action == b.action && a.action() != ReplicaAction::Replace) {
        // All of them to their end, also after a failure: a step that is dropped half-way leaves behind what nobody knows of.
        join_all(steps.iter().map(run)).await.into_iter().collect::<Result<(), Failure>>()?;
    }
    Ok(())
}

async fn run_step(
    fleet: &dyn Fleet,
    execution: Execution<'_>,
    service: &ServicePlan,
    step: &ReplicaStep,
    events: &Events,
) -> Result<(), Failure> {
    let progress = progress(events, &step.id, &service.service, &step.machine_name);
    let result = match step.action() {
        ReplicaAction::Remove => {
            progress.phase(StepPhase::Started, "stopping".to_owned(), Vec::new()).await;
            retire(fleet, &step.machine_id, &step.container_id).await
        }
        ReplicaAction::Create | ReplicaAction::Replace => match execution.specs.get(&service.service) {
            Some(spec) => {
                let new = NewReplica { spec, revision: &service.revision, deployment: execution.deployment };
                let waits = !runs_to_completion(execution, &service.service);
                replace(fleet, step, new, waits, &progress).await
            }
            None => {
                Err(Failure::new(Code::Internal, format!("the plan has no spec for {}", service.service)))
            }
        },
        ReplicaAction::Unspecified => {
            Err(Failure::new(Code::Version, "the plan has a step this machine does not know")
                .hint("upgrade ucd on this machine"))
        }
    };
    progress.done(result.map_err(|failure| failure.on(&step.machine_name))).await
}

async fn retire(fleet: &dyn Fleet, machine: &str, container: &str) -> Result<(), Failure> {
    fleet.stop(machine, container).await?;
    fleet.remove(machine, container).await
}

/// A new replica, and the end of the one it replaces, if any. On failure the old one serves as before.
async fn replace(
    fleet: &dyn Fleet,
    step: &ReplicaStep,
    new: NewReplica<'_>,
    wait: bool,
    progress: &Progress,
) -> Result<(), Failure> {
    let old_machine = if step.old_machine_id.is_empty() { &step.machine_id } else { &step.old_machine_id };
    let replaces = step.action() == ReplicaAction::Replace;
    let stop_first = replaces && step.order() == UpdateOrder::StopFirst;

    progress.phase(StepPhase::Started, "creating".to_owned(), Vec::new()).await;
    let container = fleet.create(&step.machine_id, &new, progress).await?;
    let served = async {
        if stop_first {
            progress.say("stopping the old one").await;
            fleet.stop(old_machine, &step.container_id).await?;
        }
        progress.say(if wait { "starting, until it serves" } else { "starting" }).await;
        fleet.start(&step.machine_id, &container, wait).await
    }
    .await;
    if let Err(failure) = served {
        return Err(undo(fleet, step, &container, old_machine, stop_first, progress, failure).await);
    }
    if replaces {
        progress.say(if stop_first { "removing the old one" } else { "stopping the old one" }).await;
        retire(fleet, old_machine, &step.container_id).await?;
    }
    Ok(())
}

async fn undo(
    fleet: &dyn Fleet,
    step: &ReplicaStep,
    container: &str,
    old_machine: &str,
    restart_old: bool,
    progress: &Progress,
    cause: Failure,
) -> Failure {
    progress.say("taking the new one away").await;
    let mut problems = Vec::new();
    if let Err(failure) = retire(fleet, &step.machine_id, container).await {
        problems.push(format!("the new container is still there: {failure}"));
    }
    if restart_old && let Err(failure) = fleet.start(old_machine, &step.container_id, true).await {
        problems.push(format!("the old container does not serve again: {failure}"));
    }
    if problems.is_empty() {
        return cause;
    }
    let message = format!("{}; then {}", cause.message, problems.join(", "));
    Failure { message, ..cause }
}

/// Some other service waits until this one has ended well: it is not expected to go on running.
fn runs_to_completion(execution: Execution<'_>, service: &str) -> bool {
    execution.specs.values().flat_map(|spec| &spec.depends_on).any(|dependency| {
        dependency.service == service && dependency.condition() == DependencyCondition::Completed
    })
}

async fn wait_for_dependencies(
    fleet: &dyn Fleet,
    execution: Execution<'_>,
    spec: &ServiceSpec,
    events: &Events,
) -> Result<(), Failure> {
    for dependency in &spec.depends_on {
        let wanted = dependency.condition();
        let deadline = Instant::now() + DEPENDENCY_LIMIT;
        let mut told = false;
        loop {
            let replicas = replicas_of(fleet, execution.machines, &spec.project, &dependency.service).await;
            match condition_met(wanted, &replicas) {
                Met::Yes => break,
                Met::Never(reason) => {
                    return Err(Failure::new(
                        Code::Refused,
                        format!("{} depends on {}, which {reason}", spec.name, dependency.service),
                    )
                    .hint(format!("see `uc logs {}`", dependency.service)));
                }
                Met::NotYet if Instant::now() >= deadline => {
                    return Err(Failure::new(
                        Code::TimedOut,
                        format!(
                            "{} waited {} s for {} to be {}",
                            spec.name,
                            DEPENDENCY_LIMIT.as_secs(),
                            dependency.service,
                            condition_name(wanted)
                        ),
                    )
                    .hint(format!("see `uc ps` and `uc logs {}`", dependency.service)));
                }
                Met::NotYet => {}
            }
            if !told {
                told = true;
                let state = condition_name(wanted);
                events.notice(format!("{} waits for {} to be {state}", spec.name, dependency.service)).await;
            }
            sleep(DEPENDENCY_POLL).await;
        }
    }
    Ok(())
}

async fn replicas_of(
    fleet: &dyn Fleet,
    machines: &[String],
    project: &str,
    service: &str,
) -> Vec<ReplicaRecord> {
    let answers = join_all(machines.iter().map(|machine| fleet.observe(machine))).await;
    answers
        .into_iter()
        .filter_map(Result::ok)
        .flatten()
        .filter(|replica| replica.project == project && replica.service == service)
        .collect()
}

#[derive(Debug, PartialEq)]
enum Met {
    Yes,
    NotYet,
    Never(String),
}

fn condition_name(condition: DependencyCondition) -> &'static str {
    match condition {
        DependencyCondition::Healthy => "healthy",
        DependencyCondition::Completed => "completed",
        DependencyCondition::Started | DependencyCondition::Unspecified => "started",
    }
}

/// Whether the replicas of a service are what a dependent waits for. One good replica is enough; `completed` needs all of them.
fn condition_met(condition: DependencyCondition, replicas: &[ReplicaRecord]) -> Met {
    let running = |replica: &&ReplicaRecord| replica.state() == ReplicaState::Running;
    match condition {
        DependencyCondition::Started | DependencyCondition::Unspecified => {
            if replicas.iter().any(|replica| running(&replica)) { Met::Yes } else { Met::NotYet }
        }
        DependencyCondition::Healthy => {
            let alive: Vec<_> = replicas.iter().filter(running).collect();
            if alive.iter().any(|replica| replica.health() == Health::Healthy) {
                Met::Yes
            } else if !alive.is_empty() && alive.iter().all(|replica| replica.health() == Health::None) {
                Met::Never("has no healthcheck, so it can never be healthy".to_owned())
            } else {
                Met::NotYet
            }
        }
        DependencyCondition::Completed => {
            let ended = |replica: &ReplicaRecord| replica.state() == ReplicaState::Exited;
            let bad =
                replicas.iter().filter(|r| ended(r)).find_map(|r| r.exit_code.filter(|code| *code != 0));
            if let Some(code) = bad {
                Met::Never(format!("ended with exit code {code}"))
            } else if !replicas.is_empty() && replicas.iter().all(ended) {
                Met::Yes
            } else {
                Met::NotYet
            }
        }
    }
}

#[cfg(test)]
mod tests;
