//! `uc deployments show`

use std::fmt::Write as _;

use anstyle::Style;
use clap::Args;
use jiff::Timestamp;
use uc_api::v1::DeploymentStatus;

use crate::args::Output;
use crate::connect::Globals;
use crate::error::CliResult;
use crate::ui::{BOLD, DIM, Table, Ui};
use crate::words::{deployment_state, service_change};
use crate::{text, times, view};

/// Show what a deployment changed and how it ended
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Id or the beginning of one, as in `uc deployments ls`
    #[arg(value_name = "ID")]
    deployment: String,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: ShowArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let deployments = super::list(&client, String::new()).await?;
    let deployment = super::find(&deployments, &args.deployment)?;
    if args.output.is_json() {
        return ui.json(&view::Deployment::from(deployment));
    }
    ui.out(&text(deployment, Timestamp::now(), Ui::columns()))?;
    match deployment.finished.as_ref().map(|end| end.hint.as_str()) {
        None | Some("") => Ok(()),
        Some(hint) => ui.hint(hint),
    }
}

fn text(deployment: &DeploymentStatus, now: Timestamp, columns: Option<usize>) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str, style: Style| {
        if !value.is_empty() {
            let value = text::one_line(value);
            _ = writeln!(text, "{BOLD}{name:<10}{BOLD:#} {style}{value}{style:#}");
        }
    };
    let plain = Style::new();
    let (state, condition) = deployment_state(deployment);
    line("Deployment", &deployment.deployment_id, plain);
    line("State", &state, condition.style());
    line("Machine", &deployment.machine_name, plain);
    line("Began", &times::ago(deployment.began_at_ms, now), plain);
    line("Ended", &times::ago(deployment.ended_at_ms, now), plain);
    if let Some(end) = &deployment.finished {
        line("Message", &end.message, plain);
    }
    let log = deployment.finished.iter().flat_map(|end| &end.log_tail);
    for line in log {
        _ = writeln!(text, "    {DIM}|{DIM:#} {}", text::of_container(line));
    }
    if !deployment.services.is_empty() {
        let mut table =
            Table::new(&["SERVICE", "CHANGE", "REVISION", "STEPS"]).free_text(&["SERVICE"]);
        for service in &deployment.services {
            table.row([
                format!("{}/{}", service.project, service.service).into(),
                service_change(service.change(), service.steps > 0).into(),
                service.revision.as_str().into(),
                service.steps.to_string().into(),
            ]);
        }
        text.push('\n');
        text.push_str(&table.render_within(columns));
    }
    text
}
