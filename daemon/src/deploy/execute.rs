//! Carries out a plan, step by step, on the machines it names. Layers one after another, the
//! services of a layer side by side, except that each waits until those that it depends on run; in
//! a service steps run in the plan's order and replicas are
//! replaced as its update policy says. A step that fails takes itself back (the replica it would
//! have replaced serves again) and, unless the policy tolerates it, ends the execution. Then
//! [`take_back`] undoes the steps before it.
//!
//! Everything can be repeated: the machines know the changes that they have carried out.

mod dependencies;
mod events;
mod service;
mod step;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures_util::future::join_all;
use uc_api::Failure;
use uc_api::v1::{
    ChangeEnded, Plan, ReplicaChange, ReplicaRecord, ServicePlan, ServiceSpec, StepPhase,
    VolumeSpec,
};

pub(super) use self::events::{Progress, progress};
use self::service::{Ended, ServiceEnds};
use super::journal::Journal;
use crate::cluster::events::Events;

/// The machines, as the executor needs them. The real one calls each machine's `Node` service.
#[async_trait]
pub(super) trait Fleet: Send + Sync {
    /// Makes a volume; one that is there with the same driver is no error.
    async fn create_volume(&self, machine: &str, volume: &VolumeSpec) -> Result<(), Failure>;
    /// Has a machine carry out a change to its end. A machine that does not answer is asked again
    /// for a while.
    async fn apply(
        &self,
        machine: &str,
        change: &ReplicaChange,
        progress: &Progress,
    ) -> Result<ChangeEnded, Failure>;
    /// Has a machine take a change back, whether or not it was carried out.
    async fn undo(
        &self,
        machine: &str,
        change: &ReplicaChange,
        progress: &Progress,
    ) -> Result<(), Failure>;
    /// Runs the spec's command of before a deployment to its end; its output is progress.
    async fn pre_deploy(
        &self,
        machine: &str,
        new: &NewReplica<'_>,
        progress: &Progress,
    ) -> Result<(), Failure>;
    /// The machine's replicas, from its engine now.
    async fn observe(&self, machine: &str) -> Result<Vec<ReplicaRecord>, Failure>;
}

/// What a command of before a deployment runs with.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewReplica<'a> {
    /// What it runs.
    pub spec: &'a ServiceSpec,
    /// The spec's revision.
    pub revision: &'a str,
    /// Which deployment makes it.
    pub deployment: &'a str,
}

/// Everything one execution needs to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Execution<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// Specs by service name, of all services that get new replicas or that others depend on.
    pub specs: &'a BTreeMap<String, ServiceSpec>,
    /// Machines to look at for replicas that the plan keeps.
    pub machines: &'a [String],
    /// Names the deployment on its containers.
    pub deployment: &'a str,
    /// New replicas only have to start, and dependencies as well.
    pub skip_health: bool,
    /// What was done before, and what is being done.
    pub journal: &'a Journal,
}

/// Why an execution ended early.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stopped {
    /// What failed.
    pub failure: Failure,
    /// What is done is to stay as it is; otherwise it is to be undone.
    pub pause: bool,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            pause: false,
        }
    }
}

/// Runs the plan to its end, or until a failure that a service's policy does not put up with. Gives
/// the failures that it did.
pub(super) async fn execute(
    fleet: &dyn Fleet,
    execution: Execution<'_>,
    events: &Events,
) -> Result<Vec<Failure>, Stopped> {
    create_volumes(fleet, execution.plan, events).await?;
    let mut failed = Vec::new();
    let ends = ServiceEnds::default();
    for layer in layers(execution.plan) {
        let services = execution
            .plan
            .services
            .iter()
            .filter(|service| service.layer == layer);
        let run = async |one: &ServicePlan| {
            let ended = service::run_service(fleet, execution, one, &ends, events).await;
            ends.note(&one.service, &ended);
            ended
        };
        let mut stopped: Option<Stopped> = None;
        for ended in join_all(services.map(run)).await {
            match ended {
                Ended::Whole(more) | Ended::Short(more) => failed.extend(more),
                // One that wants all of it undone is not overruled by one that does not.
                Ended::Stopped(why)
                    if stopped
                        .as_ref()
                        .is_none_or(|stopped| stopped.pause && !why.pause) =>
                {
                    stopped = Some(why);
                }
                Ended::Stopped(_) => {}
            }
        }
        if let Some(stopped) = stopped {
            return Err(stopped);
        }
    }
    Ok(failed)
}

async fn create_volumes(fleet: &dyn Fleet, plan: &Plan, events: &Events) -> Result<(), Failure> {
    for step in &plan.volumes {
        let Some(volume) = &step.volume else { continue };
        let progress = progress(
            events,
            &step.id,
            &format!("volume {}", volume.name),
            &step.machine_name,
        );
        progress.phase(StepPhase::Started, "creating".to_owned(), Vec::new());
        let result = fleet.create_volume(&step.machine_id, volume).await;
        progress.done(result.map_err(|failure| failure.on(&step.machine_name)))?;
    }
    Ok(())
}

/// Undoes the steps that were begun, and those of services that share a namespace with others.
/// Returns what could not be undone.
pub(super) async fn take_back(
    fleet: &dyn Fleet,
    execution: Execution<'_>,
    events: &Events,
) -> Vec<Failure> {
    let mut failed = Vec::new();
    // What others share is there again before they are.
    for layer in layers(execution.plan) {
        let of_layer = execution
            .plan
            .services
            .iter()
            .filter(|service| service.layer == layer);
        let steps = of_layer.flat_map(|service| {
            let spec = execution.specs.get(&service.service);
            let shares = spec.is_some_and(|spec| !uc_planner::shared(spec).is_empty());
            let steps = service.steps.iter();
            steps
                .filter(move |step| shares || execution.journal.is_begun(&step.id))
                .map(move |step| step::undo_step(fleet, execution, service, step, events))
        });
        let undone = join_all(steps).await.into_iter();
        failed.extend(undone.filter_map(Result::err));
    }
    failed
}

fn layers(plan: &Plan) -> BTreeSet<u32> {
    plan.services.iter().map(|service| service.layer).collect()
}

#[cfg(test)]
mod tests;
