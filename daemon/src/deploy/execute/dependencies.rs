//! Waiting for the conditions of `depends_on`.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use uc_api::v1::{
    DependencyCondition, Health, Kept, ReplicaAction, ReplicaRecord, ReplicaState, ReplicaStep,
    ServiceSpec,
};
use uc_api::{Code, Failure};

use super::{Execution, Fleet};
use crate::cluster::events::Events;

/// How often a dependency that this deployment did not start is looked at.
const DEPENDENCY_POLL: Duration = Duration::from_millis(500);
/// How long a dependency may take to be what its condition wants; a migration job may take minutes.
const DEPENDENCY_LIMIT: Duration = Duration::from_mins(10);

/// Some other service waits until this one has ended well: it is not expected to go on running.
pub(super) fn runs_to_completion(execution: Execution<'_>, service: &str) -> bool {
    execution
        .specs
        .values()
        .flat_map(|spec| &spec.depends_on)
        .any(|dependency| {
            dependency.service == service
                && dependency.condition() == DependencyCondition::Completed
        })
}

/// The services of which a replica failed in this execution. Whoever waits for one of them to start
/// does not go on waiting.
#[derive(Debug, Default)]
pub(super) struct FailedServices(Mutex<BTreeSet<String>>);

impl FailedServices {
    fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, service: &str) {
        self.names().insert(service.to_owned());
    }

    fn has(&self, service: &str) -> bool {
        self.names().contains(service)
    }
}

/// Until every dependency of the service is what its condition wants.
pub(super) async fn wait_for_dependencies(
    fleet: &dyn Fleet,
    execution: Execution<'_>,
    spec: &ServiceSpec,
    failed: &FailedServices,
    events: &Events,
) -> Result<(), Failure> {
    for dependency in &spec.depends_on {
        let service = &dependency.service;
        let wanted = match dependency.condition() {
            DependencyCondition::Healthy if !execution.skip_health => DependencyCondition::Healthy,
            DependencyCondition::Completed => DependencyCondition::Completed,
            _ => DependencyCondition::Started,
        };
        let deadline = Instant::now() + DEPENDENCY_LIMIT;
        let mut told = false;
        loop {
            // Asked first: it can fail while it is looked at.
            let has_failed = failed.has(service);
            let met = look(fleet, execution, &spec.project, service, wanted).await;
            match met {
                Met::Yes => break,
                Met::Never(reason) => {
                    return Err(Failure::new(
                        Code::Refused,
                        format!("{} depends on {service}, which {reason}", spec.name),
                    )
                    .hint(format!("see `uc logs {service}`")));
                }
                Met::NotYet if has_failed => {
                    let message = format!("{} depends on {service}, which failed", spec.name);
                    return Err(Failure::new(Code::Refused, message)
                        .hint(format!("see `uc logs {service}`")));
                }
                Met::NotYet if Instant::now() >= deadline => {
                    return Err(Failure::new(
                        Code::TimedOut,
                        format!(
                            "{} waited {} s for {service} to be {}",
                            spec.name,
                            DEPENDENCY_LIMIT.as_secs(),
                            condition_name(wanted)
                        ),
                    )
                    .hint(format!("see `uc ps` and `uc logs {service}`")));
                }
                Met::NotYet => {}
            }
            if !told {
                told = true;
                let state = condition_name(wanted);
                events.notice(format!("{} waits for {service} to be {state}", spec.name));
            }
            sleep(DEPENDENCY_POLL).await;
        }
    }
    Ok(())
}

/// Whether a dependency is what its condition wants now.
async fn look(
    fleet: &dyn Fleet,
    execution: Execution<'_>,
    project: &str,
    service: &str,
    wanted: DependencyCondition,
) -> Met {
    let replicas = replicas_of(fleet, execution.machines, project, service).await;
    let (replicas, complete) = match replicas {
        Ok(replicas) => (replicas, true),
        Err(known) => (known, false),
    };
    let counts = |replica: &ReplicaRecord| {
        wanted != DependencyCondition::Started
            || new_revision(execution, service).is_none_or(|new| replica.revision == new)
    };
    let replicas: Vec<ReplicaRecord> = replicas.into_iter().filter(counts).collect();
    match condition_met(wanted, &replicas) {
        // A replica on a machine that did not answer may still run.
        Met::Yes if !complete && wanted == DependencyCondition::Completed => Met::NotYet,
        met => met,
    }
}

/// What the new replicas of a service run, if this execution makes some: those that they replace do
/// not count as started.
fn new_revision<'a>(execution: Execution<'a>, service: &str) -> Option<&'a str> {
    let mut services = execution.plan.services.iter();
    let of_plan = services.find(|of| of.service == service)?;
    let makes = |step: &ReplicaStep| step.action() != ReplicaAction::Remove;
    of_plan
        .steps
        .iter()
        .any(makes)
        .then_some(of_plan.revision.as_str())
}

/// The replicas of the service. `Err` has those of the machines that answered, if one did not.
async fn replicas_of(
    fleet: &dyn Fleet,
    machines: &[String],
    project: &str,
    service: &str,
) -> Result<Vec<ReplicaRecord>, Vec<ReplicaRecord>> {
    let answers = join_all(machines.iter().map(|machine| fleet.observe(machine))).await;
    let complete = answers.iter().all(Result::is_ok);
    let replicas = answers
        .into_iter()
        .filter_map(Result::ok)
        .flatten()
        .filter(|replica| replica.project == project && replica.service == service)
        .filter(|replica| replica.kept() == Kept::Unspecified)
        .collect();
    if complete {
        Ok(replicas)
    } else {
        Err(replicas)
    }
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

/// Whether the replicas of a service are what a dependent waits for. One good replica is enough;
/// `completed` needs all of them.
fn condition_met(condition: DependencyCondition, replicas: &[ReplicaRecord]) -> Met {
    let running = |replica: &&ReplicaRecord| replica.state() == ReplicaState::Running;
    match condition {
        DependencyCondition::Started | DependencyCondition::Unspecified => {
            let begun = |replica: &ReplicaRecord| running(&replica) || replica.finished;
            if replicas.iter().any(begun) {
                Met::Yes
            } else {
                Met::NotYet
            }
        }
        DependencyCondition::Healthy => {
            let alive: Vec<_> = replicas.iter().filter(running).collect();
            if alive
                .iter()
                .any(|replica| replica.health() == Health::Healthy)
            {
                Met::Yes
            } else if !alive.is_empty()
                && alive.iter().all(|replica| replica.health() == Health::None)
            {
                Met::Never("has no healthcheck, so it can never be healthy".to_owned())
            } else {
                Met::NotYet
            }
        }
        DependencyCondition::Completed => {
            let ended = |replica: &ReplicaRecord| replica.state() == ReplicaState::Exited;
            let bad = replicas
                .iter()
                .filter(|r| ended(r))
                .find_map(|r| r.exit_code.filter(|code| *code != 0));
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
mod tests {
    use super::*;

    #[test]
    fn conditions() {
        let record = |state: ReplicaState, health: Health, exit_code| ReplicaRecord {
            state: state.into(),
            health: health.into(),
            exit_code,
            ..ReplicaRecord::default()
        };
        let running = record(ReplicaState::Running, Health::None, None);
        let failed = record(ReplicaState::Exited, Health::None, Some(3));
        let ended = record(ReplicaState::Exited, Health::None, Some(0));
        assert_eq!(
            condition_met(DependencyCondition::Started, &[]),
            Met::NotYet
        );
        assert_eq!(
            condition_met(DependencyCondition::Started, std::slice::from_ref(&running)),
            Met::Yes
        );
        assert!(matches!(
            condition_met(DependencyCondition::Healthy, std::slice::from_ref(&running)),
            Met::Never(_)
        ));
        assert_eq!(
            condition_met(
                DependencyCondition::Completed,
                std::slice::from_ref(&running)
            ),
            Met::NotYet
        );
        assert_eq!(
            condition_met(DependencyCondition::Completed, std::slice::from_ref(&ended)),
            Met::Yes
        );
        assert_eq!(
            condition_met(DependencyCondition::Completed, &[running, ended]),
            Met::NotYet
        );
        assert!(matches!(
            condition_met(DependencyCondition::Completed, &[failed]),
            Met::Never(_)
        ));
    }
}
