//! `uc rollback`

use clap::Args;
use uc_api::v1::plan_request::Change;
use uc_api::v1::{PlanRequest, RollBackServices};

use crate::args::{Output, SkipHealth, Yes};
use crate::compose;
use crate::connect::Globals;
use crate::error::CliResult;
use crate::files::Contents;
use crate::rollout::{self, Action, Options};
use crate::ui::Ui;

/// Deploy an earlier revision of a service again
///
/// The service keeps its current number of replicas. The compose file is not changed: the next
/// `uc deploy` deploys what it contains.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc rollback web                 go back to the revision before the current one
  uc rollback web --to 01234567   go back to a revision of `uc history web`
  uc rollback web -n              show the plan and change nothing")]
pub(crate) struct RollbackArgs {
    /// `SERVICE` or `PROJECT/SERVICE`
    service: String,
    /// Revision or the beginning of one, as in `uc history` [default: the newest but the current]
    #[arg(
        long,
        value_name = "REVISION",
        default_value_t,
        hide_default_value = true
    )]
    to: String,
    /// Show the plan and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    health: SkipHealth,
    #[command(flatten)]
    yes: Yes,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: RollbackArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    rollout::warn_about_context(client.destination(), compose::context_here().as_deref(), ui)?;
    let change = Change::RollBack(RollBackServices {
        service: args.service,
        revision: args.to,
    });
    let request = PlanRequest {
        change: Some(change),
    };
    let options = Options {
        dry_run: args.dry_run,
        skip_health: args.health.skip_health,
        ..Options::new(Action::RollBack, args.yes, args.output)
    };
    rollout::run(ui, &client, request, &Contents::default(), &options)
        .await
        .map(drop)
}
