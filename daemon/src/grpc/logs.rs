//! Logs of replicas on many machines as one stream in time order. While following, lines are in
//! order as far as they arrive together. A machine that does not answer is reported in the stream
//! and does not hold up the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tonic::Status;
use uc_api::v1::{LogEntry, LogsRequest, NodeLogsRequest};
use uc_api::{Code, Failure, MachineId};

use super::services::selected;
use crate::cluster::machines::Machine;
use crate::cluster::member::Member;
use crate::engine::logs::{Patience, merge};

const QUEUE: usize = 256;
/// Lines are held back this long for another machine. The machines have opened their logs by then,
/// so the first line of their history takes about a round trip, and the pause between two lines of
/// it is shorter still.
const FOLLOWING: Patience = Patience::following(FIRST_LINE, Duration::from_millis(250));
const FIRST_LINE: Duration = Duration::from_secs(1);

struct Source {
    machine: Arc<Machine>,
    containers: Vec<String>,
}

/// Starts reading; the receiver ends when the logs of all machines have ended.
pub(super) fn start(
    member: &Arc<Member>,
    request: LogsRequest,
) -> Result<mpsc::Receiver<LogEntry>, Failure> {
    let cluster = member.cluster();
    let mut sources: BTreeMap<MachineId, Source> = BTreeMap::new();
    for (machine, replica) in selected(&cluster, &request.services, "")? {
        let container = &replica.record.container_id;
        if !container.starts_with(&request.container) {
            continue;
        }
        let source = sources.entry(machine.id).or_insert_with(|| Source {
            machine: Arc::clone(machine),
            containers: Vec::new(),
        });
        source.containers.push(container.clone());
    }
    if sources.is_empty() && !request.container.is_empty() {
        return Err(Failure::new(
            Code::NotFound,
            format!("container `{}` not found", request.container),
        )
        .hint("`uc ps` lists the containers"));
    }
    let (sender, receiver) = mpsc::channel(QUEUE);
    let task_member = Arc::clone(member);
    member.tasks.spawn(async move {
        tokio::select! {
            () = task_member.cancel.cancelled() => {}
            () = sender.closed() => {}
            () = read(&task_member, sources.into_values().collect(), &request, &sender) => {}
        }
    });
    Ok(receiver)
}

async fn read(
    member: &Member,
    sources: Vec<Source>,
    request: &LogsRequest,
    sender: &mpsc::Sender<LogEntry>,
) {
    let opened = join_all(sources.into_iter().map(|source| async move {
        let result = open(member, &source, request).await;
        (source.machine, result)
    }))
    .await;
    let mut streams = Vec::new();
    for (machine, result) in opened {
        match result {
            Ok(stream) => streams.push((machine, stream)),
            Err(failure) => {
                let _reader_gone = sender.send(problem(&machine, &failure)).await;
            }
        }
    }
    let merged = merged(streams, request.follow);
    tokio::pin!(merged);
    while let Some(entry) = merged.next().await {
        if sender.send(entry).await.is_err() {
            return;
        }
    }
}

type Entries = BoxStream<'static, Result<LogEntry, Status>>;

/// The entries of all machines in time order. A machine whose stream breaks has its problem as the
/// last entry.
fn merged(
    streams: Vec<(Arc<Machine>, Entries)>,
    follow: bool,
) -> impl Stream<Item = LogEntry> + Send {
    let patience = if follow {
        FOLLOWING
    } else {
        Patience::UNTIL_END
    };
    merge(streams, time_of, patience).map(|(machine, entry)| match entry {
        Ok(entry) => named(entry, &machine),
        Err(status) => problem(&machine, &status.into()),
    })
}

/// When a line was written; problems are passed on immediately.
fn time_of(entry: &Result<LogEntry, Status>) -> i64 {
    match entry {
        Ok(entry) if entry.problem.is_empty() => entry.time_ns,
        _ => i64::MIN,
    }
}

async fn open(member: &Member, source: &Source, request: &LogsRequest) -> Result<Entries, Failure> {
    let request = NodeLogsRequest {
        request: Some(request.clone()),
        container_ids: source.containers.clone(),
    };
    let entries = member.peers.machine(&source.machine).logs(request).await?;
    Ok(entries.boxed())
}

/// The entry that reports why the logs of a machine are missing.
fn problem(machine: &Machine, failure: &Failure) -> LogEntry {
    let entry = LogEntry {
        problem: failure.message.clone(),
        ..LogEntry::default()
    };
    named(entry, machine)
}

/// Sets the machine's name as this daemon knows it: the machine itself may not know a new one yet.
fn named(mut entry: LogEntry, machine: &Machine) -> LogEntry {
    entry.machine_id = machine.id.to_string();
    entry.machine_name = machine.name.to_string();
    entry
}

#[cfg(test)]
mod tests;
