//! `uc deployments ls`

use clap::Args;
use jiff::Timestamp;
use uc_api::id::short;
use uc_api::v1::DeploymentStatus;

use crate::args::Output;
use crate::connect::Globals;
use crate::error::CliResult;
use crate::ui::{CYAN, Cell, Table, Ui};
use crate::words::deployment_state;
use crate::{times, view};

/// List deployments, the newest first
///
/// STATE is `running`, how the deployment ended, or `unknown` if its machine is down and no other
/// one has recorded its end.
#[derive(Debug, Args)]
#[command(visible_alias = "list")]
pub(crate) struct LsArgs {
    /// List only deployments that changed this project
    #[arg(short, long, default_value_t, hide_default_value = true)]
    project: String,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: LsArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let deployments = super::list(&client, args.project).await?;
    if args.output.is_json() {
        return ui.json_list(deployments.iter().map(view::Deployment::from));
    }
    if deployments.is_empty() {
        return ui.status("no deployments");
    }
    ui.table(&table(&deployments, Timestamp::now()))
}

fn table(deployments: &[DeploymentStatus], now: Timestamp) -> Table {
    let mut table =
        Table::new(&["ID", "BEGAN", "MACHINE", "SERVICES", "STATE"]).free_text(&["SERVICES"]);
    for deployment in deployments {
        let (state, condition) = deployment_state(deployment);
        table.row([
            Cell::styled(short(&deployment.deployment_id), CYAN),
            times::ago(deployment.began_at_ms, now).into(),
            deployment.machine_name.as_str().into(),
            super::services(deployment).into(),
            Cell::styled(state, condition.style()),
        ]);
    }
    table
}
