//! The wanted state of this machine's mesh: a complete description that is handed over as a whole
//! and applied incrementally.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::key::{PrivateKey, PublicKey};

/// 1500 minus the 80 bytes WireGuard over IPv6 adds: fits every path that carries Ethernet frames.
pub const DEFAULT_MTU: u16 = 1420;

/// IPv6 needs at least this MTU on every link (RFC 8200, section 5).
pub const MIN_MTU: u16 = 1280;

/// Linux's limit for the name of an interface, in bytes without the final zero.
const MAX_INTERFACE_NAME: usize = 15;

/// Most peers of one machine: ten times the largest cluster planned for.
pub const MAX_PEERS: usize = 10_000;

/// Most endpoints of one peer. A wrong one costs 15 s each time it is tried.
pub const MAX_ENDPOINTS: usize = 16;

/// The whole configuration of this machine's mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshConfig {
    pub private_key: PrivateKey,
    /// UDP port on all addresses of the machine.
    pub listen_port: u16,
    /// Name of the mesh interface, `uc0` except in tests.
    pub interface: String,
    /// Addresses of the interface. The first IPv4 address, if there is one, is the preferred
    /// source of the IPv4 routes. It should be the machine's own IPv4 address as a /32. The
    /// container bridge has that address too, but with it here the routes do not depend on
    /// Docker.
    pub addresses: Vec<IpNet>,
    /// In bytes, 1280 to 65535; see [`DEFAULT_MTU`].
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// Every other machine of the cluster.
    pub peers: Vec<PeerConfig>,
}

/// Another machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerConfig {
    pub public_key: PublicKey,
    /// Addresses to try, best first. Without any, the peer has to contact this machine.
    pub endpoints: Vec<SocketAddr>,
    /// Addresses that the peer may send from, and whose traffic is sent to it.
    pub allowed_ips: Vec<IpNet>,
    /// Seconds between keepalives; 0 sends none.
    pub keepalive_s: u16,
    /// Not a member yet: the firewall lets the peer reach the API and nothing else.
    #[serde(default)]
    pub guest: bool,
}

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Linux would refuse the name, or it could not be used in a path.
    #[error(
        "invalid interface name {0:?}: use 1 to {MAX_INTERFACE_NAME} letters, digits, '-', '_' and '.', and do not start with '.'"
    )]
    Interface(String),
    /// Port 0 would be another port after each restart.
    #[error("invalid listen port 0: peers need a fixed port")]
    ListenPort,
    /// Below [`MIN_MTU`].
    #[error("invalid MTU {0}: IPv6 needs at least {MIN_MTU}")]
    Mtu(u16),
    /// More than [`MAX_PEERS`].
    #[error("too many peers: {0}, and at most {MAX_PEERS} are supported")]
    TooManyPeers(usize),
    /// Two peers have the same key.
    #[error("peer {0} is listed twice")]
    DuplicatePeer(PublicKey),
    /// A peer has the key of this machine.
    #[error("peer {0} has the key of this machine")]
    PeerIsSelf(PublicKey),
    /// The prefix would be a default route through the mesh.
    #[error(
        "invalid prefix {prefix} of peer {peer}: all traffic of this machine would be sent to it"
    )]
    DefaultRoute {
        peer: PublicKey,
        /// `0.0.0.0/0` or `::/0`.
        prefix: IpNet,
    },
    /// More than [`MAX_ENDPOINTS`].
    #[error(
        "too many endpoints of peer {peer}: {count}, and at most {MAX_ENDPOINTS} are supported"
    )]
    TooManyEndpoints { peer: PublicKey, count: usize },
}

/// Two peers claim the same addresses. The peer that is listed first gets them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressConflict {
    pub prefix: IpNet,
    /// The peer that gets the prefix.
    pub holder: PublicKey,
    /// The peer that does not.
    pub other: PublicKey,
}

impl fmt::Display for AddressConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is claimed by {} and {}; its traffic is sent to the first",
            self.prefix, self.holder, self.other
        )
    }
}

impl MeshConfig {
    /// Checks everything that can be checked without looking at the machine.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name = &self.interface;
        if name.is_empty()
            || name.len() > MAX_INTERFACE_NAME
            || !name.chars().all(valid)
            || name.starts_with('.')
        {
            return Err(ConfigError::Interface(name.clone()));
        }
        if self.listen_port == 0 {
            return Err(ConfigError::ListenPort);
        }
        if self.mtu < MIN_MTU {
            return Err(ConfigError::Mtu(self.mtu));
        }
        if self.peers.len() > MAX_PEERS {
            return Err(ConfigError::TooManyPeers(self.peers.len()));
        }
        let own = self.private_key.public();
        let mut seen = BTreeSet::new();
        for peer in &self.peers {
            let key = peer.public_key;
            if key == own {
                return Err(ConfigError::PeerIsSelf(key));
            }
            if !seen.insert(key) {
                return Err(ConfigError::DuplicatePeer(key));
            }
            if let Some(&prefix) = peer.allowed_ips.iter().find(|net| net.prefix_len() == 0) {
                return Err(ConfigError::DefaultRoute { peer: key, prefix });
            }
            if peer.endpoints.len() > MAX_ENDPOINTS {
                return Err(ConfigError::TooManyEndpoints {
                    peer: key,
                    count: peer.endpoints.len(),
                });
            }
        }
        Ok(())
    }

    /// This configuration without the peers that `wanted` does not have. `None` if it has them all.
    pub(crate) fn reduced_to(&self, wanted: &Self) -> Option<Self> {
        let kept: BTreeSet<PublicKey> = wanted.peers.iter().map(|peer| peer.public_key).collect();
        let mut reduced = self.clone();
        reduced.peers.retain(|peer| kept.contains(&peer.public_key));
        (reduced.peers.len() < self.peers.len()).then_some(reduced)
    }

    /// Which peer gets which addresses. Prefixes have no host bits, and each belongs to one peer.
    ///
    /// Two machines may have taken the same subnet on two sides of a partition. If the
    /// configuration were refused until that is settled, no other change could be applied
    /// either. So the peer that is listed first gets the prefix, and the conflict is reported.
    pub fn allocation(&self) -> (BTreeMap<PublicKey, BTreeSet<IpNet>>, Vec<AddressConflict>) {
        let mut holders: BTreeMap<IpNet, PublicKey> = BTreeMap::new();
        let mut allocation = BTreeMap::new();
        let mut conflicts = Vec::new();
        for peer in &self.peers {
            let mut own = BTreeSet::new();
            for prefix in peer.allowed_ips.iter().map(IpNet::trunc) {
                match holders.get(&prefix) {
                    Some(&holder) if holder != peer.public_key => {
                        conflicts.push(AddressConflict {
                            prefix,
                            holder,
                            other: peer.public_key,
                        });
                    }
                    _ => {
                        holders.insert(prefix, peer.public_key);
                        own.insert(prefix);
                    }
                }
            }
            allocation.insert(peer.public_key, own);
        }
        (allocation, conflicts)
    }

    /// The preferred source address of IPv4 routes: the machine's own IPv4 address.
    pub fn source_v4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|net| match net {
            IpNet::V4(net) => Some(net.addr()),
            IpNet::V6(_) => None,
        })
    }
}

fn default_mtu() -> u16 {
    DEFAULT_MTU
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn key(n: u8) -> PrivateKey {
        PrivateKey::from_bytes([n; 32])
    }

    pub(crate) fn peer(n: u8) -> PeerConfig {
        PeerConfig {
            public_key: key(n).public(),
            endpoints: vec![SocketAddr::from(([192, 0, 2, n], 51820))],
            allowed_ips: vec![format!("10.210.{n}.0/24").parse().unwrap()],
            keepalive_s: 25,
            guest: false,
        }
    }

    pub(crate) fn config(own: u8, peers: &[u8]) -> MeshConfig {
        MeshConfig {
            private_key: key(own),
            listen_port: 51820,
            interface: "uc0".to_owned(),
            addresses: vec![
                format!("10.210.{own}.1/32").parse().unwrap(),
                "fdcc::1/128".parse().unwrap(),
            ],
            mtu: DEFAULT_MTU,
            peers: peers.iter().map(|n| peer(*n)).collect(),
        }
    }

    #[test]
    fn config_survives_json_and_mtu_has_a_default() {
        let config = config(1, &[2, 3]);
        config.validate().unwrap();
        let mut json = serde_json::to_value(&config).unwrap();
        assert_eq!(
            serde_json::from_value::<MeshConfig>(json.clone()).unwrap(),
            config
        );
        json.as_object_mut().unwrap().remove("mtu");
        assert_eq!(
            serde_json::from_value::<MeshConfig>(json).unwrap().mtu,
            1420
        );
    }

    #[test]
    fn validate_names_each_fault() {
        let check = |change: fn(&mut MeshConfig)| {
            let mut config = config(1, &[2, 3]);
            change(&mut config);
            config.validate().unwrap_err()
        };
        assert_eq!(
            check(|c| c.interface = "a b".into()),
            ConfigError::Interface("a b".into())
        );
        assert_eq!(
            check(|c| c.interface = "..".into()),
            ConfigError::Interface("..".into())
        );
        assert!(matches!(
            check(|c| c.interface = "x".repeat(16)),
            ConfigError::Interface(_)
        ));
        assert_eq!(check(|c| c.listen_port = 0), ConfigError::ListenPort);
        assert_eq!(check(|c| c.mtu = 1279), ConfigError::Mtu(1279));
        assert_eq!(
            check(|c| c.peers.push(peer(2))),
            ConfigError::DuplicatePeer(key(2).public())
        );
        assert_eq!(
            check(|c| c.peers.push(peer(1))),
            ConfigError::PeerIsSelf(key(1).public())
        );
        assert!(matches!(
            check(|c| c.peers[0].allowed_ips.push("::/0".parse().unwrap())),
            ConfigError::DefaultRoute { .. }
        ));
        assert!(matches!(
            check(|c| c.peers[1].endpoints = vec!["192.0.2.1:1".parse().unwrap(); 17]),
            ConfigError::TooManyEndpoints { count: 17, .. }
        ));
    }

    #[test]
    fn allocation_gives_prefix_to_first_of_two_peers() {
        let mut config = config(1, &[2, 3]);
        config.peers[1].allowed_ips = vec![
            "10.210.2.7/24".parse().unwrap(),
            "10.210.9.0/24".parse().unwrap(),
        ];
        let (allocation, conflicts) = config.allocation();
        let prefix: IpNet = "10.210.2.0/24".parse().unwrap();
        assert_eq!(allocation[&key(2).public()], BTreeSet::from([prefix]));
        assert_eq!(
            allocation[&key(3).public()],
            BTreeSet::from(["10.210.9.0/24".parse().unwrap()])
        );
        assert_eq!(
            conflicts,
            [AddressConflict {
                prefix,
                holder: key(2).public(),
                other: key(3).public()
            }]
        );
    }

    #[test]
    fn allocation_ignores_prefix_listed_twice_by_one_peer() {
        let mut config = config(1, &[2]);
        config.peers[0]
            .allowed_ips
            .push("10.210.2.0/24".parse().unwrap());
        assert_eq!(config.allocation().1, []);
    }
}
