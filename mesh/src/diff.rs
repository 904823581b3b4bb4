//! The steps that change the existing tunnel to the wanted one.
//!
//! The difference is computed from the *observed* tunnel, not from the last configuration. So
//! applying a configuration again also repairs what another program removed, such as a flushed
//! route, and it completes a configuration that was applied in part. Endpoints are not included:
//! [`crate::endpoint`] chooses them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::MeshConfig;
use crate::key::PublicKey;

/// A tunnel, as far as a configuration determines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelState {
    /// A tunnel with another identity has to be opened from scratch.
    pub identity: Identity,
    /// In bytes.
    pub mtu: u32,
    /// Addresses of the interface, without link-local ones.
    pub addresses: BTreeSet<IpNet>,
    /// Our routes through the interface, with their preferred source addresses.
    pub routes: BTreeMap<IpNet, Option<IpAddr>>,
    pub peers: BTreeMap<PublicKey, PeerState>,
}

/// What cannot be changed without reopening the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The public half of the private key.
    pub public_key: PublicKey,
    pub interface: String,
    /// UDP. gotatun could change it, but sometimes treats its own reconnection as a fatal error.
    pub listen_port: u16,
}

/// A peer, as far as a configuration determines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerState {
    /// Addresses that the peer may use.
    pub allowed_ips: BTreeSet<IpNet>,
    /// Seconds between keepalives; 0 sends none.
    pub keepalive_s: u16,
}

/// The steps, to be taken in this order. Peers are removed before others are added, so that a
/// prefix can move from one peer to another. Routes come last, when there is a peer to take the
/// traffic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TunnelDiff {
    /// The new MTU; `None` if it does not change.
    pub mtu: Option<u32>,
    /// Peers to remove, with their sessions.
    pub remove_peers: Vec<PublicKey>,
    /// Peers that lose prefixes, with the prefixes that they keep.
    pub shrink_peers: Vec<(PublicKey, BTreeSet<IpNet>)>,
    /// Peers that change, with their final state. Their sessions survive the change.
    pub change_peers: Vec<(PublicKey, PeerState)>,
    pub add_peers: Vec<(PublicKey, PeerState)>,
    pub remove_addresses: Vec<IpNet>,
    pub add_addresses: Vec<IpNet>,
    pub remove_routes: Vec<IpNet>,
    /// Routes to add or replace, with their preferred source addresses.
    pub set_routes: Vec<(IpNet, Option<IpAddr>)>,
}

impl TunnelState {
    /// The tunnel that a configuration describes.
    pub fn wanted(config: &MeshConfig) -> Self {
        let source_v4 = config.source_v4().map(IpAddr::V4);
        let (allocation, _) = config.allocation();
        let routes = allocation.values().flatten().map(|prefix| match prefix {
            IpNet::V4(_) => (*prefix, source_v4),
            IpNet::V6(_) => (*prefix, None),
        });
        let routes = routes.collect();
        let keepalives: BTreeMap<_, _> = config
            .peers
            .iter()
            .map(|peer| (peer.public_key, peer.keepalive_s))
            .collect();
        let peers = allocation.into_iter().map(|(key, allowed_ips)| {
            let keepalive_s = *keepalives
                .get(&key)
                .expect("each key of the allocation is a peer's");
            (
                key,
                PeerState {
                    allowed_ips,
                    keepalive_s,
                },
            )
        });
        Self {
            identity: Identity {
                public_key: config.private_key.public(),
                interface: config.interface.clone(),
                listen_port: config.listen_port,
            },
            mtu: config.mtu.into(),
            addresses: config.addresses.iter().copied().collect(),
            routes,
            peers: peers.collect(),
        }
    }
}

/// The steps from one tunnel to another of the same identity.
pub fn diff(observed: &TunnelState, wanted: &TunnelState) -> TunnelDiff {
    let mut diff = TunnelDiff {
        mtu: (observed.mtu != wanted.mtu).then_some(wanted.mtu),
        remove_addresses: observed
            .addresses
            .difference(&wanted.addresses)
            .copied()
            .collect(),
        add_addresses: wanted
            .addresses
            .difference(&observed.addresses)
            .copied()
            .collect(),
        ..TunnelDiff::default()
    };
    for (key, old) in &observed.peers {
        match wanted.peers.get(key) {
            None => diff.remove_peers.push(*key),
            Some(new) if new == old => {}
            Some(new) => {
                let kept: BTreeSet<_> = old
                    .allowed_ips
                    .intersection(&new.allowed_ips)
                    .copied()
                    .collect();
                if kept != old.allowed_ips {
                    diff.shrink_peers.push((*key, kept));
                }
                diff.change_peers.push((*key, new.clone()));
            }
        }
    }
    let added = wanted
        .peers
        .iter()
        .filter(|(key, _)| !observed.peers.contains_key(key));
    diff.add_peers = added.map(|(key, peer)| (*key, peer.clone())).collect();
    let stale = observed
        .routes
        .keys()
        .filter(|prefix| !wanted.routes.contains_key(prefix));
    diff.remove_routes = stale.copied().collect();
    let missing = wanted
        .routes
        .iter()
        .filter(|(prefix, source)| observed.routes.get(prefix) != Some(source));
    diff.set_routes = missing.map(|(prefix, source)| (*prefix, *source)).collect();
    // The kernel drops routes whose preferred source address is removed, and refuses routes whose
    // source address does not exist yet. So when an address is removed, every route is set again
    // after the addresses are right.
    if !diff.remove_addresses.is_empty() {
        diff.set_routes = wanted
            .routes
            .iter()
            .map(|(prefix, source)| (*prefix, *source))
            .collect();
    }
    diff
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::tests::{config, key, peer};

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    /// The tunnel after the steps, taken in the documented order.
    fn apply(mut state: TunnelState, diff: TunnelDiff) -> TunnelState {
        let holders = |peers: &BTreeMap<PublicKey, PeerState>| {
            let all: Vec<IpNet> = peers
                .values()
                .flat_map(|peer| peer.allowed_ips.iter().copied())
                .collect();
            assert_eq!(
                all.len(),
                all.iter().collect::<BTreeSet<_>>().len(),
                "a prefix has two holders"
            );
        };
        state.mtu = diff.mtu.unwrap_or(state.mtu);
        for key in diff.remove_peers {
            assert!(state.peers.remove(&key).is_some());
        }
        for (key, allowed_ips) in diff.shrink_peers {
            state.peers.get_mut(&key).unwrap().allowed_ips = allowed_ips;
        }
        for (key, peer) in diff.change_peers {
            assert!(state.peers.insert(key, peer).is_some());
            holders(&state.peers);
        }
        for (key, peer) in diff.add_peers {
            assert!(state.peers.insert(key, peer).is_none());
            holders(&state.peers);
        }
        for address in &diff.remove_addresses {
            assert!(state.addresses.remove(address));
            let lost = |source: &Option<IpAddr>| *source == Some(address.addr());
            state.routes.retain(|_, source| !lost(source));
        }
        state.addresses.extend(diff.add_addresses);
        for prefix in diff.remove_routes {
            state.routes.remove(&prefix);
        }
        state.routes.extend(diff.set_routes);
        state
    }

    #[test]
    fn wanted_tunnel_has_a_route_per_prefix_with_own_ipv4_source() {
        let mut config = config(1, &[2]);
        config.peers[0].allowed_ips.push(net("fdcc::2/128"));
        let wanted = TunnelState::wanted(&config);
        let source = Some("10.210.1.1".parse().unwrap());
        assert_eq!(
            wanted.routes,
            BTreeMap::from([(net("10.210.2.0/24"), source), (net("fdcc::2/128"), None)])
        );
        assert_eq!(wanted.peers[&key(2).public()].keepalive_s, 25);
    }

    #[test]
    fn diff_of_same_configuration_is_empty() {
        let wanted = TunnelState::wanted(&config(1, &[2, 3]));
        assert_eq!(diff(&wanted, &wanted), TunnelDiff::default());
    }

    #[test]
    fn diff_ignores_endpoints_and_order_of_peers() {
        let old = config(1, &[2, 3]);
        let mut new = config(1, &[3, 2]);
        new.peers[0].endpoints.clear();
        assert_eq!(
            diff(&TunnelState::wanted(&old), &TunnelState::wanted(&new)),
            TunnelDiff::default()
        );
    }

    #[test]
    fn diff_for_a_third_peer_leaves_the_others_alone() {
        let old = TunnelState::wanted(&config(1, &[2]));
        let new = TunnelState::wanted(&config(1, &[2, 3]));
        let added = PeerState {
            allowed_ips: BTreeSet::from([net("10.210.3.0/24")]),
            keepalive_s: 25,
        };
        let expected = TunnelDiff {
            add_peers: vec![(key(3).public(), added)],
            set_routes: vec![(net("10.210.3.0/24"), Some("10.210.1.1".parse().unwrap()))],
            ..TunnelDiff::default()
        };
        assert_eq!(diff(&old, &new), expected);
        let back = TunnelDiff {
            remove_peers: vec![key(3).public()],
            remove_routes: vec![net("10.210.3.0/24")],
            ..TunnelDiff::default()
        };
        assert_eq!(diff(&new, &old), back);
    }

    #[test]
    fn diff_restores_flushed_route() {
        let wanted = TunnelState::wanted(&config(1, &[2, 3]));
        let mut observed = wanted.clone();
        observed.routes.remove(&net("10.210.2.0/24"));
        let steps = diff(&observed, &wanted);
        assert_eq!(
            steps.set_routes,
            [(net("10.210.2.0/24"), Some("10.210.1.1".parse().unwrap()))]
        );
        assert!(
            steps.remove_peers.is_empty()
                && steps.change_peers.is_empty()
                && steps.add_peers.is_empty()
        );
    }

    #[test]
    fn diff_moves_prefix_from_one_peer_to_another() {
        let old = TunnelState::wanted(&config(1, &[2, 3]));
        let mut config = config(1, &[2, 3]);
        config
            .peers
            .iter_mut()
            .for_each(|peer| peer.allowed_ips.clear());
        config.peers[0].allowed_ips = vec![net("10.210.3.0/24"), net("10.210.2.0/24")];
        let new = TunnelState::wanted(&config);
        let steps = diff(&old, &new);
        assert_eq!(steps.shrink_peers, [(key(3).public(), BTreeSet::new())]);
        assert_eq!(apply(old, steps), new);
    }

    prop_compose! {
        fn any_state()(
            own in 1_u8..3, peers in proptest::collection::btree_map(10_u8..18, (proptest::collection::vec(0_u8..8, 0..3), 0_u16..2), 0..6),
            mtu in 1400_u16..1402,
        ) -> TunnelState {
            let mut config = config(own, &[]);
            // The key is kept: a tunnel with another one would be reopened.
            config.private_key = key(1);
            config.mtu = mtu;
            for (n, (prefixes, keepalive_s)) in peers {
                let allowed_ips = prefixes.iter().map(|p| net(&format!("10.210.{p}.0/24"))).collect();
                config.peers.push(crate::config::PeerConfig { allowed_ips, keepalive_s, ..peer(n) });
            }
            TunnelState::wanted(&config)
        }
    }

    proptest! {
        #[test]
        fn diff_steps_lead_to_the_wanted_tunnel(observed in any_state(), wanted in any_state()) {
            let steps = diff(&observed, &wanted);
            let touched: BTreeSet<_> = steps.change_peers.iter().chain(&steps.add_peers).map(|(key, _)| *key)
                .chain(steps.remove_peers.iter().copied()).collect();
            for (key, peer) in &wanted.peers {
                let same = observed.peers.get(key) == Some(peer);
                prop_assert_eq!(same, !touched.contains(key), "a peer is touched if and only if it differs");
            }
            prop_assert_eq!(apply(observed, steps), wanted);
        }
    }
}
