//! The events of a deployment that this machine executes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{Stream, stream};
use tokio::sync::watch;
use uc_api::v1::{DeployEvent, StepPhase, deploy_event};

/// Most events that are kept of one deployment. Above it, news of progress within a step is
/// dropped; beginnings and ends of steps, notices and the outcome never are.
const MAX_EVENTS: usize = 10_000;

/// The events of one deployment, from its beginning. A deployment waits for no reader; each reader
/// gets all of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Events {
    log: Log,
    /// Number of the events.
    count: Arc<watch::Sender<usize>>,
}

#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<DeployEvent>>>);

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<DeployEvent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events {
    /// Any event.
    pub(crate) fn send(&self, event: deploy_event::Event) {
        let mut events = self.log.lock();
        let progress = matches!(&event, deploy_event::Event::Step(step) if step.phase() == StepPhase::Progress);
        if progress && events.len() >= MAX_EVENTS {
            return;
        }
        events.push(DeployEvent { event: Some(event) });
        self.count.send_replace(events.len());
    }

    /// Something a person should read.
    pub(crate) fn notice(&self, text: impl Into<String>) {
        self.send(deploy_event::Event::Notice(text.into()));
    }

    /// All events from the first one. Ends after the outcome, or when the daemon stops before.
    pub(crate) fn subscribe(&self) -> impl Stream<Item = DeployEvent> + Send + use<> {
        let start = (self.log.clone(), self.count.subscribe(), 0);
        stream::unfold(Some(start), |state| async move {
            let (log, mut count, next) = state?;
            // Without a sender there are no more events than now.
            while *count.borrow_and_update() <= next && count.changed().await.is_ok() {}
            let event = log.lock().get(next)?.clone();
            let last = matches!(event.event, Some(deploy_event::Event::Finished(_)));
            Some((event, (!last).then_some((log, count, next + 1))))
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use uc_api::v1::{DeployFinished, StepEvent};

    use super::*;

    #[tokio::test]
    async fn each_reader_gets_all_events_and_none_holds_up_the_deployment() {
        let events = Events::default();
        events.notice("first");
        let early = events.subscribe();
        for number in 0..2 * MAX_EVENTS {
            events.send(deploy_event::Event::Step(StepEvent {
                phase: StepPhase::Progress.into(),
                message: number.to_string(),
                ..StepEvent::default()
            }));
        }
        events.notice("last");
        events.send(deploy_event::Event::Finished(DeployFinished::default()));
        let late = events.subscribe();
        let (early, late): (Vec<_>, Vec<_>) = tokio::join!(early.collect(), late.collect());
        assert_eq!(early, late);
        assert_eq!(early.len(), MAX_EVENTS + 2);
        let text = |index: usize| match &early[index].event {
            Some(deploy_event::Event::Notice(text)) => text.as_str(),
            _ => "",
        };
        assert_eq!((text(0), text(early.len() - 2)), ("first", "last"));
    }

    #[tokio::test]
    async fn a_reader_ends_when_the_deployment_ends_without_an_outcome() {
        let events = Events::default();
        events.notice("first");
        let reader = events.subscribe();
        drop(events);
        assert_eq!(reader.collect::<Vec<_>>().await.len(), 1);
    }
}
