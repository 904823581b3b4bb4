//! The machine whose store the measured daemon replicates with: a real store, which calls the
//! daemon as another daemon would. It has the records of all other machines, and changes its own
//! replicas on request.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Endpoint, Uri};
use tower::service_fn;
use uc_api::layout::PEER_API_PORT;
use uc_api::v1::ReplicationFrame;
use uc_api::v1::peer_client::PeerClient;
use uc_cluster_state::{MemberStatus, Options, Session, Store, Write};
use uc_mesh::{PublicKey, management_address, noise};

use super::api::Speaks;
use super::machine::Machine;
use super::{say, site};
use crate::figure::note;

/// Most frames between a session and its stream, as in the daemon.
const QUEUE: usize = 16;
/// The daemon's limit for a connection with its handshake. Without one, a call from before the
/// daemon has joined would wait long for the next try of TCP.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Pause before the daemon is called again. It listens only when it has joined.
const CALL_AGAIN: Duration = Duration::from_millis(200);

/// Changes that follow each other after a fixed time.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Changes {
    /// How many, one commit each. They go round the replicas of the peer.
    pub(super) count: u32,
    /// From one to the next, in milliseconds.
    pub(super) gap_ms: u64,
}

/// Runs the peer, which says that it is ready and then when the requested changes are committed.
pub(super) async fn run(directory: &Path, measured: PublicKey) -> anyhow::Result<()> {
    let store = open(site::PEER, directory).await?;
    seed(&store, directory, measured).await?;
    let machine = Machine::start(site::PEER, measured).await?;
    tokio::spawn(call(store.clone(), measured));
    say("ready").await?;
    let changing = async {
        let mut requests = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = requests.next_line().await? {
            change(&store, serde_json::from_str(&line)?).await?;
            say("changed").await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        failed = machine.run() => failed,
        changed = changing => changed,
    }
}

async fn open(machine: u8, directory: &Path) -> anyhow::Result<Store> {
    let path = directory.join(format!("{machine}.db"));
    let options = Options::new(path, site::CLUSTER_ID, site::id(machine), site::KINDS);
    Ok(Store::open(options).await?)
}

/// Gives the peer's store all records of the cluster. Those that a machine writes about itself are
/// written by a store of that machine, and replicated.
async fn seed(peer: &Store, directory: &Path, measured: PublicKey) -> anyhow::Result<()> {
    let put = |kind, key: String, value| Write::Put { kind, key, value };
    let cluster = site::cluster().encode_to_vec();
    let mut writes = vec![put(site::CLUSTER, site::CLUSTER_KEY.to_owned(), cluster)];
    for machine in 1..=site::MEASURED {
        let record = site::machine(machine, measured);
        let value = record.encode_to_vec();
        writes.push(put(site::MACHINE, record.id, value));
        writes.push(Write::Declare {
            machine: site::id(machine),
            status: MemberStatus::Member,
        });
    }
    for service in 0..site::SERVICES {
        let value = site::service(service).encode_to_vec();
        writes.push(put(site::SERVICE, site::service_key(service), value));
    }
    peer.write(writes).await?;
    publish(peer, site::PEER).await?;
    for machine in (1..=site::OTHERS).filter(|machine| *machine != site::PEER) {
        let store = open(machine, directory).await?;
        let version = publish(&store, machine).await?;
        let here = store.session(site::id(site::PEER));
        let there = peer.session(site::id(machine));
        tokio::select! {
            arrived = peer.wait_for(store.actor(), version) => { arrived?; }
            () = join(here, there) => bail!("the session of machine {machine} ended"),
        }
        store.close().await?;
    }
    Ok(())
}

/// Publishes what a machine reports about itself. Returns the version of the last commit.
async fn publish(store: &Store, machine: u8) -> anyhow::Result<u64> {
    store.publish(site::REPLICA, rows(machine, 0)).await?;
    let facts = site::facts(machine).encode_to_vec();
    let facts = vec![(site::FACTS_KEY.to_owned(), facts)];
    Ok(store.publish(site::FACTS, facts).await?.version)
}

/// All replicas of a machine after so many changes, which went round them.
fn rows(machine: u8, changes: u32) -> Vec<(String, Vec<u8>)> {
    let slots = 0..site::REPLICAS_OF_MACHINE;
    slots
        .map(|slot| {
            let record = site::replica(machine, slot, last_change(slot, changes));
            (record.container_id.clone(), record.encode_to_vec())
        })
        .collect()
}

/// The number of the last change that changed a replica; 0 if none did. Change `n`, counted from
/// 1, changes replica `n` modulo their number.
fn last_change(slot: usize, changes: u32) -> u32 {
    match changes.checked_sub(slot as u32) {
        Some(since) => changes - since % site::REPLICAS_OF_MACHINE as u32,
        None => 0,
    }
}

/// Makes the changes, one commit each. Fails if the store cannot keep up.
async fn change(store: &Store, changes: Changes) -> anyhow::Result<()> {
    let gap = Duration::from_millis(changes.gap_ms);
    let started = tokio::time::Instant::now();
    let mut ticks = interval(gap);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for n in 1..=changes.count {
        ticks.tick().await;
        store.publish(site::REPLICA, rows(site::PEER, n)).await?;
    }
    let late = started.elapsed().saturating_sub(gap * changes.count);
    if late > Duration::from_secs(1) {
        bail!("the peer was {} ms late with its changes", late.as_millis());
    }
    Ok(())
}

/// Keeps a replication stream with the measured daemon.
async fn call(store: Store, measured: PublicKey) {
    let mut shown = String::new();
    loop {
        let why = match exchange(&store, measured).await {
            Ok(()) => "the replication stream ended".to_owned(),
            Err(error) => format!("cannot replicate with ucd: {error:#}"),
        };
        if why != shown {
            note(&why);
            shown = why;
        }
        sleep(CALL_AGAIN).await;
    }
}

async fn exchange(store: &Store, measured: PublicKey) -> anyhow::Result<()> {
    let address = (management_address(&measured), PEER_API_PORT);
    let connector = service_fn(move |_: Uri| async move {
        let own = site::private_key(site::PEER);
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            noise::connect(stream, &own, &measured).await
        };
        let stream = timeout(CONNECT_LIMIT, connecting).await??;
        Ok::<_, io::Error>(TokioIo::new(stream))
    });
    // HTTP/2 needs a name, which the daemon ignores.
    let channel = Endpoint::from_static("http://peer.uc")
        .connect_with_connector(connector)
        .await?;
    let mut daemon = PeerClient::new(InterceptedService::new(channel, Speaks));
    let (frames, outgoing) = mpsc::channel(QUEUE);
    let outgoing = ReceiverStream::new(outgoing);
    let mut incoming = daemon.exchange(outgoing).await?.into_inner();
    let Session {
        outgoing: mut from_store,
        incoming: to_store,
        end,
    } = store.session(site::id(site::MEASURED));
    let out = async {
        while let Some(frame) = from_store.recv().await {
            let frame = frame.to_vec();
            if frames.send(ReplicationFrame { frame }).await.is_err() {
                break;
            }
        }
    };
    let inward = async {
        while let Some(message) = incoming.next().await {
            if to_store.send(message?.frame.into()).await.is_err() {
                break;
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        () = out => Ok(()),
        ended = inward => ended,
        ended = end => ended.context("the session failed"),
    }
}

/// Joins two sessions of this process until one of them ends.
async fn join(a: Session, b: Session) {
    async fn pump(mut from: mpsc::Receiver<bytes::Bytes>, to: mpsc::Sender<bytes::Bytes>) {
        while let Some(frame) = from.recv().await {
            if to.send(frame).await.is_err() {
                return;
            }
        }
    }
    tokio::select! {
        () = pump(a.outgoing, b.incoming) => {}
        () = pump(b.outgoing, a.incoming) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_changes_one_replica() {
        assert!((0..site::REPLICAS_OF_MACHINE).all(|slot| last_change(slot, 0) == 0));
        for n in 1..=1_000 {
            let (before, after) = (rows(site::PEER, n - 1), rows(site::PEER, n));
            let changed: Vec<usize> = (0..site::REPLICAS_OF_MACHINE)
                .filter(|slot| before[*slot] != after[*slot])
                .collect();
            assert_eq!(changed, [n as usize % site::REPLICAS_OF_MACHINE]);
            assert_eq!(last_change(changed[0], n), n);
        }
    }
}
