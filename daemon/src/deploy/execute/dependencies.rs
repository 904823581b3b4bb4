//! Waiting for the conditions of `depends_on`.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use uc_api::v1::{DependencyCondition, Health, Kept, ReplicaRecord, ReplicaState, ServiceSpec};
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

/// Until every dependency of the service is what its condition wants.
pub(super) async fn wait_for_dependencies(
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
            let replicas = replicas_of(
                fleet,
                execution.machines,
                &spec.project,
                &dependency.service,
            )
            .await;
            let met = match &replicas {
                Ok(replicas) => condition_met(wanted, replicas),
                // A replica there may still run.
                Err(known) if wanted == DependencyCondition::Completed => {
                    match condition_met(wanted, known) {
                        Met::Yes => Met::NotYet,
                        other => other,
                    }
                }
                Err(known) => condition_met(wanted, known),
            };
            match met {
                Met::Yes => break,
                Met::Never(reason) => {
                    return Err(Failure::new(
                        Code::Refused,
                        format!(
                            "{} depends on {}, which {reason}",
                            spec.name, dependency.service
                        ),
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
                events.notice(format!(
                    "{} waits for {} to be {state}",
                    spec.name, dependency.service
                ));
            }
            sleep(DEPENDENCY_POLL).await;
        }
    }
    Ok(())
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
            if replicas.iter().any(|replica| running(&replica)) {
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
