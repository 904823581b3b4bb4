//! `uc machine add`

mod registration;

use std::time::Duration;

use clap::Args;
use registration::Registration;
use tokio::time::Instant;
use uc_api::v1::{AddMachineRequest, InfoResponse, JoinRequest, Liveness, MachineRecord};
use uc_api::{MachineId, MachineName};

use super::setup::SetupArgs;
use crate::args::Output;
use crate::config::{Config, Entry};
use crate::connect::{self, Client, Globals};
use crate::connection::{Connection, SshTarget};
use crate::error::{CliError, CliResult, Kind};
use crate::interrupt::{self, Guard};
use crate::ui::Ui;
use crate::view;

/// How long the cluster may take to see the new machine as up.
const UP_LIMIT: Duration = Duration::from_mins(1);
/// How often `uc` asks whether the machine is up.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// Add a machine to the cluster
///
/// Installs uc on the machine over ssh and joins it to the cluster. The machines of a cluster reach
/// each other through WireGuard (UDP port 51820), not through ssh. If anything fails after the
/// installation, the cluster is left as it was. Asks before it installs; in a script, add `-y`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc machine add root@203.0.113.2
  uc machine add -n db-1 --wg-endpoint 198.51.100.4:51820 root@10.0.0.4
  uc machine add -n home --wg-endpoint home.example.org root@192.168.1.9")]
pub(crate) struct AddArgs {
    /// Machine to add, with a user that is root or has sudo without a password
    #[arg(value_name = "USER@HOST[:PORT]")]
    host: String,
    #[command(flatten)]
    setup: SetupArgs,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: AddArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let name = args.setup.checked_name()?;
    let given = args.setup.checked_endpoints()?;
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
    refuse_taken(&cluster, &name, &info.public_key).await?;
    let request = AddMachineRequest {
        // Chosen here, so that the registration can be undone even if its answer is lost.
        machine_id: MachineId::from_bytes(rand::random()).to_string(),
        name,
        public_key: info.public_key,
        endpoints: args
            .setup
            .all_endpoints(&given, &target, &globals.env, &info.endpoints)
            .await,
    };
    // From here until the machine has joined, any failure, including Ctrl-C, is rolled back.
    let guard = Guard::new();
    let mut registration = Registration::new(&cluster, &machine, &request);
    let steps = join(&mut registration, request, args.setup.wireguard_port(), ui);
    let record = match interrupt::or_interrupted(&guard, steps).await {
        Ok(record) => record,
        Err(error) => {
            registration.roll_back(&route, globals, &target, ui).await?;
            return Err(error);
        }
    };
    drop(guard);
    save_connection(route.context.as_deref(), &target, &record.id, globals, ui)?;
    wait_until_up(&cluster, &record, ui).await?;
    ui.status(&format!(
        "{} is a member of the cluster ({})",
        record.name, record.subnet
    ))?;
    if args.output.is_json() {
        ui.json(&view::AddedMachine {
            context: route.context,
            machine: (&record).into(),
        })?;
    }
    Ok(())
}

/// Refuses a name that another member has, and a machine that is a member already, before anything
/// is changed.
async fn refuse_taken(cluster: &Client, name: &str, public_key: &str) -> CliResult {
    let members = super::list(cluster).await?;
    for (member, _) in &members {
        if !public_key.is_empty() && member.public_key == public_key {
            return Err(CliError::failed(format!(
                "the machine is already a member of the cluster, as {}",
                member.name
            ))
            .hint(format!(
                "if it has lost its state, remove it first: `uc machine rm --no-reset {}`",
                member.name
            )));
        }
        if member.name == name {
            return Err(CliError::failed(format!(
                "another machine of the cluster is already named {name}"
            ))
            .hint("choose another name with `--name NAME`, or rename that machine: `uc machine rename OLD NEW`"));
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
            "cannot make a machine name from the host name `{hostname}` of {target}"
        ))
        .hint("choose a name with `--name NAME`")
    })?;
    Ok(name.to_string())
}

/// Registers the machine with the cluster, then has the machine join it. Returns the cluster's
/// record of the machine.
async fn join(
    registration: &mut Registration<'_>,
    request: AddMachineRequest,
    wireguard_port: u32,
    ui: &Ui,
) -> CliResult<MachineRecord> {
    let task = ui.progress().task(format!("{} joins", request.name));
    task.update("");
    let joined = async {
        let (added, record) = registration.register(request).await?;
        let request = JoinRequest {
            cluster: added.cluster,
            machine: added.machine,
            members: added.members,
            wireguard_port,
        };
        registration.join(request).await?;
        Ok(record)
    };
    let joined = joined.await;
    match &joined {
        Ok(_) => task.done(""),
        Err(_) => task.failed(""),
    }
    joined
}

/// Waits until the machine that `uc` is connected to sees the new one as up.
async fn wait_until_up(cluster: &Client, record: &MachineRecord, ui: &Ui) -> CliResult {
    let task = ui
        .progress()
        .task(format!("the cluster sees {}", record.name));
    task.update("");
    let deadline = Instant::now() + UP_LIMIT;
    loop {
        let members = super::list(cluster).await?;
        let is_up = |(machine, status): &super::Listed| {
            machine.id == record.id && status.liveness() == Liveness::Up
        };
        if members.iter().any(is_up) {
            task.done("");
            return Ok(());
        }
        if Instant::now() >= deadline {
            task.failed("");
            let message = format!(
                "{} has joined, but {} did not see it as up within {} seconds",
                record.name,
                cluster.destination().through(),
                UP_LIMIT.as_secs()
            );
            return Err(CliError::new(Kind::TimedOut, message)
                .hint("allow UDP port 51820 (or the one of --wg-port) through the firewalls between the machines, then check `uc machine ls`"));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Appends the connection to the context, so that `uc` can reach the cluster through this machine
/// as well.
fn save_connection(
    context: Option<&str>,
    target: &SshTarget,
    id: &str,
    globals: &Globals,
    ui: &Ui,
) -> CliResult {
    let Some(name) = context else {
        return ui.hint(
            "no context is in use, so the machine was not saved to one; `uc ctx ls` lists the contexts",
        );
    };
    let entry = Entry::new(&Connection::Ssh(target.clone()), Some(id.to_owned()));
    let save = || -> CliResult {
        Config::update(&globals.config_path()?, |config| {
            let context = config.contexts.entry(name.to_owned()).or_default();
            context
                .connections
                .retain(|known| known.address != entry.address);
            context.connections.push(entry);
        })?;
        Ok(())
    };
    match save() {
        Ok(()) => Ok(()),
        // The machine has become a member, so the command has succeeded.
        Err(error) => super::warn_about_config(
            &error,
            &format!("save the connection with `uc ctx add {name} {target}`"),
            ui,
        ),
    }
}
