//! One deployment of a project at a time. A deployment leases its projects on every machine that it
//! can reach ([`Lock`]). Two deployments of one project are kept apart wherever there is a machine
//! that both can reach. On two sides of a partition both run, because each part of a cluster can
//! deploy.
//!
//! The leases are renewed until the deployment ends. A machine that was away gets them with the
//! next renewal. A project that a user released (`uc lock release`) is leased again by its
//! deployment, unless another deployment has it by then: the deployment itself continues.

mod ask;
pub(crate) mod locks;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ask::{Answer, Denial, Machines, confirmed};
use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use uc_api::id::short;
use uc_api::v1::release_request::What;
use uc_api::v1::{Lease, LeaseRequest, LeftLeases};
use uc_api::{Code, Failure, MachineId};

use crate::cluster::deployments::is_automatic;
use crate::cluster::member::Member;
use crate::cluster::view::Cluster;
use crate::node::{Executing, LEASE_TTL};

/// How often the leases are renewed.
const RENEW: Duration = Duration::from_secs(15);
/// The pause between attempts to reach the machines after a start.
const RETRY_LEFT: Duration = Duration::from_secs(1);
/// How long a deployment that no user asked for may take to end after it was cancelled.
const MAKES_WAY: Duration = Duration::from_mins(1);
/// How often it is asked whether it has.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The projects of one deployment, leased on all machines that answer. One task renews the leases
/// until the lock is released or dropped, and then ends them.
#[derive(Debug)]
pub(super) struct Lock {
    released: DropGuard,
    task: JoinHandle<()>,
}

impl Lock {
    /// Leases the projects. Fails if another deployment has one of them on a machine that answers,
    /// or if such a machine refuses. A deployment that no user asked for is cancelled and waited
    /// for, unless this is one as well.
    pub(super) async fn take(
        member: &Arc<Member>,
        projects: BTreeSet<String>,
        deployment: &str,
    ) -> Result<Self, Failure> {
        let executing = member.node.leases().execute()?;
        let started = Instant::now();
        let projects: Vec<String> = projects.into_iter().collect();
        let request = loop {
            let request = LeaseRequest {
                projects: projects.clone(),
                deployment_id: deployment.to_owned(),
                machine_id: member.membership.machine_id.clone(),
                process: member.node.leases().process().to_owned(),
                attempt: format!("{:016x}", rand::random::<u64>()),
                ..LeaseRequest::default()
            };
            match ask::ask(&**member, &reachable(&member.cluster()), &request).await {
                Ok(()) => break request,
                Err(Denial::Taken(held))
                    if makes_way(&held, deployment) && started.elapsed() < MAKES_WAY =>
                {
                    cancel(member, &held).await;
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                Err(Denial::Taken(held)) => return Err(refusal(&member.cluster(), &held)),
                Err(Denial::Refused(failure)) => return Err(failure),
            }
        };
        let hold = Hold {
            member: Arc::clone(member),
            request,
            started,
            _executing: executing,
        };
        let released = CancellationToken::new();
        let task = member.tasks.spawn(hold.keep(released.clone()));
        Ok(Self {
            released: released.drop_guard(),
            task,
        })
    }

    /// Ends the leases, and waits until the machines that answer have ended theirs.
    pub(super) async fn release(self) {
        drop(self.released);
        let _ended = self.task.await;
    }
}

/// Whether the deployment that has a project ends for the one that asks for it.
fn makes_way(held: &Lease, deployment: &str) -> bool {
    is_automatic(&held.deployment_id) && !is_automatic(deployment)
}

async fn cancel(member: &Member, held: &Lease) {
    let cancelled = async {
        let machine = held.machine_id.parse().map_err(|_| {
            let message = format!("`{}` is not the id of a machine", held.machine_id);
            Failure::new(Code::Invalid, message)
        })?;
        member.cancel_deployment(machine, &held.deployment_id).await
    };
    // It is ending, or its machine continues it soon and is asked then.
    if let Err(failure) = cancelled.await {
        tracing::debug!(deployment = held.deployment_id, %failure, "a deployment that no user asked for is not cancelled yet");
    }
}

/// The machines that are asked: all that are not known to be down, this one included.
fn reachable(cluster: &Cluster) -> BTreeSet<MachineId> {
    let machines = cluster.machines().iter();
    machines
        .filter(|machine| !cluster.is_down(machine.id))
        .map(|machine| machine.id)
        .collect()
}

fn refusal(cluster: &Cluster, held: &Lease) -> Failure {
    let Lease {
        project,
        deployment_id,
        machine_id,
        age_ms,
        ..
    } = held;
    let executor = executor(cluster, machine_id);
    Failure::new(
        Code::Refused,
        format!(
            "another deployment of project {project} is running on {executor} (deployment \
             {deployment_id}, for {} s)",
            age_ms / 1000
        ),
    )
    .hint(format!(
        "wait until it has ended: `uc lock show` lists it; if it is stuck, release the project with `uc lock release {project}`"
    ))
}

/// The name of the machine that executes a deployment, or the start of its id if it has left the
/// cluster.
fn executor(cluster: &Cluster, machine_id: &str) -> String {
    let machine = machine_id.parse().ok();
    let machine = machine.and_then(|id| cluster.machine_by_id(id));
    machine.map_or_else(
        || short(machine_id).to_owned(),
        |machine| machine.name.to_string(),
    )
}

/// What a deployment holds.
struct Hold {
    member: Arc<Member>,
    request: LeaseRequest,
    started: Instant,
    _executing: Executing,
}

impl Hold {
    /// A daemon that stops leaves the leases: the deployment has not ended. The daemon that starts
    /// next continues it, or releases them ([`release_left`]). Otherwise they expire.
    async fn keep(self, released: CancellationToken) {
        loop {
            tokio::select! {
                // The end of the daemon drops the locks as well.
                biased;
                () = self.member.cancel.cancelled() => return,
                () = released.cancelled() => return self.release().await,
                () = tokio::time::sleep(RENEW) => self.renew().await,
            }
        }
    }

    async fn renew(&self) {
        let request = LeaseRequest {
            age_ms: ask::milliseconds(self.started.elapsed()),
            ..confirmed(&self.request)
        };
        let cluster = self.member.cluster();
        let machines: Vec<MachineId> = reachable(&cluster).into_iter().collect();
        let answers = machines
            .iter()
            .map(|id| self.member.lease(*id, request.clone()));
        for (id, answer) in machines.iter().zip(join_all(answers).await) {
            let machine = executor(&cluster, &id.to_string());
            match answer {
                Answer::Taken(held) => tracing::warn!(
                    machine,
                    project = held.project,
                    other = held.deployment_id,
                    "another deployment has a project of this one"
                ),
                Answer::Refused(failure) => {
                    tracing::warn!(machine, %failure, "a machine does not lease a project any longer");
                }
                Answer::Granted | Answer::Silent => {}
            }
        }
    }

    async fn release(&self) {
        let attempt = What::Attempt(self.request.attempt.clone());
        ask::release(&*self.member, &reachable(&self.member.cluster()), attempt).await;
    }
}

#[async_trait]
impl Machines for Member {
    async fn lease(&self, machine: MachineId, request: LeaseRequest) -> Answer {
        let answer = if machine == self.id {
            self.node.leases().lease(&request, Instant::now())
        } else {
            match self.remote(&machine.to_string()) {
                Ok(remote) => remote.lease(request).await,
                Err(failure) => Err(failure),
            }
        };
        match answer {
            Ok(None) => Answer::Granted,
            Ok(Some(held)) => Answer::Taken(held),
            Err(failure) if failure.code == Code::Refused => {
                Answer::Refused(failure.on(executor(&self.cluster(), &machine.to_string())))
            }
            // Also a machine whose version does not know the call.
            Err(failure) => {
                tracing::debug!(%failure, "a machine is not asked for this deployment's projects");
                Answer::Silent
            }
        }
    }

    async fn release(&self, machine: MachineId, what: What) {
        if let Err(failure) = release_on(self, machine, what).await {
            tracing::debug!(%failure, "the leases of a deployment remain until they expire");
        }
    }
}

/// Releases on one machine. Returns the leases as they were.
async fn release_on(
    member: &Member,
    machine: MachineId,
    what: What,
) -> Result<Vec<Lease>, Failure> {
    if machine == member.id {
        return Ok(member.node.leases().release(&what, Instant::now()));
    }
    member.remote(&machine.to_string())?.release(what).await
}

/// Ends the leases that this machine's former processes left on other machines, except those of the
/// deployments in `keep`, which this process resumes. Works in the background until each machine
/// has answered once, or until the leases have expired anyway.
pub(crate) fn release_left(member: &Arc<Member>, keep: &BTreeSet<String>) {
    let what = What::Left(LeftLeases {
        machine_id: member.membership.machine_id.clone(),
        process: member.node.leases().process().to_owned(),
        keep_deployment_ids: keep.iter().cloned().collect(),
    });
    let task = release_everywhere(Arc::clone(member), what);
    let cancel = member.cancel.clone();
    member.tasks.spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            // The expiry of the leases.
            () = tokio::time::sleep(LEASE_TTL) => {}
            () = task => {}
        }
    });
}

async fn release_everywhere(member: Arc<Member>, what: What) {
    let mut done = BTreeSet::from([member.id]);
    loop {
        let open: Vec<MachineId> = {
            let known = member.cluster();
            let machines = known.machines().iter().map(|machine| machine.id);
            machines.filter(|id| !done.contains(id)).collect()
        };
        if open.is_empty() {
            return;
        }
        let answers = open.iter().map(|id| release_on(&member, *id, what.clone()));
        for (id, answer) in open.iter().zip(join_all(answers).await) {
            if answer.is_ok() {
                done.insert(*id);
            }
        }
        tokio::time::sleep(RETRY_LEFT).await;
    }
}

#[cfg(test)]
mod tests;
