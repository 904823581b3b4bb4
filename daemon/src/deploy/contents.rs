//! A machine gets the contents of a replica before it gets the replica: from the machine that
//! executes the deployment, or from any other that has them. So what a client brought once serves
//! later scaling and deployments through other machines, too.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use uc_api::v1::{ContentPart, ServiceSpec};
use uc_api::{Code, ContentHash, Failure};
use uc_cluster_state::membership::Liveness;

use super::execute::Progress;
use crate::cluster::member::Member;
use crate::cluster::peers::Remote;
use crate::files::sweep::named_by;

/// One content from machine to machine: 16 MiB over a line of half a megabit a second, twice.
const COPY_LIMIT: Duration = Duration::from_mins(10);
/// Parts on their way from one machine to the other.
const QUEUE: usize = 8;

/// Machines as far as contents go.
#[async_trait]
pub(super) trait Holders: Sync {
    /// Keeps others from sending to this machine meanwhile.
    async fn turn(&self, machine: &str) -> OwnedMutexGuard<()>;
    /// The machine that executes.
    fn own(&self) -> &str;
    /// All others that answer.
    fn others(&self) -> Vec<String>;
    /// Which of these contents a machine lacks.
    async fn missing(
        &self,
        machine: &str,
        hashes: &[ContentHash],
    ) -> Result<Vec<ContentHash>, Failure>;
    /// One content from a machine that has it to one that has not.
    async fn copy(&self, hash: &ContentHash, from: &str, to: &str) -> Result<(), Failure>;
}

/// Makes sure that `machine` has all contents of `spec`.
pub(super) async fn ensure(
    holders: &dyn Holders,
    machine: &str,
    spec: &ServiceSpec,
    progress: &Progress,
) -> Result<(), Failure> {
    let wanted: Vec<ContentHash> = named_by(spec).into_iter().collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let _turn = holders.turn(machine).await;
    let missing = holders.missing(machine, &wanted).await?;
    for hash in &missing {
        let what = what(spec, hash);
        progress.say(format!("sending {what}"));
        provide(holders, machine, hash, &what, &spec.name).await?;
    }
    Ok(())
}

async fn provide(
    holders: &dyn Holders,
    machine: &str,
    hash: &ContentHash,
    what: &str,
    service: &str,
) -> Result<(), Failure> {
    let wanted = std::slice::from_ref(hash);
    let mut broken = None;
    // The own machine first: in a deployment it has all of them.
    let own = holders.own();
    if own != machine
        && holders
            .missing(own, wanted)
            .await
            .is_ok_and(|missing| missing.is_empty())
    {
        match holders.copy(hash, own, machine).await {
            Ok(()) => return Ok(()),
            Err(failure) => broken = Some(failure),
        }
    }
    let others: Vec<String> = holders
        .others()
        .into_iter()
        .filter(|other| other != machine)
        .collect();
    let answers = join_all(others.iter().map(|other| holders.missing(other, wanted))).await;
    for (other, answer) in others.iter().zip(answers) {
        if !answer.is_ok_and(|missing| missing.is_empty()) {
            continue;
        }
        match holders.copy(hash, other, machine).await {
            Ok(()) => return Ok(()),
            Err(failure) => broken = Some(failure),
        }
    }
    Err(match broken {
        Some(failure) => {
            let message = format!("{what} of {service} cannot be sent: {}", failure.message);
            Failure { message, ..failure }
        }
        None => Failure::new(
            Code::Refused,
            format!("{what} (needed by {service}) was not found on any reachable machine"),
        )
        .hint("deploy again from the computer that has the compose file"),
    })
}

/// The content for a person: name and first digits.
fn what(spec: &ServiceSpec, hash: &ContentHash) -> String {
    let file = spec
        .files
        .iter()
        .find(|file| file.hash == hash.as_str())
        .map(|file| file.name.clone());
    let variable = || {
        let (name, _) = spec
            .secret_environment
            .iter()
            .find(|(_, named)| *named == hash.as_str())?;
        Some(format!("the value of {name}"))
    };
    let name = file
        .or_else(variable)
        .unwrap_or_else(|| "a content".to_owned());
    format!("{name} ({})", hash.short())
}

#[async_trait]
impl Holders for &Member {
    async fn turn(&self, machine: &str) -> OwnedMutexGuard<()> {
        self.node.files().turn(machine).await
    }

    fn own(&self) -> &str {
        &self.membership.machine_id
    }

    fn others(&self) -> Vec<String> {
        let cluster = self.cluster();
        let up = cluster
            .others()
            .filter(|machine| cluster.liveness(machine.id) == Some(Liveness::Up));
        up.map(|machine| machine.id.to_string()).collect()
    }

    async fn missing(
        &self,
        machine: &str,
        hashes: &[ContentHash],
    ) -> Result<Vec<ContentHash>, Failure> {
        self.remote(machine)?.missing_contents(hashes).await
    }

    async fn copy(&self, hash: &ContentHash, from: &str, to: &str) -> Result<(), Failure> {
        let copied = timeout(
            COPY_LIMIT,
            transfer(&self.remote(from)?, &self.remote(to)?, hash),
        )
        .await;
        copied.unwrap_or_else(|_| {
            Err(Failure::new(
                Code::TimedOut,
                format!("not sent within {} s", COPY_LIMIT.as_secs()),
            ))
        })
    }
}

/// From one machine's store into another's, in parts, no faster than the other takes them.
async fn transfer(source: &Remote, target: &Remote, hash: &ContentHash) -> Result<(), Failure> {
    let mut parts = source.read_content(hash).await?;
    let (sender, receiver) = mpsc::channel::<ContentPart>(QUEUE);
    let feed = async move {
        while let Some(part) = parts.next().await? {
            // The receiver ended the call: its answer says why.
            if sender.send(part).await.is_err() {
                break;
            }
        }
        Ok::<(), Failure>(())
    };
    let load = target.load_content(ReceiverStream::new(receiver));
    let (fed, loaded) = tokio::join!(feed, load);
    // A source that broke off leaves the target with a cut archive, which it refuses; the source's
    // word is the better one.
    fed?;
    loaded
}

#[cfg(test)]
mod tests;
