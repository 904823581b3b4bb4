//! Serves the cluster's names on this machine. The zone is rebuilt when records or liveness change,
//! and replaced as a whole.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use uc_api::v1::{Health, ReplicaState};
use uc_api::{Code, Failure, MachineId};
use uc_dns::{ServerConfig, Zone, ZoneAlias, ZoneInput, ZoneMachine, ZoneReplica};

use super::{Part, ready};
use crate::backoff::Backoff;
use crate::cluster::machines::Machine;
use crate::cluster::member::Member;
use crate::cluster::records::Replica;
use crate::cluster::view::Cluster;
use crate::network::gateway;

const PORT: u16 = 53;
/// The host's resolver configuration, for names that are not in the zone.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    if !ready(&member, |readiness| &readiness.network).await {
        return;
    }
    let (sender, receiver) = watch::channel(Arc::new(zone(&member.cluster(), member.id)));
    tokio::join!(rebuild(&member, sender), serve(&member, receiver));
}

async fn rebuild(member: &Member, zones: watch::Sender<Arc<Zone>>) {
    let mut changes = member.changes();
    loop {
        zones.send_replace(Arc::new(zone(&member.cluster(), member.id)));
        if !changes.next().await {
            return;
        }
    }
}

async fn serve(member: &Member, zones: watch::Receiver<Arc<Zone>>) {
    let mut part = Part {
        member,
        purpose: "serve DNS",
        stage: |readiness| &mut readiness.dns,
        backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(10)),
    };
    if let Some(server) = part.until_done(|| bind(member)).await {
        server.run(zones, member.cancel.child_token()).await;
    }
}

async fn bind(member: &Member) -> Result<uc_dns::Server, Failure> {
    // A host without the file has no resolver, and only the zone is served.
    let resolv_conf = std::fs::read_to_string(RESOLV_CONF).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read {RESOLV_CONF}: names outside the cluster do not resolve");
        String::new()
    });
    let config = ServerConfig {
        listen: vec![SocketAddr::new(
            gateway(member.membership.subnet).into(),
            PORT,
        )],
        upstreams: uc_dns::resolv_conf::upstreams(&resolv_conf),
        ..ServerConfig::default()
    };
    uc_dns::Server::bind(config).await.map_err(|error| {
        Failure::new(Code::Refused, error.to_string()).hint(format!(
            "find the program that uses the port: `ss -lunp 'sport = :{PORT}'`"
        ))
    })
}

/// The address that leads to a replica. A machine that takes another subnet has replicas with
/// addresses of the former one until it has moved them, and those lead to the containers of the
/// machine that holds it.
fn address(machine: &Machine, replica: &Replica) -> Option<Ipv4Addr> {
    let subnet = machine.subnet?;
    replica.ip.filter(|ip| subnet.contains(ip))
}

fn zone(cluster: &Cluster, own: MachineId) -> Zone {
    // A machine without a subnet of its own is left out, with its replicas: their addresses lead to
    // the containers of the machine that holds the subnet.
    let machines = cluster.machines().iter().filter_map(|machine| {
        Some(ZoneMachine {
            id: machine.id,
            name: machine.holds_name.then(|| machine.name.clone()),
            ipv4: gateway(machine.subnet?),
            up: !cluster.is_down(machine.id),
        })
    });
    let elsewhere = cluster
        .replicas()
        .filter(|(_, replica)| replica.record.own_resolvers)
        .filter_map(|(machine, replica)| address(machine, replica));
    let replicas = cluster.replicas().filter_map(|(machine, replica)| {
        let record = &replica.record;
        Some(ZoneReplica {
            ip: address(machine, replica)?,
            running: record.state() == ReplicaState::Running,
            unhealthy: matches!(record.health(), Health::Unhealthy | Health::Starting),
            draining: record.draining,
            project: replica.service.project.clone(),
            service: replica.service.service.clone(),
            machine_id: machine.id,
        })
    });
    let aliases = cluster.services().iter().flat_map(|(key, record)| {
        let aliases = record.spec.iter().flat_map(|spec| &spec.aliases);
        aliases.map(move |name| ZoneAlias {
            service: key.clone(),
            name: name.clone(),
        })
    });
    Zone::build(&ZoneInput {
        local_machine: Some(own),
        machines: machines.collect(),
        services: cluster.services().keys().cloned().collect(),
        aliases: aliases.collect(),
        elsewhere: elsewhere.collect(),
        replicas: replicas.collect(),
    })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;
    use uc_api::v1::{MachineRecord, ReplicaRecord};
    use uc_dns::{Kind, Lookup};
    use uc_mesh::PrivateKey;

    use super::*;
    use crate::cluster::machines::Own;

    #[test]
    fn replica_whose_address_is_of_a_former_subnet_is_not_given() {
        let key = |number| PrivateKey::from_bytes([number; 32]).public();
        let id = |number| MachineId::from_bytes([number; 16]);
        let machine = |number: u8| MachineRecord {
            id: id(number).to_string(),
            name: format!("m{number}"),
            public_key: key(number).to_string(),
            subnet: format!("10.210.{number}.0/24"),
            ..MachineRecord::default()
        };
        let replica = |service: &str, ip: [u8; 4]| Replica {
            service: format!("shop/{service}").parse().unwrap(),
            ip: Some(ip.into()),
            record: ReplicaRecord {
                container_id: service.into(),
                state: ReplicaState::Running.into(),
                ..ReplicaRecord::default()
            },
        };
        let own = Own {
            id: id(1),
            key: key(1),
            network: "10.210.0.0/16".parse().unwrap(),
            prefix_length: 24,
        };
        // Machine 2 had the subnet of machine 1 before.
        let cluster = Cluster::of_machines(own, [machine(1), machine(2)])
            .with_replica(id(1), replica("web", [10, 210, 1, 2]))
            .with_replica(id(2), replica("old", [10, 210, 1, 2]))
            .with_replica(id(2), replica("moved", [10, 210, 2, 2]));
        let zone = zone(&cluster, id(1));
        let mut rng = StdRng::seed_from_u64(1);
        let mut of = |name: &str| zone.lookup(name, Kind::A, &mut rng);
        let given = |ip: [u8; 4]| Lookup::Addresses(vec![ip.into()]);
        assert_eq!(of("web.shop.internal"), given([10, 210, 1, 2]));
        assert_eq!(of("moved.shop.internal"), given([10, 210, 2, 2]));
        assert!(!matches!(of("old.shop.internal"), Lookup::Addresses(_)));
    }
}
