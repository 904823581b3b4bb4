//! The data of `uc doctor`: this machine's examination of itself, and those of other machines,
//! which are called at the same time and each have limited time. `uc` decides what the figures
//! mean.

mod disk;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;
use uc_api::v1::{
    Examination, ExamineRequest, ExamineResponse, ExaminedMachine, MachineRecord, PeerFigures,
    StoreFigures, UnreadyPart, UnusableRecord,
};
use uc_api::version::VERSION;
use uc_api::{Code, Failure, MachineId};
use uc_cluster_state::membership::Liveness;
use uc_cluster_state::{COMMIT_BUCKETS_US, MemberStatus, PeerStatus, Snapshot, Status, Store};

use super::machines::{Machine, Problem};
use super::member::Member;
use super::neighbours::neighbours;
use super::view::Cluster;
use crate::clock::now_ms;
use crate::engine::Engine as _;

/// Time for a machine to answer: the longer of the two limits below, and the round trip.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// An engine that takes longer to report its version is unusable.
const ENGINE_LIMIT: Duration = Duration::from_secs(2);
/// So is a disk that takes longer to write the probe file.
const DISK_LIMIT: Duration = Duration::from_secs(2);
/// Machines called at the same time. Bounds sockets; a thousand that do not answer take 40 s.
const AT_ONCE: usize = 128;

/// Examines the machines that the request names.
pub(crate) async fn run(
    member: &Member,
    request: &ExamineRequest,
) -> Result<ExamineResponse, Failure> {
    let cluster = member.cluster();
    let evicted = evicted(&member.store.snapshot());
    let asked = wanted(&cluster, request)?.into_iter().map(|record| {
        let id = record.id.parse().ok();
        ExaminedMachine {
            liveness: wire_liveness(id.and_then(|id| cluster.liveness(id))).into(),
            evicted: id.is_some_and(|id| evicted.contains(&id)),
            connected: id == Some(member.id),
            machine: Some(record),
            ..ExaminedMachine::default()
        }
    });
    let cluster = &cluster;
    let machines = ask_each(asked.collect(), now_ms, |record| async move {
        let machine = cluster.machine(&record.id)?;
        if machine.id == member.id {
            Ok(here(member).await)
        } else {
            member.peers.machine(machine).examine().await
        }
    });
    Ok(ExamineResponse {
        machines: machines.await,
    })
}

/// The machines of the request in the order of their names, each once.
fn wanted(cluster: &Cluster, request: &ExamineRequest) -> Result<Vec<MachineRecord>, Failure> {
    if request.all {
        if !request.machines.is_empty() {
            return Err(Failure::new(
                Code::Invalid,
                "`all` and names of machines exclude each other",
            ));
        }
        return Ok(cluster.machine_records().to_vec());
    }
    if request.machines.is_empty() {
        let own = cluster.own().map(|machine| machine.record.clone());
        return Ok(own.into_iter().collect());
    }
    let mut machines: Vec<MachineRecord> = request
        .machines
        .iter()
        .map(|name| cluster.machine_record(name).cloned())
        .collect::<Result<_, _>>()?;
    machines.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    machines.dedup_by(|a, b| a.id == b.id);
    Ok(machines)
}

/// Calls the machines at the same time and records when each call was sent and answered.
async fn ask_each<F>(
    machines: Vec<ExaminedMachine>,
    now_ms: impl Fn() -> i64,
    ask: impl Fn(MachineRecord) -> F,
) -> Vec<ExaminedMachine>
where
    F: Future<Output = Result<Examination, Failure>>,
{
    let (now_ms, ask) = (&now_ms, &ask);
    let asking = stream::iter(machines).map(|mut examined| async move {
        examined.asked_at_ms = now_ms();
        let answer = timeout(
            ANSWER_LIMIT,
            ask(examined.machine.clone().unwrap_or_default()),
        )
        .await;
        examined.heard_at_ms = now_ms();
        match answer {
            Ok(Ok(examination)) => examined.examination = Some(examination),
            Ok(Err(failure)) => examined.failure = worded(failure),
            Err(_) => examined.failure = format!("no answer within {} s", ANSWER_LIMIT.as_secs()),
        }
        examined
    });
    asking.buffered(AT_ONCE).collect().await
}

/// Why a machine gave no examination. A daemon of an older version does not know the call.
fn worded(failure: Failure) -> String {
    match failure.code {
        Code::Version => "its ucd has another version and does not support this call".to_owned(),
        _ if failure.message.is_empty() => {
            format!("it answered with an error ({:?})", failure.code)
        }
        _ => failure.message,
    }
}

/// Examines this machine.
pub(crate) async fn here(member: &Member) -> Examination {
    let clock_from_ms = now_ms();
    let (docker, disk_failure) = tokio::join!(
        docker(member),
        disk::failure(member.paths.state_dir(), DISK_LIMIT)
    );
    let (docker_version, docker_failure) = match docker {
        Ok(version) => (version, String::new()),
        Err(why) => (String::new(), why),
    };
    let cluster = member.cluster();
    let found = Records::look(&member.store);
    Examination {
        uc_version: VERSION.to_owned(),
        docker_version,
        docker_failure,
        engine_away_since_ms: cluster.engine_away_since_ms(member.id).unwrap_or(0),
        clock_from_ms,
        started_at_ms: member.started_at_ms,
        unready: unready_parts(member),
        unusable_records: cluster.problems().map(unusable).collect(),
        disk_failure,
        peers: found.peers(&cluster, &neighbours(member.id, &cluster)),
        clock_to_ms: now_ms(),
        ..found.examination()
    }
}

/// The parts that do not work, and the endpoints whose names do not resolve.
fn unready_parts(member: &Member) -> Vec<UnreadyPart> {
    let parts = member.readiness.borrow().unready().into_iter();
    let parts = parts.map(|(part, failure)| UnreadyPart {
        part: part.to_owned(),
        reason: failure.message,
    });
    let names = member.endpoint_names.borrow();
    let names = names.failures().map(|(name, reason)| UnreadyPart {
        part: format!("endpoint {name}"),
        reason: format!("the name cannot be resolved: {reason}"),
    });
    parts.chain(names).collect()
}

fn unusable(problem: &Problem) -> UnusableRecord {
    let Problem {
        record,
        machine,
        reason,
        changes_itself,
    } = problem.clone();
    // Empty for a record that is not a machine's.
    let (machine_id, machine_name) = machine.unwrap_or_default();
    UnusableRecord {
        record,
        machine_id,
        machine_name,
        reason,
        changes_itself,
    }
}

async fn docker(member: &Member) -> Result<String, String> {
    match timeout(ENGINE_LIMIT, member.engine.version()).await {
        Ok(Ok(version)) => Ok(version.version),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ENGINE_LIMIT.as_secs())),
    }
}

pub(crate) fn evicted(snapshot: &Snapshot) -> BTreeSet<MachineId> {
    let members = snapshot.members().into_iter();
    members
        .filter(|(_, status)| *status == MemberStatus::Evicted)
        .map(|(id, _)| id)
        .collect()
}

/// Liveness as protobuf; `None`: unknown.
pub(crate) fn wire_liveness(of: Option<Liveness>) -> uc_api::v1::Liveness {
    match of {
        Some(Liveness::Up) => uc_api::v1::Liveness::Up,
        Some(Liveness::Suspect) => uc_api::v1::Liveness::Suspect,
        Some(Liveness::Down) => uc_api::v1::Liveness::Down,
        None => uc_api::v1::Liveness::Unspecified,
    }
}

/// The store's figures, and what else it reports about itself.
#[derive(Debug)]
struct Records {
    status: Status,
    set_aside: Option<String>,
    rejoining: bool,
    evicted: BTreeSet<MachineId>,
    quarantined_writers: BTreeSet<String>,
}

impl Records {
    fn look(store: &Store) -> Self {
        let snapshot = store.snapshot();
        Self {
            status: store.status(),
            set_aside: store.set_aside().map(Path::to_string_lossy).map(Into::into),
            rejoining: snapshot.is_rejoining(),
            evicted: evicted(&snapshot),
            quarantined_writers: snapshot
                .quarantined()
                .map(|q| q.stamp.actor.machine.to_string())
                .collect(),
        }
    }

    fn examination(self) -> Examination {
        let Self {
            status,
            set_aside,
            rejoining,
            evicted: _,
            quarantined_writers,
        } = self;
        Examination {
            set_aside: set_aside.unwrap_or_default(),
            rejoining,
            store: Some(figures(status)),
            quarantined_writers: quarantined_writers.into_iter().collect(),
            ..Examination::default()
        }
    }

    /// One row for each other machine, by name; zeros if there was no session yet.
    fn peers(&self, cluster: &Cluster, neighbours: &BTreeSet<MachineId>) -> Vec<PeerFigures> {
        let row = |machine: &Arc<Machine>| {
            let peers = self.status.peers.iter();
            let known = peers.into_iter().find(|peer| peer.machine == machine.id);
            PeerFigures {
                machine_id: machine.id.to_string(),
                machine_name: machine.name.to_string(),
                liveness: wire_liveness(cluster.liveness(machine.id)).into(),
                evicted: self.evicted.contains(&machine.id),
                neighbour: neighbours.contains(&machine.id),
                ..known.map_or_else(PeerFigures::default, peer_figures)
            }
        };
        cluster.others().map(row).collect()
    }
}

fn figures(status: Status) -> StoreFigures {
    StoreFigures {
        changes: status.changes,
        actors: status.actors,
        tombstones: status.tombstones,
        collected: status.collected,
        conflicts: status.conflicts,
        quarantined: status.quarantined,
        opaque: status.opaque,
        loose: status.loose,
        waiting: status.waiting,
        commits: status.commits,
        durable_commits: status.durable_commits,
        failed_commits: status.failed_commits,
        commit_us: status.commit_us,
        commit_buckets: status.commit_buckets,
        commit_bucket_ends_us: COMMIT_BUCKETS_US.to_vec(),
        rejoins: status.rejoins,
        file_bytes: status.file_bytes,
    }
}

fn peer_figures(peer: &PeerStatus) -> PeerFigures {
    PeerFigures {
        connected: peer.connected,
        sessions: peer.sessions,
        lag: peer.lag,
        frames_in: peer.frames_in,
        frames_out: peer.frames_out,
        bytes_in: peer.bytes_in,
        bytes_out: peer.bytes_out,
        differences: peer.differences,
        ..PeerFigures::default()
    }
}

#[cfg(test)]
mod tests;
