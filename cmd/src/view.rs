//! What `-o json` prints. These shapes are separate from protobuf, so that the protocol can change
//! without breaking scripts.
//!
//! Fields are only ever added. Enumerations are words (`unknown` where the daemon is newer than
//! `uc`), times are RFC 3339 in UTC, durations are milliseconds, and what is not set is null.
//! `docs/cli.md` documents the shapes.

mod conflict;
mod deployment;
mod doctor;
mod history;
mod machine;
pub(crate) mod shape;
mod spec;

use std::collections::BTreeMap;

pub(crate) use conflict::{Conflict, Settled};
pub(crate) use deployment::Deployment;
pub(crate) use doctor::Doctor;
pub(crate) use history::{Field, History};
pub(crate) use machine::{
    AddedMachine, JoinedCluster, MachineEntry, NewCluster, RemovedMachine, RenamedMachine, Token,
    TokenEntry,
};
use serde::Serialize;
use shape::{Show as _, shape};
pub(crate) use spec::{Port, Spec, Volume, port_text};
use uc_api::v1;

use crate::times::rfc3339_ms;
use crate::words::{health, kept, liveness, machine_state, mode, state, word};

/// A service, in `uc ls` and `uc inspect`.
#[derive(Debug, Serialize)]
pub(crate) struct Service {
    project: String,
    name: String,
    revision: String,
    mode: String,
    replicas: Replicas,
    image: String,
    ports: Vec<Port>,
    updated_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct Replicas {
    desired: u32,
    running: u32,
    healthy: u32,
    /// Jobs that have ended with code 0.
    completed: u32,
}

impl Service {
    pub(crate) fn new(spec: &v1::ServiceSpec, status: &v1::ServiceStatus) -> Self {
        Self {
            mode: mode(spec.mode()),
            revision: status.revision.clone(),
            replicas: Replicas {
                desired: status.desired,
                running: status.running,
                healthy: status.healthy,
                completed: status.completed,
            },
            ports: spec.ports.show(),
            project: spec.project.clone(),
            name: spec.name.clone(),
            image: spec.image.clone(),
            updated_at: rfc3339_ms(status.updated_at_ms),
        }
    }
}

/// A replica, in `uc ps` and `uc inspect`.
#[derive(Debug, Serialize)]
pub(crate) struct Replica {
    project: String,
    service: String,
    container_id: String,
    container_name: String,
    image: String,
    revision: String,
    current: bool,
    /// Why its machine removes it. `None` if it does not.
    to_be_removed: Option<String>,
    state: String,
    health: String,
    exit_code: Option<i32>,
    restart_count: u32,
    draining: bool,
    /// `failed`: it is not a replica any longer, and only kept for its logs.
    kept: Option<String>,
    ip: Option<String>,
    ports: Vec<Port>,
    created_at: Option<String>,
    machine: ReplicaMachine,
}

#[derive(Debug, Serialize)]
struct ReplicaMachine {
    id: String,
    name: String,
    state: String,
    engine_away_since: Option<String>,
}

impl From<&(v1::ReplicaRecord, v1::ReplicaStatus)> for Replica {
    fn from((record, status): &(v1::ReplicaRecord, v1::ReplicaStatus)) -> Self {
        Self {
            state: state(record),
            health: health(record),
            ip: record.ip.show(),
            ports: record.ports.show(),
            created_at: rfc3339_ms(record.created_at_ms),
            project: record.project.clone(),
            service: record.service.clone(),
            container_id: record.container_id.clone(),
            container_name: record.container_name.clone(),
            image: record.image.clone(),
            revision: record.revision.clone(),
            current: status.current,
            to_be_removed: status
                .retirement
                .as_ref()
                .map(|record| record.reason.clone()),
            exit_code: record.exit_code,
            restart_count: record.restart_count,
            draining: record.draining,
            kept: kept(record),
            machine: ReplicaMachine {
                id: status.machine_id.clone(),
                name: status.machine_name.clone(),
                state: liveness(status.machine_liveness()),
                engine_away_since: rfc3339_ms(status.engine_away_since_ms),
            },
        }
    }
}

/// `uc inspect`.
#[derive(Debug, Serialize)]
pub(crate) struct Inspection {
    pub(crate) service: Service,
    pub(crate) spec: Spec,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) volumes: Vec<Volume>,
}

/// A machine, in `uc machine ls`.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    id: String,
    name: String,
    state: String,
    connected: bool,
    subnet: Option<String>,
    public_key: String,
    endpoints: Vec<String>,
    replicas: u32,
    created_at: Option<String>,
    labels: BTreeMap<String, String>,
    /// `None`: it is not cordoned.
    cordoned_at: Option<String>,
    facts: Option<Facts>,
}

shape! {
    struct Facts of v1::MachineFacts {
        hostname: String,
        os: String,
        kernel: String,
        arch: String,
        docker_version: Option<String>,
        uc_version: String,
        cpus: Option<u32>,
        memory_bytes: Option<u64> = |facts| facts.memory.show(),
        engine_away_since: Option<String> = |facts| rfc3339_ms(facts.engine_away_since_ms),
    }
}

impl From<&(v1::MachineRecord, v1::MachineStatus)> for Machine {
    fn from((record, status): &(v1::MachineRecord, v1::MachineStatus)) -> Self {
        let record = record.clone();
        Self {
            subnet: record.subnet.show(),
            created_at: rfc3339_ms(record.created_at_ms),
            id: record.id,
            name: record.name,
            state: machine_state(status.liveness(), status.evicted),
            connected: status.connected,
            public_key: record.public_key,
            endpoints: record.endpoints,
            labels: record.labels,
            cordoned_at: rfc3339_ms(record.cordoned_at_ms),
            replicas: status.replicas,
            facts: status.facts.show(),
        }
    }
}

shape! {
    /// A lock, in `uc lock`.
    pub(crate) struct Lock of v1::Lock {
        project: String,
        deployment: String = |lock| lock.deployment_id.clone(),
        machine: LockMachine = |lock| LockMachine {
            id: lock.machine_id.clone(),
            name: lock.machine_name.show(),
        },
        age_ms: u64,
        confirmed: bool,
        holders: Vec<String>,
    }
}

/// The machine that executes a deployment.
#[derive(Debug, Serialize)]
struct LockMachine {
    id: String,
    /// `None`: it is no longer in the cluster.
    name: Option<String>,
}

/// A line of `uc logs`.
#[derive(Debug, Serialize)]
pub(crate) struct LogLine {
    time: Option<String>,
    machine: String,
    project: String,
    service: String,
    container_id: String,
    stream: Option<String>,
    message: Option<String>,
    problem: Option<String>,
}

impl From<&v1::LogEntry> for LogLine {
    fn from(entry: &v1::LogEntry) -> Self {
        let problem: Option<String> = entry.problem.show();
        let is_line = problem.is_none();
        Self {
            time: (entry.time_ns != 0).then(|| crate::times::rfc3339_ns(entry.time_ns, 9)),
            machine: entry.machine_name.clone(),
            project: entry.project.clone(),
            service: entry.service.clone(),
            container_id: entry.container_id.clone(),
            stream: is_line.then(|| word(entry.stream().as_str_name(), "LOG_STREAM_")),
            message: is_line.then(|| {
                String::from_utf8_lossy(&entry.message)
                    .trim_end_matches('\n')
                    .to_owned()
            }),
            problem,
        }
    }
}

/// `uc machine backup`.
#[derive(Debug, Serialize)]
pub(crate) struct Backup {
    machine: BackupMachine,
    path: String,
    bytes: u64,
    blake3: String,
}

#[derive(Debug, Serialize)]
struct BackupMachine {
    id: String,
    name: String,
}

impl Backup {
    pub(crate) fn new(done: &v1::BackupResponse, machine: &v1::MachineRecord) -> Self {
        Self {
            machine: BackupMachine {
                id: machine.id.clone(),
                name: machine.name.clone(),
            },
            path: done.path.clone(),
            bytes: done.bytes,
            blake3: done.digest.clone(),
        }
    }
}

/// A context, in `uc ctx`.
#[derive(Debug, Serialize)]
pub(crate) struct Context {
    pub(crate) name: String,
    pub(crate) current: bool,
    /// `None`: not known yet.
    pub(crate) cluster_id: Option<String>,
    pub(crate) connections: Vec<ContextConnection>,
}

/// A connection of a context.
#[derive(Debug, Serialize)]
pub(crate) struct ContextConnection {
    pub(crate) address: String,
    pub(crate) ssh_key: Option<String>,
    pub(crate) machine_id: Option<String>,
}
