//! Starts a replica and waits until it is ready, stops it, and removes it.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;
use uc_api::{Code, Failure, v1};

use super::{NodeService, ports};
use crate::engine::health::{ObservedTimes, Verdict};
use crate::engine::{Container, EngineError, health, logs};

/// Time between two looks at a container that was just started: short at first, while a user waits,
/// and longer after [`EARLY`].
const EARLY_POLL: Duration = Duration::from_millis(100);
const LATE_POLL: Duration = Duration::from_millis(500);
const EARLY: Duration = Duration::from_secs(10);
/// Lines of the container's log in a failure.
const LOG_TAIL: usize = 10;
/// Time limit for publishing the draining mark before the stop signal. The local store takes
/// milliseconds. After the limit the stop continues, because a machine that cannot write must still
/// be able to stop its containers.
const PUBLISH_LIMIT: Duration = Duration::from_secs(2);
/// Containers that a reset removes at the same time.
const PARALLEL_REMOVALS: usize = 8;

impl NodeService {
    /// Starts a replica and waits until it is ready. A replica that already runs is only waited
    /// for.
    pub(crate) async fn start(
        &self,
        request: &v1::StartReplicaRequest,
    ) -> Result<v1::ReplicaRecord, Failure> {
        let container = self.managed(&request.container_id).await?;
        let id = &container.record.container_id;
        self.draining.clear(id);
        let runs = container.record.state() == v1::ReplicaState::Running;
        if let Err(error) = self.engine.start(id).await {
            return Err(self.start_failure(&container, error).await);
        }
        if !runs {
            self.run_post_start_hooks(&container).await?;
        }
        if request.no_wait {
            return Ok(self.draining.marked(self.engine.inspect(id).await?.record));
        }
        let monitor = (request.monitor_ms > 0).then(|| Duration::from_millis(request.monitor_ms));
        self.wait_until_ready(id, monitor).await
    }

    async fn wait_until_ready(
        &self,
        id: &str,
        monitor: Option<Duration>,
    ) -> Result<v1::ReplicaRecord, Failure> {
        let started = Instant::now();
        let mut healthy_since = None;
        loop {
            let container = self.managed(id).await?;
            let name = &container.record.container_name;
            if container.record.health() == v1::Health::Healthy {
                healthy_since.get_or_insert_with(Instant::now);
            } else {
                healthy_since = None;
            }
            let times_seen = ObservedTimes {
                elapsed: started.elapsed(),
                healthy: healthy_since.map_or(Duration::ZERO, |since| since.elapsed()),
                monitor,
            };
            let failure = match health::judge_readiness(&container, times_seen) {
                Verdict::Ready => return Ok(self.draining.marked(container.record)),
                Verdict::Wait => {
                    let early = started.elapsed() < EARLY;
                    tokio::time::sleep(if early { EARLY_POLL } else { LATE_POLL }).await;
                    continue;
                }
                Verdict::Failed(why) => {
                    Failure::new(Code::Refused, format!("`{name}` is not ready: {why}"))
                }
                Verdict::TimedOut(limit) => Failure::new(
                    Code::TimedOut,
                    format!(
                        "`{name}` did not become healthy within {} s",
                        limit.as_secs()
                    ),
                ),
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

    /// Marks the replica as draining, waits until the mark is published, and stops the container.
    /// The mark is kept until the container is started again or removed.
    pub(crate) async fn stop(&self, request: &v1::StopReplicaRequest) -> Result<(), Failure> {
        let container = self.managed(&request.container_id).await?;
        let id = &container.record.container_id;
        let grace = request
            .grace_ms
            .map_or(container.stop_grace, Duration::from_millis);
        if container.record.state() == v1::ReplicaState::Running {
            self.draining.mark(id);
            if !self.draining.published(id, PUBLISH_LIMIT).await {
                tracing::warn!(container = %container.record.container_name, "stopping before its draining mark was published");
            }
            self.run_pre_stop_hooks(&container, grace).await;
        }
        let stopped = self.engine.stop(id, grace).await;
        if stopped.is_err() {
            self.draining.clear(id);
        }
        Ok(stopped?)
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
        self.draining.clear(id);
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
