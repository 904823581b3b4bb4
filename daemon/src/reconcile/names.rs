//! Serves the cluster's names on this machine. The zone is rebuilt when records or liveness change,
//! and replaced as a whole.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use uc_api::v1::{Health, ReplicaState};
use uc_api::{Code, Failure, MachineId};
use uc_dns::{
    MachineState, ReplicaHealth, ServerConfig, Zone, ZoneAlias, ZoneInput, ZoneMachine, ZoneReplica,
};

use super::{Part, ready};
use crate::backoff::Backoff;
use crate::cluster::machines::Machine;
use crate::cluster::member::Member;
use crate::cluster::records::Replica;
use crate::cluster::view::Cluster;
use crate::network::gateway;

const PORT: u16 = 53;
/// A store that lost its file has all records of the cluster after this time. Until then, a service
/// without a record is not known to have been removed.
const RECORDS_ARRIVE: Duration = Duration::from_mins(1);
/// The host's resolver configuration, for names that are not in the zone.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    if !ready(&member, |readiness| &readiness.network).await {
        return;
    }
    let zone = zone(&member.cluster(), member.id, false);
    let (sender, receiver) = watch::channel(Arc::new(zone));
    tokio::join!(rebuild(&member, sender), serve(&member, receiver));
}

async fn rebuild(member: &Member, zones: watch::Sender<Arc<Zone>>) {
    let mut changes = member.changes();
    let mut complete_since: Option<Instant> = None;
    loop {
        let cluster = member.cluster();
        let is_complete = cluster.has_own_record() && !member.store.snapshot().is_rejoining();
        complete_since = is_complete.then(|| complete_since.unwrap_or_else(Instant::now));
        let pending = complete_since
            .map(|since| RECORDS_ARRIVE.saturating_sub(since.elapsed()))
            .filter(|rest| !rest.is_zero());
        let settled = complete_since.is_some() && pending.is_none();
        zones.send_replace(Arc::new(zone(&cluster, member.id, settled)));
        let continues = match pending {
            Some(rest) => changes.next_within(rest).await,
            None => changes.next().await,
        };
        if !continues {
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

/// The zone of a machine. `settled`: the store is complete.
///
/// A replica that its machine has to remove is of the past and has no name. Nor has one of a
/// service without a record, such as a machine that was evicted brings back: its short name would
/// hide the service of that name in another project. But while the records of a lost store arrive,
/// or if the store has no services at all, all that runs keeps its names.
fn zone(cluster: &Cluster, own: MachineId, settled: bool) -> Zone {
    let removed = |replica: &Replica| {
        settled
            && !cluster.services().is_empty()
            && !cluster.services().contains_key(&replica.service)
            && !cluster.has_faulty_service(&replica.service)
    };
    // A machine without a subnet of its own is left out, with its replicas: their addresses lead to
    // the containers of the machine that holds the subnet.
    let machines = cluster.machines().iter().filter_map(|machine| {
        Some(ZoneMachine {
            id: machine.id,
            name: machine.holds_name.then(|| machine.name.clone()),
            ipv4: gateway(machine.subnet?),
            state: match cluster.engine_away_since_ms(machine.id) {
                _ if cluster.is_down(machine.id) => MachineState::Down,
                Some(_) => MachineState::EngineAway,
                None => MachineState::Up,
            },
        })
    });
    let elsewhere = cluster
        .replicas()
        .filter(|(_, replica)| replica.record.own_resolvers)
        .filter_map(|(machine, replica)| address(machine, replica));
    let replicas = cluster.replicas().filter_map(|(machine, replica)| {
        let record = &replica.record;
        let retires = cluster.retirement(machine.id, &record.container_id);
        if retires.is_some() || removed(replica) {
            return None;
        }
        Some(ZoneReplica {
            ip: address(machine, replica)?,
            running: record.state() == ReplicaState::Running,
            health: match record.health() {
                Health::Healthy | Health::None | Health::Unspecified => ReplicaHealth::Healthy,
                Health::Starting => ReplicaHealth::Starting,
                Health::Unhealthy => ReplicaHealth::Unhealthy,
            },
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
    use uc_api::v1::{MachineRecord, ReplicaRecord, ServiceRecord};
    use uc_dns::{Kind, Lookup};
    use uc_mesh::PrivateKey;

    use super::*;
    use crate::cluster::machines::Own;

    fn key(number: u8) -> uc_mesh::PublicKey {
        PrivateKey::from_bytes([number; 32]).public()
    }

    fn id(number: u8) -> MachineId {
        MachineId::from_bytes([number; 16])
    }

    fn machine(number: u8) -> MachineRecord {
        MachineRecord {
            id: id(number).to_string(),
            name: format!("m{number}"),
            public_key: key(number).to_string(),
            subnet: format!("10.210.{number}.0/24"),
            ..MachineRecord::default()
        }
    }

    fn replica(service: &str, ip: [u8; 4]) -> Replica {
        Replica {
            service: format!("shop/{service}").parse().unwrap(),
            ip: Some(ip.into()),
            record: ReplicaRecord {
                container_id: format!("{service}-{ip:?}"),
                state: ReplicaState::Running.into(),
                ..ReplicaRecord::default()
            },
        }
    }

    /// Two machines, as the first sees them.
    fn two_machines() -> Cluster {
        let own = Own {
            id: id(1),
            key: key(1),
            network: "10.210.0.0/16".parse().unwrap(),
            prefix_length: 24,
        };
        Cluster::of_machines(own, [machine(1), machine(2)])
    }

    fn found(zone: &Zone, name: &str) -> Vec<[u8; 4]> {
        match zone.lookup(name, Kind::A, &mut StdRng::seed_from_u64(1)) {
            Lookup::Addresses(mut addresses) => {
                addresses.sort();
                addresses.iter().map(Ipv4Addr::octets).collect()
            }
            _ => Vec::new(),
        }
    }

    #[test]
    fn replica_whose_address_is_of_a_former_subnet_is_not_given() {
        // Machine 2 had the subnet of machine 1 before.
        let cluster = two_machines()
            .with_replica(id(1), replica("web", [10, 210, 1, 2]))
            .with_replica(id(2), replica("old", [10, 210, 1, 2]))
            .with_replica(id(2), replica("moved", [10, 210, 2, 2]));
        let zone = zone(&cluster, id(1), false);
        assert_eq!(found(&zone, "web.shop.internal"), [[10, 210, 1, 2]]);
        assert_eq!(found(&zone, "moved.shop.internal"), [[10, 210, 2, 2]]);
        assert!(found(&zone, "old.shop.internal").is_empty());
    }

    #[test]
    fn replica_that_is_to_be_removed_is_not_given() {
        let old = replica("web", [10, 210, 2, 2]);
        let container = old.record.container_id.clone();
        let cluster = two_machines()
            .with_replica(id(1), replica("web", [10, 210, 1, 2]))
            .with_replica(id(2), old)
            .with_retirement(id(2), &container);
        for settled in [false, true] {
            let zone = zone(&cluster, id(1), settled);
            assert_eq!(found(&zone, "web.internal"), [[10, 210, 1, 2]]);
        }
    }

    #[test]
    fn replica_without_a_service_has_no_name_once_the_store_is_complete() {
        let cluster = two_machines()
            .with_replica(id(1), replica("web", [10, 210, 1, 2]))
            .with_replica(id(2), replica("gone", [10, 210, 2, 2]));
        let gone = |cluster: &Cluster, settled| {
            let zone = zone(cluster, id(1), settled);
            assert!(!settled || !found(&zone, "web.internal").is_empty());
            found(&zone, "gone.internal")
        };
        // A store without services was lost with all that it had.
        assert_eq!(gone(&cluster, true), [[10, 210, 2, 2]]);
        let web = "shop/web".parse().unwrap();
        let cluster = cluster.with_service(web, ServiceRecord::default());
        assert!(gone(&cluster, true).is_empty());
        assert_eq!(gone(&cluster, false), [[10, 210, 2, 2]]);
    }

    #[test]
    fn starting_and_unhealthy_replicas_have_a_name_while_no_other_serves() {
        let with = |host: u8, health: Health| {
            let mut replica = replica("web", [10, 210, 1, host]);
            replica.record.health = health.into();
            replica
        };
        let cluster = two_machines()
            .with_replica(id(1), with(2, Health::Starting))
            .with_replica(id(1), with(3, Health::Unhealthy));
        let both = [[10, 210, 1, 2], [10, 210, 1, 3]];
        assert_eq!(found(&zone(&cluster, id(1), true), "web.internal"), both);
        let cluster = cluster.with_replica(id(1), with(4, Health::Healthy));
        assert_eq!(
            found(&zone(&cluster, id(1), true), "web.internal"),
            [[10, 210, 1, 4]]
        );
    }
}
