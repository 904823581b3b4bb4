//! One change, forward to its end or back to what was before. Each part looks at what is there
//! first, so it can be repeated after the daemon or the engine was away.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use uc_api::v1::{
    ChangeEnded, ChangeFailure, ChangeRecord, ChangeStage, ReplicaChange, ReplicaState,
    RestartPolicy, ServiceSpec,
};
use uc_api::{Code, Failure};

use super::super::NodeService;
use super::super::create::NewContainer;
use super::super::lifecycle::{LOG_TAIL, PUBLISH_LIMIT};
use super::{Doing, Entry, change, ended, failure, mark_kept, step_label};
use crate::engine::{Container, logs, spec};

/// How long the engine may be away, for a restart or an upgrade, before the change fails.
const ENGINE_AWAY_LIMIT: Duration = Duration::from_mins(3);
/// Time between two attempts while the engine is away.
const ENGINE_RETRY: Duration = Duration::from_secs(1);
/// Time between the last answer with a replica's address and its end: clients keep an answer for
/// its time to live, and then need a moment to connect.
const DRAIN: Duration = Duration::from_secs(uc_dns::ANSWER_TTL_S as u64 + 1);

/// One change and what it needs.
pub(super) struct Work<'a> {
    node: &'a NodeService,
    entry: &'a Entry,
}

impl<'a> Work<'a> {
    pub(super) fn new(node: &'a NodeService, entry: &'a Entry) -> Self {
        Self { node, entry }
    }

    /// Carries the change out, or takes it back, whichever its record says.
    pub(super) async fn to_end(&self) -> Result<ChangeEnded, Failure> {
        if self.record().stage() == ChangeStage::Forward {
            // Nothing is done that the journal does not have.
            self.save().await?;
            let carried_out = tokio::select! {
                carried_out = self.patiently(|| self.forward()) => carried_out,
                () = self.entry.back.cancelled() => Ok(()),
            };
            {
                let mut record = self.entry.record.lock();
                record.failure = carried_out.err().map(ChangeFailure::from);
                // Its deployment did not wait for it any longer, and counts it as failed.
                let is_late = self.node.has_ended(&change(&record).deployment_id);
                let good = record.failure.is_none() && !self.entry.back.is_cancelled() && !is_late;
                record.set_stage(if good {
                    ChangeStage::Done
                } else {
                    ChangeStage::Backward
                });
            }
            self.save_if_possible().await;
            if self.record().stage() == ChangeStage::Done {
                return Ok(ended(&self.record()));
            }
        }
        // What ran before must run again, also if nothing can be written down.
        self.save_if_possible().await;
        let restored = self.patiently(|| self.backward()).await;
        let record = self.record();
        let is_gone = |problem: &Failure| problem.code == Code::NotFound;
        let failed = record.failure.is_some();
        // A container that does not exist any longer is not restored by another attempt.
        if restored.as_ref().err().is_none_or(is_gone) {
            let stage = if failed {
                ChangeStage::Failed
            } else {
                ChangeStage::Undone
            };
            self.entry.record.lock().set_stage(stage);
            self.save_if_possible().await;
        }
        match restored {
            Err(problem) if failed => {
                let cause = failure(&record);
                let message = format!("{}; then {}", cause.message, problem.message);
                Err(Failure { message, ..cause })
            }
            Err(problem) => Err(problem),
            Ok(()) if failed => Err(failure(&self.record())),
            Ok(()) => Ok(ended(&self.record())),
        }
    }

    /// Repeats an attempt while the engine is away.
    async fn patiently<F>(&self, attempt: impl Fn() -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let mut away_since: Option<Instant> = None;
        loop {
            let failure = match attempt().await {
                Err(failure) if self.node.engine.version().await.is_err() => failure,
                done => return done,
            };
            let since = *away_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= ENGINE_AWAY_LIMIT {
                return Err(failure);
            }
            self.say("waiting for Docker");
            sleep(ENGINE_RETRY).await;
        }
    }

    async fn forward(&self) -> Result<(), Failure> {
        let ReplicaChange {
            spec, stop_first, ..
        } = self.entry.change();
        let new = match &spec {
            Some(spec) => Some(self.created(spec).await?),
            None => None,
        };
        let Some(new) = new else {
            return self.retire_old().await;
        };
        if stop_first {
            self.retire_old().await?;
        }
        self.serve(&new).await?;
        if !stop_first && let Err(failure) = self.retire_old().await {
            // The new one serves. What is left of the old one is no reason to take that away.
            let warning = format!(
                "the old container could not be stopped: {}",
                failure.message
            );
            self.update(|record| record.warnings = vec![warning])
                .await?;
        }
        Ok(())
    }

    /// The new container's id. An earlier attempt may have created it.
    async fn created(&self, spec: &ServiceSpec) -> Result<String, Failure> {
        let change = self.entry.change();
        let step = step_label(&change);
        let containers = self.node.engine.containers().await?;
        let there = containers
            .into_iter()
            .find(|container| container.step == step);
        let id = match there {
            Some(container) => container.record.container_id,
            None => {
                self.say("creating");
                let new = NewContainer {
                    spec,
                    revision: &change.revision,
                    deployment: &change.deployment_id,
                    step: &step,
                    replaces: &change.replaces,
                };
                self.node
                    .create_container(new, &|text| self.say(text))
                    .await?
            }
        };
        if self.record().container_id != id {
            self.update(|record| {
                record.container_id.clone_from(&id);
                record.prepared = false;
            })
            .await?;
        }
        Ok(id)
    }

    /// Starts the new container, and waits until it serves and the other machines know it.
    async fn serve(&self, id: &str) -> Result<(), Failure> {
        let change = self.entry.change();
        self.say(if change.no_wait {
            "starting"
        } else {
            "starting, waiting until it serves"
        });
        let container = self.node.managed(id).await?;
        if !ended_well(&container) {
            if !change.no_wait {
                self.node.marks.starting(id);
            }
            self.node.start_container(&container).await?;
            if !self.record().prepared {
                self.node.run_post_start_hooks(&container).await?;
                self.update(|record| record.prepared = true).await?;
            }
        }
        if change.no_wait {
            return Ok(());
        }
        let monitor = change.monitor_ms.map(Duration::from_millis);
        let ready = self.node.wait_until_ready(id, monitor).await?;
        self.node.marks.started(id);
        if ready.state() == ReplicaState::Exited && container.restart_by_default {
            self.refuse_end_of_server().await?;
        }
        self.announce(id).await;
        Ok(())
    }

    /// A service without a restart policy whose new replica ended with code 0 is a job, unless the
    /// old replica is a server: then the new one has the wrong command.
    async fn refuse_end_of_server(&self) -> Result<(), Failure> {
        let record = self.record();
        let change = change(&record);
        if change.replaces.is_empty() {
            return Ok(());
        }
        let restart = if record.old_known {
            record.old_restart()
        } else {
            match self.node.managed(&change.replaces).await {
                Ok(old) if runs(&old) => old.restart,
                _ => return Ok(()),
            }
        };
        let is_server = matches!(
            restart,
            RestartPolicy::UnlessStopped | RestartPolicy::Always
        );
        if is_server && (record.old_ran || !record.old_known) {
            let message = "it exited with code 0, and the replica that it replaces is a server";
            return Err(Failure::new(Code::Refused, message)
                .hint("if it is a job, set `restart: \"no\"`; otherwise check its command"));
        }
        Ok(())
    }

    /// Waits until the other machines know that a container serves.
    async fn announce(&self, id: &str) {
        let running = match self.node.engine.inspect(id).await {
            Ok(container) => container.record.state() == ReplicaState::Running,
            Err(_) => false,
        };
        // A job that has ended serves nobody.
        if running {
            if !self.node.marks.published_serving(id, PUBLISH_LIMIT).await {
                tracing::warn!(
                    container = id,
                    "continuing before the new replica was published"
                );
            }
            self.seen().await;
        }
    }

    async fn seen(&self) {
        let late = self.node.seen().await;
        if !late.is_empty() {
            tracing::warn!(machines = ?late, "continuing although some machines have not heard of a replica's change");
        }
    }

    /// Stops the container that the change replaces, and keeps it.
    async fn retire_old(&self) -> Result<(), Failure> {
        let change = self.entry.change();
        if change.replaces.is_empty() {
            return Ok(());
        }
        let old = match self.node.managed(&change.replaces).await {
            Err(failure) if failure.code == Code::NotFound => {
                // Somebody removed it. It cannot be started again either.
                return self.update(|record| record.old_known = true).await;
            }
            old => old?,
        };
        self.note_old(&old).await?;
        self.say("stopping the old replica");
        self.stop(&old, !change.alone).await?;
        self.update(|record| record.old_kept = true).await
    }

    /// Writes down how the old container was before the change did anything to it.
    async fn note_old(&self, old: &Container) -> Result<(), Failure> {
        if self.record().old_known {
            return Ok(());
        }
        let (restart, attempts, ran) = (old.restart, old.restart_attempts, runs(old));
        self.update(|record| {
            record.set_old_restart(restart);
            record.old_restart_attempts = attempts;
            record.old_ran = ran;
            record.old_known = true;
        })
        .await
    }

    /// Takes a container out of service and stops it. The engine does not start it again, not even
    /// when the machine restarts.
    async fn stop(&self, container: &Container, drain: bool) -> Result<(), Failure> {
        let id = &container.record.container_id;
        let node = self.node;
        if container.record.state() == ReplicaState::Running {
            node.publish_draining(container).await;
            self.seen().await;
            if drain && !container.record.ip.is_empty() {
                sleep(DRAIN).await;
            }
            node.run_pre_stop_hooks(container, container.stop_grace)
                .await;
        }
        let stopped = async {
            node.engine.set_restart(id, RestartPolicy::No, 0).await?;
            node.engine.stop(id, container.stop_grace).await
        }
        .await;
        if stopped.is_err() {
            node.marks.clear(id);
        }
        Ok(stopped?)
    }

    /// Makes true again what was before the change.
    async fn backward(&self) -> Result<(), Failure> {
        let ReplicaChange { stop_first, .. } = self.entry.change();
        let record = self.record();
        // A replica that failed serves nobody, and can hold what the old one needs.
        if stop_first || record.failure.is_some() {
            if record.failure.is_none() {
                // Without an old one to start, the new one stays.
                self.old_to_restore().await?;
            }
            self.end_new().await?;
            self.restore_old().await
        } else {
            self.restore_old().await?;
            self.end_new().await
        }
    }

    async fn end_new(&self) -> Result<(), Failure> {
        let record = self.record();
        let change = change(&record);
        let step = step_label(change);
        let containers = self.node.engine.containers().await?;
        let new = containers
            .into_iter()
            .find(|container| container.step == step);
        let Some(new) = new.filter(|_| change.spec.is_some()) else {
            return Ok(());
        };
        self.say("stopping the new replica");
        let id = &new.record.container_id;
        let failed = record.failure.is_some();
        self.stop(&new, !failed && !change.alone).await?;
        self.node.marks.started(id);
        let printed = failed && new.record.state() != ReplicaState::Created;
        if printed
            && !logs::tail(&*self.node.engine, id, LOG_TAIL)
                .await
                .is_empty()
        {
            self.node.marks.clear(id);
            return Ok(());
        }
        self.node.engine.remove(id).await?;
        self.node.marks.clear(id);
        self.entry.record.lock().container_id.clear();
        self.save_if_possible().await;
        Ok(())
    }

    /// The container that the change replaced. `None` if there is none, or if the change has not
    /// touched it. Fails with [`Code::NotFound`] if somebody removed it.
    async fn old_to_restore(&self) -> Result<Option<Container>, Failure> {
        let record = self.record();
        let change = change(&record);
        if change.replaces.is_empty() {
            return Ok(None);
        }
        match self.node.managed(&change.replaces).await {
            Err(failure) if failure.code == Code::NotFound && record.old_known => {
                let message = "the old container no longer exists";
                Err(Failure::new(Code::NotFound, message).hint("deploy again"))
            }
            Err(failure) if failure.code == Code::NotFound => Ok(None),
            old => old.map(Some),
        }
    }

    /// Starts what the change replaced, if it ran.
    async fn restore_old(&self) -> Result<(), Failure> {
        let record = self.record();
        let change = change(&record);
        if change.replaces.is_empty() {
            return Ok(());
        }
        let Some(old) = self.old_to_restore().await? else {
            return Ok(());
        };
        let id = &old.record.container_id;
        // The container whose namespaces it shares may have been started again, which gives it new
        // ones.
        let shares = change
            .spec
            .as_ref()
            .is_some_and(|spec| !spec::shared_services(spec).is_empty());
        if shares {
            self.note_old(&old).await?;
        }
        let record = self.record();
        // A stop that was under way when the change was cut short continues in the engine: it ends
        // what seems to run.
        let is_stopping = record.old_known
            && old.restart == RestartPolicy::No
            && old.restart != record.old_restart();
        if runs(&old) && (shares || is_stopping) {
            self.node.engine.stop(id, old.stop_grace).await?;
        }
        let wanted = record.old_known && record.old_ran;
        if record.old_known {
            let attempts = record.old_restart_attempts;
            self.node
                .engine
                .set_restart(id, record.old_restart(), attempts)
                .await?;
        }
        self.node.marks.clear(id);
        self.entry.record.lock().old_kept = false;
        self.save_if_possible().await;
        if wanted {
            self.say("starting the old replica again");
            let starts = !runs(&old) || shares || is_stopping;
            if starts {
                self.node.marks.starting(id);
            }
            let restored = async {
                self.node.start_container(&old).await?;
                if starts {
                    self.node.run_post_start_hooks(&old).await?;
                }
                self.node.wait_until_ready(id, None).await.map(drop)
            };
            let mut restored = restored.await;
            self.node.marks.started(id);
            if let Err(failure) = &restored
                && self.node.managed(id).await.is_ok_and(|old| runs(&old))
            {
                // It may have been like this before. Left half-way, the change would be undone
                // again and again, and the new replica would serve for a revision
                // that is not wanted.
                tracing::warn!(container = id, %failure, "the old replica runs again, but is not ready");
                restored = Ok(());
            }
            restored.map_err(|failure| {
                let message = format!(
                    "the old container could not be started again: {}",
                    failure.message
                );
                Failure { message, ..failure }
            })?;
            self.announce(id).await;
        }
        Ok(())
    }

    fn say(&self, text: impl Into<String>) {
        let text = text.into();
        self.entry.doing.send_replace(Doing::Running(text));
    }

    fn record(&self) -> ChangeRecord {
        self.entry.record()
    }

    /// Changes the record. It is on the disk when this returns.
    async fn update(&self, update: impl FnOnce(&mut ChangeRecord)) -> Result<(), Failure> {
        update(&mut self.entry.record.lock());
        self.save().await
    }

    /// As [`save`](Self::save), where something has to be done even if the disk is full.
    async fn save_if_possible(&self) {
        if let Err(failure) = self.save().await {
            tracing::error!(%failure, "a change is not in the journal as it is now");
        }
    }

    async fn save(&self) -> Result<(), Failure> {
        mark_kept(&self.node.marks, &self.record());
        self.node.changes.journal.write(&self.entry.record).await
    }
}

/// It is alive, or the engine is about to start it again.
fn runs(container: &Container) -> bool {
    matches!(
        container.record.state(),
        ReplicaState::Running | ReplicaState::Restarting | ReplicaState::Paused
    )
}

/// A job that has done its work is not started a second time.
fn ended_well(container: &Container) -> bool {
    container.record.state() == ReplicaState::Exited
        && container.record.exit_code == Some(0)
        && matches!(
            container.restart,
            RestartPolicy::No | RestartPolicy::OnFailure
        )
}
