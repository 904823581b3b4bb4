//! Logs of replicas on many machines as one stream. History is merged in time order; lines that
//! arrive while following are passed on as they come. A machine that does not answer is said in the
//! stream and does not hold up the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Streaming;
use uc_api::v1::node_client::NodeClient;
use uc_api::v1::{LogEntry, LogsRequest, MachineRecord, NodeLogsRequest};
use uc_api::{Code, Failure};

use super::services::selected;
use crate::member::Member;

const QUEUE: usize = 256;
/// How long a machine may take to begin.
const BEGIN_LIMIT: Duration = Duration::from_secs(5);

struct Source {
    machine: MachineRecord,
    containers: Vec<String>,
}

/// Starts reading; the entries come from the receiver until all machines have ended.
pub(super) fn start(
    member: &Arc<Member>,
    request: LogsRequest,
) -> Result<mpsc::Receiver<LogEntry>, Failure> {
    let replicas = selected(member, &request.services, "")?;
    let mut sources: BTreeMap<String, Source> = BTreeMap::new();
    for owned in replicas {
        if !owned.replica.container_id.starts_with(&request.container) {
            continue;
        }
        let source = sources
            .entry(owned.machine.id.clone())
            .or_insert_with(|| Source {
                machine: owned.machine,
                containers: Vec::new(),
            });
        source.containers.push(owned.replica.container_id);
    }
    if sources.is_empty() && !request.container.is_empty() {
        return Err(Failure::new(
            Code::NotFound,
            format!("there is no container `{}`", request.container),
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
            Err(failure) => problem(sender, &machine, &failure).await,
        }
    }
    if request.follow {
        join_all(
            streams
                .into_iter()
                .map(|(machine, stream)| pass_on(machine, stream, sender)),
        )
        .await;
    } else {
        merge(streams, sender).await;
    }
}

async fn open(
    member: &Member,
    source: &Source,
    request: &LogsRequest,
) -> Result<Streaming<LogEntry>, Failure> {
    let mut node = NodeClient::new(member.peers.channel(&source.machine)?);
    let call = node.logs(NodeLogsRequest {
        request: Some(request.clone()),
        container_ids: source.containers.clone(),
    });
    match timeout(BEGIN_LIMIT, call).await {
        Ok(answer) => Ok(answer.map_err(Failure::from)?.into_inner()),
        Err(_) => Err(Failure::new(
            Code::TimedOut,
            format!("no answer within {} s", BEGIN_LIMIT.as_secs()),
        )),
    }
}

async fn problem(sender: &mpsc::Sender<LogEntry>, machine: &MachineRecord, failure: &Failure) {
    let entry = LogEntry {
        machine_id: machine.id.clone(),
        machine_name: machine.name.clone(),
        problem: failure.message.clone(),
        ..LogEntry::default()
    };
    let _reader_gone = sender.send(entry).await;
}

/// The daemon that asked knows the machine's present name best.
fn named(mut entry: LogEntry, machine: &MachineRecord) -> LogEntry {
    entry.machine_id.clone_from(&machine.id);
    entry.machine_name.clone_from(&machine.name);
    entry
}

async fn pass_on(
    machine: MachineRecord,
    mut stream: Streaming<LogEntry>,
    sender: &mpsc::Sender<LogEntry>,
) {
    loop {
        match stream.message().await {
            Ok(Some(entry)) => {
                if sender.send(named(entry, &machine)).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(status) => return problem(sender, &machine, &status.into()).await,
        }
    }
}

/// Each stream is in time order; the smallest head of all goes next.
async fn merge(
    streams: Vec<(MachineRecord, Streaming<LogEntry>)>,
    sender: &mpsc::Sender<LogEntry>,
) {
    let mut heads = Vec::new();
    for (machine, mut stream) in streams {
        if let Some(head) = next(&machine, &mut stream, sender).await {
            heads.push((head, machine, stream));
        }
    }
    while let Some(at) = earliest(&heads) {
        let (machine, stream) = match heads.get_mut(at) {
            Some((_, machine, stream)) => (machine.clone(), stream),
            None => return,
        };
        let following = next(&machine, stream, sender).await;
        let entry = match (following, heads.get_mut(at)) {
            (Some(following), Some((head, ..))) => std::mem::replace(head, following),
            _ => heads.swap_remove(at).0,
        };
        if sender.send(entry).await.is_err() {
            return;
        }
    }
}

fn earliest<T>(heads: &[(LogEntry, MachineRecord, T)]) -> Option<usize> {
    heads
        .iter()
        .enumerate()
        .min_by_key(|(_, (entry, ..))| entry.time_ns)
        .map(|(at, _)| at)
}

async fn next(
    machine: &MachineRecord,
    stream: &mut Streaming<LogEntry>,
    sender: &mpsc::Sender<LogEntry>,
) -> Option<LogEntry> {
    match stream.message().await {
        Ok(entry) => entry.map(|entry| named(entry, machine)),
        Err(status) => {
            problem(sender, machine, &status.into()).await;
            None
        }
    }
}
