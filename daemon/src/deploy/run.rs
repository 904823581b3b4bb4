//! One deployment on the machine that was asked for it: look at all machines, plan, compare with
//! what the user confirmed, write the new desired state, execute, and on failure go back to the
//! previous revision of every service it touched.
//!
//! A daemon that is stopped or dies in the meantime leaves the deployment in its journal, and the
//! next one continues it ([`super::resume`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uc_api::v1::{
    DeployBegan, DeployFinished, DeployOutcome, DeploymentJournal, Plan, PlanRequest,
    ServiceChange, ServiceRecord, ServiceSpec, SettleRequest, deploy_event, plan_request,
};
use uc_api::{Code, Failure, ServiceKey};
use uc_cluster_state::Write;
use uc_planner::{Planned, plan, projects};

use super::execute::{Execution, Stopped, execute, take_back};
use super::fleet::NodeFleet;
use super::images::resolve_images;
use super::journal::Journal;
use super::lock::Lock;
use super::look::{observe, settle};
use super::restore::{restore, written};
use super::retire::{retire_deletes, retire_writes};
use super::undo::{Previous, previous_of, previous_records, service_key};
use crate::backoff::Backoff;
use crate::clock::now_ms;
use crate::cluster::deployments::deployments;
use crate::cluster::events::Events;
use crate::cluster::executing::Executed;
use crate::cluster::history::{self, resolve};
use crate::cluster::member::Member;
use crate::cluster::records::{self, delete, put};
use crate::cluster::view::Cluster;

/// Pauses between attempts to write down the end of a deployment. A disk that is full stays so
/// until a user does something.
const FIRST_LOG_RETRY: Duration = Duration::from_secs(1);
const LAST_LOG_RETRY: Duration = Duration::from_mins(1);

/// What would change.
pub(crate) async fn plan_request(member: &Member, request: &PlanRequest) -> Result<Plan, Failure> {
    let request = resolve(&member.cluster(), &member.store.snapshot(), request.clone())?;
    let resolved = resolve_images(member, request.clone());
    let ((request, unresolved), (observed, unreachable)) =
        tokio::join!(resolved, observe(member, &request));
    let mut plan = plan(&request, observed)?.plan;
    plan.warnings.extend(unreachable);
    plan.warnings.extend(unresolved);
    Ok(plan)
}

/// What a deployment is to do.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) request: PlanRequest,
    /// Of the plan that was confirmed.
    pub(crate) digest: String,
    /// The id of the new deployment.
    pub(crate) deployment: String,
    /// New replicas only have to start.
    pub(crate) skip_health: bool,
}

/// Starts the deployment. It continues whether or not its events are read. Fails if the plan is not
/// the one with this digest.
pub(crate) async fn start(member: Arc<Member>, order: Order) -> Result<Events, Failure> {
    let (started, answer) = oneshot::channel();
    let task_member = Arc::clone(&member);
    // A task of its own, so that nothing is left locked when the caller hangs up.
    member.tasks.spawn(async move {
        let member = &task_member;
        let begun = async {
            let snapshot = member.store.snapshot();
            let request = resolve(&member.cluster(), &snapshot, order.request)?;
            let (request, _shown_in_plan) = resolve_images(member, request).await;
            let order = Order { request, ..order };
            let agreed = Agreed::take(member, &order).await?;
            match begin(member, &agreed.planned, order).await {
                Ok(journal) => Ok((agreed, journal)),
                Err(failure) => {
                    agreed.lock.release().await;
                    Err(failure)
                }
            }
        };
        let (agreed, journal) = match begun.await {
            Ok(begun) => begun,
            Err(failure) => {
                let _caller_gone = started.send(Err(failure));
                return;
            }
        };
        let executed = Executed::default();
        let _caller_gone = started.send(Ok(executed.events.clone()));
        to_end(member, &journal, agreed.lock, executed).await;
    });
    answer
        .await
        .unwrap_or_else(|_| Err(Failure::new(Code::Internal, "the machine is stopping")))
}

/// Writes the deployment down, before anything is done.
async fn begin(member: &Member, planned: &Planned, order: Order) -> Result<Journal, Failure> {
    let deployment = order.deployment;
    let up = planned.observed.machines.iter().filter(|of| of.up);
    let content = DeploymentJournal {
        deployment_id: deployment.clone(),
        request: Some(order.request),
        plan: Some(planned.plan.clone()),
        specs: planned.specs.clone(),
        previous: previous_of(&planned.plan, &planned.observed.services),
        machines: up.map(|machine| machine.id.to_string()).collect(),
        known_deployments: known_deployments(member, &planned.plan),
        skip_health: order.skip_health,
        ..DeploymentJournal::default()
    };
    let journal = Journal::begin_deployment(&member.paths.deployments(), content).await?;
    if let Err(failure) = member.log_began(&deployment, &planned.plan).await {
        journal.remove();
        return Err(failure);
    }
    Ok(journal)
}

/// The deployments of the plan's projects that have begun before.
fn known_deployments(member: &Member, plan: &Plan) -> Vec<String> {
    let all = deployments(&member.store.snapshot()).into_iter();
    let projects = projects_of(plan);
    all.filter(|of| projects.iter().any(|project| of.concerns(project)))
        .map(|of| of.id)
        .collect()
}

/// The projects that a plan changes.
pub(super) fn projects_of(plan: &Plan) -> BTreeSet<String> {
    plan.services.iter().map(|of| of.project.clone()).collect()
}

/// Carries a deployment out and ends it. If the daemon stops in the meantime, the journal stays,
/// and the locks stay as well until they expire or the next process continues.
pub(super) async fn to_end(member: &Member, journal: &Journal, lock: Lock, executed: Executed) {
    let run = Run::new(member, journal, executed.cancel.clone());
    let events = executed.events.clone();
    events.send(deploy_event::Event::Began(DeployBegan {
        deployment_id: run.deployment.clone(),
        machine_name: member.own_name(),
    }));
    let executing = member.executing.add(&run.deployment, executed);
    let finished = tokio::select! {
        () = member.cancel.cancelled() => return,
        finished = run.to_end(&events) => finished,
    };
    lock.release().await;
    drop(executing);
    events.send(deploy_event::Event::Finished(finished));
}

/// A plan that the user confirmed, and the lock of the projects that it changes.
struct Agreed {
    planned: Planned,
    lock: Lock,
}

impl Agreed {
    async fn take(member: &Arc<Member>, order: &Order) -> Result<Self, Failure> {
        let projects = projects(&order.request, &known_services(&member.cluster()))?;
        Journal::refuse_left(&member.paths.deployments(), &member.executing, &projects)?;
        let lock = Lock::take(member, projects.clone(), &order.deployment).await?;
        match confirmed(member, &order.request, &order.digest, &projects).await {
            Ok(planned) => Ok(Self { planned, lock }),
            Err(failure) => {
                lock.release().await;
                Err(failure)
            }
        }
    }
}

/// The plan, if it is still the one that was confirmed.
async fn confirmed(
    member: &Member,
    request: &PlanRequest,
    digest: &str,
    projects: &BTreeSet<String>,
) -> Result<Planned, Failure> {
    let (observed, _) = observe(member, request).await;
    let planned = plan(request, observed)?;
    let mut services = planned.plan.services.iter();
    if planned.plan.digest == digest && services.all(|of| projects.contains(&of.project)) {
        return Ok(planned);
    }
    Err(Failure::new(
        Code::PlanChanged,
        "the cluster changed since the plan was made",
    )
    .hint("look at the new plan and confirm it"))
}

/// The services that should exist, and those of which replicas exist.
fn known_services(cluster: &Cluster) -> BTreeSet<ServiceKey> {
    let running = cluster.replicas().map(|(_, replica)| &replica.service);
    cluster.services().keys().chain(running).cloned().collect()
}

/// A deployment from its journal.
struct Run<'a> {
    member: &'a Member,
    journal: &'a Journal,
    request: PlanRequest,
    deployment: String,
    plan: Plan,
    specs: BTreeMap<String, ServiceSpec>,
    previous: BTreeMap<ServiceKey, Option<ServiceRecord>>,
    /// Ids of the machines that were up.
    machines: Vec<String>,
    /// Why it is being undone, if it was when the daemon stopped.
    failure: Option<Failure>,
    /// How it ended, if it had when the daemon stopped.
    finished: Option<DeployFinished>,
    skip_health: bool,
    /// Cancelled by a user.
    cancel: CancellationToken,
}

fn finished(outcome: DeployOutcome, message: String, failure: Failure) -> DeployFinished {
    DeployFinished {
        outcome: outcome.into(),
        message,
        log_tail: failure.log_tail,
        hint: failure.hint.unwrap_or_default(),
    }
}

/// What to do where some replicas are not what they should be.
const GO_ON: &str = "`uc ps` shows what runs; `uc deploy` tries the remaining steps again";

/// The end of a deployment that was carried out, but for these.
fn done(failed: Vec<Failure>) -> DeployFinished {
    let count = failed.len();
    let Some(first) = failed.into_iter().next() else {
        return DeployFinished {
            outcome: DeployOutcome::Done.into(),
            ..DeployFinished::default()
        };
    };
    let steps = if count == 1 {
        "1 step".to_owned()
    } else {
        format!("{count} steps")
    };
    let message = format!("{steps} failed and all other steps succeeded: {first}");
    let hint = first.hint.clone().unwrap_or_else(|| GO_ON.to_owned());
    finished(DeployOutcome::Incomplete, message, first.hint(hint))
}

impl<'a> Run<'a> {
    fn new(member: &'a Member, journal: &'a Journal, cancel: CancellationToken) -> Self {
        let content = journal.content();
        Self {
            member,
            journal,
            request: content.request.expect("a journal has the request"),
            deployment: content.deployment_id,
            plan: content.plan.expect("a journal has the plan"),
            specs: content.specs,
            previous: previous_records(content.previous),
            machines: content.machines,
            failure: content.failure.map(Failure::from),
            finished: content.finished,
            skip_health: content.skip_health,
            cancel,
        }
    }

    async fn to_end(&self, events: &Events) -> DeployFinished {
        let finished = match (&self.finished, &self.failure) {
            (Some(finished), _) => finished.clone(),
            (None, Some(failure)) => self.back(failure.clone(), events).await,
            (None, None) => self.forward(events).await,
        };
        // First here: what has ended is never executed again.
        if let Err(failure) = self.journal.note_finished(&finished).await {
            tracing::warn!(%failure, "the outcome of a deployment is not in the journal");
        }
        let mut backoff = Backoff::new(FIRST_LOG_RETRY, LAST_LOG_RETRY);
        let mut told = false;
        while let Err(failure) = self.member.log_ended(&self.deployment, &finished).await {
            if !told {
                events.notice(format!("the outcome cannot be written down yet: {failure}"));
                told = true;
            }
            tokio::time::sleep(backoff.wait(rand::random())).await;
        }
        self.settle(events).await;
        settle(self.member, &self.machines, &self.plan).await;
        self.journal.remove();
        finished
    }

    async fn forward(&self, events: &Events) -> DeployFinished {
        let cluster = self.member.cluster();
        let Intents { before, mut after } =
            intents(&cluster, &self.plan, &self.specs, &self.request, now_ms());
        let written = self.write(before).await;
        let Ok(()) = written else {
            let failure = written.expect_err("it is not a success");
            if self.journal.is_resumed() {
                return self.back(failure, events).await;
            }
            // Nothing has been changed, so there is nothing to go back to.
            let message = failure.to_string();
            return finished(DeployOutcome::RolledBack, message, failure);
        };
        let fleet = NodeFleet::new(self.member);
        let carried_out = tokio::select! {
            carried_out = execute(&fleet, self.execution(), events) => carried_out,
            () = self.cancel.cancelled() => {
                let failure = Failure::new(Code::Refused, "the deployment was cancelled");
                return self.back(failure, events).await;
            }
        };
        match carried_out {
            Ok(failed) => {
                // Where a new replica failed, the one that is away may be all there is.
                if failed.is_empty() {
                    after.extend(retire_writes(&self.plan, &self.deployment, now_ms()));
                }
                match self.write(after).await {
                    Ok(()) => {
                        self.note_revisions().await;
                        done(failed)
                    }
                    Err(failure) => self.back(failure, events).await,
                }
            }
            Err(Stopped {
                failure,
                pause: true,
            }) => {
                let message = format!(
                    "{failure}; the deployment is paused: new and old replicas were left running"
                );
                let hint = failure.hint.clone().unwrap_or_else(|| GO_ON.to_owned());
                finished(DeployOutcome::Paused, message, failure.hint(hint))
            }
            Err(Stopped {
                failure,
                pause: false,
            }) => self.back(failure, events).await,
        }
    }

    /// Keeps what was deployed, so that a user can go back to it.
    async fn note_revisions(&self) {
        let cluster = self.member.cluster();
        let changed = self.previous.keys().filter_map(|key| {
            let record = cluster.services().get(key)?;
            Some((key.clone(), (**record).clone()))
        });
        let (changed, snapshot) = (changed.collect(), self.member.store.snapshot());
        let removed = self.plan.services.iter();
        let removed = removed.filter(|of| of.change() == ServiceChange::Remove);
        let removed: Vec<ServiceKey> = removed
            .map(|of| service_key(&of.project, &of.service))
            .collect();
        let id = &self.deployment;
        let writes = history::of_deployment(&snapshot, &changed, removed.iter(), id, now_ms());
        if let Err(failure) = self.write(writes).await {
            tracing::warn!(%failure, "the history lacks what this deployment made");
        }
    }

    async fn write(&self, writes: Vec<Write>) -> Result<(), Failure> {
        if writes.is_empty() {
            return Ok(());
        }
        self.member.write(writes).await
    }

    fn execution(&self) -> Execution<'_> {
        Execution {
            plan: &self.plan,
            specs: &self.specs,
            machines: &self.machines,
            deployment: &self.deployment,
            skip_health: self.skip_health,
            journal: self.journal,
        }
    }

    /// Makes the previous records and what ran by them true again.
    async fn back(&self, failure: Failure, events: &Events) -> DeployFinished {
        let words = Previous::of(&self.previous);
        events.notice(words.rolling_back());
        let mut problems = Vec::new();
        problems.extend(self.journal.note_failure(failure.clone()).await.err());
        let fleet = NodeFleet::new(self.member);
        problems.extend(take_back(&fleet, self.execution(), events).await);
        problems.extend(self.restore_records(events).await.err());
        let Some(first) = problems.into_iter().next() else {
            let message = format!("{failure}; {}", words.rolled_back());
            return finished(DeployOutcome::RolledBack, message, failure);
        };
        let message = format!("{failure}; rolling back failed, too: {first}");
        let failure = if first.code == Code::Unreachable {
            let machine = first.machine.as_deref().unwrap_or("a machine");
            failure.hint(format!(
                "{machine} takes its part back by itself as soon as it can be reached; `uc ps` shows what runs"
            ))
        } else {
            failure
        };
        finished(DeployOutcome::Failed, message, failure)
    }

    /// Writes the previous records again, where the present one is what this deployment wrote.
    async fn restore_records(&self, events: &Events) -> Result<(), Failure> {
        let cluster = self.member.cluster();
        let written = written(&self.plan, &self.specs);
        let restore = restore(&self.previous, &written, cluster.services());
        for service in restore.changed_by_others {
            events.notice(format!(
                "{service} was changed by someone else in the meantime and is left as it is"
            ));
        }
        let mut writes = restore.writes;
        writes.extend(retire_deletes(&self.plan));
        self.write(writes).await
    }

    /// Has all machines remove what the deployment replaced. One that cannot be reached does so
    /// when it learns that the deployment has ended.
    async fn settle(&self, events: &Events) {
        let touched = self
            .plan
            .services
            .iter()
            .filter(|of| !of.steps.is_empty() || of.change() == ServiceChange::Remove);
        let services: Vec<String> = touched
            .map(|of| format!("{}/{}", of.project, of.service))
            .collect();
        if services.is_empty() {
            return;
        }
        let cluster = self.member.cluster();
        let machines = cluster.machines().iter();
        let up = machines.filter(|machine| !cluster.is_down(machine.id));
        let settled = join_all(up.map(|machine| {
            let request = SettleRequest {
                deployment_id: self.deployment.clone(),
                services: services.clone(),
            };
            let remote = self.member.peers.machine(machine);
            async move { (machine, remote.settle(request).await) }
        }));
        for (machine, settled) in settled.await {
            match settled {
                Ok(warnings) => warnings
                    .iter()
                    .for_each(|warning| events.notice(format!("{}: {warning}", machine.name))),
                Err(failure) => {
                    tracing::warn!(machine = %machine.name, %failure, "a machine settles a deployment later");
                }
            }
        }
    }
}

/// Changes of the desired state around an execution.
#[derive(Debug, Default)]
struct Intents {
    /// New and changed services: known before their first container exists, so that a machine that
    /// dies half-way leaves no unknown ones.
    before: Vec<Write>,
    /// Removed services: forgotten only when their last container is gone.
    after: Vec<Write>,
}

fn intents(
    cluster: &Cluster,
    plan: &Plan,
    specs: &BTreeMap<String, ServiceSpec>,
    request: &PlanRequest,
    now_ms: i64,
) -> Intents {
    let existing = cluster.services();
    let volumes = match &request.change {
        Some(plan_request::Change::Deploy(desired)) => Some(&desired.volumes),
        _ => None,
    };
    let mut intents = Intents::default();
    for service in &plan.services {
        let key = service_key(&service.project, &service.service);
        if service.change() == ServiceChange::Remove {
            let removal = delete(records::SERVICE, key.to_string());
            intents.after.push(removal);
            continue;
        }
        let spec = specs.get(&service.service);
        let spec =
            spec.expect("the planner gives the spec of each service that it does not remove");
        let old = existing.get(&key);
        let used: Vec<_> = match volumes {
            Some(volumes) => volumes
                .iter()
                .filter(|volume| spec.mounts.iter().any(|mount| mount.source == volume.name))
                .cloned()
                .collect(),
            None => old.map_or_else(Vec::new, |record| record.volumes.clone()),
        };
        if old.is_some_and(|old| old.spec.as_ref() == Some(spec) && old.volumes == used) {
            continue;
        }
        let record = ServiceRecord {
            spec: Some(spec.clone()),
            revision: uc_api::revision::revision(spec),
            updated_at_ms: now_ms,
            volumes: used,
        };
        intents
            .before
            .push(put(records::SERVICE, key.to_string(), &record));
    }
    intents
}

#[cfg(test)]
mod tests;
