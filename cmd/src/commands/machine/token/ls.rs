//! `uc machine token ls`

use clap::Args;
use jiff::Timestamp;
use uc_api::v1::TokenState;

use super::Listed;
use crate::args::Output;
use crate::connect::Globals;
use crate::error::CliResult;
use crate::ui::{CYAN, Cell, DIM, GREEN, Table, Ui};
use crate::{times, view};

/// List the join tokens
///
/// The tokens themselves are not stored and cannot be shown again. A token is listed
/// until another one is created a day or more after it expired.
#[derive(Debug, Args)]
#[command(visible_alias = "list")]
pub(crate) struct LsArgs {
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: LsArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let tokens = super::list(&client).await?;
    if args.output.is_json() {
        return ui.json_list(tokens.iter().map(view::TokenEntry::from));
    }
    if tokens.is_empty() {
        return ui.status("no join tokens");
    }
    ui.table(&table(&tokens, Timestamp::now()))
}

fn table(tokens: &[Listed], now: Timestamp) -> Table {
    let mut table = Table::new(&["ID", "STATE", "CREATED BY", "CREATED", "EXPIRES"])
        .free_text(&["STATE", "CREATED BY"]);
    for listed in tokens {
        let (token, status) = listed;
        let style = match status.state() {
            TokenState::Unused => GREEN,
            _ => DIM,
        };
        table.row([
            Cell::styled(token.id.as_str(), CYAN),
            Cell::styled(super::state(listed), style),
            super::machine(&token.created_by, &status.created_by_name).into(),
            times::ago(token.created_at_ms, now).into(),
            expiry(token.expires_at_ms, now).into(),
        ]);
    }
    table
}

/// `in 5 minutes`, or `2 hours ago`.
fn expiry(at_ms: i64, now: Timestamp) -> String {
    match (at_ms - now.as_millisecond()) / 1000 {
        seconds if seconds > 0 => format!("in {}", times::rough(seconds)),
        _ => times::ago(at_ms, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_in_the_future_or_the_past() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        assert_eq!(expiry(1_000_300_000, now), "in 5 minutes");
        assert_eq!(expiry(999_880_000, now), "2 minutes ago");
    }
}
