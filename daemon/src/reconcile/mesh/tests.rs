use proptest::prelude::*;
use uc_api::MachineId;
use uc_api::v1::{MachineRecord, TokenRecord};

use super::*;
use crate::cluster::machines;
use crate::cluster::member::Parts;
use crate::cluster::records::Token;
use crate::endpoint_names::{Resolver, resolve_once};
use crate::engine::DockerEngine;
use crate::fake_mesh::FakeMesh;
use crate::identity::Membership;
use crate::paths::Paths;

fn key(number: u8) -> PrivateKey {
    PrivateKey::from_bytes([number; 32])
}

/// A machine with this number and the key of that number.
fn machine(number: u8, key_number: u8, subnet: &str) -> MachineRecord {
    MachineRecord {
        id: MachineId::from_bytes([number; 16]).to_string(),
        name: format!("m{number}"),
        public_key: key(key_number).public().to_string(),
        subnet: subnet.into(),
        endpoints: vec!["10.0.0.2:51820".into(), "nonsense".into()],
        ..Default::default()
    }
}

/// Seen by the machine with number and key 1.
fn cluster(machines: impl IntoIterator<Item = MachineRecord>) -> Cluster {
    let own = machines::Own {
        id: MachineId::from_bytes([1; 16]),
        key: key(1).public(),
        network: "10.210.0.0/16".parse().unwrap(),
        prefix_length: 24,
    };
    Cluster::of_machines(own, machines)
}

fn token(key_number: u8, expires_at_ms: i64) -> Token {
    Token {
        key: key(key_number).public(),
        record: TokenRecord {
            id: format!("t{key_number}"),
            expires_at_ms,
            ..TokenRecord::default()
        },
    }
}

fn config(cluster: &Cluster, names: &Resolved) -> MeshConfig {
    let own_key = key(1);
    let own = Own {
        key: &own_key,
        port: 51820,
        subnet: "10.210.0.0/24".parse().unwrap(),
    };
    let config = mesh_config(cluster, &own, names, 100);
    config.validate().unwrap();
    config
}

#[test]
fn members_are_peers_with_their_subnet_and_valid_tokens_are_guests_without() {
    let machines = [
        machine(1, 1, "10.210.0.0/24"),
        machine(2, 2, "10.210.1.0/24"),
    ];
    let cluster = cluster(machines)
        .with_token(token(3, 101))
        .with_token(token(4, 100));
    let config = config(&cluster, &Resolved::default());
    assert_eq!(config.peers.len(), 2, "not the expired token");
    assert_eq!(
        config.peers[0].endpoints,
        ["10.0.0.2:51820".parse().unwrap()]
    );
    assert_eq!(config.peers[0].allowed_ips[1].to_string(), "10.210.1.0/24");
    assert_eq!(config.peers[1].allowed_ips.len(), 1);
    assert!(!config.peers[0].guest && config.peers[1].guest);
    assert_eq!(config.addresses[1].to_string(), "10.210.0.1/32");
}

#[test]
fn newest_of_two_records_with_one_key_is_the_peer() {
    let at = |created_at_ms, record: MachineRecord| MachineRecord {
        created_at_ms,
        ..record
    };
    let machines = [
        at(9, machine(9, 1, "10.210.0.0/24")),
        at(1, machine(1, 1, "10.210.1.0/24")),
        at(2, machine(2, 2, "10.210.2.0/24")),
        at(3, machine(3, 2, "10.210.3.0/24")),
        at(1, machine(4, 2, "10.210.4.0/24")),
    ];
    let config = config(&cluster(machines), &Resolved::default());
    assert_eq!(config.peers.len(), 1);
    assert_eq!(config.peers[0].allowed_ips[1].to_string(), "10.210.3.0/24");
}

#[test]
fn configuration_is_valid_whatever_the_records_are() {
    let machines = [
        machine(1, 1, "10.210.0.0/24"),
        machine(2, 2, "10.210.1.0/24"),
        machine(3, 2, "10.210.2.0/24"),
        machine(4, 1, "10.210.3.0/24"),
        MachineRecord {
            endpoints: (1..100).map(|n| format!("10.9.9.{n}:51820")).collect(),
            ..machine(5, 5, "0.0.0.0/0")
        },
    ];
    let cluster = cluster(machines).with_token(token(2, 101));
    let config = config(&cluster, &Resolved::default());
    let keys: Vec<_> = config.peers.iter().map(|peer| peer.public_key).collect();
    assert_eq!(keys, [key(2).public(), key(5).public()], "no guest");
    assert_eq!(config.peers[1].allowed_ips.len(), 1, "not the subnet");
}

proptest! {
    /// Whatever the texts of keys, names and subnets are, the configuration is accepted.
    #[test]
    fn configuration_is_valid_whatever_the_texts_are(
        records in proptest::collection::vec(
            (0u8..5, 0usize..4, 0usize..3, 0u8..4, 0i64..3, any::<bool>()),
            0..10,
        ),
        tokens in proptest::collection::vec((0u8..5, 0usize..4), 0..4),
    ) {
        let spelled = |number: u8, spelling: usize| {
            let key = key(number).public();
            [format!("{key}"), format!(" {key}"), format!("{key}\n"), "none".to_owned()]
                [spelling]
                .clone()
        };
        let records = records.into_iter().zip(1..).map(
            |((number, spelling, name, subnet, created_at_ms, lower), id)| {
                let record = machine(id, number, &format!("10.210.{subnet}.0/24"));
                let upper = record.id.to_uppercase();
                MachineRecord {
                    id: if lower { record.id.clone() } else { upper },
                    name: ["web", "db", "A b"][name].into(),
                    public_key: spelled(number, spelling),
                    created_at_ms,
                    ..record
                }
            },
        );
        let mut cluster = cluster(records);
        for (number, spelling) in tokens {
            if let Ok(key) = spelled(number, spelling).parse() {
                cluster = cluster.with_token(Token { key, ..token(number, 101) });
            }
        }
        config(&cluster, &Resolved::default());
    }
}

#[tokio::test]
async fn changed_address_of_a_name_reaches_the_configuration() {
    let named = MachineRecord {
        endpoints: vec!["home.example.org:51820".into(), "10.0.0.2:51820".into()],
        ..machine(2, 2, "10.210.1.0/24")
    };
    let endpoints = async |address: &str| {
        let resolver = OneAddress(address.parse().unwrap());
        let names = resolve_once(&resolver, named.endpoints.clone()).await;
        let config = config(&cluster([named.clone()]), &names);
        let peer = config.peers.first().unwrap();
        peer.endpoints
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        endpoints("203.0.113.1").await,
        ["203.0.113.1:51820", "10.0.0.2:51820"]
    );
    assert_eq!(
        endpoints("203.0.113.2").await,
        ["203.0.113.2:51820", "10.0.0.2:51820"]
    );
}

/// Resolves every name to one address.
struct OneAddress(IpAddr);

impl Resolver for OneAddress {
    async fn lookup(&self, _: &uc_api::HostName) -> Result<Vec<IpAddr>, String> {
        Ok(vec![self.0])
    }
}

/// The machine with number 1 as a member, without its tasks.
async fn open_member(directory: &tempfile::TempDir) -> (Arc<Member>, FakeMesh) {
    let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
    std::fs::create_dir_all(paths.state_dir()).unwrap();
    let mesh = FakeMesh::listen(&paths.mesh_socket());
    let own = machine(1, 1, "10.210.0.0/24");
    let parts = Parts {
        engine: Arc::new(DockerEngine::new(directory.path().join("no-docker.sock"))),
        membership: Membership {
            cluster_id: "c1".repeat(16),
            machine_id: own.id.clone(),
            network: "10.210.0.0/16".parse().unwrap(),
            subnet: "10.210.0.0/24".parse().unwrap(),
            wireguard_port: 51820,
            bootstrap: vec![own],
        },
        paths,
        key: key(1),
    };
    let (member, _links) = Member::open(parts).await.unwrap();
    (member, mesh)
}

#[tokio::test]
async fn mesh_process_without_firewall_rules_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let (member, mesh) = open_member(&directory).await;
    mesh.without_guard();
    let failure = apply(&member, None).await.unwrap_err();
    assert!(failure.hint.unwrap().contains("restart uc-mesh"));
    member.stop().await;
}

#[tokio::test]
async fn mesh_process_that_lost_its_configuration_gets_it_again() {
    let directory = tempfile::tempdir().unwrap();
    let (member, mesh) = open_member(&directory).await;
    let running = tokio::spawn(run(Arc::clone(&member)));
    mesh.changed_times(1).await;
    // It starts again, and its file is damaged.
    mesh.forget();
    tokio::time::pause();
    let again = tokio::time::timeout(RECHECK * 2, mesh.changed_times(2)).await;
    tokio::time::resume();
    member.cancel.cancel();
    running.await.unwrap();
    member.stop().await;
    again.expect("the configuration is applied again");
}
