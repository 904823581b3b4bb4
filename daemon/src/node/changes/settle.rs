//! The end of changes on this machine, and what is removed with it.

use std::sync::atomic::Ordering;

use uc_api::Failure;
use uc_api::v1::{
    ChangeRecord, ChangeStage, ReplicaChange, ReplicaState, SettleRequest, SettleResponse,
};

use super::{Entry, change, key, lock};
use crate::engine::{Container, EngineError};
use crate::node::NodeService;

impl NodeService {
    /// Ends a deployment on this machine, and removes what is kept of it and of earlier deployments
    /// of these services. What this deployment's failed replicas printed stays readable.
    pub(crate) async fn settle(&self, request: &SettleRequest) -> SettleResponse {
        let mut warnings = Vec::new();
        for entry in self.changes.all() {
            let record = entry.record();
            let change = change(&record);
            let own = change.deployment_id == request.deployment_id;
            let service = format!("{}/{}", change.project, change.service);
            let concerns = own || request.services.contains(&service);
            let kept = match record.stage() {
                ChangeStage::Done if concerns && record.old_kept => Some(&change.replaces),
                ChangeStage::Failed if concerns && !own => Some(&record.container_id),
                ChangeStage::Done | ChangeStage::Undone if concerns => None,
                _ => continue,
            };
            if let Some(kept) = kept.filter(|id| !id.is_empty())
                && let Err(error) = self.engine.remove(kept).await
            {
                let short = uc_api::id::short(kept);
                warnings.push(format!(
                    "container {short} of {service} could not be removed: {}",
                    Failure::from(error).message
                ));
                continue;
            }
            self.forget(&entry, &record);
        }
        if let Err(error) = self.settle_pre_deploys(&request.deployment_id).await {
            warnings.push(format!(
                "the container of a pre-deploy command could not be removed: {error}"
            ));
        }
        if let Err(error) = self.remove_late_containers().await {
            tracing::warn!(%error, "cannot look for containers that were created too late");
        }
        SettleResponse { warnings }
    }

    /// Ends changes of a deployment without taking them back: a later one has decided about what
    /// runs. What they replaced is removed.
    pub(crate) async fn abandon(
        &self,
        deployment: &str,
        which: impl Fn(&ReplicaChange) -> bool + Send,
    ) {
        for entry in self.changes.all() {
            let record = entry.record();
            let change = change(&record);
            let concerned = change.deployment_id == deployment && which(change);
            if !concerned || entry.working.load(Ordering::SeqCst) {
                continue;
            }
            let failed = (record.stage() == ChangeStage::Failed).then_some(&record.container_id);
            let kept = record.old_kept.then_some(&change.replaces);
            let mut is_removed = true;
            for id in failed.into_iter().chain(kept).filter(|id| !id.is_empty()) {
                if let Err(error) = self.engine.remove(id).await {
                    tracing::warn!(container = id, %error, "a container of a superseded deployment remains");
                    is_removed = false;
                }
            }
            // Otherwise the journal has to know of what remains.
            if is_removed {
                self.forget(&entry, &record);
            }
        }
    }

    /// Removes containers that the engine created after their change had ended or was undone. The
    /// engine finishes what it began, even if its answer came too late or nothing waited for it.
    pub(crate) async fn remove_late_containers(&self) -> Result<(), EngineError> {
        for container in self.engine.containers().await? {
            if !is_unstarted(&container) || self.changes.expects(&container) {
                continue;
            }
            let id = &container.record.container_id;
            // It may have been started, and its change settled, since the containers were listed.
            match self.engine.inspect(id).await {
                Ok(now) if is_unstarted(&now) => {
                    tracing::info!(
                        container = container.record.container_name,
                        step = container.step,
                        "removing a container that was created too late"
                    );
                    self.engine.remove(id).await?;
                }
                Ok(_) | Err(EngineError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Drops a change and its marks.
    fn forget(&self, entry: &Entry, record: &ChangeRecord) {
        if let Err(failure) = self.changes.journal.remove(&entry.record) {
            tracing::warn!(%failure, "a change that has ended stays in the journal");
            return;
        }
        let change = change(record);
        for id in [&change.replaces, &record.container_id] {
            self.marks.keep(id, None);
        }
        self.marks.clear(&change.replaces);
        self.marks.started(&record.container_id);
        lock(&self.changes.entries).remove(&key(change));
    }
}

/// Whether a step created the container, and nothing has started it.
fn is_unstarted(container: &Container) -> bool {
    container.is_replica()
        && !container.step.is_empty()
        && container.record.state() == ReplicaState::Created
}
