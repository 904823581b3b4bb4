//! `uc machine join`

use clap::Args;
use uc_api::MachineName;
use uc_api::layout::API_SOCKET;
use uc_api::token::JoinToken;
use uc_api::v1::JoinWithTokenRequest;

use super::setup;
use crate::answer::Required as _;
use crate::args::Output;
use crate::connect::{self, Globals, Route, ask, within};
use crate::connection::Connection;
use crate::error::{CliError, CliResult};
use crate::ui::Ui;
use crate::view;

/// The longest line that the kernel takes from a terminal, in bytes, with its line break.
const TERMINAL_LINE: usize = 4096;

/// Join this machine to a cluster with a token
///
/// For cloud-init, and for machines that ssh does not reach. Run it on the new machine itself,
/// after install.sh. `uc machine token` on a member creates the token.
///
/// Without TOKEN, uc asks for the token on a terminal, and reads it from stdin elsewhere. Other
/// users of the machine can read the arguments of a running command, so do not put the token there.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc machine join                       asks for the token
  uc machine join - < token.txt         reads it from a file")]
pub(crate) struct JoinArgs {
    /// Output of `uc machine token`, or `-` to read it from stdin
    token: Option<String>,
    /// Name of the machine in the cluster [default: its host name]
    #[arg(short, long)]
    name: Option<String>,
    #[arg(long, value_name = "ENDPOINT", help = setup::WG_ENDPOINT_HELP)]
    wg_endpoint: Vec<String>,
    /// UDP port of WireGuard on the machine [default: 51820]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    wg_port: Option<u16>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: JoinArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let token = read_token(args.token, ui).await?;
    // A damaged or expired token is refused here, without waiting for the mesh.
    let opened: JoinToken = token.parse()?;
    if opened.expires_at_ms <= jiff::Timestamp::now().as_millisecond() {
        return Err(CliError::failed("the join token has expired")
            .hint("create a new one on a member: `uc machine token`"));
    }
    let name = match &args.name {
        Some(name) => name.parse::<MachineName>()?.to_string(),
        None => String::new(),
    };
    let endpoints = setup::parse_endpoints(&args.wg_endpoint, args.wg_port)?;
    // Contexts name other machines. This command is about the machine it runs on.
    let connection = match &globals.connect {
        Some(text) => text.parse()?,
        None => Connection::Unix(API_SOCKET.into()),
    };
    let client = connect::connect(&Route::to(connection), globals).await?;
    setup::refuse_member(setup::THIS_MACHINE, &setup::info(&client).await?)?;
    let request = JoinWithTokenRequest {
        token: token.trim().to_owned(),
        name,
        endpoints: setup::texts(&endpoints),
        wireguard_port: args.wg_port.map_or(0, u32::from),
    };
    let response = ask(client.machine().join_with_token(within(180, request))).await?;
    let machine = response.machine.required("a machine")?;
    ui.status(&format!(
        "joined cluster {} as {} ({})",
        response.cluster_id, machine.name, machine.subnet
    ))?;
    if args.output.is_json() {
        ui.json(&view::JoinedCluster {
            cluster_id: response.cluster_id,
            machine: (&machine).into(),
        })?;
    }
    Ok(())
}

async fn read_token(argument: Option<String>, ui: &Ui) -> CliResult<String> {
    match argument.as_deref() {
        None if ui.interactive() => {
            let token = ui.ask_for_line("Join token:").await?;
            if token.len() >= TERMINAL_LINE {
                return Err(CliError::usage(format!(
                    "the token is too long for a terminal, which cuts lines at {TERMINAL_LINE} bytes"
                ))
                .hint("write it to a file, and run `uc machine join - < FILE`"));
            }
            Ok(token)
        }
        None | Some("-") => {
            let token = std::io::read_to_string(std::io::stdin()).map_err(|error| {
                CliError::usage("cannot read the join token from stdin").source(error)
            })?;
            if token.trim().is_empty() {
                return Err(CliError::usage("there is no join token on stdin").hint(
                    "`uc machine token` on a member prints one; `uc machine join - < FILE` reads it",
                ));
            }
            Ok(token)
        }
        Some(token) => {
            ui.warn("other users of this machine can read the token while this command runs")?;
            ui.hint("run `uc machine join` without it, which asks for it, or `uc machine join - < FILE`")?;
            Ok(token.to_owned())
        }
    }
}
