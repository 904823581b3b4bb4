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

/// Change how many replicas of a service run
///
/// The next `uc deploy` goes back to what the compose file says.
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// `SERVICE` or `PROJECT/SERVICE`
    service: String,
    /// How many are to run; 0 keeps the service and runs none
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
