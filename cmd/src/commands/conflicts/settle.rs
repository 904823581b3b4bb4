//! `uc conflicts settle`

use clap::Args;
use jiff::Timestamp;
use uc_api::v1::{Conflict, SettleConflictRequest};

use super::{machine, show};
use crate::args::{Output, Yes};
use crate::connect::{Globals, within};
use crate::error::{CliError, CliResult};
use crate::ui::Ui;
use crate::{times, view};

/// Resolve a conflict by keeping one version
///
/// Writes that version again, which replaces all others on all machines. If a new version has
/// arrived since they were listed, nothing is written.
///
/// `--keep` takes the number of `uc conflicts show`. An id stands for exactly the versions that
/// were listed under it, so in a script use the id: the number then always means the same version.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc conflicts settle service/shop/web             show the versions and ask
  uc conflicts settle 3f9a01c2 --keep 2 -y         keep version 2 without asking")]
pub(crate) struct SettleArgs {
    /// `KIND/KEY` or an id, as in `uc conflicts ls`
    conflict: String,
    /// Number of the version to keep, as in `uc conflicts show`
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
        "resolved {}: kept version {kept} (written on {})",
        conflict.name,
        machine(side)
    ))?;
    if conflict.kind != "service" {
        return Ok(());
    }
    ui.hint(&if side.deleted {
        format!(
            "containers were not changed: remove those that are left with `uc rm {}`",
            conflict.key
        )
    } else {
        format!(
            "containers were not changed: `uc ps {}` lists them; apply the kept version with `uc deploy`",
            conflict.key
        )
    })
}

/// The number of the version to keep, confirmed by the user.
async fn choose(args: &SettleArgs, conflict: &Conflict, ui: &Ui) -> CliResult<usize> {
    let count = conflict.sides.len();
    let Some(keep) = args.keep else {
        if args.yes.yes || !ui.interactive() {
            return Err(CliError::usage(format!(
                "choose which version of {} to keep",
                conflict.name
            ))
            .hint(format!(
                "add `--keep N`; `uc conflicts show {}` shows the versions with their numbers",
                conflict.id
            )));
        }
        ui.status(&show::text(conflict, Timestamp::now()))?;
        return ui
            .choose("\nWhich version do you want to keep?", count)
            .await;
    };
    let Some(side) = keep
        .checked_sub(1)
        .and_then(|index| conflict.sides.get(index))
    else {
        return Err(
            CliError::usage(format!("{} has no version {keep}", conflict.name)).hint(format!(
                "it has versions 1 to {count}: see `uc conflicts show {}`",
                conflict.id
            )),
        );
    };
    if !args.yes.yes && ui.interactive() {
        ui.status(&show::text(conflict, Timestamp::now()))?;
    }
    let what = if side.deleted {
        "the delete"
    } else {
        "the version"
    };
    let ago = times::ago(side.written_at_ms, Timestamp::now());
    let question = format!(
        "Keep {what} of {}, {ago}, and replace all others?",
        machine(side)
    );
    ui.confirm(&question, args.yes.yes, "resolving a conflict")
        .await?;
    Ok(keep)
}
