//! Keeps the tunnel in step with the store. Every member is a peer, and every valid join token is a
//! guest: a peer that can reach the API only.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use uc_api::layout::MESH_INTERFACE;
use uc_api::{Code, Failure};
use uc_mesh::config::MAX_ENDPOINTS;
use uc_mesh::{
    DEFAULT_MTU, MeshConfig, MeshError, MeshStatus, PeerConfig, PrivateKey, PublicKey,
    management_address,
};

use super::Part;
use crate::backoff::Backoff;
use crate::clock::now_ms;
use crate::cluster::machines::Machine;
use crate::cluster::member::Member;
use crate::cluster::view::Cluster;
use crate::endpoint_names::Resolved;
use crate::network::gateway;

/// Keeps NAT mappings open; the value that WireGuard recommends.
const KEEPALIVE_S: u16 = 25;
/// Interval at which the configuration is applied although no record has changed. A token expires
/// without a write, and the mesh process can have lost its configuration with its file. It changes
/// nothing that is as configured.
const RECHECK: Duration = Duration::from_secs(30);

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    let mut changes = member.changes();
    let mut names = member.endpoint_names.subscribe();
    let mut part = Part {
        member: &member,
        purpose: "configure the mesh",
        stage: |readiness| &mut readiness.mesh,
        backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(10)),
    };
    let mut recheck = interval_at(Instant::now() + RECHECK, RECHECK);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What the mesh process has, as far as this task knows.
    let mut applied: Option<MeshConfig> = None;
    loop {
        let done = part.until_done(|| apply(&member, applied.as_ref())).await;
        let Some(config) = done else { return };
        applied = Some(config);
        tokio::select! {
            running = changes.next() => if !running { return },
            changed = names.changed() => if changed.is_err() { return },
            _ = recheck.tick() => applied = None,
        }
    }
}

/// Applies the wanted configuration, unless it is the one that was applied last.
async fn apply(member: &Member, applied: Option<&MeshConfig>) -> Result<MeshConfig, Failure> {
    let cluster = member.cluster();
    let wanted = {
        let names = member.endpoint_names.borrow();
        mesh_config(&cluster, &Own::of(member), &names, now_ms())
    };
    if applied != Some(&wanted) {
        let failed = |error: MeshError| {
            Failure::new(Code::Unreachable, error.to_string())
                .hint("see `systemctl status uc-mesh` and `journalctl -u uc-mesh`")
        };
        member.mesh.apply(&wanted).await.map_err(failed)?;
        member.peers.retain(&cluster);
        check_guard(&member.mesh.status().await.map_err(failed)?)?;
    }
    Ok(wanted)
}

/// Fails if the firewall rules of the mesh are not in place.
pub(crate) fn check_guard(status: &MeshStatus) -> Result<(), Failure> {
    if status.guarded {
        return Ok(());
    }
    let reason = "uc-mesh does not protect the mesh with firewall rules: it is of an earlier version, or cannot write them";
    Err(Failure::new(Code::Refused, reason).hint(
        "start the installed version with `systemctl restart uc-mesh`, which interrupts the traffic between machines for a moment; see `journalctl -u uc-mesh`",
    ))
}

/// What the configuration needs to know about this machine.
#[derive(Debug, Clone)]
struct Own<'a> {
    key: &'a PrivateKey,
    port: u16,
    subnet: Ipv4Net,
}

impl<'a> Own<'a> {
    fn of(member: &'a Member) -> Self {
        Self {
            key: &member.key,
            port: member.membership.wireguard_port,
            subnet: member.membership.subnet,
        }
    }
}

/// The wanted configuration, computed without side effects.
fn mesh_config(cluster: &Cluster, own: &Own<'_>, names: &Resolved, now_ms: i64) -> MeshConfig {
    let own_key = own.key.public();
    let mut known: BTreeSet<PublicKey> = cluster.machines().iter().map(|m| m.key).collect();
    known.insert(own_key);
    let mut peers: Vec<PeerConfig> = cluster
        .others()
        .map(|machine| member_peer(machine, names))
        .collect();
    // A machine's key in a token's record would make the configuration invalid.
    let guests = cluster
        .tokens()
        .filter(|token| token.opens_mesh(now_ms) && known.insert(token.key));
    peers.extend(guests.map(|token| PeerConfig {
        public_key: token.key,
        endpoints: Vec::new(),
        allowed_ips: vec![host(IpAddr::V6(management_address(&token.key)))],
        keepalive_s: 0,
        guest: true,
    }));
    MeshConfig {
        private_key: own.key.clone(),
        listen_port: own.port,
        interface: MESH_INTERFACE.to_owned(),
        addresses: vec![
            host(IpAddr::V6(management_address(&own_key))),
            host(IpAddr::V4(gateway(own.subnet))),
        ],
        mtu: DEFAULT_MTU,
        peers,
    }
}

fn member_peer(machine: &Machine, names: &Resolved) -> PeerConfig {
    let management = host(IpAddr::V6(management_address(&machine.key)));
    let subnet = machine.subnet.map(IpNet::V4);
    let mut endpoints = names.socket_addresses(&machine.record.endpoints);
    endpoints.truncate(MAX_ENDPOINTS);
    PeerConfig {
        public_key: machine.key,
        endpoints,
        allowed_ips: std::iter::once(management).chain(subnet).collect(),
        keepalive_s: KEEPALIVE_S,
        guest: false,
    }
}

fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

#[cfg(test)]
mod tests;
