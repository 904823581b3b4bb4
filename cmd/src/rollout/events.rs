//! What is shown while a plan is carried out, event by event.

use std::collections::BTreeMap;

use uc_api::v1::deploy_event::Event;
use uc_api::v1::{DeployEvent, DeployFinished, DeployOutcome, Plan, StepEvent, StepPhase};

use crate::error::{CliError, CliResult, Kind};
use crate::picture;
use crate::ui::{DIM, Progress, Task};

/// A deployment being watched.
#[derive(Debug)]
pub(super) struct Show<'a> {
    progress: Progress,
    plan: &'a Plan,
    tasks: BTreeMap<String, Task>,
    begun: bool,
    /// What failed first: shown at the end, where people look.
    failure: Option<StepEvent>,
}

impl<'a> Show<'a> {
    /// Of this plan.
    pub(super) fn new(progress: Progress, plan: &'a Plan) -> Self {
        Self {
            progress,
            plan,
            tasks: BTreeMap::new(),
            begun: false,
            failure: None,
        }
    }

    /// Whether the daemon has reported anything.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// Shows one event; the outcome, if it was the last.
    pub(super) fn event(&mut self, event: DeployEvent) -> Option<CliResult> {
        self.begun = true;
        match event.event? {
            Event::Step(step) => self.step(step),
            Event::Notice(text) => self.progress.line(&text),
            Event::Finished(finished) => return Some(self.finished(finished)),
        }
        None
    }

    fn step(&mut self, event: StepEvent) {
        let phase = event.phase();
        let label = picture::step_label(self.plan, &event.step_id).unwrap_or_else(|| {
            match event.machine_name.as_str() {
                "" => event.service.clone(),
                machine => format!("{} on {machine}", event.service),
            }
        });
        match phase {
            StepPhase::Started | StepPhase::Progress | StepPhase::Unspecified => {
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
                    self.progress.line(&format!("    {DIM}|{DIM:#} {line}"));
                }
                self.failure.get_or_insert(event);
            }
        }
    }

    fn take(&mut self, id: &str, label: String) -> Task {
        self.tasks
            .remove(id)
            .unwrap_or_else(|| self.progress.task(label))
    }

    fn finished(&mut self, finished: DeployFinished) -> CliResult {
        self.tasks.clear();
        let (kind, default) = match finished.outcome() {
            DeployOutcome::Done => return Ok(()),
            DeployOutcome::RolledBack => (
                Kind::RolledBack,
                "the deployment failed; the previous revision serves again",
            ),
            DeployOutcome::Paused => (
                Kind::Paused,
                "the deployment failed and stopped where it was",
            ),
            DeployOutcome::Incomplete => (
                Kind::Partial,
                "some replicas failed; the rest was carried out",
            ),
            DeployOutcome::Failed | DeployOutcome::Unspecified => (
                Kind::Partial,
                "the deployment failed and could not be taken back completely",
            ),
        };
        let message = if finished.message.is_empty() {
            default.to_owned()
        } else {
            finished.message
        };
        let mut error = CliError::new(kind, message);
        // Shown once: below the step, or here.
        let shown = self
            .failure
            .as_ref()
            .is_some_and(|step| step.log_tail == finished.log_tail);
        if !shown {
            error.log_tail = finished.log_tail;
        }
        Err(error.hint(finished.hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut show = Show::new(Progress::new(false), &plan);
        events
            .into_iter()
            .find_map(|event| show.event(event))
            .unwrap()
    }

    #[test]
    fn each_outcome_has_its_kind() {
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
    }

    #[test]
    fn the_same_log_lines_are_shown_once() {
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
