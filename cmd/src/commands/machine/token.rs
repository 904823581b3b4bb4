//! `uc machine token`

mod ls;
mod rm;

use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use uc_api::v1::{CreateTokenRequest, ListTokensRequest, TokenRecord, TokenStatus};

use crate::answer::with_part;
use crate::args::Output;
use crate::connect::{Client, Globals, ask, within};
use crate::error::CliResult;
use crate::ui::Ui;
use crate::{times, view, words};

/// Longest validity of a token.
const MAX_TTL: Duration = Duration::from_hours(30 * 24);

/// Create a token with which a new machine can join
///
/// Prints the token on stdout. It can be used once. Anyone who has it can join a machine to the
/// cluster, so treat it like a password. `uc machine token ls` lists the tokens, and `uc machine
/// token rm` removes one that must not be used.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:
  uc machine token --ttl 30m        then, on the new machine: uc machine join, which asks for it"
)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: Option<TokenCommand>,
    /// How long the token is valid, at most 30 days
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_ttl)]
    ttl: Duration,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    Ls(ls::LsArgs),
    Rm(rm::RmArgs),
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let ttl = times::parse_duration(text, Timestamp::now())
        .ok_or("it is not a duration; write for example 30m, 12h or 7days")?;
    if ttl < Duration::from_secs(1) || ttl > MAX_TTL {
        return Err("it must be between 1 second and 30 days".into());
    }
    Ok(ttl)
}

pub(crate) async fn run(args: TokenArgs, ui: &Ui, globals: &Globals) -> CliResult {
    match args.command {
        Some(TokenCommand::Ls(args)) => ls::run(args, ui, globals).await,
        Some(TokenCommand::Rm(args)) => rm::run(args, ui, globals).await,
        None => create(args, ui, globals).await,
    }
}

async fn create(args: TokenArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let request = CreateTokenRequest {
        ttl_s: args.ttl.as_secs(),
    };
    let response = ask(client.cluster().create_token(within(30, request))).await?;
    let expires_at = times::rfc3339_ms(response.expires_at_ms);
    if args.output.is_json() {
        return ui.json(&view::Token {
            token: response.token,
            expires_at,
        });
    }
    ui.out(&response.token)?;
    if let Some(end) = expires_at {
        ui.status(&format!("valid until {end}, for one machine"))?;
    }
    ui.hint("on the new machine, after install.sh: `uc machine join`, which asks for the token")
}

/// The record of a token and its state.
type Listed = (TokenRecord, TokenStatus);

async fn list(client: &Client) -> CliResult<Vec<Listed>> {
    let request = within(30, ListTokensRequest {});
    let answer = ask(client.cluster().list_tokens(request)).await?;
    with_part(answer.tokens, "a token", |status| status.token.take())
}

/// A machine's name, or the start of its id if it has left the cluster.
fn machine<'a>(id: &'a str, name: &'a str) -> &'a str {
    if name.is_empty() {
        uc_api::id::short(id)
    } else {
        name
    }
}

/// `unused`, `used by m2` or `expired`.
fn state((token, status): &Listed) -> String {
    let state = words::token_state(status.state());
    if token.used_by.is_empty() {
        return state;
    }
    let machine = machine(&token.used_by, &status.used_by_name);
    format!("{state} by {machine}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_validity_is_bounded() {
        assert_eq!(parse_ttl("30m"), Ok(Duration::from_mins(30)));
        for text in ["", "0s", "31days", "soon"] {
            assert!(parse_ttl(text).is_err(), "{text}");
        }
    }
}
