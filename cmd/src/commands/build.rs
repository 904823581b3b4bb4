//! `uc build`

use std::collections::BTreeSet;

use clap::Args;
use serde::Serialize;

use crate::args::Output;
use crate::compose::{self, ProjectArgs, Show};
use crate::error::CliResult;
use crate::images::{self, BuildFlags, Built, ImageSource};
use crate::ui::Ui;

/// Build the images of a compose file
///
/// Uses Docker on this computer and prints the name of each image, one per line. A name is derived
/// from the content: the same content always gets the same name. Nothing is sent to the machines;
/// `uc deploy` does that.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc build                          build all services that have `build:`
  uc build web --no-cache           build web from scratch
  uc build --build-arg VERSION=2    set a build argument")]
pub(crate) struct BuildArgs {
    /// Services to build [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    project: ProjectArgs,
    #[command(flatten)]
    build: BuildFlags,
    /// Also build the services they depend on
    #[arg(long)]
    deps: bool,
    #[command(flatten)]
    output: Output,
}

/// An image, for `-o json`.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    service: &'a str,
    image: &'a str,
    tags: &'a [String],
}

impl<'a> From<&'a Built> for Shown<'a> {
    fn from(built: &'a Built) -> Self {
        Self {
            service: &built.service,
            image: &built.image,
            tags: &built.tags,
        }
    }
}

pub(crate) async fn run(args: BuildArgs, ui: &Ui) -> CliResult {
    let json = args.output.is_json();
    let show = if json { Show::Json } else { Show::Summary };
    let project = compose::load(&args.project, &args.services, ui, show)?;
    let mut services = compose::select(&project, &args.services)?;
    if !args.deps && !args.services.is_empty() {
        let named: BTreeSet<&str> = args
            .services
            .iter()
            .map(|name| name.rsplit('/').next().unwrap_or(name))
            .collect();
        services.retain(|service| named.contains(service.spec.name.as_str()));
    }
    let jobs = compose::build_jobs(&project, &services);
    if jobs.is_empty() && !json {
        return ui.status("nothing to build: no service has `build:`");
    }
    images::check_contexts(&jobs)?;
    let built = images::build_all(
        ui,
        &jobs,
        &args.build,
        project.environment(),
        ImageSource::Build,
    )
    .await?;
    if json {
        return ui.json_list(built.iter().map(Shown::from));
    }
    let images: Vec<String> = built.into_iter().map(|built| built.image).collect();
    ui.lines(&images)
}
