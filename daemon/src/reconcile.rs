//! The tasks that keep this machine as the records say. Each retries on its own, so that a dead
//! Docker or a missing tunnel takes down nothing but itself.

mod automatic;
pub(crate) mod changes;
pub(crate) mod claims;
pub(crate) mod contents;
pub(crate) mod endpoint_names;
pub(crate) mod evict;
pub(crate) mod facts;
pub(crate) mod global;
pub(crate) mod homes;
pub(crate) mod images;
mod listener;
pub(crate) mod mesh;
pub(crate) mod names;
pub(crate) mod network;
pub(crate) mod replication;
pub(crate) mod reschedule;
pub(crate) mod retire;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::sleep;
use uc_api::Failure;

use crate::backoff::Backoff;
use crate::cluster::audience::OtherMachines;
use crate::cluster::deployments::deployments;
use crate::cluster::member::Member;
use crate::cluster::peers::Link;
use crate::cluster::readiness::{Readiness, Stage};
use crate::deploy::resume;
use crate::deploy::resume::catch_up;

/// Serves the callers of these connections until the member stops.
pub(crate) type ServePeers = fn(Arc<Member>, mpsc::Receiver<Link>) -> BoxFuture<'static, ()>;

/// Starts the tasks of a member.
pub(crate) fn start(member: &Arc<Member>, links: mpsc::Receiver<Link>, serve_peers: ServePeers) {
    let tasks = &member.tasks;
    tasks.spawn(serve_peers(Arc::clone(member), links));
    tasks.spawn(name_node(Arc::clone(member)));
    member
        .node
        .set_audience(Arc::new(OtherMachines::of(member)));
    tasks.spawn(changes::run(Arc::clone(member)));
    tasks.spawn(claims::run(Arc::clone(member)));
    resume::start(member);
    tasks.spawn(endpoint_names::run(Arc::clone(member)));
    tasks.spawn(mesh::run(Arc::clone(member)));
    tasks.spawn(listener::run(Arc::clone(member)));
    tasks.spawn(network::run(Arc::clone(member)));
    tasks.spawn(names::run(Arc::clone(member)));
    tasks.spawn(facts::run(Arc::clone(member)));
    tasks.spawn(evict::run(Arc::clone(member)));
    tasks.spawn(global::run(Arc::clone(member)));
    tasks.spawn(homes::run(Arc::clone(member)));
    tasks.spawn(reschedule::run(Arc::clone(member)));
    tasks.spawn(retire::run(Arc::clone(member)));
    tasks.spawn(contents::run(Arc::clone(member)));
    tasks.spawn(images::run(Arc::clone(member)));
    tasks.spawn(take_over_containers(Arc::clone(member)));
}

/// One part of the machine: how it is reported and how often it is tried.
struct Part<'a> {
    member: &'a Member,
    /// Completes "cannot".
    purpose: &'static str,
    stage: fn(&mut Readiness) -> &mut Stage,
    backoff: Backoff,
}

impl Part<'_> {
    /// Tries until it succeeds, and reports each result. `None` when the member stops first.
    async fn until_done<T, F>(&mut self, mut attempt: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        loop {
            let tried = tokio::select! {
                () = self.member.cancel.cancelled() => return None,
                tried = attempt() => tried,
            };
            match tried {
                Ok(done) => {
                    self.backoff.reset();
                    self.report(Stage::Ready);
                    return Some(done);
                }
                Err(failure) => {
                    tracing::warn!(%failure, "cannot {}", self.purpose);
                    self.report(Stage::Failed(failure));
                }
            }
            tokio::select! {
                () = self.member.cancel.cancelled() => return None,
                () = sleep(self.backoff.wait(rand::random())) => {}
            }
        }
    }

    fn report(&self, stage: Stage) {
        self.member.readiness.send_if_modified(|readiness| {
            let known = (self.stage)(readiness);
            let changed = *known != stage;
            *known = stage;
            changed
        });
    }
}

/// Waits until another part works. False when the member stops first.
async fn ready(member: &Member, part: impl Fn(&Readiness) -> &Stage) -> bool {
    let mut readiness = member.readiness.subscribe();
    tokio::select! {
        () = member.cancel.cancelled() => false,
        ready = readiness.wait_for(|readiness| *part(readiness) == Stage::Ready) => ready.is_ok(),
    }
}

/// Keeps the name that the node service uses.
async fn name_node(member: Arc<Member>) {
    let mut changes = member.changes();
    while changes.next().await {
        member.name_node();
    }
}

/// Takes over the containers of an earlier process of the daemon: watches those that are not yet
/// known to be jobs or servers, and looks for those that run commands for deployments. Docker may
/// start later than this daemon.
async fn take_over_containers(member: Arc<Member>) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    let take_over = async || {
        member.node.watch_undecided_replicas().await?;
        // A deployment that has just begun may be known to others only.
        catch_up(&member).await;
        let known = deployments(&member.store.snapshot());
        let runs = |id: &str| known.iter().any(|of| of.id == id && of.ended.is_none());
        member.node.take_over_pre_deploys(runs).await
    };
    let taken_over = async {
        while let Err(error) = take_over().await {
            tracing::debug!(%error, "cannot take over the containers of an earlier process yet");
            sleep(backoff.wait(rand::random())).await;
        }
    };
    tokio::select! {
        () = member.cancel.cancelled() => {}
        () = taken_over => {}
    }
}
