//! `uc deploy`

use clap::Args;
use uc_api::v1::{DesiredServices, PlanRequest, plan_request::Change};

use crate::cli::Yes;
use crate::commands::conflicts;
use crate::compose::{self, ProjectArgs};
use crate::connect::{self, Globals};
use crate::error::CliResult;
use crate::files::{self, Known};
use crate::images;
use crate::rollout::{self, Options};
use crate::ui::Ui;

/// Deploy a compose file
///
/// Builds what is to be built, shows what would change on which machine, asks, and makes it so. A deployment that fails leaves the previous
/// revision serving (exit code 3). It goes on when this program is interrupted after the question.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc deploy                       the compose file of this directory
  uc deploy -y web                web and what it depends on, without a question
  uc deploy -f a.yaml -f b.yaml   two files, the second over the first
  uc deploy --dry-run             show the plan and stop")]
pub(crate) struct DeployArgs {
    /// Only these services, and those they depend on
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    project: ProjectArgs,
    #[command(flatten)]
    yes: Yes,
    /// Take the images of the last build
    #[arg(long)]
    no_build: bool,
    /// Replace containers even if nothing changed
    #[arg(long)]
    recreate: bool,
    /// Show the plan on stdout and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(crate) async fn run(args: DeployArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let project = compose::load(&args.project, ui, false)?;
    let mut services = compose::select(&project, &args.services)?;
    let jobs = compose::build_jobs(&services);
    for job in &jobs {
        images::check_context(job)?;
    }
    // Before anything is built: a machine that cannot be reached should be known in a second, not after a build.
    let client = connect::connect(&globals.route(project.context.as_deref())?, &globals.env).await?;
    let mut volumes = project.volumes;
    let environment = crate::env::all();
    let known = Known {
        project: project.name.as_str(),
        strict: args.project.strict,
        environment: &environment,
        volumes: files::current_volumes(&client, project.name.as_str(), &services).await?,
    };
    let contents = files::prepare(ui, &mut services, &mut volumes, &known).await?;
    for job in &jobs {
        let image =
            if args.no_build { images::last_build(job).await? } else { images::build(ui, job).await? };
        for service in services.iter_mut().filter(|service| service.spec.name == job.service) {
            service.spec.image.clone_from(&image);
            service.spec.built = true;
        }
    }
    let desired = DesiredServices {
        project: project.name.to_string(),
        services: services.into_iter().map(|service| service.spec).collect(),
        volumes,
        recreate: args.recreate,
    };
    let request = PlanRequest { change: Some(Change::Deploy(desired)) };
    let options = Options { yes: args.yes.yes, dry_run: args.dry_run };
    // Before the question: a deployment settles the conflicts about what it changes.
    conflicts::note(ui, &client).await?;
    rollout::run(ui, &client, request, &contents, &options).await
}
