//! How a deployment gets its projects: it asks all machines, and then confirms that it has them.
//!
//! Of deployments that ask at the same time, exactly one continues if there is one machine that
//! answers all of them. Each machine leases a project once, so no two can be granted by all. A
//! deployment that finds a project taken gives up if the other one is confirmed, or if the other
//! one is still asking and has the lower id. Otherwise it keeps what it has and asks again: the
//! other one either gives up because of it, or is confirmed. So the one with the lowest id gives up
//! only if another one is confirmed.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use uc_api::v1::release_request::What;
use uc_api::v1::{Lease, LeaseRequest};
use uc_api::{Failure, MachineId};

use crate::node::LEASE_TTL;

/// How long a lease lasts while its deployment still asks. A round of asking takes at most
/// two seconds; a deployment that was cut short in it holds
/// up others no longer than this.
const ASKING_TTL: Duration = Duration::from_secs(5);
/// How long the leases of a deployment that was cut short, or that is about to give up, are waited
/// for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two rounds of asking.
const PAUSE: Duration = Duration::from_millis(100);

/// A machine's answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Granted,
    /// Another deployment has one of the projects.
    Taken(Lease),
    /// It does not take part in deployments at the moment.
    Refused(Failure),
    /// It does not answer, or cannot.
    Silent,
}

/// Why a deployment does not get its projects.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Denial {
    /// The deployment with this lease has one of them.
    Taken(Lease),
    /// A machine refuses.
    Refused(Failure),
}

/// The machines that are asked.
#[async_trait]
pub(super) trait Machines: Sync {
    /// Asks one machine, for at most two seconds.
    async fn lease(&self, machine: MachineId, request: LeaseRequest) -> Answer;
    /// Releases on one machine, if it answers within
    /// two seconds.
    async fn release(&self, machine: MachineId, what: What);
}

/// Gets the projects on all of these machines that answer. Otherwise releases what it has got.
pub(super) async fn ask(
    machines: &dyn Machines,
    ids: &BTreeSet<MachineId>,
    request: &LeaseRequest,
) -> Result<(), Denial> {
    let asking = LeaseRequest {
        ttl_ms: milliseconds(ASKING_TTL),
        confirmed: false,
        ..request.clone()
    };
    let started = Instant::now();
    // Machines that do not answer are left out from then on.
    let mut answering = ids.clone();
    loop {
        let mut denials = round(machines, &mut answering, &asking).await;
        if denials.is_empty() {
            denials = round(machines, &mut answering, &confirmed(request)).await;
        }
        if denials.is_empty() {
            return Ok(());
        }
        let out_of_patience = started.elapsed() >= PATIENCE;
        let ends = |denial: &Denial| match denial {
            Denial::Taken(other) => {
                other.confirmed || other.deployment_id < request.deployment_id || out_of_patience
            }
            Denial::Refused(_) => true,
        };
        if let Some(denial) = denials.into_iter().find(ends) {
            // Also where the answer got lost.
            release(machines, ids, What::Attempt(request.attempt.clone())).await;
            return Err(denial);
        }
        sleep(PAUSE).await;
    }
}

/// The request of a deployment that has its projects.
pub(super) fn confirmed(request: &LeaseRequest) -> LeaseRequest {
    LeaseRequest {
        ttl_ms: milliseconds(LEASE_TTL),
        confirmed: true,
        ..request.clone()
    }
}

/// Asks all machines that still answer. Returns why they do not lease.
async fn round(
    machines: &dyn Machines,
    answering: &mut BTreeSet<MachineId>,
    request: &LeaseRequest,
) -> Vec<Denial> {
    let asked: Vec<MachineId> = answering.iter().copied().collect();
    let answers = asked.iter().map(|id| machines.lease(*id, request.clone()));
    let mut denials = Vec::new();
    for (id, answer) in asked.iter().zip(join_all(answers).await) {
        match answer {
            Answer::Granted => {}
            Answer::Taken(lease) => denials.push(Denial::Taken(lease)),
            Answer::Refused(failure) => denials.push(Denial::Refused(failure)),
            Answer::Silent => _ = answering.remove(id),
        }
    }
    denials
}

/// Releases on all of these machines that answer.
pub(super) async fn release(machines: &dyn Machines, ids: &BTreeSet<MachineId>, what: What) {
    join_all(ids.iter().map(|id| machines.release(*id, what.clone()))).await;
}

/// A time as the wire has it.
pub(super) fn milliseconds(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
