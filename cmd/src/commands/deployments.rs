//! `uc deployments`

mod cancel;
mod ls;
mod show;
mod watch;

use clap::Subcommand;
use uc_api::v1::{DeploymentStatus, ListDeploymentsRequest};

use crate::connect::{Client, Globals, ask, within};
use crate::error::{CliError, CliResult};
use crate::ui::Ui;

/// List, watch and cancel deployments
///
/// A deployment is one execution of a plan: of `uc deploy`, `uc scale`, `uc rm` or `uc rollback`.
/// One machine executes it, whether or not `uc` watches. All machines keep a record of it and of
/// how it ended.
#[derive(Debug, Subcommand)]
pub(crate) enum DeploymentsCommand {
    Ls(ls::LsArgs),
    Show(show::ShowArgs),
    Watch(watch::WatchArgs),
    Cancel(cancel::CancelArgs),
}

pub(crate) async fn run(command: DeploymentsCommand, ui: &Ui, globals: &Globals) -> CliResult {
    match command {
        DeploymentsCommand::Ls(args) => ls::run(args, ui, globals).await,
        DeploymentsCommand::Show(args) => show::run(args, ui, globals).await,
        DeploymentsCommand::Watch(args) => watch::run(args, ui, globals).await,
        DeploymentsCommand::Cancel(args) => cancel::run(args, ui, globals).await,
    }
}

/// The deployments, the newest first. An empty project means all.
async fn list(client: &Client, project: String) -> CliResult<Vec<DeploymentStatus>> {
    let request = within(30, ListDeploymentsRequest { project });
    Ok(ask(client.deploy().list_deployments(request))
        .await?
        .deployments)
}

/// Finds a deployment by its id or the start of it.
fn find<'a>(deployments: &'a [DeploymentStatus], text: &str) -> CliResult<&'a DeploymentStatus> {
    let meant = |of: &&DeploymentStatus| !text.is_empty() && of.deployment_id.starts_with(text);
    let found: Vec<&DeploymentStatus> = deployments.iter().filter(meant).collect();
    match found.as_slice() {
        [deployment] => Ok(deployment),
        [] => Err(CliError::usage(format!("deployment `{text}` not found"))
            .hint("`uc deployments ls` lists the deployments")),
        _ => Err(
            CliError::usage(format!("`{text}` matches several deployments"))
                .hint("write more digits of the id"),
        ),
    }
}

/// `shop/db, shop/web`
fn services(deployment: &DeploymentStatus) -> String {
    let services = deployment.services.iter();
    let names = services.map(|service| format!("{}/{}", service.project, service.service));
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_accepts_the_start_of_an_id_that_is_unique() {
        let deployment = |id: &str| DeploymentStatus {
            deployment_id: id.into(),
            ..Default::default()
        };
        let all = [deployment("aa11"), deployment("aa22"), deployment("bb33")];
        let found = |text| find(&all, text).map(|of| of.deployment_id.as_str());
        assert_eq!(found("bb").unwrap(), "bb33");
        assert_eq!(found("aa22").unwrap(), "aa22");
        for (text, message) in [
            ("aa", "matches several"),
            ("cc", "not found"),
            ("", "not found"),
        ] {
            let error = found(text).unwrap_err().render();
            assert!(error.contains(message), "{error}");
        }
    }
}
