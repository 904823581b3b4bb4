//! `uc history`

use clap::Args;
use jiff::Timestamp;
use uc_api::id::short;
use uc_api::v1::{HistoryRequest, HistoryResponse, ServiceRevision};

use crate::args::Output;
use crate::connect::{Globals, ask, within};
use crate::error::CliResult;
use crate::ui::{CYAN, Cell, GREEN, Table, Ui};
use crate::{picture, times, view};

/// List the revisions of a service that were deployed, the newest first
///
/// Below each revision are the fields in which it differs from the one before. The last 50
/// revisions of a service are kept.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc history web                        what was deployed, and what changed
  uc rollback web --to 0123456789abcdef deploy one of the revisions again")]
pub(crate) struct HistoryArgs {
    /// `SERVICE` or `PROJECT/SERVICE`
    service: String,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: HistoryArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let request = HistoryRequest {
        service: args.service,
    };
    let history = ask(client.services().history(within(30, request))).await?;
    if args.output.is_json() {
        return ui.json(&view::History::from(&history));
    }
    if history.revisions.is_empty() {
        return ui.status("no revisions are recorded");
    }
    ui.out(&text(&history, Timestamp::now(), Ui::columns()))
}

/// The table of revisions, with the changed fields below each row.
fn text(history: &HistoryResponse, now: Timestamp, columns: Option<usize>) -> String {
    let mut table =
        Table::new(&["REVISION", "DEPLOYED", "DEPLOYMENT", "IMAGE", ""]).free_text(&["IMAGE"]);
    for revision in &history.revisions {
        table.row(cells(revision, now));
    }
    let table = table.render_within(columns);
    let mut rows = table.lines();
    let mut text = String::new();
    text.extend(rows.next().map(|header| format!("{header}\n")));
    for (row, revision) in rows.zip(&history.revisions) {
        text.push_str(row);
        text.push('\n');
        text.push_str(&picture::draw_fields(&revision.changes));
    }
    text
}

fn cells(revision: &ServiceRevision, now: Timestamp) -> [Cell; 5] {
    let mark = if revision.current {
        Cell::styled("current", GREEN)
    } else {
        Cell::default()
    };
    [
        Cell::styled(revision.revision.as_str(), CYAN),
        times::ago(revision.deployed_at_ms, now).into(),
        short(&revision.deployment_id).into(),
        revision.image.as_str().into(),
        mark,
    ]
}
