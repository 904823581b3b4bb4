//! `uc machine token rm`

use clap::Args;
use uc_api::v1::RemoveTokenRequest;

use super::Listed;
use crate::args::{Output, Yes};
use crate::connect::{Globals, within};
use crate::error::{CliError, CliResult};
use crate::ui::{BOLD, RED, Ui};
use crate::{suggest, view};

/// Shorter texts are not taken for the start of an id.
const MIN_ID: usize = 4;

/// Remove join tokens, so that no machine can join with them
///
/// Machines that have already joined stay in the cluster; remove them with `uc machine rm`.
#[derive(Debug, Args)]
#[command(visible_alias = "remove")]
pub(crate) struct RmArgs {
    /// Ids of `uc machine token ls`, or beginnings of ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    yes: Yes,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: RmArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let tokens = super::list(&client).await?;
    let mut chosen: Vec<&Listed> = Vec::new();
    for text in &args.ids {
        let token = find(&tokens, text)?;
        if !chosen.iter().any(|other| id(other) == id(token)) {
            chosen.push(token);
        }
    }
    for token in &chosen {
        ui.status(&format!(
            "{RED}-{RED:#} join token {BOLD}{}{BOLD:#} ({})",
            id(token),
            super::state(token)
        ))?;
    }
    let what = match chosen.as_slice() {
        [one] => format!("join token {}", id(one)),
        several => format!("{} join tokens", several.len()),
    };
    let question = format!("Remove {what} from {}?", client.destination());
    ui.confirm(&question, args.yes.yes, "removing a join token")
        .await?;
    for token in &chosen {
        let request = RemoveTokenRequest {
            id: id(token).to_owned(),
        };
        client.cluster().remove_token(within(30, request)).await?;
        ui.status(&format!("removed join token {}", id(token)))?;
    }
    if args.output.is_json() {
        let removed: Vec<_> = chosen.into_iter().map(view::TokenEntry::from).collect();
        ui.json(&removed)?;
    }
    Ok(())
}

fn id((token, _): &Listed) -> &str {
    &token.id
}

/// The token with this id, or the only one whose id begins with this.
fn find<'a>(tokens: &'a [Listed], text: &str) -> CliResult<&'a Listed> {
    if let Some(exact) = tokens.iter().find(|token| id(token) == text) {
        return Ok(exact);
    }
    let begins = |token: &&Listed| text.len() >= MIN_ID && id(token).starts_with(text);
    let mut matches = tokens.iter().filter(begins);
    match (matches.next(), matches.next()) {
        (Some(token), None) => Ok(token),
        (Some(_), Some(_)) => Err(CliError::usage(format!(
            "the ids of several join tokens begin with `{text}`"
        ))),
        (None, _) if tokens.is_empty() => {
            Err(CliError::usage(format!("join token `{text}` not found"))
                .hint("there are no join tokens"))
        }
        (None, _) => Err(CliError::usage(format!("join token `{text}` not found"))
            .hint(suggest::hint(text, tokens.iter().map(id)))),
    }
}
