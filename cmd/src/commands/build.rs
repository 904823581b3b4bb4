//! `uc build`

use std::collections::BTreeSet;

use clap::Args;
use serde::Serialize;

use crate::cli::Output;
use crate::compose::{self, ProjectArgs, Show};
use crate::error::CliResult;
use crate::images::{self, BuildFlags, Built};
use crate::ui::Ui;

/// Build the images of a compose file
///
/// With the Docker of this computer. Names are printed, one a line: they say what is in the images,
/// so an unchanged build has an unchanged name. Nothing is sent anywhere; `uc deploy` does that.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc build                          all services with `build:`
  uc build web --no-cache           web, from scratch
  uc build --build-arg VERSION=2")]
pub(crate) struct BuildArgs {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    project: ProjectArgs,
    #[command(flatten)]
    build: BuildFlags,
    /// With the services they depend on
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
    let built = images::build_all(ui, &jobs, &args.build, project.environment(), false).await?;
    if json {
        return ui.json(&built.iter().map(Shown::from).collect::<Vec<_>>());
    }
    let images: Vec<String> = built.into_iter().map(|built| built.image).collect();
    ui.lines(&images)
}
