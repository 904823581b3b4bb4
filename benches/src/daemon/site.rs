//! The measured cluster: its machines, their keys and addresses, and the records of its store.
//! Everything follows from a machine's number, so that the processes of a run agree without asking
//! each other. Only the key of the measured daemon is its own.

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use uc_api::layout::WIREGUARD_PORT;
use uc_api::v1::{
    ClusterRecord, Health, MachineFacts, MachineRecord, MountSpec, PortSpec, Protocol,
    ReplicaRecord, ReplicaState, ServiceRecord, ServiceSpec,
};
use uc_cluster_state::{Class, ClusterId, Kind, MachineId};
use uc_mesh::{PrivateKey, PublicKey};

/// Machines besides the measured one, numbered from 1.
pub(super) const OTHERS: u8 = 50;
/// The other machine whose store the measured daemon replicates with.
pub(super) const PEER: u8 = 1;
/// The number of the machine that the measured daemon runs on. Its id is the greatest, and of two
/// daemons the one with the smaller id calls.
pub(super) const MEASURED: u8 = OTHERS + 1;
/// The host number of the router between the machines.
pub(super) const ROUTER: u8 = 254;
/// Replicas of each other machine.
pub(super) const REPLICAS_OF_MACHINE: usize = 20;
/// All replicas of the cluster. The measured machine runs none.
pub(super) const REPLICAS: usize = OTHERS as usize * REPLICAS_OF_MACHINE;
/// Services of the cluster, each with ten replicas on ten machines.
pub(super) const SERVICES: usize = 100;
const SERVICES_OF_PROJECT: usize = 10;

/// Numbers of the daemon's kinds of records. A daemon that has others does not show these records,
/// and the run fails before it measures.
pub(super) const CLUSTER: u16 = 1;
pub(super) const MACHINE: u16 = 2;
pub(super) const SERVICE: u16 = 4;
pub(super) const REPLICA: u16 = 16;
pub(super) const FACTS: u16 = 18;
/// Keys of the records that exist once for a cluster, and once for a machine.
pub(super) const CLUSTER_KEY: &str = "cluster";
pub(super) const FACTS_KEY: &str = "facts";

/// The kinds that are used here.
pub(super) static KINDS: &[Kind] = &[
    kind(CLUSTER, "cluster", Class::Intent),
    kind(MACHINE, "machine", Class::Intent),
    kind(SERVICE, "service", Class::Intent),
    kind(REPLICA, "replica", Class::Observation),
    kind(FACTS, "facts", Class::Observation),
];

const fn kind(id: u16, name: &'static str, class: Class) -> Kind {
    Kind { id, name, class }
}

/// The cluster's id.
pub(super) const CLUSTER_ID: ClusterId = ClusterId([0xbe; 16]);
/// 2026-01-01, the age of all records.
const CREATED_MS: i64 = 1_767_225_600_000;

/// The id of a machine.
pub(super) fn id(machine: u8) -> MachineId {
    MachineId([machine; 16])
}

/// The key of a machine other than the measured one. It is no secret.
pub(super) fn private_key(machine: u8) -> PrivateKey {
    PrivateKey::from_bytes([machine; 32])
}

/// The public key of any machine. The measured daemon makes its own, which is `measured`.
pub(super) fn public_key(machine: u8, measured: PublicKey) -> PublicKey {
    if machine == MEASURED {
        measured
    } else {
        private_key(machine).public()
    }
}

/// A machine's address on the network that joins all of them (RFC 2544 reserves it for
/// benchmarks).
pub(super) fn address(machine: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, machine)
}

/// Where a machine's WireGuard listens.
pub(super) fn endpoint(machine: u8) -> SocketAddr {
    SocketAddr::new(address(machine).into(), WIREGUARD_PORT)
}

/// The subnet of a machine's containers.
pub(super) fn subnet(machine: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 210, machine, 0), 24)
}

pub(super) fn cluster() -> ClusterRecord {
    ClusterRecord {
        id: CLUSTER_ID.to_string(),
        network: "10.210.0.0/16".to_owned(),
        created_at_ms: CREATED_MS,
    }
}

/// The record of a machine.
pub(super) fn machine(machine: u8, measured: PublicKey) -> MachineRecord {
    MachineRecord {
        id: id(machine).to_string(),
        name: format!("m{machine}"),
        public_key: public_key(machine, measured).to_string(),
        subnet: subnet(machine).to_string(),
        endpoints: vec![endpoint(machine).to_string()],
        created_at_ms: CREATED_MS,
        ..MachineRecord::default()
    }
}

/// What a machine reports about itself.
pub(super) fn facts(machine: u8) -> MachineFacts {
    MachineFacts {
        hostname: format!("m{machine}"),
        os: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        kernel: "6.1.0-28-amd64".to_owned(),
        arch: "x86_64".to_owned(),
        docker_version: "20.10.24".to_owned(),
        uc_version: "0.1.0".to_owned(),
        cpus: 2,
        memory: 4 << 30,
        engine_away_since_ms: 0,
    }
}

fn project(service: usize) -> String {
    format!("shop{}", service / SERVICES_OF_PROJECT)
}

fn name(service: usize) -> String {
    format!("web{service}")
}

fn image(service: usize) -> String {
    format!("registry.example/shop/{}:1.27.3", name(service))
}

fn revision(service: usize) -> String {
    format!("{service:016x}")
}

fn port() -> PortSpec {
    PortSpec {
        container_port: 8_080,
        protocol: Protocol::Tcp.into(),
        ..PortSpec::default()
    }
}

/// The key of a service's record.
pub(super) fn service_key(service: usize) -> String {
    format!("{}/{}", project(service), name(service))
}

/// The record of a service, as a small compose file makes it.
pub(super) fn service(service: usize) -> ServiceRecord {
    let environment = (0..8).map(|n| (format!("SETTING_{n}"), format!("value {n} of a setting")));
    let spec = ServiceSpec {
        project: project(service),
        name: name(service),
        image: image(service),
        environment: environment.collect(),
        ports: vec![port()],
        replicas: (REPLICAS / SERVICES) as u32,
        aliases: vec![format!("alias{service}")],
        ..ServiceSpec::default()
    };
    ServiceRecord {
        spec: Some(spec),
        revision: revision(service),
        updated_at_ms: CREATED_MS,
        volumes: Vec::new(),
    }
}

/// The service of a machine's replica; `slot` counts them from 0.
pub(super) fn service_of(machine: u8, slot: usize) -> usize {
    (usize::from(machine - 1) * REPLICAS_OF_MACHINE + slot) % SERVICES
}

/// The container of a machine's replica.
pub(super) fn container_id(machine: u8, slot: usize) -> String {
    format!("{machine:02x}{slot:062x}")
}

/// The record of a machine's replica after the change with this number. Changes go round the
/// replicas of a machine, and each round changes the health, which the zone depends on.
pub(super) fn replica(machine: u8, slot: usize, change: u32) -> ReplicaRecord {
    let service = service_of(machine, slot);
    let [a, b, c, _] = subnet(machine).network().octets();
    let round = change.div_ceil(REPLICAS_OF_MACHINE as u32);
    let health = if round.is_multiple_of(2) {
        Health::Healthy
    } else {
        Health::Unhealthy
    };
    ReplicaRecord {
        container_id: container_id(machine, slot),
        container_name: format!("{}-{}-{machine}-{slot}", project(service), name(service)),
        project: project(service),
        service: name(service),
        revision: revision(service),
        image: image(service),
        state: ReplicaState::Running.into(),
        health: health.into(),
        ip: Ipv4Addr::new(a, b, c, 2 + slot as u8).to_string(),
        created_at_ms: CREATED_MS,
        ports: vec![port()],
        restart_count: change,
        mounts: vec![MountSpec {
            source: "data".to_owned(),
            target: "/var/lib/data".to_owned(),
            ..MountSpec::default()
        }],
        ..ReplicaRecord::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn every_service_has_its_replicas_on_as_many_machines() {
        let mut machines: BTreeMap<usize, BTreeSet<u8>> = BTreeMap::new();
        let mut containers = BTreeSet::new();
        for machine in 1..=OTHERS {
            for slot in 0..REPLICAS_OF_MACHINE {
                let service = service_of(machine, slot);
                machines.entry(service).or_default().insert(machine);
                assert!(containers.insert(container_id(machine, slot)));
            }
        }
        assert_eq!(containers.len(), REPLICAS);
        assert_eq!(machines.len(), SERVICES);
        assert!(machines.values().all(|on| on.len() == REPLICAS / SERVICES));
    }
}
