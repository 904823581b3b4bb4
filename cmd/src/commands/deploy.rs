//! `uc deploy` and `uc plan`

use std::collections::BTreeMap;

use clap::Args;
use uc_api::v1::plan_request::Change;
use uc_api::v1::{DesiredServices, PlanRequest};

use crate::args::{Output, SkipHealth, Yes};
use crate::commands::conflicts;
use crate::compose::{self, ProjectArgs, Show};
use crate::connect::{self, Globals};
use crate::error::CliResult;
use crate::files::{self, Known};
use crate::images::{self, BuildFlags, ImageSource};
use crate::rollout::{self, Action, Options, Outcome};
use crate::ui::Ui;

/// Deploy a compose file
///
/// Builds images, shows the plan, asks for confirmation and applies it. If the deployment fails, it
/// is rolled back and the previous revision continues to serve (exit code 3).
///
/// Once confirmed, the deployment continues on the cluster even if you press Ctrl-C.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc deploy                       deploy the compose file of this directory
  uc deploy -y web                deploy web and the services it depends on, without asking
  uc deploy -f a.yaml -f b.yaml   merge two files; the second overrides the first
  uc deploy --dry-run             show the plan and stop, like `uc plan`
  uc deploy --remove-orphans      also remove services that are no longer in the file
  uc deploy -y -o json            print plan and outcome as JSON on stdout")]
pub(crate) struct DeployArgs {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    yes: Yes,
    #[command(flatten)]
    build: BuildFlags,
    /// Do not build; use the images of the last build
    #[arg(long, conflicts_with_all = ["build_arg", "build_pull", "no_cache"])]
    no_build: bool,
    /// Show the plan and change nothing, as `uc plan` does; exits with code 0
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    health: SkipHealth,
    #[command(flatten)]
    output: Output,
}

/// What is to be deployed: the arguments that decide the plan.
#[derive(Debug, Args)]
struct Wanted {
    /// Services to deploy, with those they depend on [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    project: ProjectArgs,
    /// Replace containers even if nothing changed
    #[arg(long)]
    recreate: bool,
    /// Remove the services of the project that the compose file no longer has
    #[arg(long)]
    remove_orphans: bool,
}

/// Show what `uc deploy` would change
///
/// Changes nothing. Exits with code 0 if there is nothing to do, and with code 10 if there is.
///
/// Builds no images and runs no `x-command`: the plan has the images of the last build, and assumes
/// that what such a command prints has not changed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc plan                    show the plan for the compose file of this directory
  uc plan web                show the plan for web and the services it depends on
  uc plan -f a.yaml -o json  print the plan as JSON
  uc plan || [ $? = 10 ]     in a script: fail only if no plan can be made")]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    output: Output,
}

/// Exit code of `uc plan` for a plan with changes. Not a failure, so it is not a [`Kind`] of error.
///
/// [`Kind`]: crate::error::Kind
const CHANGES: u8 = 10;

/// `uc plan`. Returns the exit code.
pub(crate) async fn plan(args: PlanArgs, ui: &Ui, globals: &Globals) -> CliResult<u8> {
    let args = DeployArgs {
        wanted: args.wanted,
        yes: Yes { yes: false },
        build: BuildFlags::default(),
        no_build: false,
        dry_run: true,
        health: SkipHealth { skip_health: false },
        output: args.output,
    };
    Ok(match deploy(args, ui, globals).await? {
        Outcome::Planned => CHANGES,
        _ => 0,
    })
}

/// `uc deploy`
pub(crate) async fn run(args: DeployArgs, ui: &Ui, globals: &Globals) -> CliResult {
    deploy(args, ui, globals).await.map(drop)
}

async fn deploy(args: DeployArgs, ui: &Ui, globals: &Globals) -> CliResult<Outcome> {
    let json = args.output.is_json();
    let wanted = &args.wanted;
    let mut document = BTreeMap::new();
    let project = if json {
        let (project, diagnostics) = compose::load_as_data(&wanted.project, &wanted.services, ui)?;
        document.insert("diagnostics", serde_json::to_value(diagnostics)?);
        project
    } else {
        compose::load(&wanted.project, &wanted.services, ui, Show::Summary)?
    };
    let mut services = compose::select(&project, &wanted.services)?;
    let jobs = compose::build_jobs(&project, &services);
    images::check_contexts(&jobs)?;
    // Connect before building: an unreachable machine is reported within seconds, not after a
    // build.
    let client = connect::connect(&globals.route(project.context.as_deref())?, globals).await?;
    rollout::warn_about_context(client.destination(), project.context.as_deref(), ui)?;
    let mut volumes = project.volumes.clone();
    let known = Known {
        project: project.name.as_str(),
        strict: wanted.project.strict,
        environment: project.environment(),
        dry_run: args.dry_run,
        current: files::current(&client, project.name.as_str(), &services, args.dry_run).await?,
    };
    let contents = files::prepare(ui, &mut services, &mut volumes, &known).await?;
    let source = if args.dry_run {
        ImageSource::DryRun
    } else if args.no_build {
        ImageSource::LastBuild
    } else {
        ImageSource::Build
    };
    let built = images::build_all(ui, &jobs, &args.build, project.environment(), source).await?;
    for image in built {
        for service in services
            .iter_mut()
            .filter(|service| service.spec.name == image.service)
        {
            service.spec.image.clone_from(&image.image);
            service.spec.built = true;
        }
    }
    let other_services = project
        .services
        .iter()
        .map(|service| &service.spec.name)
        .chain(&project.inactive)
        .filter(|name| !services.iter().any(|service| service.spec.name == **name))
        .cloned()
        .collect();
    let desired = DesiredServices {
        project: project.name.to_string(),
        other_services,
        remove_orphans: wanted.remove_orphans,
        services: services.into_iter().map(|service| service.spec).collect(),
        volumes,
        recreate: wanted.recreate,
        images_resolved: false,
    };
    let request = PlanRequest {
        change: Some(Change::Deploy(desired)),
    };
    let options = Options {
        dry_run: args.dry_run,
        skip_health: args.health.skip_health,
        document,
        ..Options::new(Action::Deploy, args.yes, args.output)
    };
    // Before the question, because a deployment resolves the conflicts of the services it changes.
    conflicts::note(ui, &client).await?;
    rollout::run(ui, &client, request, &contents, &options).await
}
