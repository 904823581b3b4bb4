//! Keeps the tunnel in step with the store. Every member is a peer, and every valid join token is a
//! guest: a peer that can reach the API only.

mod usable;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use uc_api::layout::MESH_INTERFACE;
use uc_api::v1::{MachineRecord, TokenRecord};
use uc_api::{Code, Failure};
use uc_mesh::config::MAX_ENDPOINTS;
use uc_mesh::{DEFAULT_MTU, MeshConfig, PeerConfig, PrivateKey, PublicKey, management_address};

use self::usable::{Cluster, Problem, Usable, usable};
use crate::backoff::Backoff;
use crate::endpoint_names::Resolved;
use crate::member::{Member, Stage};
use crate::register::token_opens_mesh;

/// Keeps NAT mappings open; the value that WireGuard recommends.
const KEEPALIVE_S: u16 = 25;
/// Tokens expire without a write. This is how late the mesh may notice.
const RECHECK: Duration = Duration::from_secs(30);

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    let mut watch = member.store.watch();
    let mut names = member.endpoint_names.subscribe();
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut applied: Option<MeshConfig> = None;
    loop {
        let wanted = config(&member);
        let mut wait = RECHECK;
        if applied.as_ref() != Some(&wanted) {
            match member.mesh.apply(&wanted).await {
                Ok(()) => {
                    backoff.reset();
                    applied = Some(wanted);
                    member.peers.retain(&member.machines());
                    member.stage(|readiness| readiness.mesh = Stage::Ready);
                }
                Err(error) => {
                    wait = backoff.wait(rand::random());
                    tracing::warn!(%error, "cannot configure the mesh");
                    let failure = Failure::new(Code::Unreachable, error.to_string())
                        .hint("see `systemctl status uc-mesh` and `journalctl -u uc-mesh`");
                    member.stage(|readiness| readiness.mesh = Stage::Failed(failure));
                }
            }
        }
        tokio::select! {
            () = member.cancel.cancelled() => return,
            _ = watch.changed() => {}
            changed = names.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn config(member: &Member) -> MeshConfig {
    let now = member.now_ms();
    let tokens: Vec<TokenRecord> = member
        .view()
        .tokens()
        .into_iter()
        .filter(|token| token_opens_mesh(token, now))
        .collect();
    let names = member.endpoint_names.borrow();
    mesh_config(
        &member.key,
        &member.machines(),
        &tokens,
        &names,
        &Own::of(member),
    )
}

/// What the configuration needs to know about this machine.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub id: String,
    pub port: u16,
    pub subnet: Ipv4Net,
    /// The network of the cluster.
    pub network: Ipv4Net,
}

impl Own {
    fn of(member: &Member) -> Self {
        let membership = &member.membership;
        Self {
            id: membership.machine_id.clone(),
            port: membership.wireguard_port,
            subnet: membership.subnet,
            network: membership.network,
        }
    }
}

/// The wanted configuration, computed without side effects.
pub(crate) fn mesh_config(
    key: &PrivateKey,
    machines: &[MachineRecord],
    tokens: &[TokenRecord],
    names: &Resolved,
    own: &Own,
) -> MeshConfig {
    let own_address = management_address(&key.public());
    let cluster = Cluster {
        own_id: &own.id,
        own_key: key.public(),
        network: own.network,
        prefix_length: own.subnet.prefix_len(),
    };
    let (machines, _) = usable(machines, cluster);
    let mut known: BTreeSet<PublicKey> = machines.iter().map(|machine| machine.key).collect();
    known.insert(key.public());
    let mut peers: Vec<PeerConfig> = machines
        .iter()
        .filter(|machine| machine.record.id != own.id)
        .map(|machine| member_peer(machine, names))
        .collect();
    peers.extend(tokens.iter().filter_map(|token| {
        let public_key: PublicKey = token.public_key.parse().ok()?;
        // A machine's key in a token's record would make the configuration invalid.
        if !known.insert(public_key) {
            return None;
        }
        let allowed_ips = vec![host(IpAddr::V6(management_address(&public_key)))];
        Some(PeerConfig {
            public_key,
            endpoints: Vec::new(),
            allowed_ips,
            keepalive_s: 0,
            guest: true,
        })
    }));
    MeshConfig {
        private_key: key.clone(),
        listen_port: own.port,
        interface: MESH_INTERFACE.to_owned(),
        addresses: vec![
            host(IpAddr::V6(own_address)),
            host(IpAddr::V4(gateway(own.subnet))),
        ],
        mtu: DEFAULT_MTU,
        peers,
    }
}

fn member_peer(machine: &Usable<'_>, names: &Resolved) -> PeerConfig {
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

/// The members whose records can be used, as this machine sees them, and what is wrong with the
/// others.
pub(crate) fn usable_machines<'a>(
    member: &Member,
    machines: &'a [MachineRecord],
) -> (Vec<Usable<'a>>, Vec<Problem>) {
    let membership = &member.membership;
    let cluster = Cluster {
        own_id: &membership.machine_id,
        own_key: member.key.public(),
        network: membership.network,
        prefix_length: membership.subnet.prefix_len(),
    };
    usable(machines, cluster)
}

fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// The machine's own address in its subnet: the first host address.
pub(crate) fn gateway(subnet: Ipv4Net) -> std::net::Ipv4Addr {
    subnet.hosts().next().unwrap_or(subnet.network())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint_names::{Resolver, resolve_once};

    fn machine(id: &str, key: &PrivateKey, subnet: &str) -> MachineRecord {
        MachineRecord {
            id: id.into(),
            name: id.into(),
            public_key: key.public().to_string(),
            subnet: subnet.into(),
            endpoints: vec!["10.0.0.2:51820".into(), "nonsense".into()],
            ..Default::default()
        }
    }

    #[test]
    fn members_are_peers_with_their_subnet_and_tokens_are_guests_without() {
        let (own_key, other, guest) = (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        );
        let own = Own {
            id: "a".into(),
            port: 51820,
            subnet: "10.210.0.0/24".parse().unwrap(),
            network: "10.210.0.0/16".parse().unwrap(),
        };
        let token = TokenRecord {
            id: "t".into(),
            public_key: guest.public().to_string(),
            expires_at_ms: 1,
            ..TokenRecord::default()
        };
        let machines = [
            machine("a", &own_key, "10.210.0.0/24"),
            machine("b", &other, "10.210.1.0/24"),
        ];
        let config = mesh_config(&own_key, &machines, &[token], &Resolved::default(), &own);
        assert_eq!(config.peers.len(), 2);
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
        let (own_key, other) = (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        );
        let own = Own {
            id: "b".into(),
            port: 51820,
            subnet: "10.210.1.0/24".parse().unwrap(),
            network: "10.210.0.0/16".parse().unwrap(),
        };
        let at = |created_at_ms, record: MachineRecord| MachineRecord {
            created_at_ms,
            ..record
        };
        let machines = [
            at(9, machine("a", &own_key, "10.210.0.0/24")),
            at(1, machine("b", &own_key, "10.210.1.0/24")),
            at(2, machine("c", &other, "10.210.2.0/24")),
            at(3, machine("d", &other, "10.210.3.0/24")),
            at(1, machine("e", &other, "10.210.4.0/24")),
        ];
        let config = mesh_config(&own_key, &machines, &[], &Resolved::default(), &own);
        config.validate().unwrap();
        assert_eq!(config.peers.len(), 1);
        assert_eq!(config.peers[0].allowed_ips[1].to_string(), "10.210.3.0/24");
    }

    #[test]
    fn configuration_is_valid_whatever_the_records_are() {
        let (own_key, other) = (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        );
        let own = Own {
            id: "a".into(),
            port: 51820,
            subnet: "10.210.0.0/24".parse().unwrap(),
            network: "10.210.0.0/16".parse().unwrap(),
        };
        let machines = [
            machine("a", &own_key, "10.210.0.0/24"),
            machine("b", &other, "10.210.1.0/24"),
            machine("c", &other, "10.210.2.0/24"),
            machine("d", &own_key, "10.210.3.0/24"),
            MachineRecord {
                endpoints: (1..100).map(|n| format!("10.9.9.{n}:51820")).collect(),
                ..machine("e", &PrivateKey::generate().unwrap(), "0.0.0.0/0")
            },
        ];
        let token = TokenRecord {
            public_key: other.public().to_string(),
            ..TokenRecord::default()
        };
        let config = mesh_config(&own_key, &machines, &[token], &Resolved::default(), &own);
        config.validate().unwrap();
        let keys: Vec<_> = config.peers.iter().map(|peer| peer.public_key).collect();
        assert_eq!(keys.len(), 2, "b and e");
        assert_eq!(keys[0], other.public());
        assert_eq!(config.peers[1].allowed_ips.len(), 1, "not the subnet");
    }

    #[tokio::test]
    async fn changed_address_of_a_name_reaches_the_configuration() {
        let (own_key, other) = (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        );
        let own = Own {
            id: "a".into(),
            port: 51820,
            subnet: "10.210.0.0/24".parse().unwrap(),
            network: "10.210.0.0/16".parse().unwrap(),
        };
        let named = MachineRecord {
            endpoints: vec!["home.example.org:51820".into(), "10.0.0.2:51820".into()],
            ..machine("b", &other, "10.210.1.0/24")
        };
        let endpoints = async |address: &str| {
            let resolver = OneAddress(address.parse().unwrap());
            let names = resolve_once(&resolver, named.endpoints.clone()).await;
            let machines = std::slice::from_ref(&named);
            let config = mesh_config(&own_key, machines, &[], &names, &own);
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
}
