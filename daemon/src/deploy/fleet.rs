//! The executor's machines, for real: each call goes to that machine's daemon.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use uc_api::v1::{
    ChangeEnded, ReplicaChange, ReplicaRecord, RunPreDeployRequest, VolumeSpec, apply_event,
    run_pre_deploy_event,
};
use uc_api::{Code, Failure};

use super::contents;
use super::execute::{Fleet, NewReplica, Progress};
use crate::cluster::member::Member;
use crate::cluster::peers::PATIENT_LOOK_LIMIT;

/// Lines of a command's output in its failure.
const LOG_TAIL: usize = 10;
/// How long a machine that does not answer is asked again: a restart of its daemon takes a second,
/// a restart of the machine less than a minute.
const RETRY_LIMIT: Duration = Duration::from_mins(1);
/// An attempt that lasted this long starts the limit again.
const LASTING: Duration = Duration::from_secs(10);
/// Time between two attempts.
const RETRY: Duration = Duration::from_secs(1);

/// Calls machines through their daemons.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeFleet<'a> {
    member: &'a Member,
}

/// Whether a change is carried out or undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Back,
}

impl<'a> NodeFleet<'a> {
    /// Over this member's connections.
    pub(super) fn new(member: &'a Member) -> Self {
        Self { member }
    }

    /// The end of a change. A machine whose daemon restarts or that cannot be reached is asked
    /// again, and joins the change to what it has done already.
    async fn until_answered(
        &self,
        machine: &str,
        change: &ReplicaChange,
        progress: &Progress,
        direction: Direction,
    ) -> Result<ChangeEnded, Failure> {
        let mut silent_since: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let mut heard = false;
            let failure = match self
                .ask(machine, change, progress, direction, &mut heard)
                .await
            {
                Ok(ended) => return ended,
                Err(failure) => failure,
            };
            // A daemon that dies each time it works on this change is not asked forever.
            if heard && began.elapsed() >= LASTING {
                silent_since = None;
            }
            let since = *silent_since.get_or_insert_with(Instant::now);
            if !may_pass(failure.code) || since.elapsed() >= RETRY_LIMIT {
                return Err(failure);
            }
            progress.say(format!("trying again: {}", failure.message));
            sleep(RETRY).await;
        }
    }

    /// One attempt: the inner result is the machine's own answer about the change. `heard` is set
    /// when the machine answers at all.
    async fn ask(
        &self,
        machine: &str,
        change: &ReplicaChange,
        progress: &Progress,
        direction: Direction,
        heard: &mut bool,
    ) -> Result<Result<ChangeEnded, Failure>, Failure> {
        let remote = self.member.remote(machine)?;
        let mut events = match direction {
            Direction::Forward => {
                if let Some(spec) = &change.spec {
                    contents::ensure(&self.member, machine, spec, progress).await?;
                }
                remote.apply(change.clone()).await?
            }
            Direction::Back => remote.undo(change.clone()).await?,
        };
        loop {
            match events.next().await?.and_then(|event| event.event) {
                Some(apply_event::Event::Progress(text)) => {
                    *heard = true;
                    if !text.is_empty() {
                        progress.say(text);
                    }
                }
                Some(apply_event::Event::Ended(ended)) => return Ok(Ok(ended)),
                Some(apply_event::Event::Failed(failure)) => return Ok(Err(failure.into())),
                None => {
                    let message = "the machine ended the call without saying how the change ended";
                    return Err(Failure::new(Code::Unreachable, message));
                }
            }
        }
    }
}

/// A failure to reach a machine, which a moment later may be another answer.
fn may_pass(code: Code) -> bool {
    matches!(code, Code::Unreachable | Code::TimedOut | Code::Internal)
}

#[async_trait]
impl Fleet for NodeFleet<'_> {
    async fn create_volume(&self, machine: &str, volume: &VolumeSpec) -> Result<(), Failure> {
        self.member
            .remote(machine)?
            .create_volume(volume.clone())
            .await
    }

    async fn apply(
        &self,
        machine: &str,
        change: &ReplicaChange,
        progress: &Progress,
    ) -> Result<ChangeEnded, Failure> {
        self.until_answered(machine, change, progress, Direction::Forward)
            .await
    }

    async fn undo(
        &self,
        machine: &str,
        change: &ReplicaChange,
        progress: &Progress,
    ) -> Result<(), Failure> {
        self.until_answered(machine, change, progress, Direction::Back)
            .await
            .map(drop)
    }

    async fn pre_deploy(
        &self,
        machine: &str,
        new: &NewReplica<'_>,
        progress: &Progress,
    ) -> Result<(), Failure> {
        contents::ensure(&self.member, machine, new.spec, progress).await?;
        let request = RunPreDeployRequest {
            spec: Some(new.spec.clone()),
            revision: new.revision.to_owned(),
            deployment_id: new.deployment.to_owned(),
        };
        let own = new
            .spec
            .pre_deploy
            .as_ref()
            .map_or(0, |hook| hook.timeout_ms);
        let own_limit = Duration::from_millis(own);
        let remote = self.member.remote(machine)?;
        let mut events = remote.run_pre_deploy(request, own_limit).await?;
        let mut tail = VecDeque::new();
        loop {
            match events.next().await?.and_then(|event| event.event) {
                Some(run_pre_deploy_event::Event::Progress(text)) => progress.say(text),
                Some(run_pre_deploy_event::Event::Line(line)) => {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    if tail.len() == LOG_TAIL {
                        tail.pop_front();
                    }
                    tail.push_back(line.clone());
                    progress.say(line);
                }
                Some(run_pre_deploy_event::Event::ExitCode(0)) => return Ok(()),
                Some(run_pre_deploy_event::Event::ExitCode(code)) => {
                    let message = format!(
                        "the pre-deploy command of {} exited with code {code}",
                        new.spec.name
                    );
                    return Err(Failure::new(Code::Refused, message)
                        .log_tail(tail.into())
                        .hint(format!("no replica of {} was changed", new.spec.name)));
                }
                None => {
                    return Err(Failure::new(
                        Code::Internal,
                        "the machine ended the call without an exit code of the command",
                    ));
                }
            }
        }
    }

    async fn observe(&self, machine: &str) -> Result<Vec<ReplicaRecord>, Failure> {
        let observed = self
            .member
            .remote(machine)?
            .observe(PATIENT_LOOK_LIMIT)
            .await?;
        Ok(observed.replicas)
    }
}
