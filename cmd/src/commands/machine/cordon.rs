//! `uc machine cordon` and `uc machine uncordon`

use clap::Args;
use uc_api::v1::{CordonMachineRequest, MachineRecord};

use crate::answer::Required as _;
use crate::args::Output;
use crate::connect::{Client, Globals, ask, within};
use crate::error::CliResult;
use crate::ui::Ui;
use crate::view;

/// Place no new replicas on a machine
///
/// Replicas that run there stay, and deployments update them there. `uc machine drain` moves them
/// to other machines. The machine keeps all other tasks.
#[derive(Debug, Args)]
pub(crate) struct CordonArgs {
    /// Name, id, or beginning of the id of the machine
    machine: String,
    #[command(flatten)]
    output: Output,
}

/// Place replicas on a cordoned machine again
///
/// Moves nothing: the next deployment of a service uses the machine.
#[derive(Debug, Args)]
pub(crate) struct UncordonArgs {
    /// Name, id, or beginning of the id of the machine
    machine: String,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn cordon(args: CordonArgs, ui: &Ui, globals: &Globals) -> CliResult {
    run(&args.machine, true, args.output, ui, globals).await
}

pub(crate) async fn uncordon(args: UncordonArgs, ui: &Ui, globals: &Globals) -> CliResult {
    run(&args.machine, false, args.output, ui, globals).await
}

async fn run(machine: &str, cordon: bool, output: Output, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let machines = super::list(&client).await?;
    let (machine, _) = super::find(&machines, machine)?;
    let word = if cordon { "cordoned" } else { "not cordoned" };
    let changed = if is_cordoned(machine) == cordon {
        ui.status(&format!("{} is already {word}", machine.name))?;
        machine.clone()
    } else {
        let changed = set(&client, machine, cordon).await?;
        ui.status(&format!("{} is {word}", machine.name))?;
        changed
    };
    if output.is_json() {
        ui.json(&view::MachineEntry::from(&changed))?;
    }
    Ok(())
}

/// Cordons or uncordons. Returns the machine's new record.
pub(super) async fn set(
    client: &Client,
    machine: &MachineRecord,
    cordon: bool,
) -> CliResult<MachineRecord> {
    let request = CordonMachineRequest {
        machine: machine.id.clone(),
        cordon,
    };
    let answer = ask(client.cluster().cordon_machine(within(30, request))).await?;
    answer.machine.required("a machine")
}

/// No new replicas are placed on it.
pub(super) fn is_cordoned(machine: &MachineRecord) -> bool {
    machine.cordoned_at_ms != 0
}
