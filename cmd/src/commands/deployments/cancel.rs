//! `uc deployments cancel`

use clap::Args;
use uc_api::id::short;

use crate::args::Yes;
use crate::connect::Globals;
use crate::error::{CliError, CliResult, Kind};
use crate::rollout;
use crate::ui::Ui;

/// End a deployment that runs, and roll back what it did
///
/// Exits with 0 when it was rolled back.
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// Id or the beginning of one, as in `uc deployments ls`
    #[arg(value_name = "ID")]
    deployment: String,
    #[command(flatten)]
    yes: Yes,
}

pub(crate) async fn run(args: CancelArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let deployments = super::list(&client, String::new()).await?;
    let deployment = super::find(&deployments, &args.deployment)?;
    let id = short(&deployment.deployment_id);
    if deployment.finished.is_some() {
        return Err(CliError::failed(format!("deployment {id} has ended"))
            .hint(format!("`uc deployments show {id}` reports how")));
    }
    let question = format!(
        "Cancel deployment {id} of {} on {} and roll back what it did?",
        super::services(deployment),
        client.destination()
    );
    let yes = args.yes.yes;
    ui.confirm(&question, yes, "cancelling a deployment")
        .await?;
    match rollout::cancel(ui, &client, &deployment.deployment_id).await {
        Err(error) if error.kind == Kind::RolledBack => ui.status("cancelled and rolled back"),
        Err(error) => Err(error),
        Ok(()) => Err(
            CliError::failed("the deployment was done before it could be cancelled")
                .hint("go back to an earlier revision with `uc rollback SERVICE`"),
        ),
    }
}
