//! Continues the deployments that an earlier process of this daemon left unfinished. The machines
//! know which changes they have carried out, so everything is asked for again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use uc_api::Failure;
use uc_api::v1::{DeployFinished, DeployOutcome, DeploymentJournal};

use super::journal::Journal;
use super::lock::{Lock, release_left};
use super::run::{projects_of, to_end};
use crate::backoff::Backoff;
use crate::cluster::deployments::{Deployment, deployments};
use crate::cluster::executing::Executed;
use crate::cluster::member::Member;

/// How soon it is tried again while the machine is not ready, and while another deployment of the
/// project runs.
const RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(15);
/// How long the records of other machines are waited for. One that answers sends them within
/// milliseconds, unless this machine was away for long.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(20);

/// Starts a task for each of them.
pub(crate) fn start(member: &Arc<Member>) {
    let left = match Journal::left(&member.paths.deployments()) {
        Ok(left) => left,
        Err(failure) => {
            tracing::error!(%failure, "deployments that were cut short are not continued");
            return;
        }
    };
    let resumed = left.iter().map(|journal| journal.content().deployment_id);
    release_left(member, &resumed.collect());
    for journal in left {
        let member = Arc::clone(member);
        let tasks = member.tasks.clone();
        tasks.spawn(async move {
            let cancel = member.cancel.clone();
            tokio::select! {
                () = cancel.cancelled() => {}
                () = resume(&member, &journal) => {}
            }
        });
    }
}

async fn resume(member: &Arc<Member>, journal: &Journal) {
    let content = journal.content();
    let deployment = &content.deployment_id;
    let plan = content.plan.as_ref().expect("a journal has the plan");
    let projects = projects_of(plan);
    while let Err(failure) = member.wait_ready(RETRY).await {
        tracing::debug!(deployment, %failure, "a deployment waits until this machine works");
    }
    let mut backoff = Backoff::new(RETRY, LAST_RETRY);
    loop {
        catch_up(member).await;
        let known = deployments(&member.store.snapshot());
        if !known.iter().any(|of| of.id == *deployment) {
            // Its beginning was never written down, and nothing is done before that.
            tracing::info!(deployment, "a deployment that was cut short had not begun");
            return journal.remove();
        }
        let ended = content.finished.is_some();
        if !ended && is_superseded(&known, &content, &projects) {
            match give_up(member, journal).await {
                Ok(()) => return,
                Err(failure) => {
                    tracing::warn!(deployment, %failure, "cannot end a deployment that another one has superseded");
                }
            }
        } else {
            match Lock::take(member, projects.clone(), deployment).await {
                Ok(lock) => {
                    // What began while this machine was away may be known only now.
                    catch_up(member).await;
                    let known = deployments(&member.store.snapshot());
                    if ended || !is_superseded(&known, &content, &projects) {
                        tracing::info!(deployment, "continuing a deployment that was cut short");
                        return to_end(member, journal, lock, Executed::default()).await;
                    }
                    lock.release().await;
                }
                Err(failure) => {
                    tracing::info!(deployment, %failure, "a deployment that was cut short waits");
                }
            }
        }
        tokio::time::sleep(backoff.wait(rand::random())).await;
    }
}

/// Waits until the store has what the machines have that answer.
pub(crate) async fn catch_up(member: &Member) {
    let cluster = member.cluster();
    let others = cluster
        .others()
        .filter(|machine| !cluster.is_down(machine.id));
    let positions = join_all(others.map(|machine| {
        let remote = member.peers.machine(machine);
        async move { remote.position().await }
    }));
    let there = async {
        for (actor, version) in positions.await.into_iter().flatten().flatten() {
            if member.store.wait_for(actor, version).await.is_err() {
                return;
            }
        }
    };
    if tokio::time::timeout(CATCH_UP_LIMIT, there).await.is_err() {
        tracing::warn!("continuing before this machine has heard everything that the others have");
    }
}

/// Whether another deployment of one of the projects began after this one.
fn is_superseded(
    known: &[Deployment],
    own: &DeploymentJournal,
    projects: &BTreeSet<String>,
) -> bool {
    let mut later = known
        .iter()
        .filter(|of| of.id != own.deployment_id && !own.known_deployments.contains(&of.id));
    later.any(|of| projects.iter().any(|project| of.concerns(project)))
}

/// Leaves everything as the other deployment has made it.
async fn give_up(member: &Member, journal: &Journal) -> Result<(), Failure> {
    let deployment = journal.content().deployment_id;
    let finished = DeployFinished {
        outcome: DeployOutcome::Superseded.into(),
        message: "another deployment began before this one could be continued".to_owned(),
        ..DeployFinished::default()
    };
    member.log_ended(&deployment, &finished).await?;
    member.node.abandon(&deployment, |_| true).await;
    journal.remove();
    Ok(())
}
