//! Starts a replica and waits until it is ready, stops it, and removes it.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;
use uc_api::{Code, Failure, v1};

use super::{NodeService, ports};
use crate::engine::health::{ReadinessWatch, Verdict};
use crate::engine::{Container, EngineError, logs};

/// Time between two looks at a container that was just started: short at first, while a user waits,
/// and longer after [`EARLY`].
const EARLY_POLL: Duration = Duration::from_millis(100);
const LATE_POLL: Duration = Duration::from_millis(500);
const EARLY: Duration = Duration::from_secs(10);
/// Lines of the container's log in a failure.
pub(super) const LOG_TAIL: usize = 10;
/// Time limit for publishing the draining mark before the stop signal. The local store takes
/// milliseconds. After the limit the stop continues, because a machine that cannot write must still
/// be able to stop its containers.
pub(super) const PUBLISH_LIMIT: Duration = Duration::from_secs(2);
/// Containers that a reset removes at the same time.
const PARALLEL_REMOVALS: usize = 8;

/// What to do about a container that runs and is not healthy.
const WRONG_HEALTHCHECK: &str = "if the healthcheck is wrong (for example, its command is not in the image), correct it; `--skip-health` \
     deploys without waiting for it";

impl NodeService {
    /// Starts a replica. One that already runs is left alone.
    pub(super) async fn start_container(&self, container: &Container) -> Result<(), Failure> {
        let id = &container.record.container_id;
        self.marks.clear(id);
        match self.engine.start(id).await {
            Ok(()) => {
                self.watch_if_undecided(container);
                Ok(())
            }
            Err(error) => Err(self.start_failure(container, error).await),
        }
    }

    /// Waits until a replica that was started is ready.
    pub(super) async fn wait_until_ready(
        &self,
        id: &str,
        monitor: Option<Duration>,
    ) -> Result<v1::ReplicaRecord, Failure> {
        let started = Instant::now();
        let mut watch = ReadinessWatch::new(monitor);
        loop {
            let container = self.managed(id).await?;
            let name = &container.record.container_name;
            let failure = match watch.judge(&container, started.elapsed()) {
                Verdict::Ready => return Ok(self.marks.marked(container.record)),
                Verdict::Wait => {
                    let early = started.elapsed() < EARLY;
                    tokio::time::sleep(if early { EARLY_POLL } else { LATE_POLL }).await;
                    continue;
                }
                Verdict::Failed(why) => {
                    Failure::new(Code::Refused, format!("`{name}` is not ready: {why}"))
                }
                Verdict::Unhealthy(why) => {
                    Failure::new(Code::Refused, format!("`{name}` is not ready: {why}"))
                        .hint(WRONG_HEALTHCHECK)
                }
                Verdict::TimedOut(limit) => Failure::new(
                    Code::TimedOut,
                    format!(
                        "`{name}` did not become healthy within {} s",
                        limit.as_secs()
                    ),
                )
                .hint(WRONG_HEALTHCHECK),
            };
            return Err(failure.log_tail(logs::tail(&*self.engine, id, LOG_TAIL).await));
        }
    }

    /// Returns why the engine did not start the container. If its port is taken, the failure names
    /// the holder.
    async fn start_failure(&self, container: &Container, error: EngineError) -> Failure {
        let record = &container.record;
        if let EngineError::PortTaken { .. } = error
            && let Ok(holders) = self.engine.port_holders().await
            && let Some((port, holder)) = record
                .ports
                .iter()
                .find_map(|port| ports::find_holder(port, &holders))
        {
            return ports::port_taken(&port, holder);
        }
        let failure = Failure::from(error);
        let message = format!(
            "cannot start `{}`: {}",
            record.container_name, failure.message
        );
        let code = if failure.code == Code::Invalid {
            Code::Refused
        } else {
            failure.code
        };
        Failure {
            code,
            message,
            ..failure
        }
    }

    /// Marks a running replica as draining, and waits until the mark is published.
    pub(super) async fn publish_draining(&self, container: &Container) {
        let id = &container.record.container_id;
        self.marks.drain(id);
        if !self.marks.published_draining(id, PUBLISH_LIMIT).await {
            let name = &container.record.container_name;
            tracing::warn!(container = %name, "continuing before the draining mark was published");
        }
    }

    /// Removes a replica and its anonymous volumes. A running replica is stopped first, with its
    /// grace period.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), Failure> {
        let container = match self.managed(id).await {
            Err(failure) if failure.code == Code::NotFound => return Ok(()),
            other => other?,
        };
        self.stop_and_remove(&container).await
    }

    async fn stop_and_remove(&self, container: &Container) -> Result<(), Failure> {
        let id = &container.record.container_id;
        if container.record.state() == v1::ReplicaState::Running {
            self.publish_draining(container).await;
            self.run_pre_stop_hooks(container, container.stop_grace)
                .await;
        }
        if let v1::ReplicaState::Running | v1::ReplicaState::Restarting = container.record.state() {
            match self.engine.stop(id, container.stop_grace).await {
                Err(EngineError::NotFound { .. }) => {}
                other => other?,
            }
        }
        self.engine.remove(id).await?;
        self.marks.clear(id);
        Ok(())
    }

    /// Removes every container that uc created on this machine. Continues after a failure and
    /// reports the first one at the end.
    pub(crate) async fn remove_all(&self) -> Result<(), Failure> {
        let containers = self.engine.containers().await?;
        let count = containers.len();
        let failures: Vec<Failure> = futures_util::stream::iter(containers)
            .map(|container| async move { self.stop_and_remove(&container).await })
            .buffer_unordered(PARALLEL_REMOVALS)
            .filter_map(|removed| std::future::ready(removed.err()))
            .collect()
            .await;
        let failed = failures.len();
        failures.into_iter().next().map_or(Ok(()), |first| {
            let message = format!(
                "cannot remove {failed} of {count} containers: {}",
                first.message
            );
            Err(Failure { message, ..first })
        })
    }
}
