//! The state of the process: the machine before it belongs to a cluster, and the member that it
//! becomes. Entering and leaving a cluster are in `join` and `leave`.

use std::sync::Arc;

use tokio::sync::{Mutex, broadcast, watch};
use tokio_util::sync::CancellationToken;
use uc_api::{Code, Failure};
use uc_mesh::PrivateKey;

use crate::cluster::member::{Member, Parts};
use crate::engine::DockerEngine;
use crate::identity::{Identity, Membership, hostname};
use crate::paths::Paths;
use crate::reconcile::{self, ServePeers};

/// Requests to end a join that a running join keeps until it looks at them.
const ENDS_QUEUE: usize = 64;

/// State that all services of the API share.
#[derive(Debug)]
pub(crate) struct App {
    pub paths: Paths,
    pub engine: Arc<DockerEngine>,
    /// Locked for as long as a change takes, so that two joins cannot overlap. Outside a cluster,
    /// only its holder changes the mesh: a member's mesh then cannot be removed by a join that
    /// failed.
    pub identity: Mutex<Identity>,
    member: watch::Sender<Option<Arc<Member>>>,
    /// What ends a join that is still running, which holds `identity` for minutes if no member
    /// answers.
    ends: broadcast::Sender<EndJoin>,
    serve_peers: ServePeers,
    /// Cancelled to end the process.
    pub cancel: CancellationToken,
}

impl App {
    /// Reads the identity. Does not start the member yet.
    pub(crate) fn new(
        paths: Paths,
        engine: Arc<DockerEngine>,
        cancel: CancellationToken,
        serve_peers: ServePeers,
    ) -> Result<Arc<Self>, Failure> {
        let identity = Identity::load_or_create(&paths.identity())
            .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        Ok(Arc::new(Self {
            paths,
            engine,
            identity: Mutex::new(identity),
            member: watch::Sender::new(None),
            ends: broadcast::Sender::new(ENDS_QUEUE),
            serve_peers,
            cancel,
        }))
    }

    /// Starts the member if this machine belongs to a cluster.
    pub(crate) async fn start_member(&self) -> Result<(), Failure> {
        let identity = self.identity.lock().await;
        let Some(membership) = identity.membership.clone() else {
            return Ok(());
        };
        let key = identity
            .key()
            .map_err(|reason| Failure::new(Code::Internal, reason))?;
        let member = self.enter(membership, key).await?;
        member.finish_init().await
    }

    /// Opens the member and starts its tasks.
    pub(crate) async fn enter(
        &self,
        membership: Membership,
        key: PrivateKey,
    ) -> Result<Arc<Member>, Failure> {
        let parts = Parts {
            paths: self.paths.clone(),
            membership,
            key,
            engine: Arc::clone(&self.engine),
        };
        let (member, links) = Member::open(parts).await?;
        reconcile::start(&member, links, self.serve_peers);
        self.set_member(Some(Arc::clone(&member)));
        Ok(member)
    }

    /// Ends a join that is still running. With an id, only if the join gives the machine this id.
    pub(crate) fn abort_joins(&self, machine_id: Option<&str>) {
        self.end_joins(EndJoin::Reset(machine_id.map(ToOwned::to_owned)));
    }

    /// Begins a join that gives the machine this id, or an `init`. One that still waits for a
    /// member to answer its token ends: the user who started it may have given up long ago. The
    /// caller then waits for `identity`.
    pub(crate) fn begin_join(&self, machine_id: &str) -> Joining {
        self.end_joins(EndJoin::OtherJoin);
        Joining {
            ends: self.ends.subscribe(),
            machine_id: machine_id.to_owned(),
        }
    }

    fn end_joins(&self, end: EndJoin) {
        // Without a running join, the channel has no receiver, and sending fails.
        let _receivers = self.ends.send(end);
    }

    /// Replaces the running member.
    pub(crate) fn set_member(&self, member: Option<Arc<Member>>) {
        self.member.send_replace(member);
    }

    /// Notifies of a member that starts or leaves.
    pub(crate) fn watch_member(&self) -> watch::Receiver<Option<Arc<Member>>> {
        self.member.subscribe()
    }

    /// The member, if there is one.
    pub(crate) fn try_member(&self) -> Option<Arc<Member>> {
        self.member.borrow().clone()
    }

    /// The member; without one, a failure with a hint how to get one.
    pub(crate) fn member(&self) -> Result<Arc<Member>, Failure> {
        self.try_member().ok_or_else(|| {
            let machine = match hostname() {
                name if name.is_empty() => "this machine".to_owned(),
                name => format!("machine {name}"),
            };
            if self.identity.try_lock().is_err() {
                let message = format!("{machine} is joining or leaving a cluster, or taking another subnet");
                return Failure::new(Code::Refused, message).hint("try again in a minute");
            }
            Failure::new(Code::Refused, format!("{machine} is not in a cluster"))
                .hint("create one with `uc machine init`, or add the machine to one with `uc machine add`")
        })
    }

    /// Ends the member's tasks. Containers and mesh keep running.
    pub(crate) async fn stop(&self) {
        if let Some(member) = self.try_member() {
            member.stop().await;
        }
    }
}

/// Why a join has to end.
#[derive(Debug, Clone)]
enum EndJoin {
    /// The machine with this id is reset; without an id, whichever this is.
    Reset(Option<String>),
    /// Another join began.
    OtherJoin,
}

/// A join or an `init` that runs.
#[derive(Debug)]
pub(crate) struct Joining {
    ends: broadcast::Receiver<EndJoin>,
    /// The id that the join gives the machine.
    machine_id: String,
}

impl Joining {
    /// Waits for a part of a join; fails as soon as a reset is requested. Not for steps that would
    /// be left half-done.
    pub(crate) async fn unless_reset<T>(
        &mut self,
        step: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.unless(step, |end| matches!(end, EndJoin::Reset(_)))
            .await
    }

    /// As [`unless_reset`](Self::unless_reset), but another join ends this one as well.
    pub(crate) async fn unless_ended<T>(
        &mut self,
        step: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.unless(step, |_| true).await
    }

    async fn unless<T>(
        &mut self,
        step: impl Future<Output = Result<T, Failure>>,
        ends: impl Fn(&EndJoin) -> bool,
    ) -> Result<T, Failure> {
        let refused = |message| Failure::new(Code::Refused, message);
        tokio::select! {
            result = step => result,
            end = self.ended(ends) => Err(match end {
                EndJoin::Reset(_) => refused("the machine was reset before it had joined"),
                EndJoin::OtherJoin => refused("another join of this machine began before this one was done"),
            }),
        }
    }

    async fn ended(&mut self, ends: impl Fn(&EndJoin) -> bool) -> EndJoin {
        loop {
            match self.ends.recv().await {
                Ok(EndJoin::Reset(Some(other))) if other != self.machine_id => {}
                Ok(end) if ends(&end) => return end,
                Ok(_) => {}
                // If some were missed, one of them may have been a reset of this machine.
                Err(broadcast::error::RecvError::Lagged(_)) => return EndJoin::Reset(None),
                // The process ends.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
