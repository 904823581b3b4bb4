//! `uc machine ls`

use std::net::Ipv4Addr;

use clap::Args;
use jiff::Timestamp;
use uc_api::v1::{Liveness, MachineRecord, MachineStatus};

use super::{Listed, cordon, label};
use crate::args::{WideFormat, WideOutput};
use crate::commands::conflicts;
use crate::connect::Globals;
use crate::error::CliResult;
use crate::ui::{Cell, GREEN, RED, Table, Ui, YELLOW};
use crate::{view, words};

/// List the machines of the cluster
///
/// A machine is `up`, `suspect` (for up to 8 seconds), `down`, or `evicted` after 72 hours without
/// an answer: then the cluster no longer waits for it. An evicted machine rejoins on its own when
/// it comes back. Remove one that will not come back with `uc machine rm`. `cordoned`: it gets no
/// new replicas. With `(no Docker)` it is up, but its Docker engine has not answered for 15
/// seconds. `uc doctor` shows more.
#[derive(Debug, Args)]
#[command(visible_alias = "list")]
pub(crate) struct LsArgs {
    #[command(flatten)]
    output: WideOutput,
}

pub(crate) async fn run(args: LsArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let machines = super::list(&client).await?;
    let is_json = args.output.output == WideFormat::Json;
    match args.output.output {
        WideFormat::Table => ui.table(&table(&machines))?,
        WideFormat::Wide => ui.out(&wide_table(&machines).render())?,
        WideFormat::Json => ui.json_list(machines.iter().map(view::Machine::from))?,
    }
    if !is_json {
        warn_of_engines(ui, &machines, Timestamp::now())?;
    }
    conflicts::note(ui, &client).await
}

/// Names the machines that are up and whose Docker engine does not answer.
fn warn_of_engines(ui: &Ui, machines: &[Listed], now: Timestamp) -> CliResult {
    for (machine, status) in machines {
        let away = words::engine_away(
            &machine.name,
            engine_away_since_ms(status),
            now.as_millisecond(),
        );
        if let Some(text) = away.filter(|_| status.liveness() != Liveness::Down) {
            ui.warn(&text)?;
        }
    }
    Ok(())
}

/// 0 if it answers, or if nothing is known.
fn engine_away_since_ms(status: &MachineStatus) -> i64 {
    status
        .facts
        .as_ref()
        .map_or(0, |facts| facts.engine_away_since_ms)
}

const COLUMNS: [&str; 6] = ["NAME", "STATE", "ADDRESS", "REPLICAS", "OS", "UC"];

fn table(machines: &[Listed]) -> Table {
    let mut table = Table::new(&COLUMNS).free_text(&["NAME", "OS"]);
    for (machine, status) in machines {
        table.row(cells(machine, status));
    }
    table
}

/// The table of `-o wide`.
fn wide_table(machines: &[Listed]) -> Table {
    let titles: Vec<&str> = COLUMNS
        .into_iter()
        .chain([
            "SUBNET",
            "ENDPOINTS",
            "ARCH",
            "DOCKER",
            "CONNECTED",
            "LABELS",
        ])
        .collect();
    let mut table = Table::new(&titles);
    for (machine, status) in machines {
        let [name, state, address, replicas, os, uc] = cells(machine, status);
        let facts = status.facts.as_ref();
        table.row([
            name,
            state,
            address,
            replicas,
            os,
            uc,
            machine.subnet.as_str().into(),
            machine.endpoints.join(", ").into(),
            facts.map_or("", |facts| &facts.arch).into(),
            facts.map_or("", |facts| &facts.docker_version).into(),
            Cell::styled(if status.connected { "✓" } else { "" }, GREEN),
            label::lines(machine).join(", ").into(),
        ]);
    }
    table.without_empty("LABELS")
}

fn cells(machine: &MachineRecord, status: &MachineStatus) -> [Cell; 6] {
    let facts = status.facts.as_ref();
    let mut state = words::machine_state(status.liveness(), status.evicted);
    let no_docker = engine_away_since_ms(status) > 0 && status.liveness() == Liveness::Up;
    if no_docker {
        state.push_str(" (no Docker)");
    }
    let style = match status.liveness() {
        Liveness::Up if no_docker => RED,
        Liveness::Up => GREEN,
        _ if status.evicted => RED,
        Liveness::Down => RED,
        Liveness::Suspect | Liveness::Unspecified => YELLOW,
    };
    if cordon::is_cordoned(machine) {
        state.push_str(", cordoned");
    }
    let address = address(&machine.subnet).map_or_else(String::new, |address| address.to_string());
    [
        machine.name.as_str().into(),
        Cell::styled(state, style),
        address.into(),
        status.replicas.to_string().into(),
        facts.map_or("", |facts| &facts.os).into(),
        facts.map_or("", |facts| &facts.uc_version).into(),
    ]
}

/// The machine's own address in the cluster network: the first host address of its subnet.
fn address(subnet: &str) -> Option<Ipv4Addr> {
    let (network, _) = subnet.split_once('/')?;
    let network: Ipv4Addr = network.parse().ok()?;
    network.to_bits().checked_add(1).map(Ipv4Addr::from_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_the_first_of_the_subnet() {
        assert_eq!(address("10.210.3.0/24"), Some(Ipv4Addr::new(10, 210, 3, 1)));
        for invalid in ["", "10.210.3.0", "x/24", "255.255.255.255/32"] {
            assert_eq!(address(invalid), None, "{invalid}");
        }
    }
}
