//! One deployment on the machine that was asked for it: look at all machines, plan, compare with
//! what the person agreed to, write the new desired state, execute, and on failure go back to the
//! previous revision of every service it touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use uc_api::v1::{
    DeployEvent, DeployFinished, DeployOutcome, Plan, PlanRequest, ServiceRecord, ServiceSpec,
    deploy_event, plan_request,
};
use uc_api::{Code, Failure, ServiceKey};
use uc_cluster_state::Write;

use super::execute::{Events, Execution, Stopped, execute};
use super::fleet::NodeFleet;
use super::lock::{Lock, Turn};
use super::look::{observe, settle};
use super::plan::{self, Desired, Observed};
use super::undo::{Previous, previous_records, previous_requests};
use crate::member::Member;
use crate::records::{self, View, delete, put};

/// Events waiting for a slow reader before the deployment waits for it.
const EVENT_QUEUE: usize = 256;

/// What would change.
pub async fn plan_request(member: &Member, request: &PlanRequest) -> Result<Plan, Failure> {
    let (observed, unreachable) = observe(member).await;
    let mut plan = plan_against(request, &observed)?;
    plan.warnings.extend(unreachable);
    Ok(plan)
}

fn plan_against(request: &PlanRequest, observed: &Observed) -> Result<Plan, Failure> {
    let desired = Desired::try_from(request.clone())?;
    Ok(plan::plan(&desired, observed)?)
}

/// Starts the deployment, which goes on whether anybody reads its events or not.
pub async fn start(
    member: Arc<Member>,
    request: PlanRequest,
    digest: String,
    deployment: String,
) -> Result<mpsc::Receiver<DeployEvent>, Failure> {
    let (_, plan) = agreed(&member, &request, &digest).await?;
    let projects: BTreeSet<String> = plan
        .services
        .iter()
        .map(|service| service.project.clone())
        .collect();
    let turn = Turn::take(&member.running, projects.clone())?;
    let lock = Lock::take(&member, projects, &deployment).await?;
    // Another deployment may have ended between the plan and the lock.
    let (observed, plan) = agreed(&member, &request, &digest).await?;
    let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
    let task_member = Arc::clone(&member);
    member.tasks.spawn(async move {
        let events = Events::new(sender);
        let run = Run {
            member: &task_member,
            observed: &observed,
            deployment: &deployment,
            going_back: false,
        };
        let finished = run.to_end(&plan, &request, &events).await;
        lock.release().await;
        drop(turn);
        events.send(deploy_event::Event::Finished(finished)).await;
    });
    Ok(receiver)
}

/// The plan, if it is still the one with this digest.
async fn agreed(
    member: &Member,
    request: &PlanRequest,
    digest: &str,
) -> Result<(Observed, Plan), Failure> {
    let (observed, _) = observe(member).await;
    let plan = plan_against(request, &observed)?;
    if plan.digest == digest {
        return Ok((observed, plan));
    }
    Err(Failure::new(
        Code::PlanChanged,
        "the cluster changed since the plan was made",
    )
    .hint("look at the new plan and confirm it"))
}

#[derive(Clone, Copy)]
struct Run<'a> {
    member: &'a Member,
    observed: &'a Observed,
    deployment: &'a str,
    /// A failed deployment is being taken back.
    going_back: bool,
}

/// A deployment whose desired state is written down.
struct Begun {
    specs: BTreeMap<String, ServiceSpec>,
    after: Vec<Write>,
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
    async fn to_end(self, plan: &Plan, request: &PlanRequest, events: &Events) -> DeployFinished {
        let previous = previous_records(plan, &self.observed.services);
        let begun = match self.begin(plan, request).await {
            Ok(begun) => begun,
            // Nothing has been changed, so there is nothing to go back to.
            Err(failure) => {
                let message = failure.to_string();
                return finished(DeployOutcome::RolledBack, message, failure);
            }
        };
        let failure = match self.carry_out(plan, begun, events).await {
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

    /// Writes down what is wanted.
    async fn begin(self, plan: &Plan, request: &PlanRequest) -> Result<Begun, Failure> {
        let specs = specs_of(request, self.observed)?;
        let Intents { before, after } = self.member.intents_of(plan, request, &specs);
        if !before.is_empty() {
            self.member.write(before).await?;
        }
        Ok(Begun { specs, after })
    }

    /// The failures that the services' policies put up with.
    async fn carry_out(
        self,
        plan: &Plan,
        begun: Begun,
        events: &Events,
    ) -> Result<Vec<Failure>, Stopped> {
        let ended = self.execute(plan, &begun.specs, events).await;
        if ended
            .as_ref()
            .map_or_else(|stopped| stopped.pause, |_| true)
        {
            settle(self.member, self.observed, plan).await;
        }
        let failed = ended?;
        if !begun.after.is_empty() {
            self.member.write(begun.after).await?;
        }
        Ok(failed)
    }

    async fn forward(
        self,
        plan: &Plan,
        request: &PlanRequest,
        events: &Events,
    ) -> Result<(), Failure> {
        let begun = self.begin(plan, request).await?;
        self.carry_out(plan, begun, events)
            .await
            .map(|_| ())
            .map_err(|stopped| stopped.failure)
    }

    async fn execute(
        self,
        plan: &Plan,
        specs: &BTreeMap<String, ServiceSpec>,
        events: &Events,
    ) -> Result<Vec<Failure>, Stopped> {
        let fleet = NodeFleet::new(self.member);
        let machines: Vec<String> = self
            .observed
            .machines
            .iter()
            .filter(|m| m.up)
            .map(|m| m.id.to_string())
            .collect();
        let execution = Execution {
            plan,
            specs,
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
            let run = Run {
                observed: &observed,
                going_back: true,
                ..self
            };
            let result = match plan_against(&request, &observed) {
                Ok(plan) => run.forward(&plan, &request, events).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = result {
                problems.push(failure);
            }
        }
        let known = self.member.view().services();
        let restored: Vec<_> = previous
            .iter()
            .filter(|(key, record)| known.get(*key) != record.as_ref())
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

/// Specs by service name that the plan's steps need, dependencies included, as the planner has
/// them. All are of one project.
fn specs_of(
    request: &PlanRequest,
    observed: &Observed,
) -> Result<BTreeMap<String, ServiceSpec>, Failure> {
    let specs = plan::specs(&Desired::try_from(request.clone())?, observed)?;
    Ok(specs
        .into_iter()
        .map(|(key, spec)| (key.service.to_string(), spec))
        .collect())
}

/// Changes of the desired state around an execution.
#[derive(Debug, Default)]
pub struct Intents {
    /// New and changed services: known before their first container exists, so that a machine that
    /// dies half-way leaves no unknown ones.
    pub before: Vec<Write>,
    /// Removed services: forgotten only when their last container is gone.
    pub after: Vec<Write>,
}

impl Member {
    fn intents_of(
        &self,
        plan: &Plan,
        request: &PlanRequest,
        specs: &BTreeMap<String, ServiceSpec>,
    ) -> Intents {
        let view: View = self.view();
        let existing = view.services();
        let volumes = match &request.change {
            Some(plan_request::Change::Deploy(desired)) => Some(&desired.volumes),
            _ => None,
        };
        let mut intents = Intents::default();
        for service in &plan.services {
            let Ok(key) = format!("{}/{}", service.project, service.service).parse::<ServiceKey>()
            else {
                continue;
            };
            if service.change() == uc_api::v1::ServiceChange::Remove {
                intents
                    .after
                    .push(delete(records::SERVICE, key.to_string()));
                continue;
            }
            let Some(spec) = specs.get(&service.service) else {
                continue;
            };
            let old = existing.get(&key);
            let used: Vec<_> = match volumes {
                Some(volumes) => volumes
                    .iter()
                    .filter(|volume| spec.mounts.iter().any(|mount| mount.source == volume.name))
                    .cloned()
                    .collect(),
                None => old.map(|record| record.volumes.clone()).unwrap_or_default(),
            };
            if old.is_some_and(|old| old.spec.as_ref() == Some(spec) && old.volumes == used) {
                continue;
            }
            let record = ServiceRecord {
                spec: Some(spec.clone()),
                revision: uc_api::revision::revision(spec),
                updated_at_ms: self.now_ms(),
                volumes: used,
            };
            intents
                .before
                .push(put(records::SERVICE, key.to_string(), &record));
        }
        intents
    }
}

#[cfg(test)]
mod tests;
