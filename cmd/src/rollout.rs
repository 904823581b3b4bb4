//! A deployment as `uc` sees it: plan, show the plan, ask, push images and files, execute, report
//! the outcome. `deploy`, `scale` and `rm` share it.

mod destination;
mod events;
mod json;

use std::collections::BTreeMap;
use std::time::Duration;

use destination::Cluster;
pub(crate) use destination::warn_about_context;
use events::{Finished, Show};
pub(crate) use json::{Outcome, Report};
use serde::Serialize;
use serde_json::Value;
use tonic::{Code, Status, Streaming};
use uc_api::v1::{DeployEvent, ExecuteRequest, Plan, PlanRequest, WatchRequest};

use crate::connect::{Client, Destination, ask, within};
use crate::error::{self, CliError, CliResult, Kind, Signal};
use crate::files::{self, Contents};
use crate::interrupt::{Guard, Signals};
use crate::ui::{BOLD, DIM, Ui};
use crate::{images, picture};

/// How many plans are shown before `uc` gives up. Each new one means that someone else changed the
/// same services.
const MAX_PLANS: usize = 5;

/// How long a deployment is looked for whose events ended. A daemon that restarts continues its
/// deployments within seconds.
const WATCH_AGAIN_LIMIT: Duration = Duration::from_mins(1);
const WATCH_AGAIN_PAUSE: Duration = Duration::from_secs(1);

/// What the user is about to change, for the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Deploy,
    Scale,
    Remove,
    Drain,
}

impl Action {
    fn question(self, destination: &Destination) -> String {
        match self {
            Self::Deploy => format!("Deploy to {destination}?"),
            Self::Scale => format!("Scale on {destination}?"),
            Self::Remove => format!("Remove from {destination}?"),
            Self::Drain => format!("Move these replicas on {destination}?"),
        }
    }

    /// Completes "confirmation is required before …".
    fn gerund(self) -> &'static str {
        match self {
            Self::Deploy => "deploying",
            Self::Scale => "scaling",
            Self::Remove => "removing services",
            Self::Drain => "draining a machine",
        }
    }
}

/// How a change is confirmed and reported.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) action: Action,
    /// Do not ask.
    pub(crate) yes: bool,
    /// The digest of a plan that was shown and confirmed before.
    pub(crate) confirmed: Option<String>,
    /// Show the plan and stop.
    pub(crate) dry_run: bool,
    /// Print one JSON document on stdout. Everything else goes to stderr.
    pub(crate) json: bool,
    /// More keys of that document.
    pub(crate) document: BTreeMap<&'static str, Value>,
}

/// The document of `-o json`, with the keys of the command.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    of_command: &'a BTreeMap<&'static str, Value>,
    #[serde(flatten)]
    report: &'a Report,
}

/// Plans, asks and executes. `contents`: what the services need of this computer. Returns what
/// became of the plan: that there was nothing to do, that it was only shown, or that it was done.
pub(crate) async fn run(
    ui: &Ui,
    client: &Client,
    request: PlanRequest,
    contents: &Contents,
    options: &Options,
) -> CliResult<Outcome> {
    let (report, result) = carry_out(ui, client, request, contents, options).await;
    let document = Document {
        of_command: &options.document,
        report: &report,
    };
    if let Err(error) = result {
        return Err(error.with_json_of(&document));
    }
    if options.json {
        ui.json(&document)?;
    }
    Ok(report.outcome)
}

/// As [`run`], but prints no document of `-o json`.
pub(crate) async fn carry_out(
    ui: &Ui,
    client: &Client,
    request: PlanRequest,
    contents: &Contents,
    options: &Options,
) -> (Report, CliResult) {
    let mut report = Report {
        cluster: Cluster::from(client.destination()),
        plan: None,
        outcome: Outcome::NotStarted,
        steps: BTreeMap::new(),
        notices: Vec::new(),
    };
    let result = plan_and_execute(ui, client, &request, contents, options, &mut report).await;
    (report, result)
}

async fn plan_and_execute(
    ui: &Ui,
    client: &Client,
    request: &PlanRequest,
    contents: &Contents,
    options: &Options,
    report: &mut Report,
) -> CliResult {
    for round in 0..MAX_PLANS {
        let plan = ask(client.deploy().plan(within(60, request.clone()))).await?;
        report.plan = Some(json::Plan::from(&plan));
        if round > 0 {
            ui.warn("the cluster changed since the plan was made; here is the new plan")?;
        }
        if picture::is_empty(&plan) {
            for warning in &plan.warnings {
                ui.warn(warning)?;
            }
            report.outcome = Outcome::Unchanged;
            return ui.status("services are up to date");
        }
        if options.confirmed.as_ref() != Some(&plan.digest) {
            ui.status(&format!(
                "{DIM}plan for{DIM:#} {BOLD}{}{BOLD:#}",
                client.destination()
            ))?;
            let picture = picture::draw(&plan);
            if options.dry_run {
                report.outcome = Outcome::Planned;
                return if options.json {
                    ui.status(&picture)
                } else {
                    ui.out(&picture)
                };
            }
            ui.status(&picture)?;
            let Options { action, yes, .. } = options;
            let question = action.question(client.destination());
            ui.confirm(&question, *yes, action.gerund()).await?;
        }
        files::push_missing(ui, client, contents).await?;
        images::push_missing(ui, client, &plan).await?;
        match execute(ui, client, request, &plan, report).await {
            Err(error) if error.kind == Kind::PlanChanged => {}
            result => return result,
        }
    }
    report.outcome = Outcome::NotStarted;
    Err(CliError::new(
        Kind::PlanChanged,
        format!("the plan kept changing; gave up after {MAX_PLANS} plans"),
    )
    .hint("someone else is deploying the same services: see `uc ps`, and try again later"))
}

async fn execute(
    ui: &Ui,
    client: &Client,
    request: &PlanRequest,
    plan: &Plan,
    report: &mut Report,
) -> CliResult {
    let request = ExecuteRequest {
        request: Some(request.clone()),
        digest: plan.digest.clone(),
    };
    // From here on, the deployment runs on the cluster, whether or not this program does. A signal
    // and a lost connection only end the watching, and the user must learn that.
    let _guard = Guard::new();
    let mut signals = Signals::new();
    let mut deploy = client.deploy();
    let answer = tokio::select! {
        answer = deploy.execute(request) => answer,
        signal = signals.next() => {
            report.outcome = Outcome::Unknown;
            let what = "the deployment may have started; if it has, it continues";
            return Err(stop_watching(ui, client, signal, what)?);
        }
    };
    let mut stream = match answer {
        Ok(answer) => answer.into_inner(),
        // The daemon refused it: nothing has started.
        Err(status) if !error::is_lost_connection(&status) => return Err(status.into()),
        Err(status) => {
            report.outcome = Outcome::Unknown;
            return Err(CliError::from(status)
                .context("the deployment may have started")
                .kind(Kind::Partial)
                .hint(AFTER_LOSS));
        }
    };
    report.outcome = Outcome::Unknown;
    let mut show = Show::new(ui.progress(), plan, report);
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            signal = signals.next() => {
                drop(show);
                return Err(stop_watching(ui, client, signal, "the deployment continues")?);
            }
        };
        match message {
            Ok(Some(event)) => {
                if let Some(Finished { outcome, result }) = show.event(event) {
                    drop(show);
                    report.outcome = outcome;
                    if result.is_ok() {
                        ui.status("done")?;
                    }
                    return result;
                }
            }
            Err(status) if is_refusal(&status) && !show.begun() => {
                drop(show);
                report.outcome = Outcome::NotStarted;
                return Err(status.into());
            }
            // The daemon restarts, or the connection broke. The deployment continues.
            ended => {
                let error = match ended {
                    Err(status) => status.into(),
                    Ok(_) => CliError::new(Kind::Partial, "the machine stopped reporting"),
                };
                let Some(deployment) = show.deployment().map(ToOwned::to_owned) else {
                    return Err(lost(error));
                };
                let again = tokio::select! {
                    again = watch_again(client, deployment) => again,
                    signal = signals.next() => {
                        drop(show);
                        return Err(stop_watching(ui, client, signal, "the deployment continues")?);
                    }
                };
                stream = again.ok_or_else(|| lost(error))?;
            }
        }
    }
}

/// The events of a deployment that runs, from the beginning. `None` if the cluster does not answer
/// for [`WATCH_AGAIN_LIMIT`].
async fn watch_again(client: &Client, deployment_id: String) -> Option<Streaming<DeployEvent>> {
    let attempts = async {
        loop {
            tokio::time::sleep(WATCH_AGAIN_PAUSE).await;
            let request = WatchRequest {
                deployment_id: deployment_id.clone(),
            };
            if let Ok(answer) = client.deploy().watch(request).await {
                return answer.into_inner();
            }
        }
    };
    let watched = tokio::time::timeout(WATCH_AGAIN_LIMIT, attempts).await;
    watched.ok()
}

/// The daemon says that the plan is no longer the one that was confirmed.
fn is_refusal(status: &Status) -> bool {
    status.code() == Code::Aborted
}

fn stop_watching(ui: &Ui, client: &Client, signal: Signal, what: &str) -> CliResult<CliError> {
    ui.status(&format!(
        "\nstopped watching; {what} on {}",
        client.destination()
    ))?;
    ui.hint("`uc ps` shows the replicas")?;
    Ok(CliError::interrupted(signal))
}

const AFTER_LOSS: &str =
    "see `uc ps`, then run the same command again: it does only what is left to do";

/// The deployment continues (or has failed) where we cannot see it.
fn lost(error: CliError) -> CliError {
    error
        .context("lost sight of the deployment, which continues without uc")
        .kind(Kind::Partial)
        .hint(AFTER_LOSS)
}
