//! `uc scale`

use clap::Args;
use uc_api::layout::MAX_REPLICAS;
use uc_api::v1::plan_request::Change;
use uc_api::v1::{PlanRequest, ScaleService};

use crate::args::{Output, SkipHealth, Yes};
use crate::compose;
use crate::connect::Globals;
use crate::error::{CliError, CliResult};
use crate::files::Contents;
use crate::rollout::{self, Action, Options};
use crate::ui::Ui;

/// Change the number of replicas of a service
///
/// The next `uc deploy` sets it to the number in the compose file again.
#[derive(Debug, Args)]
#[command(
    override_usage = "uc scale [OPTIONS] <SERVICE> <N>\n       uc scale [OPTIONS] <SERVICE>=<N>",
    after_help = "Examples:
  uc scale web 3        run three replicas
  uc scale web=3        the same, as Docker Compose writes it
  uc scale shop/web 0   stop all replicas and keep the service"
)]
pub(crate) struct ScaleArgs {
    /// Service, as `SERVICE` or `PROJECT/SERVICE`
    service: String,
    /// Number of replicas; 0 stops all and keeps the service
    // Parsed by `wanted`, so that an invalid number is reported in our words.
    #[arg(value_name = "N", allow_negative_numbers = true)]
    replicas: Option<String>,
    #[command(flatten)]
    health: SkipHealth,
    #[command(flatten)]
    yes: Yes,
    #[command(flatten)]
    output: Output,
}

const ONE_SERVICE: &str =
    "one command scales one service: `uc scale SERVICE N` or `uc scale SERVICE=N`";

/// The service and the number of replicas, from `SERVICE N` or `SERVICE=N`.
fn wanted(service: &str, replicas: Option<&str>) -> CliResult<ScaleService> {
    let (service, number) = match (service.split_once('='), replicas) {
        (Some(_), Some(more)) => {
            return Err(
                CliError::usage(format!("unexpected argument `{more}` after `{service}`"))
                    .hint(ONE_SERVICE),
            );
        }
        (None, Some(number)) if number.contains('=') => {
            return Err(CliError::usage(format!(
                "the number of replicas of {service} is missing: `{number}` is another service"
            ))
            .hint(ONE_SERVICE));
        }
        (Some((service, number)), None) => (service, number),
        (None, Some(number)) => (service, number),
        (None, None) => (service, ""),
    };
    let example = format!("for example `uc scale {service} 3`");
    if number.is_empty() {
        let message = format!("the number of replicas of {service} is missing");
        return Err(CliError::usage(message).hint(example));
    }
    let replicas = number.parse().ok().filter(|count| *count <= MAX_REPLICAS);
    let replicas = replicas.ok_or_else(|| {
        CliError::usage(format!(
            "invalid number of replicas `{number}` of {service}: it must be a whole number from 0 \
             to {MAX_REPLICAS}"
        ))
        .hint(example)
    })?;
    Ok(ScaleService {
        service: service.to_owned(),
        replicas,
    })
}

pub(crate) async fn run(args: ScaleArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let wanted = wanted(&args.service, args.replicas.as_deref())?;
    let client = globals.client().await?;
    rollout::warn_about_context(client.destination(), compose::context_here().as_deref(), ui)?;
    let request = PlanRequest {
        change: Some(Change::Scale(wanted)),
    };
    let options = Options {
        skip_health: args.health.skip_health,
        ..Options::new(Action::Scale, args.yes, args.output)
    };
    rollout::run(ui, &client, request, &Contents::default(), &options)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_and_number_are_two_arguments_or_one() {
        for (service, replicas) in [("shop/web", Some("3")), ("shop/web=3", None)] {
            let wanted = wanted(service, replicas).unwrap();
            assert_eq!((wanted.service.as_str(), wanted.replicas), ("shop/web", 3));
        }
        for (service, replicas) in [
            ("web=", None),
            ("web=x", None),
            ("web", Some("-1")),
            ("web", Some("1.5")),
            ("web", Some("4294967296")),
            ("web", Some("db=2")),
            ("web=1", Some("db=2")),
            ("web", None),
        ] {
            assert!(wanted(service, replicas).is_err(), "{service} {replicas:?}");
        }
    }
}
