//! `uc machine ls`

use clap::Args;
use uc_api::v1::{Liveness, MachineStatus};

use super::label;
use crate::cli::Output;
use crate::commands::conflicts;
use crate::connect::Globals;
use crate::error::CliResult;
use crate::ui::{Cell, GREEN, RED, Table, Ui, YELLOW};
use crate::view;

/// List the machines of the cluster
///
/// A machine's state is `up`, `suspect` (for up to 8 seconds), `down`, or `evicted` once it was
/// silent for 72 hours: nothing waits for it any more. An evicted one comes back by itself; one
/// that is gone for good goes with `uc machine rm`. `uc doctor` says more.
#[derive(Debug, Args)]
#[command(visible_alias = "list")]
pub(crate) struct LsArgs {
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: LsArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let machines = super::list(&client).await?;
    if args.output.is_json() {
        ui.json(&machines.iter().map(view::Machine::from).collect::<Vec<_>>())?;
    } else {
        ui.out(&table(&machines).render())?;
    }
    conflicts::note(ui, &client).await
}

fn table(machines: &[MachineStatus]) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "STATE",
        "SUBNET",
        "REPLICAS",
        "ENDPOINTS",
        "OS",
        "ARCH",
        "DOCKER",
        "UC",
        "CONNECTED",
        "LABELS",
    ]);
    for status in machines {
        let Some(machine) = &status.machine else {
            continue;
        };
        let facts = status.facts.clone().unwrap_or_default();
        let style = match status.liveness() {
            Liveness::Up => GREEN,
            _ if status.evicted => RED,
            Liveness::Down => RED,
            Liveness::Suspect | Liveness::Unspecified => YELLOW,
        };
        table.row([
            machine.name.as_str().into(),
            Cell::styled(
                view::machine_state(status.liveness(), status.evicted),
                style,
            ),
            machine.subnet.as_str().into(),
            status.replicas.to_string().into(),
            machine.endpoints.join(", ").into(),
            facts.os.into(),
            facts.arch.into(),
            facts.docker_version.into(),
            facts.uc_version.into(),
            Cell::styled(if status.connected { "✓" } else { "" }, GREEN),
            label::lines(machine).join(", ").into(),
        ]);
    }
    table.without_empty("LABELS")
}
