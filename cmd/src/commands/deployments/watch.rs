//! `uc deployments watch`

use clap::Args;

use crate::connect::Globals;
use crate::error::CliResult;
use crate::rollout;
use crate::ui::Ui;

/// Show the progress of a deployment until it ends
///
/// Shows what `uc deploy` shows, and exits with the same code. Of a deployment that has ended, only
/// the outcome is shown. Ctrl-C ends the watching; the deployment continues unless you cancel it.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Id or the beginning of one, as in `uc deployments ls`
    #[arg(value_name = "ID")]
    deployment: String,
}

pub(crate) async fn run(args: WatchArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    rollout::watch(ui, &client, &args.deployment).await?;
    ui.status("done")
}
