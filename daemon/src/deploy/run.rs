//! One deployment on the machine that was asked for it: look at all machines, plan, compare with
//! what the user confirmed, write the new desired state, execute, and on failure go back to the
//! previous revision of every service it touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use uc_api::v1::{
    DeployEvent, DeployFinished, DeployOutcome, Plan, PlanRequest, ServiceRecord, deploy_event,
    plan_request,
};
use uc_api::{Code, Failure, ServiceKey};
use uc_cluster_state::Write;
use uc_planner::{Planned, plan, projects};

use super::execute::{Events, Execution, Stopped, execute};
use super::fleet::NodeFleet;
use super::lock::Lock;
use super::look::{observe, settle};
use super::undo::{Previous, previous_records, previous_requests, service_key};
use crate::clock::now_ms;
use crate::cluster::member::Member;
use crate::cluster::records::{self, delete, put};
use crate::cluster::turn::Turn;
use crate::cluster::view::Cluster;

/// Events waiting for a slow reader before the deployment waits for it.
const EVENT_QUEUE: usize = 256;

/// What would change.
pub(crate) async fn plan_request(member: &Member, request: &PlanRequest) -> Result<Plan, Failure> {
    let (observed, unreachable) = observe(member).await;
    let mut plan = plan(request, observed)?.plan;
    plan.warnings.extend(unreachable);
    Ok(plan)
}

/// Starts the deployment. It continues whether or not its events are read. Fails if the plan is not
/// the one with this digest.
pub(crate) async fn start(
    member: Arc<Member>,
    request: PlanRequest,
    digest: String,
    deployment: String,
) -> Result<mpsc::Receiver<DeployEvent>, Failure> {
    let (started, answer) = oneshot::channel();
    let task_member = Arc::clone(&member);
    // A task of its own, so that nothing is left locked when the caller hangs up.
    member.tasks.spawn(async move {
        let member = &task_member;
        let agreed = match Agreed::take(member, &request, &digest, &deployment).await {
            Ok(agreed) => agreed,
            Err(failure) => {
                let _caller_gone = started.send(Err(failure));
                return;
            }
        };
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
        let _caller_gone = started.send(Ok(receiver));
        let events = Events::new(sender);
        let run = Run {
            member,
            planned: &agreed.planned,
            request: &request,
            deployment: &deployment,
            going_back: false,
        };
        let finished = run.to_end(&events).await;
        agreed.lock.release().await;
        drop(agreed.turn);
        events.send(deploy_event::Event::Finished(finished)).await;
    });
    answer
        .await
        .unwrap_or_else(|_| Err(Failure::new(Code::Internal, "the machine is stopping")))
}

/// A plan that the user confirmed, and the lock of the projects that it changes.
struct Agreed {
    planned: Planned,
    turn: Turn,
    lock: Lock,
}

impl Agreed {
    async fn take(
        member: &Arc<Member>,
        request: &PlanRequest,
        digest: &str,
        deployment: &str,
    ) -> Result<Self, Failure> {
        let projects = projects(request, &known_services(&member.cluster()))?;
        let turn = Turn::take(&member.running, projects.clone())?;
        let lock = Lock::take(member, projects.clone(), deployment).await?;
        match confirmed(member, request, digest, &projects).await {
            Ok(planned) => Ok(Self {
                planned,
                turn,
                lock,
            }),
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
    let (observed, _) = observe(member).await;
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

#[derive(Clone, Copy)]
struct Run<'a> {
    member: &'a Member,
    planned: &'a Planned,
    request: &'a PlanRequest,
    deployment: &'a str,
    /// A failed deployment is being taken back.
    going_back: bool,
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

impl Run<'_> {
    async fn to_end(self, events: &Events) -> DeployFinished {
        let previous = previous_records(&self.planned.plan, &self.planned.observed.services);
        let after = match self.begin().await {
            Ok(after) => after,
            // Nothing has been changed, so there is nothing to go back to.
            Err(failure) => {
                let message = failure.to_string();
                return finished(DeployOutcome::RolledBack, message, failure);
            }
        };
        let failure = match self.carry_out(after, events).await {
            Ok(failed) => return done(failed),
            Err(Stopped {
                failure,
                pause: true,
            }) => {
                let message = format!(
                    "{failure}; the deployment is paused: new and old replicas were left running"
                );
                let hint = failure.hint.clone().unwrap_or_else(|| GO_ON.to_owned());
                return finished(DeployOutcome::Paused, message, failure.hint(hint));
            }
            Err(Stopped {
                failure,
                pause: false,
            }) => failure,
        };
        let words = Previous::of(&previous);
        events.notice(words.rolling_back()).await;
        let back = self.back(&previous, events).await;
        let (outcome, message) = match back {
            Ok(()) => (
                DeployOutcome::RolledBack,
                format!("{failure}; {}", words.rolled_back()),
            ),
            Err(back) => (
                DeployOutcome::Failed,
                format!("{failure}; rolling back failed, too: {back}"),
            ),
        };
        finished(outcome, message, failure)
    }

    /// Writes down what is wanted. Returns what is to be written at the end.
    async fn begin(self) -> Result<Vec<Write>, Failure> {
        let Intents { before, after } =
            intents(&self.member.cluster(), self.planned, self.request, now_ms());
        if !before.is_empty() {
            self.member.write(before).await?;
        }
        Ok(after)
    }

    /// Returns the failures that the services' policies tolerate.
    async fn carry_out(self, after: Vec<Write>, events: &Events) -> Result<Vec<Failure>, Stopped> {
        let ended = self.execute(events).await;
        if ended
            .as_ref()
            .map_or_else(|stopped| stopped.pause, |_| true)
        {
            settle(self.member, &self.planned.observed, &self.planned.plan).await;
        }
        let failed = ended?;
        if !after.is_empty() {
            self.member.write(after).await?;
        }
        Ok(failed)
    }

    async fn forward(self, events: &Events) -> Result<(), Failure> {
        let after = self.begin().await?;
        let carried_out = self.carry_out(after, events).await;
        carried_out.map(drop).map_err(|stopped| stopped.failure)
    }

    async fn execute(self, events: &Events) -> Result<Vec<Failure>, Stopped> {
        let fleet = NodeFleet::new(self.member);
        let machines = self.planned.observed.machines.iter();
        let up = machines.filter(|machine| machine.up);
        let machines: Vec<String> = up.map(|machine| machine.id.to_string()).collect();
        let execution = Execution {
            plan: &self.planned.plan,
            specs: &self.planned.specs,
            machines: &machines,
            deployment: self.deployment,
            going_back: self.going_back,
        };
        execute(&fleet, execution, events).await
    }

    /// Makes the previous records and what runs by them true again.
    async fn back(
        self,
        previous: &BTreeMap<ServiceKey, Option<ServiceRecord>>,
        events: &Events,
    ) -> Result<(), Failure> {
        let mut problems = Vec::new();
        for request in previous_requests(previous) {
            let (observed, _) = observe(self.member).await;
            let result = match plan(&request, observed) {
                Ok(planned) => {
                    let run = Run {
                        planned: &planned,
                        request: &request,
                        going_back: true,
                        ..self
                    };
                    run.forward(events).await
                }
                Err(error) => Err(error.into()),
            };
            if let Err(failure) = result {
                problems.push(failure);
            }
        }
        let cluster = self.member.cluster();
        let known = cluster.services();
        let restored: Vec<_> = previous
            .iter()
            .filter(|(key, record)| known.get(*key).map(|known| &**known) != record.as_ref())
            .map(|(key, record)| match record {
                Some(record) => put(records::SERVICE, key.to_string(), record),
                None => delete(records::SERVICE, key.to_string()),
            })
            .collect();
        if !restored.is_empty() {
            self.member.write(restored).await?;
        }
        problems.into_iter().next().map_or(Ok(()), Err)
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

fn intents(cluster: &Cluster, planned: &Planned, request: &PlanRequest, now_ms: i64) -> Intents {
    let existing = cluster.services();
    let volumes = match &request.change {
        Some(plan_request::Change::Deploy(desired)) => Some(&desired.volumes),
        _ => None,
    };
    let mut intents = Intents::default();
    for service in &planned.plan.services {
        let key = service_key(&service.project, &service.service);
        if service.change() == uc_api::v1::ServiceChange::Remove {
            let removal = delete(records::SERVICE, key.to_string());
            intents.after.push(removal);
            continue;
        }
        let spec = planned.specs.get(&service.service);
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
