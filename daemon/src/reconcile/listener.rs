//! The sockets for other machines: gRPC and membership datagrams on the management address, and
//! replication with the other members.

mod accept;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use uc_api::layout::{GOSSIP_PORT, PEER_API_PORT};
use uc_api::{Code, Failure, MachineId};
use uc_cluster_state::membership::{Membership, PairKey, Peer};
use uc_mesh::{PrivateKey, PublicKey, management_address};

use super::{Part, ready, replication};
use crate::backoff::Backoff;
use crate::cluster::machines::Machine;
use crate::cluster::member::Member;

/// Never reuse this text for another purpose: it separates these keys from all others.
const PAIR_KEY: &str = "uc 2026 membership pair key";

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    if !ready(&member, |readiness| &readiness.mesh).await {
        return;
    }
    let address = management_address(&member.key.public());
    let mut part = Part {
        member: &member,
        purpose: "listen inside the mesh",
        stage: |readiness| &mut readiness.listening,
        backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(10)),
    };
    let Some((tcp, udp)) = part.until_done(|| bind(address)).await else {
        return;
    };
    tokio::join!(
        accept::run(Arc::clone(&member), tcp),
        accept::end_links(&member),
        watch_liveness(&member, udp),
        replication::run(Arc::clone(&member)),
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
    let started = Membership::start(
        socket,
        member.id,
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
        membership
            .set_peers(peers.of(member.cluster().others()))
            .await;
        let verdict = verdicts.borrow_and_update().clone();
        member.alive.send_if_modified(|alive| {
            let changed = **alive != verdict;
            if changed {
                *alive = Arc::new(verdict);
            }
            changed
        });
        tokio::select! {
            () = member.cancel.cancelled() => return,
            changed = records.changed() => if changed.is_err() { return },
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
    left_out: BTreeSet<MachineId>,
}

impl Peers {
    fn new(own: PrivateKey) -> Self {
        Self {
            own,
            keys: BTreeMap::new(),
            left_out: BTreeSet::new(),
        }
    }

    fn of<'a>(
        &mut self,
        others: impl IntoIterator<Item = &'a Arc<Machine>>,
    ) -> BTreeMap<MachineId, Peer> {
        let known = std::mem::take(&mut self.keys);
        let left_out = std::mem::take(&mut self.left_out);
        let mut peers = BTreeMap::new();
        for machine in others {
            let compute = || {
                let key = self.own.shared_key(&machine.key, PAIR_KEY)?;
                Some(PairKey::from_bytes(key))
            };
            let key = known.get(&machine.key).copied().unwrap_or_else(compute);
            self.keys.insert(machine.key, key);
            let Some(key) = key else {
                if !left_out.contains(&machine.id) {
                    tracing::warn!(machine = %machine.name, id = %machine.id, "cannot watch machine: its WireGuard key shares no secret");
                }
                self.left_out.insert(machine.id);
                continue;
            };
            let address = SocketAddr::new(management_address(&machine.key).into(), GOSSIP_PORT);
            peers.insert(machine.id, Peer { address, key });
        }
        peers
    }
}

#[cfg(test)]
mod tests {
    use uc_api::v1::MachineRecord;

    use super::*;

    fn machine(n: u8, key: PublicKey) -> Arc<Machine> {
        Arc::new(Machine {
            id: id(n),
            name: format!("m{n}").parse().unwrap(),
            holds_name: true,
            key,
            subnet: None,
            record: MachineRecord::default(),
        })
    }

    fn key(n: u8) -> PrivateKey {
        PrivateKey::from_bytes([n; 32])
    }

    fn id(n: u8) -> MachineId {
        MachineId([n; 16])
    }

    #[test]
    fn peers_share_a_key_and_have_management_addresses() {
        let (first, second) = (key(1).public(), key(2).public());
        let seen_by_first = Peers::new(key(1)).of(&[machine(2, second)]);
        let seen_by_second = Peers::new(key(2)).of(&[machine(1, first)]);
        let (to_second, to_first) = (seen_by_first[&id(2)], seen_by_second[&id(1)]);
        assert_eq!(to_second.key, to_first.key);
        let address = SocketAddr::new(management_address(&second).into(), GOSSIP_PORT);
        assert_eq!(to_second.address, address);
    }

    #[test]
    fn peers_leave_out_records_without_a_usable_key() {
        let mut one = [0; 32];
        one[0] = 1;
        let weak = PublicKey::from_bytes(one).unwrap();
        let machines = [machine(2, key(2).public()), machine(4, weak)];
        let mut peers = Peers::new(key(1));
        let found = peers.of(&machines);
        assert_eq!(found.keys().collect::<Vec<_>>(), [&id(2)]);
        assert_eq!(peers.left_out.len(), 1);
    }

    #[test]
    fn peers_keep_keys_only_of_present_records() {
        let public = key(2).public();
        let mut peers = Peers::new(key(1));
        let machines = [machine(2, public)];
        let key_of = |peers: &mut Peers| peers.of(&machines)[&id(2)].key;
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
