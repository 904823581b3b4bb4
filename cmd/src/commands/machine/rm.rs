//! `uc machine rm`

use clap::Args;
use uc_api::v1::{
    MachineRecord, MachineStatus, PsRequest, RemoveMachineRequest, ReplicaStatus, ResetRequest,
};

use crate::cli::Yes;
use crate::config::Config;
use crate::connect::{self, Client, Globals, Route, within};
use crate::error::{CliError, CliResult, Kind};
use crate::provision::installed::INSTALLER;
use crate::ui::{BOLD, RED, Ui};

/// Take a machine out of the cluster
///
/// Its containers are removed and it forgets the cluster; its named volumes and uc itself stay on
/// it. A machine that cannot be reached is taken off the list only.
#[derive(Debug, Args)]
#[command(visible_alias = "remove")]
pub(crate) struct RmArgs {
    /// Its name, id, or the beginning of its id
    machine: String,
    /// Take it off the list and do not touch the machine itself
    #[arg(long)]
    no_reset: bool,
    #[command(flatten)]
    yes: Yes,
}

pub(crate) async fn run(args: RmArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let route = globals.route(None)?;
    let client = connect::connect(&route, globals).await?;
    let machines = super::list(&client).await?;
    let status = super::find(&machines, &args.machine)?;
    let machine = status.machine.clone().unwrap_or_default();
    let last = machines.len() == 1;
    if last && args.no_reset {
        return Err(CliError::usage(format!(
            "{} is the last machine: without a reset there would be nothing to do",
            machine.name
        ))
        .hint(format!("`uc machine rm {}` ends the cluster", machine.name)));
    }
    let client = if status.connected && !last {
        another(&route, &machines, &machine, globals).await?
    } else {
        client
    };
    show(ui, &client, &machine, args.no_reset, last).await?;
    let question = if last {
        format!("{} is the last machine: end the cluster?", machine.name)
    } else {
        format!("Remove {}?", machine.name)
    };
    ui.confirm(&question, args.yes.yes, "removing a machine")
        .await?;
    if last {
        client.machine().reset(within(180, ResetRequest {})).await?;
        forget(&route, None, globals)?;
        return ui.status(&format!(
            "{} is reset; the cluster is no more",
            machine.name
        ));
    }
    let request = RemoveMachineRequest {
        machine: machine.id.clone(),
        no_reset: args.no_reset,
    };
    let response = client
        .cluster()
        .remove_machine(within(180, request))
        .await?
        .into_inner();
    forget(&route, Some(&machine.id), globals)?;
    if !args.no_reset && !response.was_reset {
        ui.warn(&format!(
            "{} was taken off the list, but not reset: {}",
            machine.name, response.reset_error
        ))?;
        ui.hint(&format!(
            "its containers may still run; if it comes back, run `{INSTALLER} --uninstall` on it"
        ))?;
    }
    ui.status(&format!("{} removed", machine.name))
}

/// A connection through another machine: one cannot saw off the branch one sits on.
async fn another(
    route: &Route,
    machines: &[MachineStatus],
    machine: &MachineRecord,
    globals: &Globals,
) -> CliResult<Client> {
    let refused = || {
        let other = machines
            .iter()
            .filter_map(|status| status.machine.as_ref())
            .find(|other| other.id != machine.id);
        CliError::failed(format!(
            "uc is connected to {} itself; it must be removed through another machine",
            machine.name
        ))
        .hint(format!(
            "connect to {}: `uc --connect ssh://USER@HOST machine rm {}`",
            other.map_or("another", |other| other.name.as_str()),
            machine.name
        ))
    };
    if route.context.is_none() {
        return Err(refused());
    }
    let others = route
        .candidates
        .iter()
        .filter(|candidate| candidate.machine.as_deref() != Some(&machine.id));
    for candidate in others {
        let route = Route {
            candidates: vec![candidate.clone()],
            ..route.clone()
        };
        let Ok(client) = connect::connect(&route, globals).await else {
            continue;
        };
        let here = super::list(&client).await.is_ok_and(|machines| {
            machines.iter().any(|status| {
                status.connected
                    && status
                        .machine
                        .as_ref()
                        .is_some_and(|here| here.id != machine.id)
            })
        });
        if here {
            return Ok(client);
        }
    }
    Err(refused().kind(Kind::Failed))
}

/// What goes with the machine.
async fn show(
    ui: &Ui,
    client: &Client,
    machine: &MachineRecord,
    no_reset: bool,
    last: bool,
) -> CliResult {
    let request = PsRequest {
        services: Vec::new(),
        project: String::new(),
    };
    let replicas = client
        .services()
        .ps(within(30, request))
        .await?
        .into_inner()
        .replicas;
    let here: Vec<&ReplicaStatus> = replicas
        .iter()
        .filter(|status| status.machine_id == machine.id)
        .collect();
    ui.status(&format!(
        "{RED}-{RED:#} machine {BOLD}{}{BOLD:#} ({})",
        machine.name, machine.subnet
    ))?;
    for replica in here.iter().filter_map(|status| status.replica.as_ref()) {
        let id = uc_api::id::short(&replica.container_id);
        let fate = if no_reset {
            "is left running"
        } else {
            "is removed"
        };
        ui.status(&format!(
            "  {RED}-{RED:#} {}/{} {id} {fate}",
            replica.project, replica.service
        ))?;
    }
    if !here.is_empty() && !last {
        ui.hint(
            "`uc deploy` or `uc scale` afterwards puts the missing replicas on other machines",
        )?;
    }
    Ok(())
}

/// Drops the machine's connections from the context; without a machine, the whole context.
fn forget(route: &Route, machine: Option<&str>, globals: &Globals) -> CliResult {
    let Some(name) = &route.context else {
        return Ok(());
    };
    Config::update(&globals.config_path()?, |config| match machine {
        Some(id) => {
            if let Some(context) = config.contexts.get_mut(name) {
                context
                    .connections
                    .retain(|entry| entry.machine.as_deref() != Some(id));
            }
        }
        None => config.remove(name),
    })?;
    Ok(())
}
