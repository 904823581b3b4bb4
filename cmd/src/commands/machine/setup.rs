//! What `init`, `add` and `join` share: arguments, preparing a machine, its endpoints.

use std::path::PathBuf;

use clap::Args;
use uc_api::layout::WIREGUARD_PORT;
use uc_api::v1::{InfoRequest, InfoResponse};
use uc_api::{Endpoint, MachineName};

use crate::args::Yes;
use crate::connect::{Client, ask, within};
use crate::connection::SshTarget;
use crate::env::Env;
use crate::error::{CliError, CliResult};
use crate::provision::installed::INSTALLER;
use crate::provision::{self, Artefacts, Host};
use crate::ui::Ui;

/// Help of `--wg-endpoint`, the same in every command that has it.
pub(super) const WG_ENDPOINT_HELP: &str = "Where other machines reach the machine's WireGuard port: HOST or HOST:PORT, where HOST is an \
     address or a DNS name; repeatable [default: the machine's own addresses]";

/// Arguments of `init` and `add`.
#[derive(Debug, Args)]
pub(super) struct SetupArgs {
    /// Name of the machine in the cluster [default: its host name]
    #[arg(short, long)]
    pub(super) name: Option<String>,
    /// Private key for ssh
    #[arg(short = 'i', long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    #[arg(long, value_name = "ENDPOINT", help = WG_ENDPOINT_HELP)]
    wg_endpoint: Vec<String>,
    /// UDP port of WireGuard on the machine [default: 51820]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    wg_port: Option<u16>,
    /// Directory with uc, ucd and install.sh for the machine [default: the directory of this
    /// program]
    #[arg(long, value_name = "DIR")]
    install_from: Option<PathBuf>,
    #[command(flatten)]
    pub(super) yes: Yes,
}

impl SetupArgs {
    /// The name, empty if none was given. An invalid one is refused before anything is done.
    pub(super) fn checked_name(&self) -> CliResult<String> {
        match &self.name {
            Some(name) => Ok(name.parse::<MachineName>()?.to_string()),
            None => Ok(String::new()),
        }
    }

    /// The endpoints of `--wg-endpoint`. An invalid one is refused before anything is done.
    pub(super) fn checked_endpoints(&self) -> CliResult<Vec<Endpoint>> {
        parse_endpoints(&self.wg_endpoint, self.wg_port)
    }

    pub(super) fn target(&self, text: &str) -> CliResult<SshTarget> {
        Ok(SshTarget {
            key: self.ssh_key.clone(),
            ..text.parse::<SshTarget>()?
        })
    }

    /// The port for the wire, where 0 means the default.
    pub(super) fn wireguard_port(&self) -> u32 {
        self.wg_port.map_or(0, u32::from)
    }

    pub(super) fn artefacts(&self) -> CliResult<Artefacts> {
        Artefacts::find(self.install_from.as_deref())
    }

    /// The endpoints that the machine cannot find out itself: those that were given, else the
    /// addresses that ssh connects to. Behind a cloud's NAT the machine does not know the latter.
    pub(super) async fn extra_endpoints(
        &self,
        given: &[Endpoint],
        target: Option<&SshTarget>,
        env: &Env,
    ) -> Vec<String> {
        let Some(target) = target.filter(|_| given.is_empty()) else {
            return texts(given);
        };
        let port = self.wg_port.unwrap_or(WIREGUARD_PORT);
        let addresses = provision::ssh_addresses(target, env).await.into_iter();
        let endpoints = addresses.map(|address| Endpoint::from_address(address).with_port(port));
        texts(&endpoints.collect::<Vec<_>>())
    }

    /// The given endpoints, those that the machine sees itself, and the one that ssh uses; each
    /// once, best first.
    pub(super) async fn all_endpoints(
        &self,
        given: &[Endpoint],
        target: &SshTarget,
        env: &Env,
        detected: &[String],
    ) -> Vec<String> {
        let extra = self.extra_endpoints(given, Some(target), env).await;
        let detected = detected
            .iter()
            .map(|text| match (text.parse(), self.wg_port) {
                // The machine answered for its default port.
                (Ok(endpoint), Some(port)) => Endpoint::with_port(endpoint, port).to_string(),
                _ => text.clone(),
            });
        let mut list: Vec<String> = if given.is_empty() {
            detected.chain(extra).collect()
        } else {
            extra.into_iter().chain(detected).collect()
        };
        let mut seen = std::collections::BTreeSet::new();
        list.retain(|text| seen.insert(text.clone()));
        list
    }

    /// Inspects the machine, refuses one that belongs to a cluster, installs uc, and connects.
    pub(super) async fn make_ready(
        &self,
        target: &SshTarget,
        env: &Env,
        ui: &Ui,
        purpose: &str,
    ) -> CliResult<(Client, InfoResponse)> {
        let artefacts = self.artefacts()?;
        let host = Host::look(target, env).await?;
        if host.has_uc() {
            // The installation repairs a daemon that does not run or is of another version, so
            // only an answer counts.
            if let Ok(client) = host.client().await
                && let Ok(info) = info(&client).await
            {
                refuse_member(&target.to_string(), &info)?;
            }
        }
        let question = format!(
            "Install uc on {target} ({}) and {purpose}?",
            host.platform()
        );
        let action = format!("installing uc on {target}");
        ui.confirm(&question, self.yes.yes, &action).await?;
        host.install(&artefacts, ui).await?;
        let client = host.client().await?;
        let info = info(&client).await?;
        refuse_member(&target.to_string(), &info)?;
        Ok((client, info))
    }
}

/// What the daemon at the other end reports about its machine.
pub(super) async fn info(client: &Client) -> CliResult<InfoResponse> {
    let request = within(30, InfoRequest {});
    ask(client.machine().info(request)).await
}

/// The place of [`refuse_member`] that is not reached through ssh.
pub(super) const THIS_MACHINE: &str = "this machine";

/// A machine can be in one cluster only.
pub(super) fn refuse_member(place: &str, info: &InfoResponse) -> CliResult {
    if info.cluster_id.is_empty() {
        return Ok(());
    }
    let (name, cluster) = (&info.machine_name, &info.cluster_id);
    let error = if name.is_empty() {
        // It is about to leave, or was removed from the list while it was away.
        CliError::failed(format!(
            "{place} already belongs to cluster {cluster}, which does not list it"
        ))
    } else {
        CliError::failed(format!(
            "{place} already belongs to cluster {cluster}, as machine {name}"
        ))
        .hint(format!(
            "remove it first, with a context of that cluster: `uc machine rm {name}`"
        ))
    };
    Err(error
        .hint(format!(
            "if that cluster no longer exists or no longer lists it, remove uc from the machine: run `sudo {INSTALLER} --uninstall` on it"
        ))
        .hint(if place == THIS_MACHINE {
            "to see that cluster: `uc --connect unix:///run/uc/uc.sock machine ls`".to_owned()
        } else {
            format!("to see that cluster: `uc --connect ssh://{place} machine ls`")
        }))
}

/// The endpoints, each with its port; `wg_port` or the default where none was given.
pub(super) fn parse_endpoints(given: &[String], wg_port: Option<u16>) -> CliResult<Vec<Endpoint>> {
    let port = wg_port.unwrap_or(WIREGUARD_PORT);
    let parse = |text: &String| Ok(text.parse::<Endpoint>()?.or_port(port));
    given.iter().map(parse).collect()
}

/// The text form of each endpoint, for the wire.
pub(super) fn texts(endpoints: &[Endpoint]) -> Vec<String> {
    endpoints.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn endpoints(
        given: &[&str],
        wg_port: Option<u16>,
        target: &str,
        detected: &[&str],
    ) -> Vec<String> {
        let arguments = SetupArgs {
            name: None,
            ssh_key: None,
            wg_endpoint: given.iter().map(|text| (*text).to_owned()).collect(),
            wg_port,
            install_from: None,
            yes: Yes { yes: true },
        };
        let given = arguments.checked_endpoints().unwrap();
        let detected: Vec<String> = detected.iter().map(|text| (*text).to_owned()).collect();
        arguments
            .all_endpoints(&given, &target.parse().unwrap(), &Env::default(), &detected)
            .await
    }

    #[tokio::test]
    async fn address_of_ssh_comes_last_unless_endpoints_were_given() {
        let target = "root@203.0.113.7";
        let (own, public) = ("10.0.0.5:51820", "203.0.113.7:51820");
        assert_eq!(endpoints(&[], None, target, &[own]).await, [own, public]);
        assert_eq!(
            endpoints(&[], None, target, &[own, public]).await,
            [own, public]
        );
        assert_eq!(
            endpoints(&[], Some(9), target, &[own, public]).await,
            ["10.0.0.5:9", "203.0.113.7:9"]
        );
        assert_eq!(
            endpoints(&["my.host", "10.9.9.9:7"], None, target, &[own]).await,
            ["my.host:51820", "10.9.9.9:7", own]
        );
    }

    #[tokio::test]
    async fn loopback_address_of_ssh_is_not_an_endpoint() {
        let none: [&str; 0] = [];
        assert_eq!(endpoints(&[], None, "root@127.0.0.1", &[]).await, none);
        assert_eq!(endpoints(&[], None, "root@::1", &[]).await, none);
    }

    #[test]
    fn member_of_a_cluster_is_refused_with_the_way_out() {
        let info = InfoResponse {
            cluster_id: "c1".into(),
            machine_name: "m1".into(),
            ..Default::default()
        };
        insta::assert_snapshot!(
            anstream::adapter::strip_str(&refuse_member("root@h", &info).unwrap_err().render())
                .to_string()
        );
    }
}
