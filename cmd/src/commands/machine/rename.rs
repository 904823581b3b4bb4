//! `uc machine rename`

use clap::Args;
use uc_api::MachineName;
use uc_api::v1::{MachineRecord, RenameMachineRequest};

use crate::answer::Required as _;
use crate::args::Output;
use crate::connect::{Globals, within};
use crate::error::CliResult;
use crate::ui::Ui;
use crate::view;

/// Rename a machine
#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// Name, id, or beginning of the id of the machine
    machine: String,
    /// New name of the machine
    new_name: String,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: RenameArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let new_name = args.new_name.parse::<MachineName>()?.to_string();
    let client = globals.client().await?;
    let machines = super::list(&client).await?;
    let (machine, _) = super::find(&machines, &args.machine)?;
    let renamed: MachineRecord = if machine.name == new_name {
        ui.status(&format!("the machine is already named {new_name}"))?;
        machine.clone()
    } else {
        let request = RenameMachineRequest {
            machine: machine.id.clone(),
            new_name: new_name.clone(),
        };
        let answer = client.cluster().rename_machine(within(30, request)).await?;
        ui.status(&format!("renamed {} to {new_name}", machine.name))?;
        answer.into_inner().machine.required("a machine")?
    };
    if args.output.is_json() {
        ui.json(&view::RenamedMachine {
            old_name: machine.name.clone(),
            machine: (&renamed).into(),
        })?;
    }
    Ok(())
}
