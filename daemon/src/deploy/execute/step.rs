//! One step: a new replica, the end of an old one, or one for the other. A step that fails undoes
//! itself.

use uc_api::v1::{ReplicaAction, ReplicaStep, ServicePlan, StepPhase, UpdateOrder};
use uc_api::{Code, Failure};

use super::dependencies::runs_to_completion;
use super::events::progress;
use super::{Events, Execution, Fleet, NewReplica, Progress, Wait};

pub(super) async fn run_step(
    fleet: &dyn Fleet,
    execution: Execution<'_>,
    service: &ServicePlan,
    step: &ReplicaStep,
    monitor_ms: Option<u64>,
    events: &Events,
) -> Result<(), Failure> {
    let progress = progress(events, &step.id, &service.service, &step.machine_name);
    let result = match step.action() {
        ReplicaAction::Remove => {
            progress
                .phase(StepPhase::Started, "stopping".to_owned(), Vec::new())
                .await;
            retire(fleet, &step.machine_id, &step.container_id).await
        }
        ReplicaAction::Create | ReplicaAction::Replace => {
            match execution.specs.get(&service.service) {
                Some(spec) => {
                    let new = NewReplica {
                        spec,
                        revision: &service.revision,
                        deployment: execution.deployment,
                    };
                    let wait = if runs_to_completion(execution, &service.service) {
                        Wait::No
                    } else {
                        Wait::Serves { monitor_ms }
                    };
                    replace(fleet, step, new, wait, &progress).await
                }
                None => Err(Failure::new(
                    Code::Internal,
                    format!("the plan has no spec for {}", service.service),
                )),
            }
        }
        ReplicaAction::Unspecified => Err(Failure::new(
            Code::Version,
            "the plan has a step that this machine does not support",
        )
        .hint("upgrade ucd on this machine")),
    };
    progress
        .done(result.map_err(|failure| failure.on(&step.machine_name)))
        .await
}

async fn retire(fleet: &dyn Fleet, machine: &str, container: &str) -> Result<(), Failure> {
    fleet.stop(machine, container).await?;
    fleet.remove(machine, container).await
}

/// A new replica, and the end of the one it replaces, if any. On failure the old one serves as
/// before.
async fn replace(
    fleet: &dyn Fleet,
    step: &ReplicaStep,
    new: NewReplica<'_>,
    wait: Wait,
    progress: &Progress,
) -> Result<(), Failure> {
    let old_machine = if step.old_machine_id.is_empty() {
        &step.machine_id
    } else {
        &step.old_machine_id
    };
    let replaces = step.action() == ReplicaAction::Replace;
    let stop_first = replaces && step.order() == UpdateOrder::StopFirst;

    progress
        .phase(StepPhase::Started, "creating".to_owned(), Vec::new())
        .await;
    let container = fleet.create(&step.machine_id, &new, progress).await?;
    let served = async {
        if stop_first {
            progress.say("stopping the old replica").await;
            fleet.stop(old_machine, &step.container_id).await?;
        }
        progress
            .say(if wait == Wait::No {
                "starting"
            } else {
                "starting, waiting until it serves"
            })
            .await;
        fleet.start(&step.machine_id, &container, wait).await
    }
    .await;
    if let Err(failure) = served {
        return Err(undo(
            fleet,
            step,
            &container,
            old_machine,
            stop_first,
            progress,
            failure,
        )
        .await);
    }
    if replaces {
        progress
            .say(if stop_first {
                "removing the old replica"
            } else {
                "stopping the old replica"
            })
            .await;
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
    progress.say("removing the new replica").await;
    let mut problems = Vec::new();
    if let Err(failure) = retire(fleet, &step.machine_id, container).await {
        problems.push(format!("the new container could not be removed: {failure}"));
    }
    if restart_old
        && let Err(failure) = fleet
            .start(
                old_machine,
                &step.container_id,
                Wait::Serves { monitor_ms: None },
            )
            .await
    {
        problems.push(format!(
            "the old container could not be started again: {failure}"
        ));
    }
    if problems.is_empty() {
        return cause;
    }
    let message = format!("{}; then {}", cause.message, problems.join(", "));
    Failure { message, ..cause }
}
