//! `uc inspect`

use std::fmt::Write as _;

use clap::Args;
use jiff::Timestamp;
use uc_api::v1::{InspectServiceRequest, ServiceSpec, ServiceStatus, VolumeSpec};

use super::ps;
use crate::answer::Required as _;
use crate::args::Output;
use crate::connect::{Globals, ask, within};
use crate::error::CliResult;
use crate::ui::{BOLD, Ui};
use crate::{times, view, words};

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
    let answer = ask(client.services().inspect(within(30, request))).await?;
    let mut status = answer.service.required("a service")?;
    let service = Inspected {
        spec: status.spec.take().required("a spec")?,
        status,
        replicas: ps::listed(answer.replicas)?,
        volumes: answer.volumes,
    };
    if args.output.is_json() {
        return ui.json(&view::Inspection {
            service: view::Service::new(&service.spec, &service.status),
            spec: view::Spec::from(&service.spec),
            replicas: service.replicas.iter().map(view::Replica::from).collect(),
            volumes: service.volumes.iter().map(view::Volume::from).collect(),
        });
    }
    ui.out(&text(&service, Timestamp::now(), Ui::columns()))
}

/// A complete answer.
struct Inspected {
    spec: ServiceSpec,
    status: ServiceStatus,
    replicas: Vec<ps::Listed>,
    volumes: Vec<VolumeSpec>,
}

fn text(service: &Inspected, now: Timestamp, columns: Option<usize>) -> String {
    let Inspected { spec, status, .. } = service;
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
    line("Digest", spec.image_digest.clone());
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
        service
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
            .map_or_else(String::new, |list| list.values.join(" ")),
    );
    line(
        "Waits for",
        spec.depends_on
            .iter()
            .map(|dependency| dependency.service.clone())
            .collect::<Vec<_>>()
            .join(", "),
    );
    if !service.replicas.is_empty() {
        text.push('\n');
        text.push_str(&ps::table(&service.replicas, now).render_within(columns));
    }
    text
}
