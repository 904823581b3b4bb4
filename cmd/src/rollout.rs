//! A deployment as `uc` sees it: plan, show the plan, ask, push images and files, execute, report
//! the outcome. `deploy`, `scale`, `rm` and `rollback` share it.

mod destination;
mod events;
mod follow;
mod json;

use std::collections::BTreeMap;

use destination::Cluster;
pub(crate) use destination::warn_about_context;
use events::{Finished, Show};
use follow::Follower;
pub(crate) use json::{Outcome, Report};
use serde::Serialize;
use serde_json::Value;
use tonic::Streaming;
use uc_api::v1::plan_request::Change;
use uc_api::v1::{DeployEvent, ExecuteRequest, Plan, PlanRequest};

use crate::args::{Output, Yes};
use crate::connect::{Client, Destination, ask, within};
use crate::error::{self, CliError, CliResult, Kind};
use crate::files::{self, Contents};
use crate::interrupt::{Guard, Signals};
use crate::ui::{BOLD, DIM, Ui};
use crate::{images, picture};

/// How many plans are shown before `uc` gives up. Each new one means that someone else changed the
/// same services.
const MAX_PLANS: usize = 5;

/// What the user is about to change, for the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Deploy,
    Scale,
    Remove,
    RollBack,
    Drain,
}

impl Action {
    fn question(self, destination: &Destination) -> String {
        match self {
            Self::Deploy => format!("Deploy to {destination}?"),
            Self::Scale => format!("Scale on {destination}?"),
            Self::Remove => format!("Remove from {destination}?"),
            Self::RollBack => format!("Roll back on {destination}?"),
            Self::Drain => format!("Move these replicas on {destination}?"),
        }
    }

    /// Completes "confirmation is required before …".
    fn gerund(self) -> &'static str {
        match self {
            Self::Deploy => "deploying",
            Self::Scale => "scaling",
            Self::Remove => "removing services",
            Self::RollBack => "rolling back",
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
    /// Do not wait until new containers are healthy.
    pub(crate) skip_health: bool,
    /// Print one JSON document on stdout. Everything else goes to stderr.
    pub(crate) json: bool,
    /// More keys of that document.
    pub(crate) document: BTreeMap<&'static str, Value>,
}

impl Options {
    /// Shows the plan, asks, and carries it out.
    pub(crate) fn new(action: Action, yes: Yes, output: Output) -> Self {
        Self {
            action,
            yes: yes.yes,
            confirmed: None,
            dry_run: false,
            skip_health: false,
            json: output.is_json(),
            document: BTreeMap::new(),
        }
    }
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
    let mut report = Report::new(Cluster::from(client.destination()), Outcome::NotStarted);
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
        let order = ExecuteRequest {
            request: Some(with_images_of(&plan, request.clone())),
            digest: plan.digest.clone(),
            skip_health: options.skip_health,
        };
        match execute(ui, client, order, &plan, report).await {
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
    request: ExecuteRequest,
    plan: &Plan,
    report: &mut Report,
) -> CliResult {
    // From here on, the deployment runs on the cluster, whether or not this program does. A signal
    // and a lost connection only end the watching, and the user must learn that.
    let _guard = Guard::of_all_signals();
    let mut signals = Signals::new();
    let mut deploy = client.deploy();
    let answer = tokio::select! {
        answer = deploy.execute(request) => answer,
        signal = signals.next() => {
            report.outcome = Outcome::Unknown;
            let what = "the deployment may have started; if it has, it continues";
            let client = client.clone();
            let follower = Follower { ui, client, signals: &mut signals };
            return Err(follower.stop_watching(signal, what, None));
        }
    };
    let stream = match answer {
        Ok(answer) => answer.into_inner(),
        // The daemon refused it: nothing has started.
        Err(status) if !error::is_lost_connection(&status) => return Err(status.into()),
        Err(status) => {
            report.outcome = Outcome::Unknown;
            return Err(CliError::from(status)
                .context("the deployment may have started")
                .kind(Kind::Partial)
                .hint(follow::after_loss(None)));
        }
    };
    let mut follower = Follower {
        ui,
        client: client.clone(),
        signals: &mut signals,
    };
    let show = Show::new(ui.progress(), plan, report);
    let Finished { outcome, result } = follower.follow(stream, show).await;
    report.outcome = outcome;
    if result.is_ok() {
        ui.status("done")?;
    }
    result
}

/// The request with the images of the plan, so that the plan is executed as it was shown even if a
/// tag moves in the meantime.
fn with_images_of(plan: &Plan, mut request: PlanRequest) -> PlanRequest {
    if let Some(Change::Deploy(desired)) = &mut request.change {
        for spec in &mut desired.services {
            let mut planned = plan.services.iter();
            if let Some(planned) = planned.find(|planned| planned.service == spec.name) {
                spec.image_digest.clone_from(&planned.image_digest);
            }
        }
        desired.images_resolved = true;
    }
    request
}

/// Shows a deployment that runs, or only how it ended, as [`run`] shows its own.
pub(crate) async fn watch(ui: &Ui, client: &Client, id: &str) -> CliResult {
    let stream = follow::watch(client, id).await?;
    follow_to_its_end(ui, client, id, stream).await
}

/// Ends a deployment that runs, and shows how it is rolled back.
pub(crate) async fn cancel(ui: &Ui, client: &Client, id: &str) -> CliResult {
    // Before the deployment ends: afterwards, its machine has to be reached for its outcome.
    let stream = follow::watch(client, id).await?;
    follow::cancel(client, id).await?;
    follow_to_its_end(ui, client, id, stream).await
}

async fn follow_to_its_end(
    ui: &Ui,
    client: &Client,
    id: &str,
    stream: Streaming<DeployEvent>,
) -> CliResult {
    let _guard = Guard::of_all_signals();
    let mut signals = Signals::new();
    let mut report = Report::new(Cluster::from(client.destination()), Outcome::Unknown);
    report.deployment = Some(id.to_owned());
    let plan = Plan::default();
    let show = Show::new(ui.progress(), &plan, &mut report);
    let mut follower = Follower {
        ui,
        client: client.clone(),
        signals: &mut signals,
    };
    follower.follow(stream, show).await.result
}

#[cfg(test)]
mod tests {
    use uc_api::v1::{DesiredServices, ServicePlan, ServiceSpec};

    use super::*;

    #[test]
    fn with_images_of_sends_back_the_digests_of_the_plan() {
        let named = |name: &str, image_digest: &str| ServiceSpec {
            name: name.into(),
            image_digest: image_digest.into(),
            ..ServiceSpec::default()
        };
        let request = |services, images_resolved| PlanRequest {
            change: Some(Change::Deploy(DesiredServices {
                services,
                images_resolved,
                ..DesiredServices::default()
            })),
        };
        let plan = Plan {
            services: vec![ServicePlan {
                service: "web".into(),
                image_digest: "sha256:1".into(),
                ..ServicePlan::default()
            }],
            ..Plan::default()
        };
        let sent = with_images_of(
            &plan,
            request(vec![named("web", ""), named("db", "")], false),
        );
        let wanted = vec![named("web", "sha256:1"), named("db", "")];
        assert_eq!(sent, request(wanted, true));
    }
}
