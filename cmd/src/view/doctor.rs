//! The shapes of `uc doctor -o json`.

use serde::Serialize;
use uc_api::v1;

use super::shape::{Show as _, shape};
use crate::answer::Required as _;
use crate::doctor::{self, Finding};
use crate::error::{CliError, CliResult};
use crate::times::rfc3339_ms;
use crate::words::machine_state;

/// `uc doctor`.
#[derive(Debug, Serialize)]
pub(crate) struct Doctor<'a> {
    findings: &'a [Finding],
    machines: Vec<Examined>,
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

shape! {
    struct Unready of v1::UnreadyPart {
        part: String,
        reason: String,
    }
}

shape! {
    struct Store of v1::StoreFigures {
        changes: u64,
        actors: u64,
        tombstones: u64,
        collected: u64,
        conflicts: u64,
        quarantined: u64,
        /// Not among the figures; [`Examined`] adds it.
        quarantined_writers: Vec<String> = |_| Vec::new(),
        opaque: u64,
        loose: u64,
        waiting: u64,
        commits: u64,
        durable_commits: u64,
        failed_commits: u64,
        commit_us: u64,
        commit_buckets: Vec<Bucket> = buckets,
        rejoins: u64,
        file_bytes: u64,
    }
}

/// `up_to_us` is null for the last one, which is open.
#[derive(Debug, Serialize)]
struct Bucket {
    up_to_us: Option<u64>,
    commits: u64,
}

fn buckets(figures: &v1::StoreFigures) -> Vec<Bucket> {
    let ends = figures.commit_bucket_ends_us.iter().copied().map(Some);
    let buckets = ends
        .chain(std::iter::repeat(None))
        .zip(&figures.commit_buckets);
    buckets
        .map(|(up_to_us, commits)| Bucket {
            up_to_us,
            commits: *commits,
        })
        .collect()
}

shape! {
    struct Peer of v1::PeerFigures {
        id: String = |peer| peer.machine_id.clone(),
        name: String = |peer| peer.machine_name.clone(),
        state: String = |peer| machine_state(peer.liveness(), peer.evicted),
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
}

impl<'a> Doctor<'a> {
    /// The findings, and the examinations they come from.
    pub(crate) fn new(
        machines: &[v1::ExaminedMachine],
        findings: &'a [Finding],
    ) -> CliResult<Self> {
        let machines = machines.iter().map(Examined::try_from);
        Ok(Self {
            findings,
            machines: machines.collect::<Result<_, _>>()?,
        })
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
        Ok(Self {
            state: machine_state(examined.liveness(), examined.evicted),
            id: record.id,
            name: record.name,
            connected: examined.connected,
            answered,
            failure: examined.failure.show(),
            clock: doctor::clock(examined).map(|(ahead_ms, error_ms)| Clock { ahead_ms, error_ms }),
            uc_version: said.uc_version.show(),
            docker_version: said.docker_version.show(),
            docker_failure: said.docker_failure.show(),
            started_at: rfc3339_ms(said.started_at_ms),
            unready: said.unready.show(),
            disk_failure: said.disk_failure.show(),
            set_aside: said.set_aside.show(),
            rejoining: said.rejoining,
            store: said.store.as_ref().map(|figures| Store {
                quarantined_writers: said.quarantined_writers,
                ..Store::from(figures)
            }),
            peers: said.peers.show(),
        })
    }
}
