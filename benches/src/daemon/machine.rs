//! Another machine of the cluster, as a process in a network namespace of its own: the real tunnel
//! and the real membership, so that the measured daemon sees a machine that is up. It has no engine
//! and, except for the peer, no store.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use ipnet::IpNet;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use uc_api::layout::{GOSSIP_PORT, MESH_INTERFACE, WIREGUARD_PORT};
use uc_cluster_state::MachineId;
use uc_cluster_state::membership::{Membership, PairKey, Peer};
use uc_mesh::{
    DEFAULT_MTU, MeshConfig, PeerConfig, PublicKey, Tunnel as _, UserSpace, management_address,
};

use super::site;

/// The daemon's context for the keys of membership, without which its machines count as down.
const PAIR_KEY: &str = "uc 2026 membership pair key";
const KEEPALIVE_S: u16 = 25;
/// Pause before a handshake is tried again with peers that did not answer.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// Time for the tunnel to get its address, and the pause between two tries to use it.
const BIND_LIMIT: Duration = Duration::from_secs(10);
const BIND_AGAIN: Duration = Duration::from_millis(50);

/// What makes a machine be up.
#[derive(Debug)]
pub(super) struct Machine {
    tunnel: UserSpace,
    _membership: Membership,
}

impl Machine {
    /// Starts machine `number`. The key of the measured daemon is `measured`.
    pub(super) async fn start(number: u8, measured: PublicKey) -> anyhow::Result<Self> {
        let config = mesh(number, measured);
        config.validate()?;
        let mut tunnel = UserSpace::new();
        tunnel.apply(&config).await?;
        let endpoints: Vec<(PublicKey, SocketAddr)> = others(number)
            .map(|other| (site::public_key(other, measured), site::endpoint(other)))
            .collect();
        tunnel.set_endpoints(&endpoints).await?;
        let own = management_address(&site::public_key(number, measured));
        let socket = bind(own).await?;
        // Every run has a new cluster, so this is the machine's first start.
        let cancel = CancellationToken::new();
        let membership = Membership::start(socket, site::id(number), 1, cancel)?;
        membership.set_peers(peers(number, measured)?).await;
        Ok(Self {
            tunnel,
            _membership: membership,
        })
    }

    /// Keeps trying the peers without a session, as the mesh process does. Returns only if the
    /// tunnel fails.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                error = self.tunnel.failed() => return Err(error.into()),
                () = tokio::time::sleep(TRY_AGAIN) => {}
            }
            let peers = self.tunnel.peers().await?;
            let silent: Vec<(PublicKey, SocketAddr)> = peers
                .iter()
                .filter(|peer| peer.handshake_age.is_none())
                .filter_map(|peer| Some((peer.public_key, peer.endpoint?)))
                .collect();
            self.tunnel.set_endpoints(&silent).await?;
        }
    }
}

/// Binds the socket of membership. The address can be used a moment after the tunnel has it.
async fn bind(own: Ipv6Addr) -> anyhow::Result<UdpSocket> {
    let binding = async {
        loop {
            match UdpSocket::bind((own, GOSSIP_PORT)).await {
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                    tokio::time::sleep(BIND_AGAIN).await;
                }
                bound => return bound,
            }
        }
    };
    let bound = tokio::time::timeout(BIND_LIMIT, binding).await;
    let bound = bound.with_context(|| format!("the tunnel did not get the address {own}"))?;
    bound.with_context(|| format!("cannot listen on [{own}]:{GOSSIP_PORT}"))
}

fn others(number: u8) -> impl Iterator<Item = u8> {
    (1..=site::MEASURED).filter(move |other| *other != number)
}

fn mesh(number: u8, measured: PublicKey) -> MeshConfig {
    let own = management_address(&site::public_key(number, measured));
    let peer = |other| {
        let public_key = site::public_key(other, measured);
        PeerConfig {
            public_key,
            endpoints: vec![site::endpoint(other)],
            allowed_ips: vec![
                IpNet::from(IpAddr::from(management_address(&public_key))),
                site::subnet(other).into(),
            ],
            keepalive_s: KEEPALIVE_S,
            guest: false,
        }
    };
    MeshConfig {
        private_key: site::private_key(number),
        listen_port: WIREGUARD_PORT,
        interface: MESH_INTERFACE.to_owned(),
        addresses: vec![IpNet::from(IpAddr::from(own))],
        mtu: DEFAULT_MTU,
        peers: others(number).map(peer).collect(),
    }
}

fn peers(number: u8, measured: PublicKey) -> anyhow::Result<BTreeMap<MachineId, Peer>> {
    let own = site::private_key(number);
    let peer = |other| {
        let key = site::public_key(other, measured);
        let shared = own.shared_key(&key, PAIR_KEY);
        let shared = shared.with_context(|| format!("no secret with machine {other}"))?;
        let peer = Peer {
            address: (management_address(&key), GOSSIP_PORT).into(),
            key: PairKey::from_bytes(shared),
        };
        anyhow::Ok((site::id(other), peer))
    };
    others(number).map(peer).collect()
}
