//! `uc conflicts ls`

use clap::Args;
use jiff::Timestamp;
use uc_api::v1::{Conflict, ConflictSide};

use super::machine;
use crate::args::Output;
use crate::connect::Globals;
use crate::error::CliResult;
use crate::ui::{CYAN, Cell, GREEN, Table, Ui, YELLOW};
use crate::{times, view};

/// Names of fields in one row; the rest is counted.
const MAX_FIELDS: usize = 4;

/// List the conflicts that are not resolved
#[derive(Debug, Args)]
#[command(visible_alias = "list")]
pub(crate) struct LsArgs {
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: LsArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let conflicts = super::list(&client).await?;
    if args.output.is_json() {
        return ui.json_list(conflicts.iter().map(view::Conflict::from));
    }
    if conflicts.is_empty() {
        return ui.status("no conflicts");
    }
    ui.table(&table(&conflicts, Timestamp::now()))?;
    ui.hint(
        "`uc conflicts show ID` shows the versions, `uc conflicts settle ID` resolves the conflict",
    )
}

fn table(conflicts: &[Conflict], now: Timestamp) -> Table {
    let mut table = Table::new(&["ID", "RECORD", "ACTIVE", "OTHER", "DIFFERS"])
        .free_text(&["RECORD", "OTHER", "DIFFERS"]);
    for conflict in conflicts {
        let Some((active, others)) = conflict.sides.split_first() else {
            continue;
        };
        let others: Vec<_> = others.iter().map(|side| who(side, now)).collect();
        table.row([
            Cell::styled(conflict.id.as_str(), CYAN),
            conflict.name.as_str().into(),
            Cell::styled(who(active, now), GREEN),
            Cell::styled(others.join("; "), YELLOW),
            differing(conflict).into(),
        ]);
    }
    table
}

/// `m1, 2 minutes ago`
fn who(side: &ConflictSide, now: Timestamp) -> String {
    let deleted = if side.deleted { "deleted on " } else { "" };
    format!(
        "{deleted}{}, {}",
        machine(side),
        times::ago(side.written_at_ms, now)
    )
}

/// The fields that differ from the active version. Deletes are left out: in them all fields differ.
fn differing(conflict: &Conflict) -> String {
    let mut names: Vec<&str> = Vec::new();
    for field in conflict
        .sides
        .iter()
        .filter(|side| !side.deleted)
        .flat_map(|side| &side.fields)
    {
        if field.differs && !names.contains(&field.name.as_str()) {
            names.push(&field.name);
        }
    }
    if names.len() > MAX_FIELDS {
        let more = names.len() - MAX_FIELDS;
        return format!("{} and {more} more", names[..MAX_FIELDS].join(", "));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use uc_api::v1::ConflictField;

    use super::*;

    #[test]
    fn differing_counts_fields_beyond_the_limit() {
        let field = |name: &str| ConflictField {
            name: name.into(),
            differs: true,
            ..Default::default()
        };
        let side = |names: &[&str], deleted| ConflictSide {
            fields: names.iter().copied().map(field).collect(),
            deleted,
            ..Default::default()
        };
        let conflict = |sides: Vec<ConflictSide>| Conflict {
            sides,
            ..Default::default()
        };
        let two = [
            side(&["a", "b"], false),
            side(&["b", "c"], false),
            side(&["x"], true),
        ];
        assert_eq!(differing(&conflict(two.into())), "a, b, c");
        assert_eq!(
            differing(&conflict(vec![side(
                &["a", "b", "c", "d", "e", "f"],
                false
            )])),
            "a, b, c, d and 2 more"
        );
    }
}
