//! `uc scale`

use std::collections::BTreeMap;

use clap::Args;
use uc_api::v1::plan_request::Change;
use uc_api::v1::{PlanRequest, ScaleService};

use crate::cli::{Output, Yes};
use crate::compose;
use crate::connect::Globals;
use crate::error::CliResult;
use crate::files::Contents;
use crate::rollout::{self, Action, Options};
use crate::ui::Ui;

/// Change the number of replicas of a service
///
/// The next `uc deploy` sets it to the number in the compose file again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc scale web 3        run three replicas
  uc scale shop/web 0   stop all replicas and keep the service")]
pub(crate) struct ScaleArgs {
    /// Service, as `SERVICE` or `PROJECT/SERVICE`
    service: String,
    /// Number of replicas; 0 stops all and keeps the service
    replicas: u32,
    #[command(flatten)]
    yes: Yes,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: ScaleArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    rollout::warn_about_context(client.destination(), compose::context_here().as_deref(), ui)?;
    let change = Change::Scale(ScaleService {
        service: args.service,
        replicas: args.replicas,
    });
    let request = PlanRequest {
        change: Some(change),
    };
    let options = Options {
        action: Action::Scale,
        yes: args.yes.yes,
        dry_run: false,
        json: args.output.is_json(),
        document: BTreeMap::new(),
    };
    rollout::run(ui, &client, request, &Contents::default(), &options).await
}
