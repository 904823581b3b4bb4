//! From a wish to its end: plan, show, ask, push images and files, carry out. `deploy`, `scale` and
//! `rm` all go this way.

mod events;

use tonic::Code;
use uc_api::v1::{ExecuteRequest, Plan, PlanRequest};

use crate::connect::{Client, within};
use crate::error::{CliError, CliResult, Kind};
use crate::files::{self, Contents};
use crate::interrupt::Guard;
use crate::ui::Ui;
use crate::{images, picture};

/// How often a plan may change under our hands before we give up. Each time somebody else changed
/// the same services.
const MAX_PLANS: usize = 5;

/// What the command line says about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Do not ask.
    pub(crate) yes: bool,
    /// Show the plan and stop.
    pub(crate) dry_run: bool,
    /// Where it stops there, the plan goes to stdout; otherwise to stderr, because stdout has
    /// something else.
    pub(crate) plan_is_data: bool,
}

/// Plans and carries out. `contents`: what the services need of this computer.
pub(crate) async fn run(
    ui: &Ui,
    client: &Client,
    request: PlanRequest,
    contents: &Contents,
    options: &Options,
) -> CliResult {
    for round in 0..MAX_PLANS {
        let plan = client
            .deploy()
            .plan(within(60, request.clone()))
            .await?
            .into_inner();
        if round > 0 {
            ui.warn("somebody changed the cluster meanwhile; this is the new plan")?;
        }
        if picture::is_empty(&plan) {
            for warning in &plan.warnings {
                ui.warn(warning)?;
            }
            return ui.status("services are up to date");
        }
        let picture = picture::draw(&plan);
        if options.dry_run && options.plan_is_data {
            return ui.out(&picture);
        }
        ui.status(&picture)?;
        if options.dry_run {
            return Ok(());
        }
        ui.confirm("Go ahead?", options.yes, "changing services")
            .await?;
        files::push_missing(ui, client, contents).await?;
        images::push_missing(ui, client, &plan).await?;
        match execute(ui, client, &request, &plan).await {
            Err(error) if error.kind == Kind::PlanChanged => {}
            result => return result,
        }
    }
    Err(CliError::failed(format!(
        "the plan changed {MAX_PLANS} times while it was being agreed on"
    ))
    .hint("somebody else is deploying the same services; see `uc ps` and try again later"))
}

async fn execute(ui: &Ui, client: &Client, request: &PlanRequest, plan: &Plan) -> CliResult {
    let request = ExecuteRequest {
        request: Some(request.clone()),
        digest: plan.digest.clone(),
    };
    let mut stream = client.deploy().execute(request).await?.into_inner();
    let _guard = Guard::new();
    let mut show = events::Show::new(ui.progress(), plan);
    loop {
        // Once the daemon has begun, it goes on without us: Ctrl-C only stops the watching, and
        // says so.
        let message = tokio::select! {
            message = stream.message() => message,
            _ = tokio::signal::ctrl_c() => {
                drop(show);
                ui.status(&format!("\nstopped watching; the deployment goes on ({})", client.label))?;
                ui.hint("`uc ps` shows how far it is")?;
                return Err(CliError::interrupted());
            }
        };
        match message {
            Ok(Some(event)) => {
                if let Some(outcome) = show.event(event) {
                    drop(show);
                    if outcome.is_ok() {
                        ui.status("done")?;
                    }
                    return outcome;
                }
            }
            // Nothing has begun as long as nothing was reported.
            Err(status) if status.code() == Code::Aborted && !show.begun() => {
                return Err(status.into());
            }
            Err(status) if show.begun() => return Err(lost(CliError::from(status))),
            Err(status) => return Err(status.into()),
            Ok(None) => {
                return Err(lost(CliError::new(
                    Kind::Partial,
                    "the machine stopped reporting",
                )));
            }
        }
    }
}

/// The daemon works on (or has failed) where we cannot see it.
fn lost(error: CliError) -> CliError {
    error
        .context("lost sight of the deployment")
        .kind(Kind::Partial)
        .hint(
            "it goes on without uc; see `uc ps`, then `uc deploy` again: it does only what is left",
        )
}
