//! `uc rm`

use clap::Args;
use uc_api::v1::plan_request::Change;
use uc_api::v1::{PlanRequest, RemoveServices};

use crate::args::{Output, Yes};
use crate::compose;
use crate::connect::Globals;
use crate::error::CliResult;
use crate::files::Contents;
use crate::rollout::{self, Action, Options};
use crate::ui::Ui;

/// Remove services and their containers
///
/// Named volumes are kept.
#[derive(Debug, Args)]
#[command(
    visible_alias = "remove",
    after_help = "Examples:
  uc rm web          remove one service
  uc rm -p shop -y   remove all services of a project without asking"
)]
pub(crate) struct RmArgs {
    /// `SERVICE` or `PROJECT/SERVICE`
    #[arg(
        value_name = "SERVICE",
        required_unless_present = "project",
        conflicts_with = "project"
    )]
    services: Vec<String>,
    /// Remove all services of this project
    #[arg(short, long, default_value_t, hide_default_value = true)]
    project: String,
    #[command(flatten)]
    yes: Yes,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: RmArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    rollout::warn_about_context(client.destination(), compose::context_here().as_deref(), ui)?;
    let change = Change::Remove(RemoveServices {
        services: args.services,
        project: args.project,
    });
    let request = PlanRequest {
        change: Some(change),
    };
    let options = Options::new(Action::Remove, args.yes, args.output);
    rollout::run(ui, &client, request, &Contents::default(), &options)
        .await
        .map(drop)
}
