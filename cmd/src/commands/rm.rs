//! `uc rm`

use clap::Args;
use uc_api::v1::plan_request::Change;
use uc_api::v1::{PlanRequest, RemoveServices};

use crate::cli::Yes;
use crate::connect::Globals;
use crate::error::CliResult;
use crate::files::Contents;
use crate::rollout::{self, Options};
use crate::ui::Ui;

/// Remove services and their containers; named volumes stay
#[derive(Debug, Args)]
#[command(visible_alias = "remove")]
pub(crate) struct RmArgs {
    /// `SERVICE` or `PROJECT/SERVICE`
    #[arg(required_unless_present = "project", conflicts_with = "project")]
    services: Vec<String>,
    /// All services of this project
    #[arg(short, long)]
    project: Option<String>,
    #[command(flatten)]
    yes: Yes,
}

pub(crate) async fn run(args: RmArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let change = Change::Remove(RemoveServices {
        services: args.services,
        project: args.project.unwrap_or_default(),
    });
    let request = PlanRequest {
        change: Some(change),
    };
    let options = Options {
        yes: args.yes.yes,
        dry_run: false,
        plan_is_data: true,
    };
    rollout::run(ui, &client, request, &Contents::default(), &options).await
}
