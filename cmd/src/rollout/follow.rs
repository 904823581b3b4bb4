//! Follows the events of a deployment until it ends, the user stops watching, or the cluster does
//! not answer for a minute. The deployment continues on the cluster in any case.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status, Streaming};
use uc_api::id::short;
use uc_api::v1::{CancelRequest, DeployEvent, WatchRequest};

use super::events::{Finished, Show};
use super::json::Outcome;
use crate::connect::{Client, ask, within};
use crate::error::{self, CliError, CliResult, Kind, Signal};
use crate::interrupt::Signals;
use crate::ui::Ui;

/// How long a deployment is looked for whose events ended. A daemon that restarts continues its
/// deployments within seconds.
const WATCH_AGAIN_LIMIT: Duration = Duration::from_mins(1);
const WATCH_AGAIN_PAUSE: Duration = Duration::from_secs(1);
/// Events that lasted this long start the limit again. A daemon that dies each time it works on the
/// deployment, or that ends each stream, is not watched forever.
const LASTING: Duration = Duration::from_secs(10);

/// How long a deployment is looked for.
#[derive(Debug)]
struct Patience {
    /// When the present events began.
    began: Instant,
    lost_since: Option<Instant>,
}

impl Patience {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            lost_since: None,
        }
    }

    /// The events have ended. Returns when the search for them ends.
    fn lost(&mut self) -> Instant {
        let now = Instant::now();
        if now.duration_since(self.began) >= LASTING {
            self.lost_since = None;
        }
        *self.lost_since.get_or_insert(now) + WATCH_AGAIN_LIMIT
    }

    /// There are events again.
    fn found(&mut self) {
        self.began = Instant::now();
    }
}

/// Who watches, and what ends the watching.
#[derive(Debug)]
pub(super) struct Follower<'a> {
    pub(super) ui: &'a Ui,
    pub(super) client: Client,
    pub(super) signals: &'a mut Signals,
}

/// What the user wants after Ctrl-C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Watch,
    Detach,
    Cancel,
}

impl Follower<'_> {
    /// Shows the events until the deployment ends or is no longer watched.
    pub(super) async fn follow(
        &mut self,
        mut stream: Streaming<DeployEvent>,
        mut show: Show<'_>,
    ) -> Finished {
        let mut patience = Patience::new();
        loop {
            let message = tokio::select! {
                message = stream.message() => message,
                signal = self.signals.next() => match self.interrupted(signal, &show).await {
                    Some(error) => return unknown(error),
                    None => continue,
                },
            };
            let error = match message {
                Ok(Some(event)) => match show.event(event) {
                    Some(finished) => return finished,
                    None => continue,
                },
                Err(status) if is_refusal(&status) && !show.begun() => {
                    return Finished {
                        outcome: Outcome::NotStarted,
                        result: Err(status.into()),
                    };
                }
                Err(status) => status.into(),
                Ok(None) => CliError::new(Kind::Partial, "the machine stopped reporting"),
            };
            // The daemon restarts, or the connection broke. The deployment continues.
            let Some(id) = show.deployment().map(ToOwned::to_owned) else {
                return unknown(lost(error, None));
            };
            stream = match self.attach_again(&id, &show, patience.lost()).await {
                Ok(Some(stream)) => stream,
                Ok(None) => return unknown(lost(error, Some(&id))),
                Err(error) => return unknown(error),
            };
            patience.found();
            show.expect_repetition();
        }
    }

    /// The events of a deployment from its beginning. `None` if the cluster does not know it any
    /// longer, or does not answer until the deadline.
    async fn attach_again(
        &mut self,
        id: &str,
        show: &Show<'_>,
        deadline: Instant,
    ) -> CliResult<Option<Streaming<DeployEvent>>> {
        let lost = self.client.clone();
        let attempts = tokio::time::timeout_at(deadline, watch_again(&lost, id));
        tokio::pin!(attempts);
        loop {
            tokio::select! {
                attached = &mut attempts => {
                    let Some((client, stream)) = attached.ok().flatten() else {
                        return Ok(None);
                    };
                    self.client = client;
                    return Ok(Some(stream));
                }
                signal = self.signals.next() => {
                    if let Some(error) = self.interrupted(signal, show).await {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Asks what should happen to the deployment. Without a terminal, or if the deployment has not
    /// told its id, the watching ends. `None`: it continues.
    async fn interrupted(&mut self, signal: Signal, show: &Show<'_>) -> Option<CliError> {
        let id = show.deployment();
        let (true, Signal::Interrupt, Some(id)) = (self.ui.interactive(), signal, id) else {
            return Some(self.stop_watching(signal, "the deployment continues", id));
        };
        let asked = show.paused(async {
            tokio::select! {
                choice = choose(self.ui) => choice,
                _ = self.signals.next() => Ok(Choice::Detach),
            }
        });
        match asked.await {
            Ok(Choice::Watch) => self.ui.status("watching the deployment").err(),
            Ok(Choice::Detach) => {
                Some(self.stop_watching(signal, "the deployment continues", Some(id)))
            }
            Ok(Choice::Cancel) => self.cancel(id).await,
            Err(error) => Some(error),
        }
    }

    /// Cancels the deployment, whose events then tell how it is rolled back.
    async fn cancel(&mut self, id: &str) -> Option<CliError> {
        let cancelled = tokio::select! {
            cancelled = cancel(&self.client, id) => cancelled,
            signal = self.signals.next() => {
                let what = "the deployment is rolled back if the machine received the request, \
                            and continues otherwise";
                return Some(self.stop_watching(signal, what, Some(id)));
            }
        };
        let said = match cancelled {
            Ok(()) => self.ui.status("cancelled; rolling back"),
            // It may have ended while the question was open. Its events tell.
            Err(error) => {
                let text = error.context("cannot cancel the deployment").with_causes();
                self.ui.warn(&text)
            }
        };
        said.err()
    }

    /// Reports that the deployment continues without `uc`, and how to find it again.
    pub(super) fn stop_watching(&self, signal: Signal, what: &str, id: Option<&str>) -> CliError {
        let told = self.ui.status(&format!(
            "\nstopped watching; {what} on {}",
            self.client.destination()
        ));
        let hint = match id.map(short) {
            Some(id) => format!(
                "watch it again with `uc deployments watch {id}`, or roll it back with \
                 `uc deployments cancel {id}`"
            ),
            None => "`uc deployments ls` lists the deployments that run".to_owned(),
        };
        match told.and_then(|()| self.ui.hint(&hint)) {
            Ok(()) => CliError::interrupted(signal),
            Err(error) => error,
        }
    }
}

/// Asks until the answer is one of the choices. An empty answer continues the watching. The end of
/// the input detaches, because no user is left to watch.
async fn choose(ui: &Ui) -> CliResult<Choice> {
    ui.status("\nthe deployment is still running")?;
    loop {
        let line = ui
            .ask_for_line("[w]atch, [d]etach, or [c]ancel and roll back?")
            .await?;
        match choice(&line) {
            Some(choice) => return Ok(choice),
            None => ui.status("enter `w`, `d` or `c`")?,
        }
    }
}

fn choice(line: &str) -> Option<Choice> {
    match line.trim().to_ascii_lowercase().as_str() {
        "" if line.is_empty() => Some(Choice::Detach),
        "" | "w" | "watch" => Some(Choice::Watch),
        "d" | "detach" => Some(Choice::Detach),
        "c" | "cancel" => Some(Choice::Cancel),
        _ => None,
    }
}

/// Ends a deployment that runs. It is rolled back afterwards.
pub(super) async fn cancel(client: &Client, id: &str) -> CliResult {
    let request = CancelRequest {
        deployment_id: id.to_owned(),
    };
    ask(client.deploy().cancel(within(30, request))).await?;
    Ok(())
}

/// The events of a deployment, from its beginning.
pub(super) async fn watch(client: &Client, id: &str) -> Result<Streaming<DeployEvent>, Status> {
    let request = WatchRequest {
        deployment_id: id.to_owned(),
    };
    Ok(client.deploy().watch(request).await?.into_inner())
}

/// Connects again, until the machine that executes the deployment can be reached. `None` if it is
/// refused.
async fn watch_again(lost: &Client, id: &str) -> Option<(Client, Streaming<DeployEvent>)> {
    loop {
        tokio::time::sleep(WATCH_AGAIN_PAUSE).await;
        let Ok(client) = lost.reconnect().await else {
            continue;
        };
        match watch(&client, id).await {
            Ok(stream) => return Some((client, stream)),
            Err(status) if is_passing(&status) => {}
            Err(_) => return None,
        }
    }
}

/// The daemon, or the machine that executes the deployment, cannot be reached at the moment.
fn is_passing(status: &Status) -> bool {
    error::is_lost_connection(status)
        || matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
}

/// The daemon reports that the plan is no longer the one that was confirmed.
fn is_refusal(status: &Status) -> bool {
    status.code() == Code::Aborted
}

/// It started, and its end was not seen.
fn unknown(error: CliError) -> Finished {
    Finished {
        outcome: Outcome::Unknown,
        result: Err(error),
    }
}

/// The deployment continues (or has failed) where `uc` cannot see it.
fn lost(error: CliError, id: Option<&str>) -> CliError {
    error
        .context("lost sight of the deployment, which continues without uc")
        .kind(Kind::Partial)
        .hint(after_loss(id))
}

/// What to do about a deployment of which nothing is known any longer.
pub(super) fn after_loss(id: Option<&str>) -> String {
    match id.map(short) {
        Some(id) => format!("`uc deployments show {id}` reports how it ended"),
        None => "see `uc deployments ls`; if it did not start, run the same command again".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn events_that_end_again_and_again_are_looked_for_no_longer_than_a_minute() {
        let mut patience = Patience::new();
        tokio::time::sleep(Duration::from_hours(1)).await;
        let deadline = patience.lost();
        assert_eq!(deadline, Instant::now() + WATCH_AGAIN_LIMIT);
        for _ in 0..5 {
            patience.found();
            tokio::time::sleep(LASTING / 2).await;
            assert_eq!(patience.lost(), deadline);
        }
        patience.found();
        tokio::time::sleep(LASTING).await;
        assert_eq!(patience.lost(), Instant::now() + WATCH_AGAIN_LIMIT);
    }

    #[test]
    fn end_of_the_input_detaches_and_an_empty_line_continues() {
        assert_eq!(choice(""), Some(Choice::Detach));
        assert_eq!(choice("\n"), Some(Choice::Watch));
        assert_eq!(choice(" C \n"), Some(Choice::Cancel));
        assert_eq!(choice("detach\n"), Some(Choice::Detach));
        assert_eq!(choice("y\n"), None);
    }
}
