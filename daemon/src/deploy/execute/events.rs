//! What is told while a plan is carried out: events of steps, notices, the end.

use tokio::sync::mpsc;
use uc_api::Failure;
use uc_api::v1::{DeployEvent, StepEvent, StepPhase, deploy_event};

/// Where events go. A reader that went away does not stop a deployment.
#[derive(Debug, Clone)]
pub(crate) struct Events(mpsc::Sender<DeployEvent>);

impl Events {
    /// Sends into this queue; when it is full, the deployment waits for its reader.
    pub(crate) fn new(sender: mpsc::Sender<DeployEvent>) -> Self {
        Self(sender)
    }

    /// Any event.
    pub(crate) async fn send(&self, event: deploy_event::Event) {
        let _reader_gone = self.0.send(DeployEvent { event: Some(event) }).await;
    }

    /// Something a person should read.
    pub(crate) async fn notice(&self, text: impl Into<String>) {
        self.send(deploy_event::Event::Notice(text.into())).await;
    }
}

/// Events of one step.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    events: Events,
    step: StepEvent,
}

impl Progress {
    /// What is happening right now.
    pub(crate) async fn say(&self, message: impl Into<String>) {
        self.phase(StepPhase::Progress, message.into(), Vec::new())
            .await;
    }

    pub(super) async fn phase(&self, phase: StepPhase, message: String, log_tail: Vec<String>) {
        let event = StepEvent {
            phase: phase.into(),
            message,
            log_tail,
            ..self.step.clone()
        };
        self.events.send(deploy_event::Event::Step(event)).await;
    }

    pub(super) async fn done<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        match &result {
            Ok(_) => self.phase(StepPhase::Done, String::new(), Vec::new()).await,
            Err(failure) => {
                self.phase(
                    StepPhase::Failed,
                    failure.to_string(),
                    failure.log_tail.clone(),
                )
                .await;
            }
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
