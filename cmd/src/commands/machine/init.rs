//! `uc machine init`

use std::net::Ipv4Addr;
use std::path::Path;

use clap::Args;
use uc_api::ClusterId;
use uc_api::layout::API_SOCKET;
use uc_api::v1::{InitRequest, InitResponse};

use super::setup::{self, SetupArgs};
use crate::answer::Required as _;
use crate::args::Output;
use crate::config::{Config, Context, Entry};
use crate::connect::{self, Client, Globals, Route, ask, within};
use crate::connection::{Connection, SshTarget};
use crate::error::{CliError, CliResult};
use crate::ui::Ui;
use crate::{provision, view};

const PURPOSE: &str = "make it the first machine of a new cluster";

/// Create a cluster of one machine
///
/// Installs uc on the machine over ssh, creates a cluster on it, and saves a context for the
/// cluster on this computer. Without a host, the machine is this computer; if uc is not installed
/// here yet, root is needed. Asks before it installs; in a script, add `-y`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc machine init root@203.0.113.1
  uc machine init -c prod -n web-1 -i ~/.ssh/prod admin@203.0.113.1:2222
  uc machine init                      this computer")]
pub(crate) struct InitArgs {
    /// Machine to set up, with a user that is root or has sudo without a password [default: this
    /// computer]
    #[arg(value_name = "USER@HOST[:PORT]")]
    host: Option<String>,
    #[command(flatten)]
    setup: SetupArgs,
    /// IPv4 network of the cluster; each machine gets a /24 of it [default: 10.210.0.0/16]
    #[arg(long, value_name = "CIDR", value_parser = parse_network)]
    network: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Refuses here what the daemon would refuse, before anything is installed.
fn parse_network(text: &str) -> Result<String, String> {
    let parsed = text.split_once('/').and_then(|(address, length)| {
        let _address: Ipv4Addr = address.parse().ok()?;
        length.parse::<u8>().ok().filter(|length| *length <= 32)
    });
    match parsed {
        None => Err("write an IPv4 network such as 10.210.0.0/16".into()),
        Some(length) if length > 23 => {
            Err("it is too small: each machine gets a /24 of it, so use a /16".into())
        }
        Some(_) => Ok(text.to_owned()),
    }
}

pub(crate) async fn run(args: InitArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let name = args.setup.checked_name()?;
    let given = args.setup.checked_endpoints()?;
    refuse_taken_context(&globals.load_config()?, globals)?;
    let target = args
        .host
        .as_deref()
        .map(|text| args.setup.target(text))
        .transpose()?;
    let (client, connection) = match &target {
        Some(target) => {
            let (client, _) = args
                .setup
                .make_ready(target, &globals.env, ui, PURPOSE)
                .await?;
            (client, Connection::Ssh(target.clone()))
        }
        None => here(&args, ui, globals).await?,
    };
    let request = InitRequest {
        name,
        network: args.network.clone().unwrap_or_default(),
        endpoints: args
            .setup
            .extra_endpoints(&given, target.as_ref(), &globals.env)
            .await,
        wireguard_port: args.setup.wireguard_port(),
    };
    let response: InitResponse = ask(client.machine().init(within(120, request))).await?;
    let machine = response.machine.required("a machine")?;
    ui.status(&format!(
        "created cluster {} with machine {} ({})",
        response.cluster_id, machine.name, machine.subnet
    ))?;
    let cluster = response.cluster_id.parse::<ClusterId>().map_err(|error| {
        CliError::failed(format!(
            "the daemon returned an invalid cluster id: {error}"
        ))
    })?;
    let created = Context {
        cluster: Some(cluster),
        connections: vec![Entry::new(&connection, Some(machine.id.clone()))],
    };
    let context = save_context(created, cluster, &connection, globals)?;
    ui.status(&format!("saved as context `{context}` (now current)"))?;
    ui.hint("add machines with `uc machine add USER@HOST`, deploy with `uc deploy`")?;
    if args.output.is_json() {
        ui.json(&view::NewCluster {
            cluster_id: response.cluster_id,
            context,
            machine: (&machine).into(),
        })?;
    }
    Ok(())
}

/// Refuses a context that exists before anything is installed.
fn refuse_taken_context(config: &Config, globals: &Globals) -> CliResult {
    match &globals.new_context {
        Some(name) if config.contexts.contains_key(name) => Err(CliError::usage(format!(
            "context `{name}` already exists"
        ))
        .hint(format!(
            "choose another name, or remove the context: `uc ctx rm {name}`"
        ))),
        _ => Ok(()),
    }
}

/// Connects to the daemon of this computer, and installs uc first where there is none.
async fn here(args: &InitArgs, ui: &Ui, globals: &Globals) -> CliResult<(Client, Connection)> {
    let connection = match &globals.connect {
        Some(text) => text.parse()?,
        None => Connection::Unix(API_SOCKET.into()),
    };
    if globals.connect.is_none() && !connect::has_daemon(Path::new(API_SOCKET)) {
        let artefacts = args.setup.artefacts()?;
        let question = format!("Install uc on this computer and {PURPOSE}?");
        ui.confirm(
            &question,
            args.setup.yes.yes,
            "installing uc on this computer",
        )
        .await?;
        provision::install_here(&artefacts, ui).await?;
    }
    let client = connect::connect(&Route::to(connection.clone()), globals).await?;
    let info = setup::info(&client).await?;
    let place = match &connection {
        Connection::Ssh(SshTarget { host, .. }) => host.as_str(),
        Connection::Unix(_) => setup::THIS_MACHINE,
    };
    setup::refuse_member(place, &info)?;
    Ok((client, connection))
}

/// Adds the context to the config file, makes it the current one, and returns its name. The name is
/// chosen only now: another command may have added a context while the machine was set up.
fn save_context(
    context: Context,
    cluster: ClusterId,
    connection: &Connection,
    globals: &Globals,
) -> CliResult<String> {
    let save = || -> CliResult<String> {
        Config::update(&globals.config_path()?, |config| {
            let name = match &globals.new_context {
                Some(name) if config.contexts.contains_key(name) => {
                    return Err(CliError::failed(format!(
                        "context `{name}` was added in the meantime"
                    )));
                }
                Some(name) => name.clone(),
                None => config.free_name(),
            };
            config.contexts.insert(name.clone(), context);
            config.current = Some(name.clone());
            Ok(name)
        })?
    };
    save().map_err(|error| {
        error
            .context(format!(
                "cluster {cluster} was created, but its context could not be saved"
            ))
            .hint(format!(
                "save it with `uc ctx add NAME {connection}`, or reach it with `uc --connect {connection} …`"
            ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_must_have_room_for_machines() {
        assert_eq!(parse_network("10.9.0.0/16"), Ok("10.9.0.0/16".to_owned()));
        for (text, part) in [
            ("10.9.0.0/24", "use a /16"),
            ("10.9.0.0", "such as"),
            ("fd00::/8", "such as"),
            ("10.9.0.0/33", "such as"),
        ] {
            assert!(parse_network(text).unwrap_err().contains(part), "{text}");
        }
    }
}
