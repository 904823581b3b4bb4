//! WireGuard in this process: gotatun over a TUN device.
//!
//! For a peer without a session and without traffic, gotatun stops sending handshakes after 90 s,
//! as WireGuard prescribes. [`crate::endpoint`] starts another one every 15 s.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use std::{future, io};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use gotatun::device::{DefaultDeviceTransports, Device, DeviceBuilder, Error as DeviceError, Peer};
use gotatun::tun::tun_async_device::TunDevice;
use ipnet::IpNet;
use ipnetwork::IpNetwork;
use tokio::time::Instant;

use super::host::HostLink;
use super::{Applied, Observed, Tunnel, TunnelError, TunnelPeer};
use crate::config::MeshConfig;
use crate::diff::{Identity, PeerState, TunnelDiff, TunnelState, diff};
use crate::key::PublicKey;

/// How long to wait for the port of a tunnel that was just closed. The port stays in use for some
/// milliseconds until the tunnel's tasks have ended.
const PORT_RELEASE_LIMIT: Duration = Duration::from_secs(1);

/// Handshakes that are started before other tasks of this thread can run. Each costs one or two
/// Curve25519 computations, about 0.1 ms.
const HANDSHAKES_AT_A_TIME: usize = 8;

/// A tunnel by gotatun. Needs CAP_NET_ADMIN and `/dev/net/tun`.
#[derive(Default)]
pub struct UserSpace {
    open: Option<Open>,
}

struct Open {
    device: Device<DefaultDeviceTransports>,
    link: HostLink,
    identity: Identity,
}

impl std::fmt::Debug for UserSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserSpace")
            .field("identity", &self.open.as_ref().map(|open| &open.identity))
            .finish()
    }
}

impl UserSpace {
    /// A tunnel that is not open yet. The first configuration opens it.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Tunnel for UserSpace {
    async fn apply(&mut self, config: &MeshConfig) -> Result<Applied, TunnelError> {
        let wanted = TunnelState::wanted(config);
        let mut applied = Applied::Changed;
        if self
            .open
            .as_ref()
            .is_none_or(|open| open.identity != wanted.identity)
        {
            // Check that the new port is free while the old tunnel still works.
            if self
                .open
                .as_ref()
                .is_none_or(|open| open.identity.listen_port != config.listen_port)
            {
                let probe =
                    tokio::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, config.listen_port)).await;
                let failed = |error: io::Error| TunnelError::Listen {
                    port: config.listen_port,
                    reason: error.to_string(),
                };
                drop(probe.map_err(failed)?);
            }
            self.close().await?;
            self.open = Some(Open::new(config, wanted.identity.clone()).await?);
            applied = Applied::Opened;
        }
        if let Some(open) = &mut self.open {
            let observed = open.observe().await?;
            open.carry_out(diff(&observed, &wanted)).await?;
        }
        Ok(applied)
    }

    async fn set_endpoints(
        &mut self,
        endpoints: &[(PublicKey, SocketAddr)],
    ) -> Result<(), TunnelError> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        for (key, endpoint) in endpoints {
            let endpoint = *endpoint;
            let result = open
                .device
                .modify_peer(&dalek(key), |peer| peer.set_endpoint(Some(endpoint)))
                .await;
            result.map_err(|error| other("set an endpoint", &error))?;
        }
        for (n, (key, _)) in endpoints.iter().enumerate() {
            // The future sends the initiation at its first poll and then waits for the answer,
            // which is not needed here: it is polled once and dropped. If a packet in
            // flight has locked the peer at this moment, nothing is sent, and gotatun's
            // timer or the next try sends it. It is unconstrained because tokio's
            // cooperative budget could make that one poll yield.
            let key = dalek(key);
            let handshake = tokio::task::unconstrained(open.device.force_handshake(&key));
            if let Some(Err(error)) = handshake.now_or_never() {
                tracing::debug!(%error, "no handshake started");
            }
            if n % HANDSHAKES_AT_A_TIME == HANDSHAKES_AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn peers(&mut self) -> Result<Vec<TunnelPeer>, TunnelError> {
        let Some(open) = &self.open else {
            return Ok(Vec::new());
        };
        // gotatun waits forever for packets of a deleted interface, because the kernel reports that
        // as an error and not as readable.
        if !open.link.is_up().await? {
            return Err(TunnelError::Lost {
                interface: open.identity.interface.clone(),
            });
        }
        let peers = open.device.peers().await.into_iter().filter_map(|entry| {
            Some(TunnelPeer {
                public_key: PublicKey::from_bytes(entry.peer.public_key.to_bytes()).ok()?,
                endpoint: entry.peer.endpoint,
                handshake_age: entry.stats.last_handshake,
                rx_bytes: entry.stats.rx_bytes as u64,
                tx_bytes: entry.stats.tx_bytes as u64,
                allowed_ips: entry
                    .peer
                    .allowed_ips
                    .iter()
                    .filter_map(from_ipnetwork)
                    .collect(),
            })
        });
        Ok(peers.collect())
    }

    async fn failed(&mut self) -> TunnelError {
        match &mut self.open {
            Some(open) => {
                open.device.wait().await;
                TunnelError::Lost {
                    interface: open.identity.interface.clone(),
                }
            }
            None => future::pending().await,
        }
    }

    async fn close(&mut self) -> Result<(), TunnelError> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        open.device.stop().await;
        open.link.delete().await
    }
}

impl Open {
    /// Opens the interface, then starts to listen. The interface has to be up when the first packet
    /// of a peer arrives, or gotatun's write fails and ends the tunnel.
    async fn new(config: &MeshConfig, identity: Identity) -> Result<Self, TunnelError> {
        let tun = TunDevice::from_name(&identity.interface)
            .map_err(|error| open_error(&identity, &error))?;
        let link = HostLink::find(&identity.interface).await?;
        link.bring_up(config.mtu.into()).await?;
        let device = DeviceBuilder::new()
            .with_default_udp()
            .with_ip(tun)
            .build()
            .await
            .map_err(|error| other("start", &error))?;
        // Without a key and peers, the device has not started yet. Setting the key starts it.
        let port = config.listen_port;
        let deadline = Instant::now() + PORT_RELEASE_LIMIT;
        loop {
            let secret = config.private_key.secret();
            let started = device
                .write(async move |device| {
                    device.set_listen_port(port);
                    device.set_private_key(secret).await;
                })
                .await;
            match started {
                Ok(()) => break,
                Err(DeviceError::Bind(..)) if Instant::now() < deadline => {
                    tokio::time::sleep(PORT_RELEASE_LIMIT / 20).await;
                    // The device ignores a key and port that are already set, so unset the port.
                    let unset = device.write(async |device| device.set_listen_port(0)).await;
                    unset.map_err(|error| other("start", &error))?;
                }
                Err(error) => return Err(listen_error(port, &error)),
            }
        }
        Ok(Self {
            device,
            link,
            identity,
        })
    }

    async fn observe(&self) -> Result<Observed, TunnelError> {
        let peers: BTreeMap<_, _> = self
            .device
            .peers()
            .await
            .into_iter()
            .filter_map(|entry| {
                let key = PublicKey::from_bytes(entry.peer.public_key.to_bytes()).ok()?;
                let allowed_ips = entry
                    .peer
                    .allowed_ips
                    .iter()
                    .filter_map(from_ipnetwork)
                    .collect();
                Some((
                    key,
                    PeerState {
                        allowed_ips,
                        keepalive_s: entry.peer.keepalive.unwrap_or(0),
                    },
                ))
            })
            .collect();
        Ok(Observed {
            identity: self.identity.clone(),
            mtu: self.link.mtu().await?,
            addresses: self.link.addresses().await?,
            routes: self.link.routes().await?,
            peers,
        })
    }

    async fn carry_out(&mut self, steps: TunnelDiff) -> Result<(), TunnelError> {
        if let Some(mtu) = steps.mtu {
            self.link.set_mtu(mtu).await?;
        }
        for prefix in &steps.remove_routes {
            self.link.remove_route(*prefix).await?;
        }
        for key in &steps.remove_peers {
            tracing::info!(peer = %key.short(), "peer removed");
            self.device
                .remove_peer(&dalek(key))
                .await
                .map_err(|error| other("remove a peer", &error))?;
        }
        for (key, allowed_ips) in &steps.shrink_peers {
            self.set_allowed_ips(key, allowed_ips, None).await?;
        }
        for (key, peer) in &steps.change_peers {
            tracing::info!(peer = %key.short(), "peer changed");
            self.set_allowed_ips(key, &peer.allowed_ips, Some(peer.keepalive_s))
                .await?;
        }
        for (key, peer) in &steps.add_peers {
            tracing::info!(peer = %key.short(), "peer added");
            let mut new = Peer::new(dalek(key));
            new.allowed_ips = to_ipnetworks(&peer.allowed_ips);
            new.keepalive = keepalive(peer.keepalive_s);
            self.device
                .add_peer(new)
                .await
                .map_err(|error| other("add a peer", &error))?;
        }
        for address in &steps.remove_addresses {
            self.link.remove_address(*address).await?;
        }
        for address in &steps.add_addresses {
            self.link.add_address(*address).await?;
        }
        for (prefix, source) in &steps.set_routes {
            self.link.set_route(*prefix, *source).await?;
        }
        Ok(())
    }

    async fn set_allowed_ips(
        &mut self,
        key: &PublicKey,
        allowed_ips: &BTreeSet<IpNet>,
        keepalive_s: Option<u16>,
    ) -> Result<(), TunnelError> {
        let allowed_ips = to_ipnetworks(allowed_ips);
        let key = dalek(key);
        let change = self.device.modify_peer(&key, |peer| {
            peer.clear_allowed_ips();
            peer.add_allowed_ips(allowed_ips);
            if let Some(seconds) = keepalive_s {
                peer.set_keepalive(keepalive(seconds));
            }
        });
        change
            .await
            .map_err(|error| other("change a peer", &error))?;
        Ok(())
    }
}

fn dalek(key: &PublicKey) -> x25519_dalek::PublicKey {
    x25519_dalek::PublicKey::from(*key.as_bytes())
}

fn keepalive(seconds: u16) -> Option<u16> {
    (seconds > 0).then_some(seconds)
}

fn to_ipnetworks(nets: &BTreeSet<IpNet>) -> Vec<IpNetwork> {
    nets.iter()
        .filter_map(|net| IpNetwork::new(net.addr(), net.prefix_len()).ok())
        .collect()
}

fn from_ipnetwork(net: &IpNetwork) -> Option<IpNet> {
    IpNet::new(net.network(), net.prefix()).ok()
}

fn other(action: &'static str, error: &DeviceError) -> TunnelError {
    TunnelError::Other {
        action,
        reason: error.to_string(),
    }
}

fn listen_error(port: u16, error: &DeviceError) -> TunnelError {
    match error {
        DeviceError::Bind(source, _) => TunnelError::Listen {
            port,
            reason: source.to_string(),
        },
        error => other("start", error),
    }
}

fn open_error(identity: &Identity, error: &dyn std::error::Error) -> TunnelError {
    let mut reason = error.to_string();
    let hint = if reason.contains("No such file") {
        "load the kernel module `tun`, or start the container with `--device /dev/net/tun`"
    } else if reason.contains("busy") {
        "another process uses an interface with this name"
    } else if reason.contains("not permitted") || reason.contains("ermission") {
        "run as root, or with CAP_NET_ADMIN and access to the device"
    } else {
        "check the kernel log (`dmesg`)"
    };
    if let Some(source) = error.source()
        && !reason.contains(&source.to_string())
    {
        reason = format!("{reason}: {source}");
    }
    TunnelError::Open {
        interface: identity.interface.clone(),
        reason,
        hint,
    }
}
