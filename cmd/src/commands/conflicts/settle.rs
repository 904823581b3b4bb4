//! `uc conflicts settle`

use clap::Args;
use jiff::Timestamp;
use uc_api::v1::{Conflict, SettleConflictRequest};

use super::{machine, show};
use crate::cli::{Output, Yes};
use crate::connect::{Globals, within};
use crate::error::{CliError, CliResult};
use crate::ui::Ui;
use crate::{times, view};

/// Keep one value of a conflict, on all machines
///
/// Writes the value again, which replaces all the others. Only the values that were shown are
/// replaced: where there is another one by now, nothing is done. The number counts as `uc conflicts
/// show` does; the id stands for exactly the values that were shown under it, so with an id a
/// number cannot come to mean another value.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc conflicts settle service/shop/web             show the values and ask
  uc conflicts settle 3f9a01c2 --keep 2 -y         without a question")]
pub(crate) struct SettleArgs {
    /// `KIND/KEY` or an id, as in `uc conflicts ls`
    conflict: String,
    /// The value that stays, by its number in `uc conflicts show`
    #[arg(short, long, value_name = "N")]
    keep: Option<usize>,
    #[command(flatten)]
    yes: Yes,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: SettleArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let conflicts = super::list(&client).await?;
    let conflict = super::find(&conflicts, &args.conflict)?;
    let kept = choose(&args, conflict, ui).await?;
    let side = &conflict.sides[kept - 1];
    let request = SettleConflictRequest {
        kind: conflict.kind.clone(),
        key: conflict.key.clone(),
        group: conflict.group,
        seen: conflict.sides.iter().map(|side| side.dot.clone()).collect(),
        keep: side.dot.clone(),
    };
    client.conflicts().settle(within(30, request)).await?;
    if args.output.is_json() {
        return ui.json(&view::Settled {
            conflict: view::Conflict::from(conflict),
            kept,
        });
    }
    ui.status(&format!(
        "{} is settled: {kept}, of {}, stays",
        conflict.name,
        machine(side)
    ))?;
    if conflict.kind != "service" {
        return Ok(());
    }
    ui.hint(&if side.deleted {
        format!(
            "containers were not touched: `uc rm {}` removes those that are left",
            conflict.key
        )
    } else {
        format!(
            "containers were not touched: `uc ps {}` shows them, `uc deploy` makes them follow",
            conflict.key
        )
    })
}

/// The number of the value that stays, agreed to.
async fn choose(args: &SettleArgs, conflict: &Conflict, ui: &Ui) -> CliResult<usize> {
    let count = conflict.sides.len();
    let Some(keep) = args.keep else {
        if args.yes.yes || !ui.interactive() {
            return Err(CliError::usage(format!(
                "which value of {} is to stay was not said",
                conflict.name
            ))
            .hint(format!(
                "add `--keep N`; `uc conflicts show {}` shows them with their numbers",
                conflict.id
            )));
        }
        ui.status(&show::text(conflict, Timestamp::now()))?;
        return ui.choose("\nWhich one stays?", count).await;
    };
    let Some(side) = keep
        .checked_sub(1)
        .and_then(|index| conflict.sides.get(index))
    else {
        return Err(CliError::usage(format!(
            "`--keep {keep}` is none of the values of {}",
            conflict.name
        ))
        .hint(format!(
            "they are numbered from 1 to {count}: `uc conflicts show {}`",
            conflict.id
        )));
    };
    if !args.yes.yes && ui.interactive() {
        ui.status(&show::text(conflict, Timestamp::now()))?;
    }
    let what = if side.deleted {
        "the removal"
    } else {
        "the value"
    };
    let ago = times::ago(side.written_at_ms, Timestamp::now());
    let question = format!(
        "Keep {what} of {}, {ago}, in place of all others?",
        machine(side)
    );
    ui.confirm(&question, args.yes.yes, "settling a conflict")
        .await?;
    Ok(keep)
}
