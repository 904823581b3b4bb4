//! Watches the containers of services without a restart policy until they are known to be jobs or
//! servers.

use std::sync::Arc;

use uc_api::v1;

use super::NodeService;
use crate::engine::{Container, EngineError, jobs};

impl NodeService {
    /// Watches a container that was just started, in a task of its own, if its service sets no
    /// restart policy.
    pub(super) fn watch_if_undecided(&self, container: &Container) {
        if container.restart_by_default {
            let id = container.record.container_id.clone();
            let engine = Arc::clone(&self.engine);
            self.tasks
                .spawn(jobs::decide_restart(engine, id, self.cancel.clone()));
        }
    }

    /// Watches the undecided containers that an earlier process of the daemon started.
    pub(crate) async fn watch_undecided_replicas(&self) -> Result<(), EngineError> {
        for container in self.engine.containers().await? {
            let runs = matches!(
                container.record.state(),
                v1::ReplicaState::Running | v1::ReplicaState::Restarting | v1::ReplicaState::Paused
            );
            if container.is_replica() && runs {
                self.watch_if_undecided(&container);
            }
        }
        Ok(())
    }
}
