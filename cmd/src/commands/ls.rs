//! `uc ls`

use clap::Args;
use uc_api::v1::{ListServicesRequest, ServiceMode, ServiceSpec, ServiceStatus};

use crate::answer::with_part;
use crate::args::Output;
use crate::connect::{Globals, ask, within};
use crate::error::CliResult;
use crate::ui::{Cell, GREEN, RED, Table, Ui, YELLOW};
use crate::view;

/// List the services of the cluster
///
/// REPLICAS shows how many run, of how many should; a second number tells how many of them are
/// healthy if not all are. A job whose replicas have all ended with code 0 is `completed`.
#[derive(Debug, Args)]
#[command(visible_alias = "list")]
pub(crate) struct LsArgs {
    /// List only this project
    #[arg(short, long, default_value_t, hide_default_value = true)]
    project: String,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: LsArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let request = ListServicesRequest {
        project: args.project,
    };
    let answer = ask(client.services().list(within(30, request))).await?;
    let services = with_part(answer.services, "a spec", |status| status.spec.take())?;
    if args.output.is_json() {
        let services = services
            .iter()
            .map(|(spec, status)| view::Service::new(spec, status));
        return ui.json_list(services);
    }
    if services.is_empty() {
        ui.status("no services")?;
        return ui.hint("deploy the compose file of this directory with `uc deploy`");
    }
    ui.table(&table(&services))
}

fn table(services: &[(ServiceSpec, ServiceStatus)]) -> Table {
    let mut table = Table::new(&["PROJECT", "SERVICE", "MODE", "REPLICAS", "IMAGE", "PORTS"])
        .free_text(&["PROJECT", "SERVICE", "IMAGE", "PORTS"]);
    for (spec, status) in services {
        let ports: Vec<_> = spec.ports.iter().map(view::port_text).collect();
        let mode = if spec.mode() == ServiceMode::Global {
            "global"
        } else {
            "replicated"
        };
        table.row([
            spec.project.as_str().into(),
            spec.name.as_str().into(),
            mode.into(),
            replicas(status),
            spec.image.as_str().into(),
            ports.join(", ").into(),
        ]);
    }
    table.without_empty("PORTS")
}

/// `2/3`, and how many of the running replicas are healthy where that is not all of them. Green
/// means that everything is as it should be.
fn replicas(status: &ServiceStatus) -> Cell {
    let (running, healthy, desired) = (status.running, status.healthy, status.desired);
    let completed = status.completed;
    if completed > 0 && running == 0 && completed >= desired {
        return Cell::styled("completed", GREEN);
    }
    let mut text = format!("{running}/{desired}");
    if healthy < running {
        text = format!("{text}, {healthy} healthy");
    }
    if completed > 0 {
        text = format!("{text}, {completed} completed");
    }
    let style = if running + completed >= desired && healthy >= running {
        GREEN
    } else if healthy + completed == 0 {
        RED
    } else {
        YELLOW
    };
    Cell::styled(text, style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_green_only_when_all_run_and_are_healthy() {
        let cell = |running, healthy, desired| {
            let status = ServiceStatus {
                desired,
                running,
                healthy,
                ..Default::default()
            };
            replicas(&status)
        };
        assert_eq!(cell(2, 2, 2), Cell::styled("2/2", GREEN));
        assert_eq!(cell(0, 0, 0), Cell::styled("0/0", GREEN));
        assert_eq!(cell(3, 3, 2), Cell::styled("3/2", GREEN));
        assert_eq!(cell(2, 1, 2), Cell::styled("2/2, 1 healthy", YELLOW));
        assert_eq!(cell(2, 0, 2), Cell::styled("2/2, 0 healthy", RED));
        assert_eq!(cell(1, 1, 2), Cell::styled("1/2", YELLOW));
        assert_eq!(cell(0, 0, 2), Cell::styled("0/2", RED));
    }

    #[test]
    fn jobs_that_have_ended_well_are_completed() {
        let cell = |running, completed, desired| {
            let status = ServiceStatus {
                desired,
                running,
                healthy: running,
                completed,
                ..Default::default()
            };
            replicas(&status)
        };
        assert_eq!(cell(0, 1, 1), Cell::styled("completed", GREEN));
        assert_eq!(cell(1, 1, 2), Cell::styled("1/2, 1 completed", GREEN));
        assert_eq!(cell(0, 1, 2), Cell::styled("0/2, 1 completed", YELLOW));
        assert_eq!(cell(0, 0, 1), Cell::styled("0/1", RED));
    }
}
