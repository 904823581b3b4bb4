//! The sockets for other machines: gRPC and membership datagrams on the management address, and
//! replication with the other members.

mod accept;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use uc_api::layout::{GOSSIP_PORT, PEER_API_PORT};
use uc_api::v1::MachineRecord;
use uc_api::{Code, Failure};
use uc_cluster_state::membership::{Membership, PairKey, Peer};
use uc_mesh::{PrivateKey, PublicKey, management_address};

use crate::backoff::Backoff;
use crate::member::{Member, Readiness, Stage};
use crate::replicate;

/// Never reuse this text for another purpose: it separates these keys from all others.
const PAIR_KEY: &str = "uc 2026 membership pair key";

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    let mut readiness = member.readiness.subscribe();
    tokio::select! {
        () = member.cancel.cancelled() => return,
        ready = readiness.wait_for(|readiness: &Readiness| readiness.mesh == Stage::Ready) => if ready.is_err() { return },
    }
    let address = management_address(&member.key.public());
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let (tcp, udp) = loop {
        match bind(address).await {
            Ok(sockets) => break sockets,
            Err(failure) => {
                tracing::warn!(%failure, "cannot listen inside the mesh");
                member.stage(|readiness| readiness.listening = Stage::Failed(failure));
            }
        }
        tokio::select! {
            () = member.cancel.cancelled() => return,
            () = tokio::time::sleep(backoff.wait(rand::random())) => {}
        }
    };
    member.stage(|readiness| readiness.listening = Stage::Ready);
    tokio::join!(
        accept::run(Arc::clone(&member), tcp),
        accept::end_links(&member),
        watch_liveness(&member, udp),
        replicate::run(Arc::clone(&member)),
    );
}

async fn bind(address: Ipv6Addr) -> Result<(TcpListener, UdpSocket), Failure> {
    let failed = |what: &str, port: u16, error: std::io::Error| {
        Failure::new(
            Code::Refused,
            format!("cannot listen on {what} [{address}]:{port}: {error}"),
        )
        .hint(match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("another program uses the port: `ss -lnp 'sport = :{port}'`")
            }
            _ => "the mesh provides the address: check `systemctl status uc-mesh`".to_owned(),
        })
    };
    let tcp = TcpListener::bind(SocketAddr::new(address.into(), PEER_API_PORT))
        .await
        .map_err(|error| failed("TCP", PEER_API_PORT, error))?;
    let udp = UdpSocket::bind(SocketAddr::new(address.into(), GOSSIP_PORT))
        .await
        .map_err(|error| failed("UDP", GOSSIP_PORT, error))?;
    Ok((tcp, udp))
}

/// Runs membership among the store's machines and passes its results to the member.
async fn watch_liveness(member: &Member, socket: UdpSocket) {
    let Ok(own) = member.membership.machine_id.parse::<uc_api::MachineId>() else {
        return;
    };
    let own = uc_cluster_state::MachineId(*own.as_bytes());
    let started = Membership::start(
        socket,
        own,
        member.store.starts(),
        member.cancel.child_token(),
    );
    let membership = match started {
        Ok(membership) => membership,
        Err(error) => return tracing::error!(%error, "cannot start membership"),
    };
    let mut verdicts = membership.liveness();
    let mut records = member.store.watch();
    let mut peers = Peers::new(member.key.clone());
    loop {
        let mut others = member.machines();
        others.retain(|machine| machine.id != member.membership.machine_id);
        membership.set_peers(peers.of(&others)).await;
        let verdict = verdicts.borrow_and_update().clone();
        member.alive.send_if_modified(|alive| {
            let changed = *alive != verdict;
            *alive = verdict;
            changed
        });
        tokio::select! {
            () = member.cancel.cancelled() => return,
            _ = records.changed() => {}
            changed = verdicts.changed() => if changed.is_err() { return },
        }
    }
}

/// Makes membership's peers from the records of other machines. The keys are kept, because the
/// records change often and each key costs a multiplication on the curve.
struct Peers {
    own: PrivateKey,
    keys: BTreeMap<PublicKey, Option<PairKey>>,
    /// Machines that were left out, so that each is logged once.
    left_out: BTreeSet<String>,
}

impl Peers {
    fn new(own: PrivateKey) -> Self {
        Self {
            own,
            keys: BTreeMap::new(),
            left_out: BTreeSet::new(),
        }
    }

    fn of(&mut self, others: &[MachineRecord]) -> BTreeMap<uc_cluster_state::MachineId, Peer> {
        let known = std::mem::take(&mut self.keys);
        let left_out = std::mem::take(&mut self.left_out);
        let mut peers = BTreeMap::new();
        for machine in others {
            match self.peer(machine, &known) {
                Ok((id, peer)) => {
                    peers.insert(id, peer);
                }
                Err(cause) => {
                    if !left_out.contains(&machine.id) {
                        tracing::warn!(machine = %machine.name, id = %machine.id, cause, "cannot watch machine");
                    }
                    self.left_out.insert(machine.id.clone());
                }
            }
        }
        peers
    }

    fn peer(
        &mut self,
        machine: &MachineRecord,
        known: &BTreeMap<PublicKey, Option<PairKey>>,
    ) -> Result<(uc_cluster_state::MachineId, Peer), &'static str> {
        let id: uc_api::MachineId = machine.id.parse().map_err(|_| "invalid machine id")?;
        let public: PublicKey = machine
            .public_key
            .parse()
            .map_err(|_| "invalid WireGuard key")?;
        let compute = || {
            let key = self.own.shared_key(&public, PAIR_KEY)?;
            Some(PairKey::from_bytes(key))
        };
        let key = known.get(&public).copied().unwrap_or_else(compute);
        self.keys.insert(public, key);
        let peer = Peer {
            address: SocketAddr::new(management_address(&public).into(), GOSSIP_PORT),
            key: key.ok_or("its WireGuard key shares no secret")?,
        };
        Ok((uc_cluster_state::MachineId(*id.as_bytes()), peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u8, public_key: String) -> MachineRecord {
        MachineRecord {
            id: uc_api::MachineId::from_bytes([n; 16]).to_string(),
            name: format!("m{n}"),
            public_key,
            ..MachineRecord::default()
        }
    }

    fn key(n: u8) -> PrivateKey {
        PrivateKey::from_bytes([n; 32])
    }

    fn id(n: u8) -> uc_cluster_state::MachineId {
        uc_cluster_state::MachineId([n; 16])
    }

    #[test]
    fn peers_share_a_key_and_have_management_addresses() {
        let (first, second) = (key(1).public(), key(2).public());
        let seen_by_first = Peers::new(key(1)).of(&[record(2, second.to_string())]);
        let seen_by_second = Peers::new(key(2)).of(&[record(1, first.to_string())]);
        let (to_second, to_first) = (seen_by_first[&id(2)], seen_by_second[&id(1)]);
        assert_eq!(to_second.key, to_first.key);
        let address = SocketAddr::new(management_address(&second).into(), GOSSIP_PORT);
        assert_eq!(to_second.address, address);
    }

    #[test]
    fn peers_leave_out_records_without_a_usable_key() {
        let mut one = [0; 32];
        one[0] = 1;
        let weak = PublicKey::from_bytes(one).unwrap().to_string();
        let good = record(2, key(2).public().to_string());
        let records = [good, record(3, "none".to_owned()), record(4, weak)];
        let mut peers = Peers::new(key(1));
        let found = peers.of(&records);
        assert_eq!(found.keys().collect::<Vec<_>>(), [&id(2)]);
        assert_eq!(peers.left_out.len(), 2);
    }

    #[test]
    fn peers_keep_keys_only_of_present_records() {
        let public = key(2).public();
        let mut peers = Peers::new(key(1));
        let records = [record(2, public.to_string())];
        let key_of = |peers: &mut Peers| peers.of(&records)[&id(2)].key;
        let first = key_of(&mut peers);
        // A marker shows that the key is not computed again.
        let marker = PairKey::from_bytes([9; 32]);
        peers.keys.insert(public, Some(marker));
        assert!(key_of(&mut peers) == marker && marker != first);
        assert!(peers.of(&[]).is_empty());
        assert!(peers.keys.is_empty());
        assert_eq!(key_of(&mut peers), first);
    }
}
