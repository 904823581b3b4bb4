//! `uc machine rename`

use clap::Args;
use uc_api::MachineName;
use uc_api::v1::RenameMachineRequest;

use crate::connect::{Globals, within};
use crate::error::CliResult;
use crate::ui::Ui;

/// Give a machine another name
#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// Its name, id, or the beginning of its id
    machine: String,
    /// The new name
    new_name: String,
}

pub(crate) async fn run(args: RenameArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let new_name = args.new_name.parse::<MachineName>()?.to_string();
    let client = globals.client().await?;
    let machines = super::list(&client).await?;
    let machine = super::find(&machines, &args.machine)?
        .machine
        .clone()
        .unwrap_or_default();
    if machine.name == new_name {
        return ui.status(&format!("{new_name} has this name already"));
    }
    let request = RenameMachineRequest {
        machine: machine.id,
        new_name: new_name.clone(),
    };
    client.cluster().rename_machine(within(30, request)).await?;
    ui.status(&format!("{} is now {new_name}", machine.name))
}
