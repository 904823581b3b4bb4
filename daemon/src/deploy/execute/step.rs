//! One step: a new replica, the end of an old one, or one for the other. It is one change on one
//! machine, or two if the replica moves from one machine to another.

use uc_api::v1::{ReplicaAction, ReplicaChange, ReplicaStep, ServicePlan, StepPhase, UpdateOrder};
use uc_api::{Code, Failure};

use super::dependencies::runs_to_completion;
use super::events::progress;
use super::{Execution, Fleet, Progress};
use crate::cluster::events::Events;

/// The changes of a step in their order, each with the id of its machine.
pub(super) fn changes(
    execution: Execution<'_>,
    service: &ServicePlan,
    step: &ReplicaStep,
) -> Result<Vec<(String, ReplicaChange)>, Failure> {
    let bare = ReplicaChange {
        deployment_id: execution.deployment.to_owned(),
        step_id: step.id.clone(),
        project: service.project.clone(),
        service: service.service.clone(),
        ..ReplicaChange::default()
    };
    let stop_first = step.order() == UpdateOrder::StopFirst;
    let on = |machine: &str, change| (machine.to_owned(), change);
    let end_of_old = |step_id: String| ReplicaChange {
        step_id,
        replaces: step.container_id.clone(),
        alone: service.desired == 0 || (stop_first && service.desired == 1),
        ..bare.clone()
    };
    let new = || {
        let spec = execution.specs.get(&service.service).ok_or_else(|| {
            let message = format!("the plan has no spec for {}", service.service);
            Failure::new(Code::Internal, message)
        })?;
        let update = spec.update.unwrap_or_default();
        Ok::<_, Failure>(ReplicaChange {
            spec: Some(spec.clone()),
            revision: service.revision.clone(),
            monitor_ms: update.monitor_ms,
            no_wait: execution.skip_health || runs_to_completion(execution, &service.service),
            stop_first,
            // Started first, the new one takes over, and clients have to learn its address.
            alone: stop_first && service.desired == 1,
            ..bare.clone()
        })
    };
    let machine = &step.machine_id;
    Ok(match step.action() {
        ReplicaAction::Remove => vec![on(machine, end_of_old(step.id.clone()))],
        ReplicaAction::Create => vec![on(machine, new()?)],
        ReplicaAction::Replace if step.old_machine_id.is_empty() => {
            let replaces = step.container_id.clone();
            vec![on(machine, ReplicaChange { replaces, ..new()? })]
        }
        ReplicaAction::Replace => {
            let end = on(&step.old_machine_id, end_of_old(format!("{}/old", step.id)));
            let new = on(machine, new()?);
            if stop_first {
                vec![end, new]
            } else {
                vec![new, end]
            }
        }
        ReplicaAction::Unspecified => {
            let message = "the plan has a step that this machine does not support";
            return Err(Failure::new(Code::Version, message).hint("upgrade ucd on this machine"));
        }
    })
}

/// Carries a step out. A step that fails has taken itself back.
pub(super) async fn run_step(
    fleet: &dyn Fleet,
    execution: Execution<'_>,
    service: &ServicePlan,
    step: &ReplicaStep,
    events: &Events,
) -> Result<(), Failure> {
    let progress = progress(events, &step.id, &service.service, &step.machine_name);
    let starts = match step.action() {
        ReplicaAction::Remove => "stopping",
        _ => "creating",
    };
    progress.phase(StepPhase::Started, starts.to_owned(), Vec::new());
    let result = async {
        let changes = changes(execution, service, step)?;
        execution.journal.begin(&step.id);
        for (index, (machine, change)) in changes.iter().enumerate() {
            let ended = match fleet.apply(machine, change, &progress).await {
                Ok(ended) => ended,
                // The new replica serves elsewhere already.
                Err(failure) if index > 0 && change.spec.is_none() => {
                    progress.notice(&format!(
                        "the old container could not be stopped: {failure}"
                    ));
                    continue;
                }
                Err(failure) => {
                    let before = changes.get(..index).expect("it counts these changes");
                    return Err(take_back(fleet, before, &progress, failure).await);
                }
            };
            for warning in &ended.warnings {
                progress.notice(warning);
            }
        }
        Ok(())
    };
    let result = result.await;
    progress.done(result.map_err(|failure| failure.on(&step.machine_name)))
}

/// Takes back the changes of a step that failed later. Returns the cause, with what went wrong now.
async fn take_back(
    fleet: &dyn Fleet,
    changes: &[(String, ReplicaChange)],
    progress: &Progress,
    cause: Failure,
) -> Failure {
    match undo(fleet, changes, progress).await {
        Ok(()) => cause,
        Err(problem) => {
            let message = format!("{}; then {problem}", cause.message);
            Failure { message, ..cause }
        }
    }
}

/// Undoes changes, the last one first.
async fn undo(
    fleet: &dyn Fleet,
    changes: &[(String, ReplicaChange)],
    progress: &Progress,
) -> Result<(), Failure> {
    for (machine, change) in changes.iter().rev() {
        fleet.undo(machine, change, progress).await?;
    }
    Ok(())
}

/// Takes a step back, because the deployment failed.
pub(super) async fn undo_step(
    fleet: &dyn Fleet,
    execution: Execution<'_>,
    service: &ServicePlan,
    step: &ReplicaStep,
    events: &Events,
) -> Result<(), Failure> {
    let progress = progress(events, &step.id, &service.service, &step.machine_name);
    let changes = changes(execution, service, step)?;
    match undo(fleet, &changes, &progress).await {
        Ok(()) => {
            progress.phase(StepPhase::Undone, String::new(), Vec::new());
            Ok(())
        }
        Err(failure) => progress.done(Err(failure.on(&step.machine_name))),
    }
}
