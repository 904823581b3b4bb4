//! The fields of `uc … -o json` that the demo uses, and commands in the network of containers.

use anyhow::Context as _;
use serde::Deserialize;
use uc_testbed::{Machine, Uc};

/// A line of `uc ps`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Replica {
    pub(super) service: String,
    pub(super) container_id: String,
    pub(super) current: bool,
    pub(super) state: String,
    pub(super) health: String,
    pub(super) ip: Option<String>,
    pub(super) machine: Place,
}

/// Where a replica is.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Place {
    pub(super) name: String,
}

/// A line of `uc machine ls`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) state: String,
}

/// All replicas on all machines.
pub(super) fn replicas(uc: &Uc) -> anyhow::Result<Vec<Replica>> {
    serde_json::from_value(uc.json(&["ps"])?).context("`uc ps -o json` is not as expected")
}

/// All machines of the cluster.
pub(super) fn machines(uc: &Uc) -> anyhow::Result<Vec<Member>> {
    serde_json::from_value(uc.json(&["machine", "ls"])?)
        .context("`uc machine ls -o json` is not as expected")
}

/// The container of a service on a machine.
pub(super) fn container_on<'a>(
    all: &'a [Replica],
    service: &str,
    machine: &str,
) -> anyhow::Result<&'a Replica> {
    all.iter()
        .find(|one| one.service == service && one.machine.name == machine && one.serves())
        .with_context(|| format!("no replica of {service} serves on {machine}"))
}

impl Replica {
    /// Whether it is running and, if it has a healthcheck, healthy.
    pub(super) fn serves(&self) -> bool {
        self.state == "running" && matches!(self.health.as_str(), "healthy" | "none")
    }

    /// The containers of these replicas, sorted.
    pub(super) fn ids(all: &[Self]) -> Vec<String> {
        let mut ids: Vec<String> = all.iter().map(|one| one.container_id.clone()).collect();
        ids.sort();
        ids
    }

    /// What a process of the container's network sees: the images are from scratch and hold no
    /// tools, so the machine's tools run in the container's network namespace.
    pub(super) fn in_its_network(&self, machine: &Machine, script: &str) -> anyhow::Result<String> {
        machine.sh(&format!(
            "set -e; {}; nsenter --target $pid --net {script}",
            self.pid()
        ))
    }

    /// The first line of such a process sets `pid` to the container's.
    pub(super) fn pid(&self) -> String {
        format!(
            "pid=$(docker inspect --format '{{{{.State.Pid}}}}' {})",
            self.container_id
        )
    }

    /// The name server that the container asks: Docker's own, which passes everything but container
    /// names on to uc's.
    pub(super) fn name_server(&self, machine: &Machine) -> anyhow::Result<String> {
        let file = machine.sh(&format!(
            "set -e; {}; cat /proc/$pid/root/etc/resolv.conf",
            self.pid()
        ))?;
        let server = file
            .lines()
            .find_map(|line| line.strip_prefix("nameserver "));
        let server = server
            .with_context(|| format!("no name server in\n{file}"))?
            .trim();
        Ok(server.to_owned())
    }
}
