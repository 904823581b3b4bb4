//! Docker Swarm over the same engines: one service on an overlay network. Its replicas have names
//! but no virtual address, which `uc` does not have either and not every kernel can do (IPVS).
//!
//! The client is started with `--detach`, since it would watch for five more seconds. The manager
//! is asked ten times a second instead.

use anyhow::{Context as _, bail};

use super::site::Site;
use super::{COMMAND, IMAGE, LABEL, MONITOR, PARALLELISM, REPLICAS, Span, Stage, Tool};

const SERVICE: &str = "web";
const NETWORK: &str = "uc-bench";
/// How long a stage takes at most, in seconds.
const PATIENCE: &str = "120";

/// A swarm whose manager is the first machine.
#[derive(Debug)]
pub(super) struct Swarm;

impl Swarm {
    pub(super) fn start(site: &Site) -> anyhow::Result<Self> {
        let manager = site.manager()?;
        let address = &manager.address;
        let token = manager.sh(&format!(
            "docker swarm init --advertise-addr {address} >/dev/null && docker swarm join-token --quiet worker"
        ))?;
        for machine in site.machines().iter().skip(1) {
            let own = &machine.address;
            machine.sh(&format!(
                "docker swarm join --token {} --advertise-addr {own} {address}:2377",
                token.trim()
            ))?;
        }
        manager.sh(&format!("docker network create --driver overlay {NETWORK}"))?;
        Ok(Self)
    }

    /// A command for the manager, and what its answer contains when it has been carried out.
    fn command(stage: Stage, version: &str) -> (String, Option<String>) {
        let [program, argument] = COMMAND;
        let label = format!("{LABEL}={version}");
        let update = format!(
            "docker service update --quiet --detach --no-resolve-image --container-label-add {label} {SERVICE}"
        );
        match stage {
            Stage::First => (
                format!(
                    "docker service create --quiet --detach --no-resolve-image --name {SERVICE} \
                     --network {NETWORK} --endpoint-mode dnsrr --replicas {REPLICAS} \
                     --container-label {label} --stop-signal SIGKILL --update-order start-first \
                     --update-parallelism {PARALLELISM} --update-monitor {MONITOR}s \
                     {IMAGE} {program} {argument}"
                ),
                Some(format!("\"RunningTasks\":{REPLICAS},")),
            ),
            Stage::Update => (update, Some("\"State\":\"completed\"".to_owned())),
            Stage::Nothing => (update, None),
        }
    }

    /// Why replicas do not run, as the manager reports it.
    fn reasons(site: &Site) -> anyhow::Result<String> {
        let reasons = site.manager()?.sh(&format!(
            "docker service ps --no-trunc --format '{{{{.CurrentState}}}} {{{{.Error}}}}' {SERVICE} | sort | uniq -c"
        ))?;
        Ok(reasons.trim_end().to_owned())
    }
}

impl Tool for Swarm {
    fn name(&self) -> &'static str {
        "swarm"
    }

    fn run(&mut self, site: &Site, stage: Stage, version: &str) -> anyhow::Result<Option<Span>> {
        let (command, answer) = Self::command(stage, version);
        let wait = answer.map_or_else(String::new, |answer| {
            format!(
                "until curl --silent --unix-socket /var/run/docker.sock \
                 'http://docker/v1.41/services?status=true' | grep --quiet '{answer}'; do sleep 0.1; done"
            )
        });
        let script = format!("date +%s%N\n{command} >/dev/null || exit\n{wait}\ndate +%s%N");
        let ended = site
            .manager()?
            .exec(&["timeout", PATIENCE, "sh", "-c", &script])?;
        // The exit code of `timeout`.
        if ended.code == Some(124) {
            bail!(
                "not all replicas run after {PATIENCE} s:\n{}",
                Self::reasons(site)?
            );
        }
        let printed = ended.checked()?.stdout;
        let times: Vec<u64> = printed
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .context("`date` printed no number")?;
        let [began, ended] = times[..] else {
            bail!("the script printed {printed:?}")
        };
        Ok(Some(Span { began, ended }))
    }

    fn remove(&mut self, site: &Site) -> anyhow::Result<()> {
        // It does not exist if it could not be created.
        let script = format!("docker service rm {SERVICE} || ! docker service inspect {SERVICE}");
        site.manager()?.sh(&script)?;
        Ok(())
    }
}
