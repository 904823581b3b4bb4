//! The firewall rules that protect the mesh. The mesh process has them in place before it adds an
//! address to the interface, so they depend neither on the daemon nor on Docker.

#[cfg(test)]
mod fake;
mod rules;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use async_trait::async_trait;
use ipnet::{IpNet, Ipv6Net};

#[cfg(test)]
pub(crate) use self::fake::FakeGuard;
use crate::config::MeshConfig;
use crate::firewall::{self, Family, FirewallError};

/// The ports on which daemons talk to each other, all on the management address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerPorts {
    /// TCP.
    pub api: u16,
    /// UDP.
    pub membership: u16,
}

/// What the rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardSpec {
    pub interface: String,
    /// UDP port of WireGuard.
    pub listen_port: u16,
    /// The management address. Two of them while the tunnel changes from one to the other.
    pub addresses: BTreeSet<Ipv6Addr>,
    /// Addresses of the peers that reach nothing but the API.
    pub guests: BTreeSet<Ipv6Net>,
}

impl GuardSpec {
    /// What a configuration needs.
    pub fn of(config: &MeshConfig) -> Self {
        let v6 = |net: &IpNet| match net {
            IpNet::V6(net) => Some(net.trunc()),
            IpNet::V4(_) => None,
        };
        let guests = config.peers.iter().filter(|peer| peer.guest);
        Self {
            interface: config.interface.clone(),
            listen_port: config.listen_port,
            addresses: config
                .addresses
                .iter()
                .filter_map(|net| match net {
                    IpNet::V6(net) => Some(net.addr()),
                    IpNet::V4(_) => None,
                })
                .collect(),
            guests: guests
                .flat_map(|peer| peer.allowed_ips.iter().filter_map(v6))
                .collect(),
        }
    }

    /// The same, also with the addresses and guests of another configuration.
    pub fn and(mut self, other: &Self) -> Self {
        self.addresses.extend(&other.addresses);
        self.guests.extend(&other.guests);
        self
    }
}

/// Where the rules are applied: the kernel, or a fake in tests.
#[async_trait]
pub trait Guard: Send {
    /// Puts the rules in place, in place of those before. Applying the same again repairs what
    /// other programs removed.
    async fn ensure(&mut self, spec: &GuardSpec) -> Result<(), FirewallError>;

    /// Removes the rules. Succeeds if there are none.
    async fn remove(&mut self) -> Result<(), FirewallError>;
}

/// The rules in the kernel, by iptables and ip6tables. Needs CAP_NET_ADMIN and CAP_NET_RAW.
#[derive(Debug)]
pub struct IptablesGuard {
    ports: PeerPorts,
}

impl IptablesGuard {
    pub fn new(ports: PeerPorts) -> Self {
        Self { ports }
    }
}

#[async_trait]
impl Guard for IptablesGuard {
    async fn ensure(&mut self, spec: &GuardSpec) -> Result<(), FirewallError> {
        for family in Family::ALL {
            let chains = rules::chains(spec, self.ports, family);
            firewall::ensure_first(&chains, &rules::jumps(family)).await?;
        }
        Ok(())
    }

    async fn remove(&mut self) -> Result<(), FirewallError> {
        for family in Family::ALL {
            match firewall::remove(&rules::jumps(family)).await {
                // Without the program, the rules were never made.
                Ok(()) | Err(FirewallError::MissingProgram { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
