//! The shapes of `uc doctor -o json`.

use serde::Serialize;
use uc_api::v1;

use super::some;
use crate::answer::Required as _;
use crate::doctor::{self, Finding as Found};
use crate::error::{CliError, CliResult};
use crate::times::rfc3339_ms;
use crate::words::machine_state;

/// `uc doctor`.
#[derive(Debug, Serialize)]
pub(crate) struct Doctor {
    findings: Vec<Finding>,
    machines: Vec<Examined>,
}

#[derive(Debug, Serialize)]
struct Finding {
    severity: &'static str,
    kind: &'static str,
    machines: Vec<String>,
    message: String,
    hint: String,
}

#[derive(Debug, Serialize)]
struct Examined {
    id: String,
    name: String,
    state: String,
    connected: bool,
    answered: bool,
    failure: Option<String>,
    clock: Option<Clock>,
    uc_version: Option<String>,
    docker_version: Option<String>,
    docker_failure: Option<String>,
    started_at: Option<String>,
    unready: Vec<Unready>,
    disk_failure: Option<String>,
    set_aside: Option<String>,
    rejoining: bool,
    store: Option<Store>,
    peers: Vec<Peer>,
}

#[derive(Debug, Serialize)]
struct Clock {
    ahead_ms: i64,
    error_ms: i64,
}

#[derive(Debug, Serialize)]
struct Unready {
    part: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Store {
    changes: u64,
    actors: u64,
    tombstones: u64,
    collected: u64,
    conflicts: u64,
    quarantined: u64,
    quarantined_writers: Vec<String>,
    opaque: u64,
    loose: u64,
    waiting: u64,
    commits: u64,
    durable_commits: u64,
    failed_commits: u64,
    commit_us: u64,
    commit_buckets: Vec<Bucket>,
    rejoins: u64,
    file_bytes: u64,
}

/// `up_to_us` is null for the last one, which is open.
#[derive(Debug, Serialize)]
struct Bucket {
    up_to_us: Option<u64>,
    commits: u64,
}

#[derive(Debug, Serialize)]
struct Peer {
    id: String,
    name: String,
    state: String,
    neighbour: bool,
    connected: bool,
    sessions: u64,
    lag: u64,
    frames_in: u64,
    frames_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    differences: u64,
}

impl Doctor {
    /// The findings, and the examinations they come from.
    pub(crate) fn new(machines: &[v1::ExaminedMachine], findings: &[Found]) -> CliResult<Self> {
        let machines = machines.iter().map(Examined::try_from);
        Ok(Self {
            findings: findings.iter().map(Finding::from).collect(),
            machines: machines.collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Found> for Finding {
    fn from(found: &Found) -> Self {
        let Found {
            severity,
            kind,
            machines,
            message,
            hint,
        } = found.clone();
        Self {
            severity: severity.word(),
            kind,
            machines,
            message,
            hint,
        }
    }
}

impl TryFrom<&v1::ExaminedMachine> for Examined {
    type Error = CliError;

    fn try_from(examined: &v1::ExaminedMachine) -> CliResult<Self> {
        let record = examined.machine.clone().required("a machine")?;
        let said = examined.examination.clone();
        let answered = said.is_some();
        // Without an answer, nothing is known: all below is null, false or empty.
        let said = said.unwrap_or_default();
        let writers = said.quarantined_writers;
        Ok(Self {
            state: machine_state(examined.liveness(), examined.evicted),
            id: record.id,
            name: record.name,
            connected: examined.connected,
            answered,
            failure: some(&examined.failure),
            clock: doctor::clock(examined).map(|(ahead_ms, error_ms)| Clock { ahead_ms, error_ms }),
            uc_version: some(&said.uc_version),
            docker_version: some(&said.docker_version),
            docker_failure: some(&said.docker_failure),
            started_at: rfc3339_ms(said.started_at_ms),
            unready: said
                .unready
                .into_iter()
                .map(|part| Unready {
                    part: part.part,
                    reason: part.reason,
                })
                .collect(),
            disk_failure: some(&said.disk_failure),
            set_aside: some(&said.set_aside),
            rejoining: said.rejoining,
            store: said.store.map(|figures| store(figures, writers)),
            peers: said.peers.into_iter().map(Peer::from).collect(),
        })
    }
}

fn store(figures: v1::StoreFigures, quarantined_writers: Vec<String>) -> Store {
    let ends = figures
        .commit_bucket_ends_us
        .into_iter()
        .map(Some)
        .chain(std::iter::repeat(None));
    let buckets = ends.zip(figures.commit_buckets);
    Store {
        changes: figures.changes,
        actors: figures.actors,
        tombstones: figures.tombstones,
        collected: figures.collected,
        conflicts: figures.conflicts,
        quarantined: figures.quarantined,
        quarantined_writers,
        opaque: figures.opaque,
        loose: figures.loose,
        waiting: figures.waiting,
        commits: figures.commits,
        durable_commits: figures.durable_commits,
        failed_commits: figures.failed_commits,
        commit_us: figures.commit_us,
        commit_buckets: buckets
            .map(|(up_to_us, commits)| Bucket { up_to_us, commits })
            .collect(),
        rejoins: figures.rejoins,
        file_bytes: figures.file_bytes,
    }
}

impl From<v1::PeerFigures> for Peer {
    fn from(peer: v1::PeerFigures) -> Self {
        Self {
            state: machine_state(peer.liveness(), peer.evicted),
            id: peer.machine_id,
            name: peer.machine_name,
            neighbour: peer.neighbour,
            connected: peer.connected,
            sessions: peer.sessions,
            lag: peer.lag,
            frames_in: peer.frames_in,
            frames_out: peer.frames_out,
            bytes_in: peer.bytes_in,
            bytes_out: peer.bytes_out,
            differences: peer.differences,
        }
    }
}
