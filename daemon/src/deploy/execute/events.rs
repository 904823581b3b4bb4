//! What is told of one step while a plan is carried out.

use uc_api::Failure;
use uc_api::v1::{StepEvent, StepPhase, deploy_event};

use crate::cluster::events::Events;

/// Events of one step.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    events: Events,
    step: StepEvent,
}

impl Progress {
    /// What is happening right now.
    pub(crate) fn say(&self, message: impl Into<String>) {
        self.phase(StepPhase::Progress, message.into(), Vec::new());
    }

    pub(super) fn phase(&self, phase: StepPhase, message: String, log_tail: Vec<String>) {
        let event = StepEvent {
            phase: phase.into(),
            message,
            log_tail,
            ..self.step.clone()
        };
        self.events.send(deploy_event::Event::Step(event));
    }

    /// A notice about this step.
    pub(super) fn notice(&self, text: &str) {
        let machine = &self.step.machine_name;
        self.events
            .notice(format!("{} on {machine}: {text}", self.step.service));
    }

    pub(super) fn done<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        match &result {
            Ok(_) => self.phase(StepPhase::Done, String::new(), Vec::new()),
            Err(failure) => self.phase(
                StepPhase::Failed,
                failure.to_string(),
                failure.log_tail.clone(),
            ),
        }
        result
    }
}

/// Events of a step with this id, of a service on a machine.
pub(in crate::deploy) fn progress(
    events: &Events,
    step_id: &str,
    service: &str,
    machine_name: &str,
) -> Progress {
    let step = StepEvent {
        step_id: step_id.to_owned(),
        service: service.to_owned(),
        machine_name: machine_name.to_owned(),
        ..StepEvent::default()
    };
    Progress {
        events: events.clone(),
        step,
    }
}
