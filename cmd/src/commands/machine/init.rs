//! `uc machine init`

use std::net::Ipv4Addr;
use std::path::Path;

use clap::Args;
use uc_api::ClusterId;
use uc_api::layout::API_SOCKET;
use uc_api::v1::InitRequest;

use super::setup::{self, SetupArgs};
use crate::config::{Config, Context, Entry};
use crate::connect::{self, Client, Globals, Route, within};
use crate::connection::{Connection, SshTarget};
use crate::error::{CliError, CliResult};
use crate::provision;
use crate::ui::Ui;

/// Make a new cluster of one machine
///
/// Installs uc there over ssh, makes it a cluster, and a context here that leads to it. Without a
/// host: this machine, which need not run uc yet if this is done as root.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc machine init root@203.0.113.1
  uc machine init -c prod -n web-1 -i ~/.ssh/prod admin@203.0.113.1:2222
  uc machine init                      this machine")]
pub(crate) struct InitArgs {
    /// The machine, with root or sudo without password [default: this one]
    #[arg(value_name = "USER@HOST[:PORT]")]
    host: Option<String>,
    #[command(flatten)]
    setup: SetupArgs,
    /// IPv4 network of the cluster; each machine gets a /24 of it [default: 10.210.0.0/16]
    #[arg(long, value_name = "CIDR", value_parser = parse_network)]
    network: Option<String>,
}

/// The daemon decides; what it would refuse is refused here too, before anything is installed.
fn parse_network(text: &str) -> Result<String, String> {
    let parsed = text.split_once('/').and_then(|(address, length)| {
        let _address: Ipv4Addr = address.parse().ok()?;
        length.parse::<u8>().ok().filter(|length| *length <= 32)
    });
    match parsed {
        None => Err("write an IPv4 network such as 10.210.0.0/16".into()),
        Some(length) if length > 23 => Err("each machine gets a /24 of it: use a /16".into()),
        Some(_) => Ok(text.to_owned()),
    }
}

pub(crate) async fn run(args: InitArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let name = args.setup.checked_name()?;
    let config = globals.load_config()?;
    let context = new_context(&config, globals)?;
    let target = args
        .host
        .as_deref()
        .map(|text| args.setup.target(text))
        .transpose()?;
    let (client, connection) = match &target {
        Some(target) => {
            let purpose = "make it a new cluster";
            let (client, _) = args
                .setup
                .make_ready(target, &globals.env, ui, purpose)
                .await?;
            (client, Connection::Ssh(target.clone()))
        }
        None => here(&args, ui, globals).await?,
    };
    let request = InitRequest {
        name,
        network: args.network.clone().unwrap_or_default(),
        endpoints: args.setup.extra_endpoints(target.as_ref())?,
        wireguard_port: args.setup.wireguard_port(),
    };
    let response = client
        .machine()
        .init(within(120, request))
        .await?
        .into_inner();
    let machine = response.machine.unwrap_or_default();
    ui.status(&format!(
        "cluster {} made of {} ({})",
        response.cluster_id, machine.name, machine.subnet
    ))?;
    let cluster = response
        .cluster_id
        .parse::<ClusterId>()
        .map_err(|error| CliError::failed(format!("the daemon returned no cluster: {error}")))?;
    let made = Context {
        cluster: Some(cluster),
        connections: vec![Entry::new(&connection, Some(machine.id))],
    };
    write_context(&context, made, &connection, globals)?;
    ui.status(&format!(
        "context {context} leads to it and is the current one"
    ))?;
    ui.hint("add machines with `uc machine add USER@HOST`, deploy with `uc deploy`")
}

fn new_context(config: &Config, globals: &Globals) -> CliResult<String> {
    let Some(name) = &globals.new_context else {
        return Ok(config.free_name());
    };
    if config.contexts.contains_key(name) {
        return Err(
            CliError::usage(format!("there is a context `{name}` already")).hint(format!(
                "choose another name, or forget it: `uc ctx rm {name}`"
            )),
        );
    }
    Ok(name.clone())
}

/// This machine: its daemon, installed first if there is none.
async fn here(args: &InitArgs, ui: &Ui, globals: &Globals) -> CliResult<(Client, Connection)> {
    let connection = match &globals.connect {
        Some(text) => text.parse()?,
        None => Connection::Unix(API_SOCKET.into()),
    };
    if globals.connect.is_none() && !connect::has_daemon(Path::new(API_SOCKET)) {
        let artefacts = args.setup.artefacts()?;
        provision::install_here(&artefacts, ui).await?;
    }
    let client = connect::connect(&Route::to(connection.clone()), globals).await?;
    let info = setup::info(&client).await?;
    let place = match &connection {
        Connection::Ssh(SshTarget { host, .. }) => host.as_str(),
        Connection::Unix(_) => "this machine",
    };
    setup::refuse_member(place, &info)?;
    Ok((client, connection))
}

/// The file is read again: it may have changed while the machine was set up.
fn write_context(
    name: &str,
    context: Context,
    connection: &Connection,
    globals: &Globals,
) -> CliResult {
    let write = move || -> CliResult {
        Config::update(&globals.config_path()?, |config| {
            config.contexts.insert(name.to_owned(), context);
            config.current = Some(name.to_owned());
        })?;
        Ok(())
    };
    write().map_err(|error| {
        error
            .context("the cluster is made, but its context could not be written")
            .hint(format!("reach it with `uc --connect {connection} …`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_room_for_machines() {
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
