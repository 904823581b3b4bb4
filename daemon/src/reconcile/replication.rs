//! Replication streams with this machine's neighbours: all other members, or in larger clusters up
//! to eight that are alive (`overlay`). Of two machines, the one with the lower id calls. From then
//! on the stream is symmetrical.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use uc_api::v1::ReplicationFrame;
use uc_api::{Failure, MachineId};
use uc_cluster_state::Session;

use crate::backoff::Backoff;
use crate::cluster::machines::Machine;
use crate::cluster::member::Member;
use crate::cluster::neighbours::neighbours;

/// Most frames between a session and its stream. The session bounds its own queue.
const QUEUE: usize = 16;
/// A stream that lasted longer has worked, so the next try is immediate.
const WORKED: Duration = Duration::from_secs(5);

/// Keeps one task for each member that this machine has to call.
pub(crate) async fn run(member: Arc<Member>) {
    let mut callers: BTreeMap<MachineId, CancellationToken> = BTreeMap::new();
    let mut changes = member.changes();
    loop {
        let cluster = member.cluster();
        let neighbours = neighbours(member.id, &cluster);
        let wanted: BTreeMap<MachineId, &Arc<Machine>> = cluster
            .machines()
            .iter()
            .filter(|other| member.id < other.id && neighbours.contains(&other.id))
            .map(|other| (other.id, other))
            .collect();
        callers.retain(|id, cancel| {
            let keep = wanted.contains_key(id);
            if !keep {
                cancel.cancel();
            }
            keep
        });
        for (id, machine) in wanted {
            callers.entry(id).or_insert_with(|| {
                let cancel = member.cancel.child_token();
                let calling = call(Arc::clone(&member), Arc::clone(machine), cancel.clone());
                member.tasks.spawn(calling);
                cancel
            });
        }
        if !changes.next().await {
            return;
        }
    }
}

async fn call(member: Arc<Member>, machine: Arc<Machine>, cancel: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let started = tokio::time::Instant::now();
        let ended = tokio::select! {
            () = cancel.cancelled() => return,
            ended = exchange(&member, &machine) => ended,
        };
        if let Err(failure) = ended {
            tracing::debug!(machine = %machine.name, %failure, "replication stream ended");
        }
        if started.elapsed() > WORKED {
            backoff.reset();
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(backoff.wait(rand::random())) => {}
        }
    }
}

async fn exchange(member: &Member, machine: &Machine) -> Result<(), Failure> {
    let remote = member.peers.machine(machine);
    let (outgoing, frames) = mpsc::channel(QUEUE);
    let incoming = remote.exchange(ReceiverStream::new(frames)).await?;
    let session = member.store.session(machine.id);
    pump(session, incoming, outgoing, |frame| frame).await;
    Ok(())
}

/// Carries frames both ways until either side ends.
///
/// `wrap` is what the stream's direction makes of a frame: the frame itself for a caller, a result
/// for a server.
pub(crate) async fn pump<T: Send>(
    session: Session,
    mut incoming: Streaming<ReplicationFrame>,
    outgoing: mpsc::Sender<T>,
    wrap: impl Fn(ReplicationFrame) -> T + Send,
) {
    let Session {
        outgoing: mut from_store,
        incoming: to_store,
        end,
    } = session;
    let out = async {
        while let Some(frame) = from_store.recv().await {
            if outgoing
                .send(wrap(ReplicationFrame {
                    frame: frame.to_vec(),
                }))
                .await
                .is_err()
            {
                return;
            }
        }
    };
    let inward = async {
        while let Some(Ok(message)) = incoming.next().await {
            if to_store.send(message.frame.into()).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = out => {}
        () = inward => {}
        ended = end => if let Err(error) = ended {
            tracing::warn!(%error, "replication with a member ended");
        }
    }
}
