//! Shows the events of a deployment, and keeps them for `-o json`.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;

use uc_api::v1::deploy_event::Event;
use uc_api::v1::{DeployEvent, DeployFinished, DeployOutcome, Plan, StepEvent, StepPhase};

use super::json::{MAX_NOTICES, Outcome, Report, StepResult};
use crate::error::{CliError, CliResult, Kind};
use crate::ui::{DIM, Progress, Task};
use crate::{picture, text};

/// A deployment that is being watched.
#[derive(Debug)]
pub(super) struct Show<'a> {
    progress: Progress,
    plan: &'a Plan,
    report: &'a mut Report,
    tasks: BTreeMap<String, Task>,
    begun: bool,
    /// What was shown of steps that run, as (step, message).
    shown: HashSet<(String, String)>,
    /// The events come from the beginning again.
    repeating: bool,
    /// The first step that failed, with its last log lines.
    failure: Option<StepEvent>,
}

/// The end of a deployment.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) outcome: Outcome,
    pub(super) result: CliResult,
}

impl<'a> Show<'a> {
    pub(super) fn new(progress: Progress, plan: &'a Plan, report: &'a mut Report) -> Self {
        Self {
            progress,
            plan,
            report,
            tasks: BTreeMap::new(),
            begun: false,
            shown: HashSet::new(),
            repeating: false,
            failure: None,
        }
    }

    /// Whether the daemon has reported anything.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// The deployment's id, once the daemon has told it.
    pub(super) fn deployment(&self) -> Option<&str> {
        self.report.deployment.as_deref()
    }

    /// The deployment is watched again: what was shown is not shown a second time.
    pub(super) fn expect_repetition(&mut self) {
        self.repeating = true;
    }

    /// Runs a question on the terminal, during which no progress is drawn.
    pub(super) async fn paused<T>(&self, question: impl Future<Output = T>) -> T {
        let _hidden = self.progress.hide();
        question.await
    }

    /// Shows one event. One that was shown before is ignored: a deployment that is watched again
    /// tells everything from its beginning. Returns the end of the deployment if this was the last
    /// one.
    pub(super) fn event(&mut self, event: DeployEvent) -> Option<Finished> {
        self.begun = true;
        match event.event? {
            Event::Step(step) => self.step(step),
            Event::Notice(notice) if self.report.notices.contains(&notice) => {}
            Event::Notice(notice) => {
                self.progress.line(&text::one_line(&notice));
                if self.report.notices.len() < MAX_NOTICES {
                    self.report.notices.push(notice);
                }
            }
            Event::Began(began) => self.report.deployment = Some(began.deployment_id),
            Event::Finished(finished) => return Some(self.finished(finished)),
        }
        None
    }

    fn step(&mut self, event: StepEvent) {
        let phase = event.phase();
        let known = self.report.steps.get(&event.step_id);
        let repeats = match known.map(|step| step.result) {
            // A step that was undone is never executed again in this deployment.
            Some(StepResult::Undone) => true,
            Some(StepResult::Done) => !matches!(phase, StepPhase::Undone | StepPhase::Failed),
            Some(StepResult::Failed) => !matches!(phase, StepPhase::Undone | StepPhase::Done),
            Some(StepResult::Started) | None => false,
        };
        if repeats {
            return;
        }
        self.keep(&event);
        let label = picture::step_label(self.plan, &event.step_id).unwrap_or_else(|| {
            match event.machine_name.as_str() {
                "" => event.service.clone(),
                machine => format!("{} on {machine}", event.service),
            }
        });
        match phase {
            StepPhase::Started | StepPhase::Progress | StepPhase::Unspecified => {
                let progress = (event.step_id.clone(), event.message.clone());
                if !self.shown.insert(progress) && self.repeating {
                    return;
                }
                let task = self
                    .tasks
                    .entry(event.step_id)
                    .or_insert_with(|| self.progress.task(label));
                task.update(&event.message);
            }
            StepPhase::Done => self.take(&event.step_id, label).done(&event.message),
            StepPhase::Undone => self.take(&event.step_id, label).undone(&event.message),
            StepPhase::Failed => {
                self.take(&event.step_id, label).failed(&event.message);
                for line in &event.log_tail {
                    let line = text::of_container(line);
                    self.progress.line(&format!("    {DIM}|{DIM:#} {line}"));
                }
                self.failure.get_or_insert(event);
            }
        }
    }

    /// Keeps the state of a step for the report.
    fn keep(&mut self, event: &StepEvent) {
        let step = self.report.steps.entry(event.step_id.clone()).or_default();
        step.service.clone_from(&event.service);
        step.machine.clone_from(&event.machine_name);
        step.result = match event.phase() {
            StepPhase::Started | StepPhase::Progress | StepPhase::Unspecified => {
                StepResult::Started
            }
            StepPhase::Done => StepResult::Done,
            StepPhase::Undone => StepResult::Undone,
            StepPhase::Failed => StepResult::Failed,
        };
        // An undone step keeps the message that says why.
        if !event.message.is_empty() {
            step.message = Some(event.message.clone());
        }
        if !event.log_tail.is_empty() {
            step.log.clone_from(&event.log_tail);
        }
    }

    fn take(&mut self, id: &str, label: String) -> Task {
        self.tasks
            .remove(id)
            .unwrap_or_else(|| self.progress.task(label))
    }

    fn finished(&mut self, finished: DeployFinished) -> Finished {
        self.tasks.clear();
        let (outcome, kind, default) = match finished.outcome() {
            DeployOutcome::Done => {
                return Finished {
                    outcome: Outcome::Done,
                    result: Ok(()),
                };
            }
            DeployOutcome::RolledBack => (
                Outcome::RolledBack,
                Kind::RolledBack,
                "the deployment failed and was rolled back",
            ),
            DeployOutcome::Paused => (
                Outcome::Paused,
                Kind::Paused,
                "the deployment failed and is paused: new and old replicas were left running",
            ),
            DeployOutcome::Incomplete => (
                Outcome::Incomplete,
                Kind::Partial,
                "some replicas failed; all other steps succeeded",
            ),
            DeployOutcome::Superseded => (
                Outcome::Superseded,
                Kind::Partial,
                "another deployment of the project began before this one could be continued",
            ),
            DeployOutcome::Failed | DeployOutcome::Unspecified => (
                Outcome::Failed,
                Kind::Partial,
                "the deployment failed and could not be fully rolled back",
            ),
        };
        let message = if finished.message.is_empty() {
            default.to_owned()
        } else {
            finished.message
        };
        let mut error = CliError::new(kind, message);
        // The log lines are shown once: below the step that failed, or below the error.
        let shown = self
            .failure
            .as_ref()
            .is_some_and(|step| step.log_tail == finished.log_tail);
        if !shown {
            error.log_tail = finished.log_tail;
        }
        Finished {
            outcome,
            result: Err(error.hint(finished.hint)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::Destination;
    use crate::rollout::destination::Cluster;
    use crate::ui::LineStyle;

    fn finished(outcome: DeployOutcome) -> DeployEvent {
        let finished = DeployFinished {
            outcome: outcome.into(),
            log_tail: vec!["boom".into()],
            hint: "uc logs web".into(),
            ..Default::default()
        };
        DeployEvent {
            event: Some(Event::Finished(finished)),
        }
    }

    fn outcome(events: Vec<DeployEvent>) -> CliResult {
        let plan = Plan::default();
        let destination = Destination {
            context: None,
            cluster: None,
            machine: None,
            connection: "unix:///x".into(),
        };
        let mut report = Report::new(Cluster::from(&destination), Outcome::Unknown);
        let progress = Progress::new(false, LineStyle::default());
        let mut show = Show::new(progress, &plan, &mut report);
        events
            .into_iter()
            .find_map(|event| show.event(event))
            .unwrap()
            .result
    }

    #[test]
    fn each_outcome_has_its_exit_code() {
        assert!(outcome(vec![finished(DeployOutcome::Done)]).is_ok());
        let error = outcome(vec![finished(DeployOutcome::RolledBack)]).unwrap_err();
        assert_eq!(
            (error.kind, error.log_tail.as_slice()),
            (Kind::RolledBack, &["boom".to_owned()][..])
        );
        assert_eq!(
            outcome(vec![finished(DeployOutcome::Paused)])
                .unwrap_err()
                .kind,
            Kind::Paused
        );
        assert_eq!(Kind::Paused.exit_code(), Kind::RolledBack.exit_code());
        assert_eq!(
            outcome(vec![finished(DeployOutcome::Incomplete)])
                .unwrap_err()
                .kind,
            Kind::Partial
        );
        assert_eq!(
            outcome(vec![finished(DeployOutcome::Failed)])
                .unwrap_err()
                .kind,
            Kind::Partial
        );
        assert_eq!(
            outcome(vec![finished(DeployOutcome::Unspecified)])
                .unwrap_err()
                .kind,
            Kind::Partial
        );
        assert_eq!(
            outcome(vec![finished(DeployOutcome::Superseded)])
                .unwrap_err()
                .kind,
            Kind::Partial
        );
    }

    #[test]
    fn log_lines_of_the_failed_step_are_shown_once() {
        let failed = StepEvent {
            step_id: "s1".into(),
            phase: StepPhase::Failed.into(),
            log_tail: vec!["boom".into()],
            ..Default::default()
        };
        let events = vec![
            DeployEvent {
                event: Some(Event::Step(failed)),
            },
            finished(DeployOutcome::RolledBack),
        ];
        assert!(outcome(events).unwrap_err().log_tail.is_empty());
    }
}
