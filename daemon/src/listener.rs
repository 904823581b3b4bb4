//! The sockets for other machines: gRPC and membership datagrams on the management address, and
//! replication with the other members.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use uc_api::layout::{GOSSIP_PORT, PEER_API_PORT};
use uc_api::{Code, Failure};
use uc_cluster_state::membership::Membership;
use uc_mesh::management_address;

use crate::backoff::Backoff;
use crate::member::{Member, Readiness, Stage};
use crate::peers::address_of;
use crate::{grpc, replicate};

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
        grpc::serve_mesh(Arc::clone(&member), tcp),
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
        .hint("the mesh provides the address: check `systemctl status uc-mesh`")
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
    loop {
        let peers = member
            .machines()
            .iter()
            .filter(|machine| machine.id != member.membership.machine_id)
            .filter_map(|machine| {
                let id: uc_api::MachineId = machine.id.parse().ok()?;
                let address = SocketAddr::new(address_of(machine).ok()?.into(), GOSSIP_PORT);
                Some((uc_cluster_state::MachineId(*id.as_bytes()), address))
            })
            .collect();
        membership.set_peers(peers).await;
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
