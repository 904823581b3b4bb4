//! The state of the process: the machine before it belongs to a cluster, and the member that it
//! becomes. Entering and leaving a cluster are in `join` and `leave`.

use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use uc_api::{Code, Failure};

use crate::docker::DockerEngine;
use crate::identity::Identity;
use crate::member::{Member, Parts};
use crate::paths::Paths;

/// State that all services of the API share.
#[derive(Debug)]
pub struct App {
    pub paths: Paths,
    pub engine: Arc<DockerEngine>,
    /// Locked for as long as a change takes, so that two joins cannot overlap.
    pub identity: Mutex<Identity>,
    member: watch::Sender<Option<Arc<Member>>>,
    /// Counts the resets that were asked for: one ends a join that is still running, which holds
    /// `identity` for minutes if no member answers.
    resets: watch::Sender<u64>,
    /// Cancelled to end the process.
    pub cancel: CancellationToken,
}

impl App {
    /// Reads the identity. Does not start the member yet.
    pub fn new(
        paths: Paths,
        engine: Arc<DockerEngine>,
        cancel: CancellationToken,
    ) -> Result<Arc<Self>, Failure> {
        let identity = Identity::load_or_create(&paths.identity())
            .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        Ok(Arc::new(Self {
            paths,
            engine,
            identity: Mutex::new(identity),
            member: watch::Sender::new(None),
            resets: watch::Sender::new(0),
            cancel,
        }))
    }

    /// Starts the member if this machine belongs to a cluster.
    pub async fn start_member(&self) -> Result<(), Failure> {
        let identity = self.identity.lock().await;
        let Some(membership) = identity.membership.clone() else {
            return Ok(());
        };
        let key = identity
            .key()
            .map_err(|reason| Failure::new(Code::Internal, reason))?;
        let parts = Parts {
            paths: self.paths.clone(),
            membership,
            key,
            engine: Arc::clone(&self.engine),
        };
        let member = Member::start(parts).await?;
        member.finish_init().await?;
        self.set_member(Some(member));
        Ok(())
    }

    /// Ends a join that is still running.
    pub(crate) fn abort_joins(&self) {
        self.resets.send_modify(|count| *count += 1);
    }

    /// Waits for a part of a join; fails as soon as a reset is asked for. Not for steps that would
    /// be left half-done.
    pub(crate) async fn unless_reset<T>(
        &self,
        resets: &mut watch::Receiver<u64>,
        step: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            result = step => result,
            Ok(()) = resets.changed() => Err(Failure::new(
                Code::Refused,
                "the machine was reset before it had joined",
            )),
        }
    }

    /// For [`App::unless_reset`]: resets from now on count.
    pub(crate) fn watch_resets(&self) -> watch::Receiver<u64> {
        self.resets.subscribe()
    }

    /// Replaces the running member.
    pub fn set_member(&self, member: Option<Arc<Member>>) {
        self.member.send_replace(member);
    }

    /// Notifies of a member that starts or leaves.
    pub fn watch_member(&self) -> watch::Receiver<Option<Arc<Member>>> {
        self.member.subscribe()
    }

    /// The member, if there is one.
    pub fn try_member(&self) -> Option<Arc<Member>> {
        self.member.borrow().clone()
    }

    /// The member; without one, a failure with a hint how to get one.
    pub fn member(&self) -> Result<Arc<Member>, Failure> {
        self.try_member().ok_or_else(|| {
            Failure::new(Code::Refused, "this machine belongs to no cluster")
                .hint("create one with `uc machine init`, or add the machine to one with `uc machine add`")
        })
    }

    /// Ends the member's tasks. Containers and mesh keep running.
    pub async fn stop(&self) {
        if let Some(member) = self.try_member() {
            member.stop().await;
        }
    }
}
