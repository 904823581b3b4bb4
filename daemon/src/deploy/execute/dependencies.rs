//! Waiting for the conditions of `depends_on`.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use uc_api::v1::{
    DependencyCondition, Health, Kept, ReplicaAction, ReplicaRecord, ReplicaState, ServiceSpec,
};
use uc_api::{Code, Failure};

use super::service::{ServiceEnd, ServiceEnds};
use super::{Execution, Fleet};
use crate::cluster::events::Events;

/// Pauses between looks at a dependency.
const FIRST_POLL: Duration = Duration::from_millis(500);
const LAST_POLL: Duration = Duration::from_secs(2);
/// How long a dependency may take to be what its condition wants, from the end of its own steps; a
/// migration job may take minutes.
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

/// Why a service does not begin.
#[derive(Debug)]
pub(super) enum Unmet {
    /// What it depends on stopped the execution. That is the cause, and this service has none.
    Stopped,
    Failed(Failure),
}

/// Until every dependency of the service is what its condition wants.
pub(super) async fn wait_for_dependencies(
    fleet: &dyn Fleet,
    execution: Execution<'_>,
    spec: &ServiceSpec,
    ends: &ServiceEnds,
    events: &Events,
) -> Result<(), Unmet> {
    for dependency in &spec.depends_on {
        let service = &dependency.service;
        let wanted = match dependency.condition() {
            DependencyCondition::Healthy if !execution.skip_health => DependencyCondition::Healthy,
            DependencyCondition::Completed => DependencyCondition::Completed,
            _ => DependencyCondition::Started,
        };
        let failed = |code, message, see: &str| {
            Unmet::Failed(Failure::new(code, message).hint(format!("see {see}")))
        };
        let logs = format!("`uc logs {service}`");
        let is_made_here = new_replicas(execution, service).is_some();
        let mut deadline = Instant::now() + DEPENDENCY_LIMIT;
        let mut pause = FIRST_POLL;
        let mut told = false;
        loop {
            // Asked first: it can end while it is looked at.
            let end = ends.of(service);
            if end == Some(ServiceEnd::Stopped) {
                return Err(Unmet::Stopped);
            }
            if is_made_here && end.is_none() {
                // It is under way, and has limits of its own.
                deadline = Instant::now() + DEPENDENCY_LIMIT;
            }
            let old_ones_count = end == Some(ServiceEnd::Tolerated);
            let met = look(fleet, execution, spec, service, wanted, old_ones_count).await;
            match met {
                Met::Yes => break,
                Met::Never(reason) => {
                    let message = format!("{} depends on {service}, which {reason}", spec.name);
                    return Err(failed(Code::Refused, message, &logs));
                }
                Met::NotYet if old_ones_count => {
                    let message = format!("{} depends on {service}, which failed", spec.name);
                    return Err(failed(Code::Refused, message, &logs));
                }
                Met::NotYet if Instant::now() >= deadline => {
                    let message = format!(
                        "{} waited {} s for {service} to be {}",
                        spec.name,
                        DEPENDENCY_LIMIT.as_secs(),
                        condition_name(wanted)
                    );
                    let see = format!("`uc ps` and {logs}");
                    return Err(failed(Code::TimedOut, message, &see));
                }
                Met::NotYet => {}
            }
            if !told {
                told = true;
                let state = condition_name(wanted);
                events.notice(format!("{} waits for {service} to be {state}", spec.name));
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LAST_POLL);
        }
    }
    Ok(())
}

/// Whether a dependency is what its condition wants now. Of one that new replicas are made of, only
/// those count as started, unless `old_ones_count`.
async fn look(
    fleet: &dyn Fleet,
    execution: Execution<'_>,
    spec: &ServiceSpec,
    service: &str,
    wanted: DependencyCondition,
    old_ones_count: bool,
) -> Met {
    let new = new_replicas(execution, service)
        .filter(|_| wanted == DependencyCondition::Started && !old_ones_count);
    // Each look costs Docker there some work while it is busy.
    let machines: Vec<&String> = match &new {
        Some(new) => new.machines.iter().copied().collect(),
        None => execution.machines.iter().collect(),
    };
    let replicas = replicas_of(fleet, &machines, &spec.project, service).await;
    let (mut replicas, complete) = match replicas {
        Ok(replicas) => (replicas, true),
        Err(known) => (known, false),
    };
    if let Some(new) = new {
        replicas.retain(|replica| replica.revision == new.revision);
    }
    match condition_met(wanted, &replicas) {
        // A replica on a machine that did not answer may still run.
        Met::Yes if !complete && wanted == DependencyCondition::Completed => Met::NotYet,
        met => met,
    }
}

/// What an execution makes of a service.
struct NewReplicas<'a> {
    revision: &'a str,
    machines: BTreeSet<&'a String>,
}

/// The new replicas that this execution makes of a service, if it makes some.
fn new_replicas<'a>(execution: Execution<'a>, service: &str) -> Option<NewReplicas<'a>> {
    let mut services = execution.plan.services.iter();
    let of_plan = services.find(|of| of.service == service)?;
    let steps = of_plan.steps.iter();
    let made = steps.filter(|step| step.action() != ReplicaAction::Remove);
    let machines: BTreeSet<&String> = made.map(|step| &step.machine_id).collect();
    (!machines.is_empty()).then_some(NewReplicas {
        revision: &of_plan.revision,
        machines,
    })
}

/// The replicas of the service. `Err` has those of the machines that answered, if one did not.
async fn replicas_of(
    fleet: &dyn Fleet,
    machines: &[&String],
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
