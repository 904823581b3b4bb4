//! The steps of one service, as its update policy wants them: so many replicas at a time, a pause
//! between, and what a failure means.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;
use uc_api::Failure;
use uc_api::v1::{
    FailureAction, PreDeployStep, ReplicaAction, ReplicaStep, ServicePlan, ServiceSpec, StepPhase,
};

use super::dependencies::{Unmet, wait_for_dependencies};
use super::events::progress;
use super::step::run_step;
use super::{Execution, Fleet, NewReplica, Stopped};
use crate::cluster::events::Events;

/// How a service's replicas are replaced.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Policy {
    /// At a time; at least 1.
    parallelism: usize,
    /// Between groups of replicas that are replaced.
    delay: Duration,
    action: FailureAction,
    /// More failures than this share of the steps call for the action.
    max_failure_ratio: f64,
}

impl Policy {
    fn of(spec: Option<&ServiceSpec>) -> Self {
        let update = spec.and_then(|spec| spec.update).unwrap_or_default();
        let parallelism = match update.parallelism {
            None => 1,
            Some(0) => usize::MAX,
            Some(count) => count as usize,
        };
        Self {
            parallelism,
            delay: Duration::from_millis(update.delay_ms),
            action: update.failure_action(),
            max_failure_ratio: update.max_failure_ratio,
        }
    }

    fn stop(&self, failure: Failure) -> Stopped {
        Stopped {
            failure,
            pause: self.action == FailureAction::Pause,
        }
    }

    /// The end of the service's update, if so many failures of so many steps call for it.
    fn judge(&self, failed: &[Failure], steps: usize) -> Result<(), Stopped> {
        let Some(last) = failed.last() else {
            return Ok(());
        };
        let share = failed.len() as f64 / steps.max(1) as f64;
        if self.action == FailureAction::Continue || share <= self.max_failure_ratio {
            return Ok(());
        }
        Err(self.stop(last.clone()))
    }
}

/// The plan's order counts (a removal may free a port for a creation). Neighbours that create or
/// remove do not wait for each other; of those that replace only so many run at a time.
fn groups(steps: &[ReplicaStep], parallelism: usize) -> Vec<&[ReplicaStep]> {
    let runs = steps.chunk_by(|a, b| a.action == b.action);
    let size = |run: &[ReplicaStep]| match run.first().map(ReplicaStep::action) {
        Some(ReplicaAction::Replace) => parallelism,
        _ => usize::MAX,
    };
    runs.flat_map(|run| run.chunks(size(run))).collect()
}

/// How the steps of one service ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// All were carried out, but for failures that its policy tolerates.
    Whole(Vec<Failure>),
    /// The rest was left out, because another service stopped the execution.
    Short(Vec<Failure>),
    /// It stops the execution.
    Stopped(Stopped),
}

/// How a service ended, for those that depend on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ServiceEnd {
    Well,
    /// With failures that its policy tolerates.
    Tolerated,
    /// It stopped the execution, or was cut short by one that did.
    Stopped,
}

/// The services of an execution that have ended.
#[derive(Debug, Default)]
pub(super) struct ServiceEnds(Mutex<BTreeMap<String, ServiceEnd>>);

impl ServiceEnds {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, ServiceEnd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, service: &str, ended: &Ended) {
        let end = match ended {
            Ended::Whole(failed) if failed.is_empty() => ServiceEnd::Well,
            Ended::Whole(_) => ServiceEnd::Tolerated,
            Ended::Short(_) | Ended::Stopped(_) => ServiceEnd::Stopped,
        };
        self.all().insert(service.to_owned(), end);
    }

    /// `None` while it is not begun or under way.
    pub(super) fn of(&self, service: &str) -> Option<ServiceEnd> {
        self.all().get(service).copied()
    }

    /// One of them stopped the execution: the others begin nothing any more.
    fn is_stopped(&self) -> bool {
        self.all().values().any(|end| *end == ServiceEnd::Stopped)
    }
}

/// Carries out the steps of one service, unless another one stops the execution.
pub(super) async fn run_service(
    fleet: &dyn Fleet,
    execution: Execution<'_>,
    service: &ServicePlan,
    ends: &ServiceEnds,
    events: &Events,
) -> Ended {
    let spec = execution.specs.get(&service.service);
    let policy = Policy::of(spec);
    let adds = |step: &ReplicaStep| step.action() != ReplicaAction::Remove;
    if let Some(spec) = spec
        && service.steps.iter().any(adds)
    {
        match wait_for_dependencies(fleet, execution, spec, ends, events).await {
            Ok(()) if ends.is_stopped() => return Ended::Short(Vec::new()),
            Ok(()) => {}
            Err(Unmet::Stopped) => return Ended::Short(Vec::new()),
            Err(Unmet::Failed(failure)) => return Ended::Stopped(policy.stop(failure)),
        }
        if let Some(step) = &service.pre_deploy
            && let Err(failure) = pre_deploy(fleet, execution, service, step, spec, events).await
        {
            return Ended::Stopped(policy.stop(failure));
        }
    }
    let mut failed = Vec::new();
    // A container that cannot be removed is no reason to take back what replaces it.
    let mut left = Vec::new();
    let mut replaced_before = false;
    for group in groups(&service.steps, policy.parallelism) {
        let replaces = group
            .iter()
            .any(|step| step.action() == ReplicaAction::Replace);
        if replaces && replaced_before && !policy.delay.is_zero() {
            sleep(policy.delay).await;
        }
        if ends.is_stopped() {
            failed.extend(left);
            return Ended::Short(failed);
        }
        replaced_before |= replaces;
        let run = |step| run_step(fleet, execution, service, step, events);
        // All of them to their end, also after a failure: a step that is dropped half-way leaves
        // behind what nobody knows of.
        let ended = join_all(group.iter().map(run)).await;
        for (step, ended) in group.iter().zip(ended) {
            let Err(failure) = ended else { continue };
            if adds(step) {
                failed.push(failure);
            } else {
                left.push(failure);
            }
        }
        if let Err(stopped) = policy.judge(&failed, service.steps.len()) {
            return Ended::Stopped(stopped);
        }
    }
    failed.extend(left);
    Ended::Whole(failed)
}

async fn pre_deploy(
    fleet: &dyn Fleet,
    execution: Execution<'_>,
    service: &ServicePlan,
    step: &PreDeployStep,
    spec: &ServiceSpec,
    events: &Events,
) -> Result<(), Failure> {
    if execution.journal.is_prepared(&service.service) {
        return Ok(());
    }
    let progress = progress(events, &step.id, &service.service, &step.machine_name);
    progress.phase(StepPhase::Started, "running".to_owned(), Vec::new());
    let new = NewReplica {
        spec,
        revision: &service.revision,
        deployment: execution.deployment,
    };
    let result = fleet.pre_deploy(&step.machine_id, &new, &progress).await;
    progress.done(result.map_err(|failure| failure.on(&step.machine_name)))?;
    execution.journal.note_prepared(&service.service).await
}

#[cfg(test)]
mod tests;
