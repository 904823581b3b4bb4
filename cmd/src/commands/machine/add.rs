//! `uc machine add`

use std::time::Duration;

use clap::Args;
use tokio::time::Instant;
use uc_api::MachineName;
use uc_api::v1::{
    AddMachineRequest, InfoResponse, JoinRequest, Liveness, MachineRecord, RemoveMachineRequest,
    ResetRequest,
};

use super::setup::{self, SetupArgs};
use crate::config::{Config, Entry};
use crate::connect::{self, Client, Globals, within};
use crate::connection::{Connection, SshTarget};
use crate::error::{CliError, CliResult, Kind};
use crate::interrupt::{self, Guard};
use crate::ui::Ui;

/// For the members to see the new machine.
const SEEN: Duration = Duration::from_mins(1);
/// How often they are asked.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// Add a machine to the cluster
///
/// Installs uc there over ssh and lets it join. The other machines reach it by WireGuard only (UDP
/// 51820), not by ssh.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc machine add root@203.0.113.2
  uc machine add -n db-1 --wg-endpoint 198.51.100.4:51820 root@10.0.0.4")]
pub(crate) struct AddArgs {
    /// The machine, with root or sudo without password
    #[arg(value_name = "USER@HOST[:PORT]")]
    host: String,
    #[command(flatten)]
    setup: SetupArgs,
}

pub(crate) async fn run(args: AddArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let name = args.setup.checked_name()?;
    let target = args.setup.target(&args.host)?;
    let route = globals.route(None)?;
    let cluster = connect::connect(&route, globals).await?;
    refuse_taken(&cluster, &name, "").await?;
    let (machine, info) = args
        .setup
        .make_ready(&target, &globals.env, ui, "add it to the cluster")
        .await?;
    let name = if name.is_empty() {
        name_from_host(&info, &target)?
    } else {
        name
    };
    refuse_taken(&cluster, &name, &info.machine_id).await?;
    let request = AddMachineRequest {
        machine_id: info.machine_id.clone(),
        name,
        public_key: info.public_key.clone(),
        endpoints: args.setup.all_endpoints(&target, &info.endpoints)?,
        token_id: String::new(),
    };
    // From here until it has joined, whatever goes wrong (Ctrl-C too) takes the record back.
    let guard = Guard::new();
    let mut registered = false;
    let steps = join(
        &cluster,
        &machine,
        request,
        args.setup.wireguard_port(),
        &mut registered,
        ui,
    );
    let record = match interrupt::or_interrupted(&guard, steps).await {
        Ok(record) => record,
        Err(error) => {
            if registered {
                take_back(&cluster, &machine, &info.machine_id, ui).await?;
            }
            return Err(error);
        }
    };
    drop(guard);
    remember(route.context.as_deref(), &target, &record.id, globals, ui)?;
    wait_until_seen(&cluster, &record, ui).await?;
    ui.status(&format!("{} is a member ({})", record.name, record.subnet))
}

/// The name of a member, or a machine that is one, is known before anything is changed.
async fn refuse_taken(cluster: &Client, name: &str, id: &str) -> CliResult {
    let members = super::list(cluster).await?;
    for member in members.iter().filter_map(|status| status.machine.as_ref()) {
        if !id.is_empty() && member.id == id {
            return Err(CliError::failed(format!(
                "the machine is a member already: {}",
                member.name
            ))
            .hint(format!(
                "if it has lost its state, remove it first: `uc machine rm --no-reset {}`",
                member.name
            )));
        }
        if member.name == name {
            return Err(CliError::failed(format!(
                "the name {name} is taken by another machine of the cluster"
            ))
            .hint("choose another with `--name NAME`, or rename that one: `uc machine rename OLD NEW`"));
        }
    }
    Ok(())
}

fn name_from_host(info: &InfoResponse, target: &SshTarget) -> CliResult<String> {
    let hostname = info
        .facts
        .as_ref()
        .map_or("", |facts| facts.hostname.as_str());
    let name = MachineName::from_hostname(hostname).ok_or_else(|| {
        CliError::usage(format!(
            "no name can be made from the host name `{hostname}` of {target}"
        ))
        .hint("choose one with `--name NAME`")
    })?;
    Ok(name.to_string())
}

/// Registers the machine with the members, then tells it who they are. `registered` is true while
/// the record may have to be taken back.
async fn join(
    cluster: &Client,
    machine: &Client,
    request: AddMachineRequest,
    wireguard_port: u32,
    registered: &mut bool,
    ui: &Ui,
) -> CliResult<MachineRecord> {
    let task = ui.progress().task(format!("{} joins", request.name));
    task.update("");
    *registered = true;
    let added = match cluster.cluster().add_machine(within(30, request)).await {
        Ok(added) => added.into_inner(),
        Err(status) => {
            // A refusal leaves nothing behind; a call that broke off may have.
            *registered = matches!(
                status.code(),
                tonic::Code::Unavailable
                    | tonic::Code::Cancelled
                    | tonic::Code::DeadlineExceeded
                    | tonic::Code::Unknown
            );
            task.failed("");
            return Err(status.into());
        }
    };
    let request = JoinRequest {
        cluster: added.cluster,
        machine: added.machine,
        members: added.members,
        wireguard_port,
    };
    match machine.machine().join(within(120, request)).await {
        Ok(joined) => {
            *registered = false;
            task.done("");
            Ok(joined.into_inner().machine.unwrap_or_default())
        }
        Err(status) => {
            task.failed("");
            Err(CliError::from(status).context("the machine could not join"))
        }
    }
}

/// Leaves the cluster and the machine as they were.
async fn take_back(cluster: &Client, machine: &Client, id: &str, ui: &Ui) -> CliResult {
    // It may have joined half-way: then it has to forget the cluster.
    if setup::info(machine)
        .await
        .is_ok_and(|info| !info.cluster_id.is_empty())
    {
        _ = machine.machine().reset(within(60, ResetRequest {})).await;
    }
    let request = RemoveMachineRequest {
        machine: id.to_owned(),
        no_reset: true,
    };
    match cluster.cluster().remove_machine(within(30, request)).await {
        Ok(_) => ui.status("taken back: the cluster is as it was before"),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
        Err(status) => {
            ui.warn(&format!(
                "the machine is still on the cluster's list: {}",
                status.message()
            ))?;
            ui.hint(&format!("take it off with `uc machine rm --no-reset {id}`"))
        }
    }
}

/// Waits until the members' membership sees it.
async fn wait_until_seen(cluster: &Client, record: &MachineRecord, ui: &Ui) -> CliResult {
    let task = ui
        .progress()
        .task(format!("the cluster sees {}", record.name));
    task.update("");
    let deadline = Instant::now() + SEEN;
    loop {
        let up = super::list(cluster).await?.iter().any(|status| {
            status.liveness() == Liveness::Up
                && status
                    .machine
                    .as_ref()
                    .is_some_and(|machine| machine.id == record.id)
        });
        if up {
            task.done("");
            return Ok(());
        }
        if Instant::now() >= deadline {
            task.failed("");
            let message = format!(
                "{} has joined, but the machine we are connected to did not see it as up within {} seconds",
                record.name,
                SEEN.as_secs()
            );
            return Err(CliError::new(Kind::TimedOut, message)
                .hint("let UDP 51820 (or --wg-port) through the firewalls between the machines, then see `uc machine ls`"));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Appends the connection to the context, so that the cluster can be reached through this machine
/// too.
fn remember(
    context: Option<&str>,
    target: &SshTarget,
    id: &str,
    globals: &Globals,
    ui: &Ui,
) -> CliResult {
    let Some(name) = context else {
        return ui.hint("no context was used, so none has this machine; `uc ctx ls` lists them");
    };
    let entry = Entry::new(&Connection::Ssh(target.clone()), Some(id.to_owned()));
    Config::update(&globals.config_path()?, |config| {
        let context = config.contexts.entry(name.to_owned()).or_default();
        context
            .connections
            .retain(|known| known.address != entry.address);
        context.connections.push(entry);
    })?;
    Ok(())
}
