//! What `init` and `add` share: arguments, a machine made ready, its addresses.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use uc_api::MachineName;
use uc_api::layout::WIREGUARD_PORT;
use uc_api::v1::{InfoRequest, InfoResponse};

use crate::cli::Yes;
use crate::connect::{Client, within};
use crate::connection::SshTarget;
use crate::env::Env;
use crate::error::{CliError, CliResult};
use crate::provision::installed::INSTALLER;
use crate::provision::{Artefacts, Host};
use crate::ui::Ui;

/// Arguments of both.
#[derive(Debug, Args)]
pub(super) struct SetupArgs {
    /// The machine's name in the cluster [default: its host name]
    #[arg(short, long)]
    pub(super) name: Option<String>,
    /// Private key for ssh
    #[arg(short = 'i', long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// Where other machines reach its WireGuard port, HOST or HOST:PORT; may be repeated [default:
    /// its own addresses]
    #[arg(long, value_name = "ENDPOINT")]
    wg_endpoint: Vec<String>,
    /// WireGuard's UDP port [default: 51820]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    wg_port: Option<u16>,
    /// Directory with uc, ucd and install.sh for the machine [default: where this program is]
    #[arg(long, value_name = "DIR")]
    install_from: Option<PathBuf>,
    #[command(flatten)]
    yes: Yes,
}

impl SetupArgs {
    /// Refuses a name that cannot be one before anything is done.
    pub(super) fn checked_name(&self) -> CliResult<String> {
        match &self.name {
            Some(name) => Ok(name.parse::<MachineName>()?.to_string()),
            None => Ok(String::new()),
        }
    }

    /// Whom to call.
    pub(super) fn target(&self, text: &str) -> CliResult<SshTarget> {
        Ok(SshTarget {
            key: self.ssh_key.clone(),
            ..text.parse::<SshTarget>()?
        })
    }

    /// 0: the usual.
    pub(super) fn wireguard_port(&self) -> u32 {
        self.wg_port.map_or(0, u32::from)
    }

    /// The files to install.
    pub(super) fn artefacts(&self) -> CliResult<Artefacts> {
        Artefacts::find(self.install_from.as_deref())
    }

    /// The endpoints that were given, else the address that ssh uses: behind a cloud's NAT the
    /// machine does not know it.
    pub(super) fn extra_endpoints(&self, target: Option<&SshTarget>) -> CliResult<Vec<String>> {
        if !self.wg_endpoint.is_empty() {
            return endpoints(&self.wg_endpoint, self.wg_port);
        }
        let port = self.wg_port.unwrap_or(WIREGUARD_PORT);
        let address = target.and_then(|target| target.host.parse::<IpAddr>().ok());
        Ok(address
            .filter(|ip| !ip.is_loopback())
            .map(|ip| with_port(&ip.to_string(), port))
            .into_iter()
            .collect())
    }

    /// Those that were given, those that the machine sees itself, the one that ssh uses; each once,
    /// best first.
    pub(super) fn all_endpoints(
        &self,
        target: &SshTarget,
        detected: &[String],
    ) -> CliResult<Vec<String>> {
        let port = self.wg_port.unwrap_or(WIREGUARD_PORT);
        let extra = self.extra_endpoints(Some(target))?;
        let detected = detected.iter().map(|text| {
            let host = text
                .rsplit_once(':')
                .map_or(text.as_str(), |(host, _)| host);
            if self.wg_port.is_some() {
                format!("{host}:{port}")
            } else {
                text.clone()
            }
        });
        let mut list: Vec<String> = if self.wg_endpoint.is_empty() {
            detected.chain(extra).collect()
        } else {
            extra.into_iter().chain(detected).collect()
        };
        let mut seen = std::collections::BTreeSet::new();
        list.retain(|text| seen.insert(text.clone()));
        Ok(list)
    }

    /// Looks at the machine, refuses one that belongs to a cluster, installs, and connects.
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
            // A daemon that does not run or does not fit is what the installation puts right.
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
        ui.confirm_if_possible(&question, self.yes.yes).await?;
        host.install(&artefacts, ui).await?;
        let client = host.client().await?;
        let info = info(&client).await?;
        refuse_member(&target.to_string(), &info)?;
        Ok((client, info))
    }
}

/// What a daemon says about its machine.
pub(super) async fn info(client: &Client) -> CliResult<InfoResponse> {
    Ok(client
        .machine()
        .info(within(30, InfoRequest {}))
        .await?
        .into_inner())
}

/// A machine can be in one cluster only.
pub(super) fn refuse_member(place: &str, info: &InfoResponse) -> CliResult {
    if info.cluster_id.is_empty() {
        return Ok(());
    }
    let (name, cluster) = (&info.machine_name, &info.cluster_id);
    let error = if name.is_empty() {
        // It is about to leave, or was taken off the list while it was away.
        CliError::failed(format!(
            "{place} already belongs to a cluster: {cluster}, which does not list it"
        ))
    } else {
        CliError::failed(format!(
            "{place} already belongs to a cluster: it is {name} of cluster {cluster}"
        ))
        .hint(format!(
            "take it out first, through its cluster: `uc machine rm {name}`"
        ))
    };
    Err(error
        .hint(format!(
            "if that cluster is gone, remove uc there: `{INSTALLER} --uninstall` on {place}"
        ))
        .hint(format!(
            "to use that cluster from here: `uc --connect ssh://{place} machine ls`"
        )))
}

/// Endpoints as typed, each with its port.
pub(super) fn endpoints(typed: &[String], wg_port: Option<u16>) -> CliResult<Vec<String>> {
    let port = wg_port.unwrap_or(WIREGUARD_PORT);
    typed.iter().map(|text| endpoint(text, port)).collect()
}

fn endpoint(text: &str, port: u16) -> CliResult<String> {
    let wrong = || {
        CliError::usage(format!(
            "`{text}` is not an endpoint: write HOST or HOST:PORT, an IPv6 address in brackets"
        ))
    };
    if text.is_empty() || text.contains(char::is_whitespace) || text.contains('/') {
        return Err(wrong());
    }
    if let Ok(ip) = text
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>()
    {
        return Ok(with_port(&ip.to_string(), port));
    }
    match text.rsplit_once(':') {
        None => Ok(with_port(text, port)),
        Some((host, given)) => {
            let given: u16 = given.parse().map_err(|_| wrong())?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            if given == 0 || host.is_empty() {
                return Err(wrong());
            }
            Ok(with_port(host, given))
        }
    }
}

fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(wg_endpoint: &[&str], wg_port: Option<u16>) -> SetupArgs {
        SetupArgs {
            name: None,
            ssh_key: None,
            wg_endpoint: wg_endpoint.iter().map(|text| (*text).to_owned()).collect(),
            wg_port,
            install_from: None,
            yes: Yes { yes: true },
        }
    }

    #[test]
    fn endpoints_get_their_port() {
        assert_eq!(endpoint("h", 5).unwrap(), "h:5");
        assert_eq!(endpoint("1.2.3.4:7", 5).unwrap(), "1.2.3.4:7");
        assert_eq!(endpoint("fd00::1", 5).unwrap(), "[fd00::1]:5");
        assert_eq!(endpoint("[fd00::1]:7", 5).unwrap(), "[fd00::1]:7");
        for text in ["", "h:", "h:0", "h:x", "a b", "udp://h"] {
            assert!(endpoint(text, 5).is_err(), "{text}");
        }
    }

    #[test]
    fn the_address_of_ssh_comes_last_unless_others_were_given() {
        let target: SshTarget = "root@203.0.113.7".parse().unwrap();
        let detected = ["10.0.0.5:51820".to_owned(), "203.0.113.7:51820".to_owned()];
        assert_eq!(
            arguments(&[], None)
                .all_endpoints(&target, &detected[..1])
                .unwrap(),
            ["10.0.0.5:51820", "203.0.113.7:51820"]
        );
        assert_eq!(
            arguments(&[], None)
                .all_endpoints(&target, &detected)
                .unwrap(),
            detected
        );
        assert_eq!(
            arguments(&[], Some(9))
                .all_endpoints(&target, &detected)
                .unwrap(),
            ["10.0.0.5:9", "203.0.113.7:9"]
        );
        assert_eq!(
            arguments(&["my.host"], None)
                .all_endpoints(&target, &detected[..1])
                .unwrap(),
            ["my.host:51820", "10.0.0.5:51820"]
        );
    }

    #[test]
    fn loopback_and_names_are_no_endpoints() {
        for target in ["root@127.0.0.1", "root@alias"] {
            let target: SshTarget = target.parse().unwrap();
            assert!(
                arguments(&[], None)
                    .extra_endpoints(Some(&target))
                    .unwrap()
                    .is_empty()
            );
        }
    }

    #[test]
    fn a_member_is_refused_with_the_way_out() {
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
