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
        let mut patience = Patience::new();
        loop {
            let mut heard = false;
            let failure = match self
                .ask(machine, change, progress, direction, &mut heard)
                .await
            {
                Ok(ended) => return ended,
                Err(failure) => failure,
            };
            let say = |message: &str| progress.say(format!("trying again: {message}"));
            patience.wait(failure, heard, say).await?;
        }
    }

    /// One attempt at a command of before a deployment. `heard` is set when the machine answers at
    /// all.
    async fn ask_pre_deploy(
        &self,
        machine: &str,
        new: &NewReplica<'_>,
        progress: &Progress,
        heard: &mut bool,
    ) -> Result<Ran, Failure> {
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
            let event = events.next().await?.and_then(|event| event.event);
            *heard |= event.is_some();
            match event {
                Some(run_pre_deploy_event::Event::Progress(text)) => progress.say(text),
                Some(run_pre_deploy_event::Event::Line(line)) => {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    if tail.len() == LOG_TAIL {
                        tail.pop_front();
                    }
                    tail.push_back(line.clone());
                    progress.say(line);
                }
                Some(run_pre_deploy_event::Event::ExitCode(code)) => {
                    let tail = tail.into();
                    return Ok(Ran { code, tail });
                }
                None => {
                    return Err(Failure::new(
                        Code::Unreachable,
                        "the machine ended the call without an exit code of the command",
                    ));
                }
            }
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

/// A command of before a deployment that has ended.
#[derive(Debug)]
struct Ran {
    code: i32,
    /// The last lines of its output.
    tail: Vec<String>,
}

impl Ran {
    fn judge(self, service: &str) -> Result<(), Failure> {
        if self.code == 0 {
            return Ok(());
        }
        let message = format!(
            "the pre-deploy command of {service} exited with code {}",
            self.code
        );
        Err(Failure::new(Code::Refused, message)
            .log_tail(self.tail)
            .hint(format!("no replica of {service} was changed")))
    }
}

/// How long a machine is asked again. What it is asked for can be asked twice: it finds what it has
/// done already.
#[derive(Debug)]
struct Patience {
    /// When the present attempt began.
    began: Instant,
    silent_since: Option<Instant>,
}

impl Patience {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            silent_since: None,
        }
    }

    /// Waits until the next attempt. Returns the failure if there is none. `heard`: the machine
    /// answered before it failed. `say` gets the message of the failure before the wait.
    async fn wait(
        &mut self,
        failure: Failure,
        heard: bool,
        say: impl FnOnce(&str) + Send,
    ) -> Result<(), Failure> {
        // A daemon that dies each time it works on this is not asked forever.
        if heard && self.began.elapsed() >= LASTING {
            self.silent_since = None;
        }
        let since = *self.silent_since.get_or_insert_with(Instant::now);
        if !may_pass(failure.code) || since.elapsed() >= RETRY_LIMIT {
            return Err(failure);
        }
        say(&failure.message);
        sleep(RETRY).await;
        self.began = Instant::now();
        Ok(())
    }
}

/// A failure to reach a machine, which a moment later may be another answer.
fn may_pass(code: Code) -> bool {
    matches!(code, Code::Unreachable | Code::TimedOut | Code::Internal)
}

#[async_trait]
impl Fleet for NodeFleet<'_> {
    async fn create_volume(&self, machine: &str, volume: &VolumeSpec) -> Result<(), Failure> {
        let mut patience = Patience::new();
        loop {
            let created = match self.member.remote(machine) {
                Ok(remote) => remote.create_volume(volume.clone()).await,
                Err(failure) => Err(failure),
            };
            match created {
                Ok(()) => return Ok(()),
                Err(failure) => {
                    let say = |message: &str| {
                        tracing::info!(
                            machine,
                            volume = volume.name,
                            message,
                            "asking again for a volume"
                        );
                    };
                    patience.wait(failure, false, say).await?;
                }
            }
        }
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
        let mut patience = Patience::new();
        loop {
            let mut heard = false;
            let ran = self.ask_pre_deploy(machine, new, progress, &mut heard);
            let failure = match ran.await {
                Ok(ran) => return ran.judge(&new.spec.name),
                Err(failure) => failure,
            };
            let say = |message: &str| progress.say(format!("trying again: {message}"));
            patience.wait(failure, heard, say).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: Code) -> Failure {
        Failure::new(code, "no answer")
    }

    #[tokio::test(start_paused = true)]
    async fn machine_that_does_not_answer_is_asked_again_for_a_minute() {
        let mut patience = Patience::new();
        let began = Instant::now();
        while patience
            .wait(failure(Code::Unreachable), false, |_| {})
            .await
            .is_ok()
        {}
        assert_eq!(began.elapsed(), RETRY_LIMIT);
        let refused = patience.wait(failure(Code::Refused), true, |_| {}).await;
        assert_eq!(refused, Err(failure(Code::Refused)));
        assert_eq!(began.elapsed(), RETRY_LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn attempt_that_lasted_starts_the_limit_again() {
        let mut patience = Patience::new();
        for _ in 0..100 {
            sleep(LASTING).await;
            let timed_out = failure(Code::TimedOut);
            patience.wait(timed_out, true, |_| {}).await.unwrap();
        }
    }
}
