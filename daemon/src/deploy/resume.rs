//! Continues the deployments that an earlier process of this daemon left unfinished. The machines
//! know which changes they have carried out, so everything is asked for again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use uc_api::Failure;
use uc_api::v1::{DeployFinished, DeployOutcome, SettleRequest};
use uc_planner::projects;

use super::journal::Journal;
use super::lock::{Lock, release_left};
use super::run::to_end;
use crate::cluster::deployments::deployments;
use crate::cluster::executing::Executed;
use crate::cluster::member::Member;

/// How soon it is tried again while the machine is not ready, and while another deployment of the
/// project runs.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until the deployments have ended, or the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    let left = match Journal::left(&member.paths.deployments()) {
        Ok(left) => left,
        Err(failure) => {
            tracing::error!(%failure, "deployments that were cut short are not continued");
            return;
        }
    };
    let resumed = left.iter().map(|journal| journal.content().deployment_id);
    release_left(&member, &resumed.collect());
    for journal in left {
        let member = Arc::clone(&member);
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
    while let Err(failure) = member.wait_ready(RETRY).await {
        tracing::debug!(deployment, %failure, "a deployment waits until this machine works");
    }
    let known = member.cluster().services().keys().cloned().collect();
    let request = content.request.as_ref().expect("a journal has the request");
    let projects = match projects(request, &known) {
        Ok(projects) => projects,
        Err(error) => {
            tracing::error!(deployment, %error, "a deployment that was cut short cannot be continued");
            return;
        }
    };
    tracing::info!(deployment, "continuing a deployment that was cut short");
    loop {
        if is_superseded(member, deployment, &projects) {
            if let Err(failure) = give_up(member, journal).await {
                tracing::warn!(deployment, %failure, "cannot end a deployment that another one has superseded");
            }
            return;
        }
        match Lock::take(member, projects.clone(), deployment).await {
            Ok(lock) => {
                to_end(member, journal, lock, Executed::default()).await;
                return;
            }
            Err(failure) => {
                tracing::info!(deployment, %failure, "a deployment that was cut short waits");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Whether another deployment of one of the projects began after this one.
fn is_superseded(member: &Member, deployment: &str, projects: &BTreeSet<String>) -> bool {
    let all = deployments(&member.store.snapshot());
    let after = all.iter().skip_while(|of| of.id != deployment).skip(1);
    let mut after = after.filter(|of| projects.iter().any(|project| of.concerns(project)));
    after.next().is_some()
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
    let request = SettleRequest {
        deployment_id: deployment.clone(),
        ..SettleRequest::default()
    };
    for warning in member.node.settle(&request).await.warnings {
        tracing::warn!(
            deployment,
            warning,
            "a superseded deployment is not settled"
        );
    }
    journal.remove();
    Ok(())
}
