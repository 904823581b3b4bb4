//! `uc conflicts show`

use std::fmt::Write as _;

use clap::Args;
use jiff::Timestamp;
use uc_api::v1::{Conflict, ConflictField, ConflictSide};

use super::machine;
use crate::args::Output;
use crate::connect::Globals;
use crate::error::CliResult;
use crate::ui::{BOLD, CYAN, Cell, DIM, GREEN, RED, Table, Ui, YELLOW};
use crate::{times, view};

/// Show the versions of a conflict and how they differ
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// `KIND/KEY` or an id, as in `uc conflicts ls`
    conflict: String,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: ShowArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let conflicts = super::list(&client).await?;
    let conflict = super::find(&conflicts, &args.conflict)?;
    if args.output.is_json() {
        return ui.json(&view::Conflict::from(conflict));
    }
    ui.out(&text(conflict, Timestamp::now()))?;
    ui.hint(&format!(
        "keep one of them with `uc conflicts settle {} --keep N`",
        conflict.id
    ))
}

/// Where and when each version was written, then the active one in full, then the differences of
/// the others from it.
pub(super) fn text(conflict: &Conflict, now: Timestamp) -> String {
    let mut text = format!(
        "{BOLD}{}{BOLD:#}  {DIM}{}{DIM:#}\n\n",
        conflict.name, conflict.id
    );
    let mut table = Table::new(&["#", "WRITTEN ON", "WHEN", "TIME", "STATE"]);
    for (number, side) in (1..).zip(&conflict.sides) {
        let state = match (number, side.deleted) {
            (1, _) => Cell::styled("active", GREEN),
            (_, true) => Cell::styled("deleted", RED),
            (_, false) => Cell::default(),
        };
        table.row([
            number.to_string().into(),
            machine(side).into(),
            times::ago(side.written_at_ms, now).into(),
            times::rfc3339_ms(side.written_at_ms).map_or_else(Cell::default, Cell::from),
            state,
        ]);
    }
    text.push_str(&table.render());
    for (number, side) in (1..).zip(&conflict.sides) {
        values(&mut text, number, side);
    }
    text
}

fn values(text: &mut String, number: usize, side: &ConflictSide) {
    let against = match (number, side.deleted) {
        (_, true) => "deleted",
        (1, false) => "active",
        (_, false) => "differences from 1",
    };
    _ = writeln!(
        text,
        "\n{BOLD}{number}{BOLD:#} on {}, {against}:",
        machine(side)
    );
    if side.deleted {
        _ = writeln!(text, "    {RED}the record was deleted{RED:#}");
        return;
    }
    for field in &side.fields {
        line(text, field);
    }
    if number > 1 && !side.fields.iter().any(|field| field.differs) {
        _ = writeln!(
            text,
            "  {YELLOW}~{YELLOW:#} {DIM}no visible differences{DIM:#}"
        );
    }
}

fn line(text: &mut String, field: &ConflictField) {
    let name = one_line(&field.name);
    if !field.differs {
        _ = writeln!(text, "    {CYAN}{name}{CYAN:#}: {}", one_line(&field.value));
        return;
    }
    if !field.active.is_empty() {
        _ = writeln!(text, "  {RED}- {name}: {}{RED:#}", one_line(&field.active));
    }
    if !field.value.is_empty() {
        _ = writeln!(
            text,
            "  {GREEN}+ {name}: {}{GREEN:#}",
            one_line(&field.value)
        );
    }
}

/// Replaces control characters, so that a value cannot break its line or send an escape sequence to
/// the terminal. Unlike `text::one_line` it removes nothing: the user chooses by these values,
/// and two that differ must not look equal.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_shows_the_active_version_and_differences_of_the_others() {
        let field = |name: &str, active: &str, value: &str| ConflictField {
            name: name.into(),
            active: active.into(),
            value: value.into(),
            differs: active != value || name.contains("PASSWORD"),
        };
        let side = |machine: &str, seconds: i64, fields: Vec<ConflictField>| ConflictSide {
            machine_id: "0123456789abcdef0123456789abcdef".into(),
            machine_name: machine.into(),
            written_at_ms: 1_795_262_400_000 - seconds * 1000,
            fields,
            ..Default::default()
        };
        let removed = ConflictSide {
            deleted: true,
            ..side("", 240, vec![field("image", "web:2", "")])
        };
        let conflict = Conflict {
            id: "3f9a01c2".into(),
            name: "service/shop/web".into(),
            sides: vec![
                side(
                    "m2",
                    120,
                    vec![
                        field("image", "web:2", "web:2"),
                        field("user", "app", "app"),
                    ],
                ),
                side(
                    "m1",
                    180,
                    vec![
                        field("image", "web:2", "web:1"),
                        field("environment.MODE", "", "a\nb\u{1b}[31m"),
                        field("environment.PASSWORD", "***", "***"),
                        field("user", "app", "app"),
                    ],
                ),
                side("m3", 181, vec![field("image", "web:2", "web:2")]),
                removed,
            ],
            ..Default::default()
        };
        let text = text(&conflict, "2026-11-21T12:00:00Z".parse().unwrap());
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }
}
