//! Carries out a plan, step by step, on the machines it names. Layers one after another, the
//! services of a layer side by side; in a service steps run in the plan's order and replicas are
//! replaced as its update policy says. A step that fails undoes itself (the replica it would have
//! replaced serves again) and, unless the policy puts up with it, ends the execution; going back
//! with everything else is the caller's, who plans that as well.

mod dependencies;
mod events;
mod service;
mod step;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures_util::future::join_all;
use uc_api::Failure;
use uc_api::v1::{Plan, ReplicaRecord, ServiceSpec, StepPhase, VolumeSpec};

pub(super) use self::events::{Events, Progress, progress};

/// The machines, as the executor needs them. The real one calls each machine's `Node` service.
#[async_trait]
pub(super) trait Fleet: Send + Sync {
    /// Makes a volume; one that is there with the same driver is no error.
    async fn create_volume(&self, machine: &str, volume: &VolumeSpec) -> Result<(), Failure>;
    /// Pulls and creates, does not start. Returns the container's id.
    async fn create(
        &self,
        machine: &str,
        new: &NewReplica<'_>,
        progress: &Progress,
    ) -> Result<String, Failure>;
    /// Starts, and waits as long as `wait` says.
    async fn start(&self, machine: &str, container: &str, wait: Wait) -> Result<(), Failure>;
    /// Runs the spec's command of before a deployment to its end; its output is progress.
    async fn pre_deploy(
        &self,
        machine: &str,
        new: &NewReplica<'_>,
        progress: &Progress,
    ) -> Result<(), Failure>;
    /// Stops within its grace period. One that does not run or is not there is no error.
    async fn stop(&self, machine: &str, container: &str) -> Result<(), Failure>;
    /// Removes. One that is not there is no error.
    async fn remove(&self, machine: &str, container: &str) -> Result<(), Failure>;
    /// The machine's replicas, from its engine now.
    async fn observe(&self, machine: &str) -> Result<Vec<ReplicaRecord>, Failure>;
}

/// What to wait for after a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing: it is not expected to go on running.
    No,
    /// That it serves.
    Serves {
        /// Milliseconds it is watched; none: the machine's own choice.
        monitor_ms: Option<u64>,
    },
}

/// A container to be made.
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
    /// The plan takes a failed deployment back: without delays, without commands, and every
    /// failure counts.
    pub going_back: bool,
}

/// Why an execution ended early.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stopped {
    /// What failed.
    pub failure: Failure,
    /// What is done is to stay as it is; otherwise it is to be taken back.
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
    let layers: BTreeSet<u32> = execution
        .plan
        .services
        .iter()
        .map(|service| service.layer)
        .collect();
    let mut failed = Vec::new();
    for layer in layers {
        let services = execution
            .plan
            .services
            .iter()
            .filter(|service| service.layer == layer);
        let run = |one| service::run_service(fleet, execution, one, events);
        let mut stopped: Option<Stopped> = None;
        for result in join_all(services.map(run)).await {
            match result {
                Ok(more) => failed.extend(more),
                // One that wants all of it taken back is not overruled by one that does not.
                Err(why)
                    if stopped
                        .as_ref()
                        .is_none_or(|stopped| stopped.pause && !why.pause) =>
                {
                    stopped = Some(why);
                }
                Err(_) => {}
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
        progress
            .phase(StepPhase::Started, "creating".to_owned(), Vec::new())
            .await;
        let result = fleet.create_volume(&step.machine_id, volume).await;
        progress
            .done(result.map_err(|failure| failure.on(&step.machine_name)))
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
