//! `uc machine join`

use clap::Args;
use uc_api::MachineName;
use uc_api::layout::API_SOCKET;
use uc_api::token::JoinToken;
use uc_api::v1::JoinWithTokenRequest;

use super::setup;
use crate::connect::{self, Globals, Route, within};
use crate::connection::Connection;
use crate::error::{CliError, CliResult};
use crate::ui::Ui;

/// Let this machine join a cluster with a token
///
/// For cloud-init and machines that ssh does not reach: run on the new machine itself, after
/// install.sh. `uc machine token` on a member makes the token.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// What `uc machine token` printed, or `-` to read it from stdin
    token: String,
    /// The machine's name in the cluster [default: its host name]
    #[arg(short, long)]
    name: Option<String>,
    /// Where other machines reach its WireGuard port, HOST:PORT; may be repeated [default: its own
    /// addresses]
    #[arg(long, value_name = "ENDPOINT")]
    wg_endpoint: Vec<String>,
    /// WireGuard's UDP port [default: 51820]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    wg_port: Option<u16>,
}

pub(crate) async fn run(args: JoinArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let token = if args.token == "-" {
        std::io::read_to_string(std::io::stdin()).map_err(|error| {
            CliError::usage("the token could not be read from stdin").source(error)
        })?
    } else {
        args.token
    };
    // A damaged or expired token is refused here, without waiting for the mesh.
    let opened: JoinToken = token.parse()?;
    if opened.expires_at_ms <= jiff::Timestamp::now().as_millisecond() {
        return Err(CliError::failed("the join token has expired")
            .hint("make a new one: `uc machine token` on a member"));
    }
    let name = match &args.name {
        Some(name) => name.parse::<MachineName>()?.to_string(),
        None => String::new(),
    };
    // The contexts are about other machines: this is about the one it runs on.
    let connection = match &globals.connect {
        Some(text) => text.parse()?,
        None => Connection::Unix(API_SOCKET.into()),
    };
    let client = connect::connect(&Route::to(connection), globals).await?;
    setup::refuse_member("this machine", &setup::info(&client).await?)?;
    let request = JoinWithTokenRequest {
        token: token.trim().to_owned(),
        name,
        endpoints: setup::endpoints(&args.wg_endpoint, args.wg_port)?,
        wireguard_port: args.wg_port.map_or(0, u32::from),
    };
    let response = client
        .machine()
        .join_with_token(within(180, request))
        .await?
        .into_inner();
    let machine = response.machine.unwrap_or_default();
    ui.status(&format!(
        "joined cluster {} as {} ({})",
        response.cluster_id, machine.name, machine.subnet
    ))
}
