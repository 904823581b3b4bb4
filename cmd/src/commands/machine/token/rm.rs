//! `uc machine token rm`

use clap::Args;
use uc_api::v1::RemoveTokenRequest;

use super::Listed;
use crate::args::{Output, Yes};
use crate::commands::machine::by_id;
use crate::connect::{Globals, within};
use crate::error::{CliError, CliResult};
use crate::ui::{BOLD, RED, Ui};
use crate::{suggest, view};

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
        ui.json_list(chosen.into_iter().map(view::TokenEntry::from))?;
    }
    Ok(())
}

fn id((token, _): &Listed) -> &str {
    &token.id
}

/// The token with this id, or the only one whose id begins with this.
fn find<'a>(tokens: &'a [Listed], text: &str) -> CliResult<&'a Listed> {
    let found = by_id(tokens, text, "join tokens", |(token, _)| &token.id)?;
    found.ok_or_else(|| {
        let error = CliError::usage(format!("join token `{text}` not found"));
        if tokens.is_empty() {
            return error.hint("there are no join tokens");
        }
        error.hint(suggest::hint(text, tokens.iter().map(id)))
    })
}
