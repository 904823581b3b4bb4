//! `uc machine rm`

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use uc_api::v1::{
    Liveness, MachineRecord, MountKind, PsRequest, RemoveMachineRequest, ReplicaStatus,
    ResetRequest,
};

use super::Listed;
use crate::args::{Output, Yes};
use crate::config::Config;
use crate::connect::{self, Client, Globals, Route, ask, within};
use crate::error::{CliError, CliResult, Kind};
use crate::provision::installed::INSTALLER;
use crate::ui::{BOLD, RED, Ui};
use crate::view;

/// Remove a machine from the cluster
///
/// Removes the machine's containers and makes it forget the cluster. Its named volumes, and uc
/// itself, stay on the machine. A machine that cannot be reached, or does not confirm within 30
/// seconds, is only removed from the list.
#[derive(Debug, Args)]
#[command(visible_alias = "remove")]
pub(crate) struct RmArgs {
    /// Name, id, or beginning of the id of the machine
    machine: String,
    /// Remove the machine from the list without touching the machine itself
    #[arg(long)]
    no_reset: bool,
    #[command(flatten)]
    yes: Yes,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: RmArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let route = globals.route(None)?;
    let client = connect::connect(&route, globals).await?;
    let machines = super::list(&client).await?;
    let (machine, status) = super::find(&machines, &args.machine)?;
    let last = machines.len() == 1;
    if last && args.no_reset {
        return Err(CliError::usage(format!(
            "{} is the last machine, so it cannot be removed with --no-reset",
            machine.name
        ))
        .hint(format!(
            "`uc machine rm {}` resets it, which ends the cluster",
            machine.name
        )));
    }
    let client = if status.connected && !last {
        connect_through_another(&route, &machines, machine, globals).await?
    } else {
        client
    };
    let fate = if args.no_reset {
        Fate::KeepsRunning
    } else if status.liveness() == Liveness::Down && !last {
        Fate::OutOfReach
    } else {
        Fate::Removed
    };
    show_removal(ui, &client, machine, fate, last).await?;
    let question = if last {
        format!(
            "{} is the last machine. End {}?",
            machine.name,
            client.destination()
        )
    } else {
        format!("Remove {} from {}?", machine.name, client.destination())
    };
    ui.confirm(&question, args.yes.yes, "removing a machine")
        .await?;
    let mut removed = view::RemovedMachine {
        machine: machine.into(),
        reset: true,
        reset_error: None,
        cluster_ended: last,
    };
    if last {
        client
            .machine()
            .reset(within(180, ResetRequest::default()))
            .await?;
        forget_connections(&route, None, globals, ui)?;
        ui.status(&format!(
            "{} was reset. It was the last machine: the cluster no longer exists",
            machine.name
        ))?;
    } else {
        let request = RemoveMachineRequest {
            machine: machine.id.clone(),
            no_reset: args.no_reset,
        };
        let response = ask(client.cluster().remove_machine(within(180, request))).await?;
        forget_connections(&route, Some(&machine.id), globals, ui)?;
        removed.reset = response.was_reset;
        if !args.no_reset && !response.was_reset {
            ui.warn(&format!(
                "{} was removed from the cluster, but did not confirm that it was reset: {}",
                machine.name, response.reset_error
            ))?;
            ui.hint(&format!(
                "its containers may still run; run `sudo ucd reset --yes` on it when it answers, or `sudo {INSTALLER} --uninstall` to remove uc as well"
            ))?;
            removed.reset_error = Some(response.reset_error);
        }
        ui.status(&format!("removed {}", machine.name))?;
    }
    if args.output.is_json() {
        ui.json(&removed)?;
    }
    Ok(())
}

/// Connects through another machine: a machine that is reset cannot answer for the cluster.
async fn connect_through_another(
    route: &Route,
    machines: &[Listed],
    machine: &MachineRecord,
    globals: &Globals,
) -> CliResult<Client> {
    let refused = || {
        let other = machines
            .iter()
            .map(|(other, _)| other)
            .find(|other| other.id != machine.id);
        CliError::failed(format!(
            "uc is connected to {} itself, and a machine cannot remove itself",
            machine.name
        ))
        .hint(format!(
            "connect to {} instead: `uc --connect ssh://USER@HOST machine rm {}`",
            other.map_or("another machine", |other| other.name.as_str()),
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
            machines
                .iter()
                .any(|(here, status)| status.connected && here.id != machine.id)
        });
        if here {
            return Ok(client);
        }
    }
    Err(refused().kind(Kind::Failed))
}

/// What becomes of the machine's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Removed,
    KeepsRunning,
    /// The machine is down.
    OutOfReach,
}

/// Shows what is removed with the machine, and what stays on it.
async fn show_removal(
    ui: &Ui,
    client: &Client,
    machine: &MachineRecord,
    fate: Fate,
    last: bool,
) -> CliResult {
    let request = PsRequest {
        services: Vec::new(),
        project: String::new(),
    };
    let replicas = ask(client.services().ps(within(30, request)))
        .await?
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
        let fate = match fate {
            Fate::Removed => "is removed",
            Fate::KeepsRunning => "keeps running",
            Fate::OutOfReach => "may run again when the machine is back",
        };
        ui.status(&format!(
            "  {RED}-{RED:#} {}/{} {id} {fate}",
            replica.project, replica.service
        ))?;
    }
    if fate == Fate::OutOfReach {
        ui.warn(&format!(
            "{} is down, so it cannot be reset: it does not learn that it was removed",
            machine.name
        ))?;
    }
    for (volume, services) in volumes(&here) {
        ui.warn(&format!(
            "volume {volume} of {services} stays on {} with its data; on another machine the service starts with an empty one",
            machine.name
        ))?;
    }
    if !here.is_empty() && !last {
        ui.hint(
            "run `uc deploy` or `uc scale` afterwards to start the missing replicas on other machines",
        )?;
    }
    Ok(())
}

/// The named volumes of these replicas, each with the services that mount it.
fn volumes(replicas: &[&ReplicaStatus]) -> BTreeMap<String, String> {
    let mut services: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for replica in replicas.iter().filter_map(|status| status.replica.as_ref()) {
        let mounts = replica.mounts.iter();
        for mount in mounts.filter(|mount| mount.kind() == MountKind::Volume) {
            let service = format!("{}/{}", replica.project, replica.service);
            services
                .entry(mount.source.clone())
                .or_default()
                .insert(service);
        }
    }
    // The engine gives an anonymous volume, which nobody looks for again, a name of 64 digits.
    let is_anonymous =
        |name: &str| name.len() == 64 && name.bytes().all(|digit| digit.is_ascii_hexdigit());
    services
        .into_iter()
        .filter(|(volume, _)| !is_anonymous(volume))
        .map(|(volume, services)| {
            let services: Vec<String> = services.into_iter().collect();
            (volume, services.join(", "))
        })
        .collect()
}

/// Removes the machine's connections from the context; without a machine, the whole context.
fn forget_connections(
    route: &Route,
    machine: Option<&str>,
    globals: &Globals,
    ui: &Ui,
) -> CliResult {
    let Some(name) = &route.context else {
        return Ok(());
    };
    let forget = || -> CliResult {
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
    };
    let Err(error) = forget() else {
        return Ok(());
    };
    // The machine was removed, so the command has succeeded.
    let hint = match machine {
        Some(_) => {
            format!("update the context through another machine: `uc ctx add {name} USER@HOST`")
        }
        None => format!("remove the context with `uc ctx rm {name}`"),
    };
    super::warn_about_config(&error, &hint, ui)
}
