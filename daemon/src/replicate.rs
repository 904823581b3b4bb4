//! Replication streams with this machine's neighbours: all other members, or in larger clusters up
//! to eight that are alive (`overlay`). Of two machines, the one with the lower id calls. From then
//! on the stream is symmetrical.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use uc_api::v1::{MachineRecord, ReplicationFrame};
use uc_api::{Code, Failure};
use uc_cluster_state::membership::Liveness;
use uc_cluster_state::overlay::{self, FULL_MESH};
use uc_cluster_state::{MachineId, Session};

use crate::backoff::Backoff;
use crate::member::Member;

/// Most frames between a session and its stream. The session bounds its own queue.
const QUEUE: usize = 16;
/// A stream that lasted longer has worked, so the next try is immediate.
const WORKED: Duration = Duration::from_secs(5);

/// Keeps one task for each member that this machine has to call.
pub(crate) async fn run(member: Arc<Member>) {
    let mut callers: BTreeMap<String, CancellationToken> = BTreeMap::new();
    let mut records = member.store.watch();
    let mut alive = member.alive.subscribe();
    loop {
        let machines = member.machines();
        let own = &member.membership.machine_id;
        let neighbours = neighbours(own, &machines, &alive.borrow_and_update());
        let wanted: BTreeMap<&str, &MachineRecord> = machines
            .iter()
            .filter(|m| *own < m.id && neighbours.contains(&m.id))
            .map(|m| (m.id.as_str(), m))
            .collect();
        callers.retain(|id, cancel| {
            let keep = wanted.contains_key(id.as_str());
            if !keep {
                cancel.cancel();
            }
            keep
        });
        for (id, machine) in wanted {
            if !callers.contains_key(id) {
                let cancel = member.cancel.child_token();
                callers.insert(id.to_owned(), cancel.clone());
                member
                    .tasks
                    .spawn(call(Arc::clone(&member), machine.clone(), cancel));
            }
        }
        tokio::select! {
            () = member.cancel.cancelled() => return,
            _ = records.changed() => {}
            changed = alive.changed() => if changed.is_err() { return },
        }
    }
}

/// The ids of the members with which this machine keeps a stream. In a full mesh, members that are
/// down are called too: they may answer before membership sees them.
pub(crate) fn neighbours(
    own: &str,
    machines: &[MachineRecord],
    alive: &BTreeMap<MachineId, Liveness>,
) -> BTreeSet<String> {
    let parse = |id: &str| {
        let id: uc_api::MachineId = id.parse().ok()?;
        Some(MachineId(*id.as_bytes()))
    };
    let Some(me) = parse(own) else {
        return BTreeSet::new();
    };
    let mut members: BTreeSet<_> = machines
        .iter()
        .filter_map(|machine| parse(&machine.id))
        .collect();
    if members.len() > FULL_MESH {
        members.retain(|machine| *machine == me || alive.get(machine) != Some(&Liveness::Down));
    }
    overlay::neighbours(me, &members)
        .iter()
        .map(ToString::to_string)
        .collect()
}

async fn call(member: Arc<Member>, machine: MachineRecord, cancel: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let started = tokio::time::Instant::now();
        let ended = tokio::select! {
            () = cancel.cancelled() => return,
            ended = exchange(&member, &machine) => ended,
        };
        if let Err(failure) = ended {
            tracing::debug!(machine = machine.name, %failure, "replication stream ended");
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

async fn exchange(member: &Member, machine: &MachineRecord) -> Result<(), Failure> {
    let remote = member.peers.machine(machine)?;
    let (outgoing, frames) = mpsc::channel(QUEUE);
    let incoming = remote.exchange(ReceiverStream::new(frames)).await?;
    let session = open_session(member, &machine.id)?;
    pump(session, incoming, outgoing, |frame| frame).await;
    Ok(())
}

/// A session with the member that has this id.
pub(crate) fn open_session(member: &Member, id: &str) -> Result<Session, Failure> {
    let id: uc_api::MachineId = id.parse().map_err(|_| {
        Failure::new(
            Code::Internal,
            format!("a machine's record has the invalid id `{id}`"),
        )
    })?;
    Ok(member
        .store
        .session(uc_cluster_state::MachineId(*id.as_bytes())))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(n: u32) -> MachineRecord {
        MachineRecord {
            id: format!("{n:032x}"),
            ..MachineRecord::default()
        }
    }

    #[test]
    fn neighbours_are_all_of_few_machines_and_some_of_many() {
        let nobody = BTreeMap::new();
        let three: Vec<_> = (1..=3).map(machine).collect();
        let ids: Vec<_> = neighbours(&three[0].id, &three, &nobody)
            .into_iter()
            .collect();
        assert_eq!(ids, [three[1].id.clone(), three[2].id.clone()]);
        let many: Vec<_> = (1..=300).map(machine).collect();
        let some = neighbours(&many[7].id, &many, &nobody);
        assert!((2..=8).contains(&some.len()), "{}", some.len());
        assert!(
            some.iter()
                .all(|id| neighbours(id, &many, &nobody).contains(&many[7].id)),
            "both ends agree"
        );
        assert!(
            neighbours(&machine(999).id, &three, &nobody).is_empty(),
            "before its own record is there"
        );
    }

    #[test]
    fn neighbours_that_are_down_are_replaced_in_large_clusters() {
        let down = |ids: std::ops::RangeInclusive<u32>| {
            let id = |n: u32| MachineId(u128::from(n).to_be_bytes());
            ids.map(|n| (id(n), Liveness::Down))
                .collect::<BTreeMap<_, _>>()
        };
        let many: Vec<_> = (1..=300).map(machine).collect();
        let half = neighbours(&many[7].id, &many, &down(151..=300));
        let alone: Vec<_> = many[..150].to_vec();
        assert_eq!(
            half,
            neighbours(&many[7].id, &alone, &BTreeMap::new()),
            "as if the others were not there"
        );
        let three: Vec<_> = (1..=3).map(machine).collect();
        assert_eq!(neighbours(&three[0].id, &three, &down(2..=3)).len(), 2);
    }
}
