//! `uc ls`

use clap::Args;
use uc_api::v1::{ListServicesRequest, ServiceMode, ServiceStatus};

use crate::cli::Output;
use crate::connect::{Globals, within};
use crate::error::CliResult;
use crate::ui::{Cell, GREEN, RED, Table, Ui, YELLOW};
use crate::view;

/// List the services of the cluster
#[derive(Debug, Args)]
#[command(visible_alias = "list")]
pub(crate) struct LsArgs {
    /// Only this project
    #[arg(short, long)]
    project: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: LsArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let request = ListServicesRequest {
        project: args.project.unwrap_or_default(),
    };
    let services = client
        .services()
        .list(within(30, request))
        .await?
        .into_inner()
        .services;
    if args.output.is_json() {
        return ui.json(&services.iter().map(view::Service::from).collect::<Vec<_>>());
    }
    if services.is_empty() {
        ui.status("no services")?;
        return ui.hint("`uc deploy` deploys the compose file of this directory");
    }
    ui.out(&table(&services).render())
}

fn table(services: &[ServiceStatus]) -> Table {
    let mut table = Table::new(&["PROJECT", "SERVICE", "MODE", "REPLICAS", "IMAGE", "PORTS"]);
    for status in services {
        let Some(spec) = &status.spec else { continue };
        let ports: Vec<_> = spec.ports.iter().map(view::port_text).collect();
        let style = match status.running {
            running if running >= status.desired => GREEN,
            0 => RED,
            _ => YELLOW,
        };
        let mode = if spec.mode() == ServiceMode::Global {
            "global"
        } else {
            "replicated"
        };
        table.row([
            spec.project.as_str().into(),
            spec.name.as_str().into(),
            mode.into(),
            Cell::styled(format!("{}/{}", status.running, status.desired), style),
            spec.image.as_str().into(),
            ports.join(", ").into(),
        ]);
    }
    table.without_empty("PORTS")
}
