//! The deployments that this machine executes at the moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use uc_api::{Code, Failure, MachineId};

use super::events::Events;
use super::member::Member;

/// What can be done with a deployment that runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Executed {
    pub(crate) events: Events,
    /// Cancelled to end the deployment and take it back.
    pub(crate) cancel: CancellationToken,
}

/// By deployment id.
#[derive(Debug, Default)]
pub(crate) struct Executing(Mutex<BTreeMap<String, Executed>>);

/// A deployment's place in [`Executing`]; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct ExecutingGuard {
    executing: Arc<Executing>,
    deployment: String,
}

impl Executing {
    fn with<T>(&self, use_them: impl FnOnce(&mut BTreeMap<String, Executed>) -> T) -> T {
        use_them(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a deployment.
    pub(crate) fn add(self: &Arc<Self>, deployment: &str, executed: Executed) -> ExecutingGuard {
        self.with(|all| all.insert(deployment.to_owned(), executed));
        ExecutingGuard {
            executing: Arc::clone(self),
            deployment: deployment.to_owned(),
        }
    }

    /// A deployment that runs here.
    pub(crate) fn get(&self, deployment: &str) -> Option<Executed> {
        self.with(|all| all.get(deployment).cloned())
    }
}

impl Drop for ExecutingGuard {
    fn drop(&mut self) {
        self.executing.with(|all| all.remove(&self.deployment));
    }
}

impl Member {
    /// A deployment that this machine executes.
    pub(crate) fn executed(&self, deployment: &str) -> Result<Executed, Failure> {
        self.executing.get(deployment).ok_or_else(|| {
            let name = self.own_name();
            let message = format!("{name} does not execute deployment {deployment} at the moment");
            Failure::new(Code::Unreachable, message)
                .hint("if it was cut short, it continues within a minute")
        })
    }

    /// Has the machine that executes a deployment end it and take it back. Does not wait for that.
    pub(crate) async fn cancel_deployment(
        &self,
        machine: MachineId,
        deployment: &str,
    ) -> Result<(), Failure> {
        if machine == self.id {
            self.executed(deployment)?.cancel.cancel();
            return Ok(());
        }
        self.remote(&machine.to_string())?.cancel(deployment).await
    }
}
