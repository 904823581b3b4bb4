//! `uc inspect`

use std::fmt::Write as _;

use clap::Args;
use jiff::Timestamp;
use uc_api::v1::{InspectServiceRequest, InspectServiceResponse};

use super::ps;
use crate::args::Output;
use crate::connect::{Globals, within};
use crate::error::CliResult;
use crate::ui::{BOLD, Ui};
use crate::words;
use crate::{times, view};

/// Show a service and its containers
///
/// `-o json` has the whole spec of the service.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// `SERVICE` or `PROJECT/SERVICE`
    service: String,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: InspectArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let request = InspectServiceRequest {
        service: args.service,
    };
    let response = client
        .services()
        .inspect(within(30, request))
        .await?
        .into_inner();
    if args.output.is_json() {
        return ui.json(&view::Inspection::from(&response));
    }
    ui.out(&text(&response, Timestamp::now(), Ui::columns()))
}

fn text(response: &InspectServiceResponse, now: Timestamp, columns: Option<usize>) -> String {
    let status = response.service.clone().unwrap_or_default();
    let spec = status.spec.clone().unwrap_or_default();
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            _ = writeln!(text, "{BOLD}{name:<10}{BOLD:#} {value}");
        }
    };
    line("Service", format!("{}/{}", spec.project, spec.name));
    line("Revision", status.revision.clone());
    line("Updated", times::ago(status.updated_at_ms, now));
    line("Image", spec.image.clone());
    line("Mode", words::mode(spec.mode()));
    line(
        "Replicas",
        format!(
            "{} wanted, {} running, {} healthy",
            status.desired, status.running, status.healthy
        ),
    );
    line(
        "Ports",
        spec.ports
            .iter()
            .map(view::port_text)
            .collect::<Vec<_>>()
            .join(", "),
    );
    line("Machines", spec.machines.join(", "));
    line(
        "Volumes",
        response
            .volumes
            .iter()
            .map(|volume| volume.name.clone())
            .collect::<Vec<_>>()
            .join(", "),
    );
    line(
        "Command",
        spec.command
            .as_ref()
            .map(|list| list.values.join(" "))
            .unwrap_or_default(),
    );
    line(
        "Waits for",
        spec.depends_on
            .iter()
            .map(|dependency| dependency.service.clone())
            .collect::<Vec<_>>()
            .join(", "),
    );
    if !response.replicas.is_empty() {
        text.push('\n');
        text.push_str(&ps::table(&response.replicas, now).render_within(columns));
    }
    text
}
