//! One deployment of a project at a time. On this machine that is certain
//! ([`Turn`](crate::cluster::turn::Turn)). Across
//! machines it is a record that everybody who can be reached sees ([`Lock`]): advisory, because no
//! write waits for another machine. Two people who begin within the same few milliseconds, or on
//! two sides of a partition, are not kept apart; their plans are compared with the cluster again
//! before anything is done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use uc_api::v1::LockRecord;
use uc_api::{Code, Failure};

use crate::clock::now_ms;
use crate::cluster::member::Member;
use crate::cluster::records::{self, LOCK_EXPIRES_MS, delete, put};

/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(15);

/// The projects' records in the store, renewed until they are released by one task, which alone
/// writes and removes them.
#[derive(Debug)]
pub(super) struct Lock {
    /// Dropped, it releases the projects as well.
    released: DropGuard,
    task: JoinHandle<()>,
}

impl Lock {
    /// Refuses if another member that is not down holds one of the projects.
    pub(super) async fn take(
        member: &Arc<Member>,
        projects: BTreeSet<String>,
        deployment: &str,
    ) -> Result<Self, Failure> {
        let cluster = member.cluster();
        let mut held = cluster.held_locks(now_ms());
        let others =
            held.find(|(lock, holder)| holder.id != member.id && projects.contains(&lock.project));
        if let Some((lock, holder)) = others {
            return Err(Failure::new(
                Code::Refused,
                format!(
                    "another deployment of project {} is running on {}",
                    lock.project, holder.name
                ),
            )
            .hint("wait until it has ended; `uc ps` shows the replicas"));
        }
        let records = Records {
            member: Arc::clone(member),
            projects,
            deployment: deployment.to_owned(),
        };
        records.write().await;
        let released = CancellationToken::new();
        let task = member.tasks.spawn(records.keep(released.clone()));
        Ok(Self {
            released: released.drop_guard(),
            task,
        })
    }

    /// Gives the projects back.
    pub(super) async fn release(self) {
        drop(self.released);
        let _ended = self.task.await;
    }
}

struct Records {
    member: Arc<Member>,
    projects: BTreeSet<String>,
    deployment: String,
}

impl Records {
    /// A daemon that stops leaves them: its deployment has not ended well. They expire, unless the
    /// daemon starts again before ([`remove_left`]).
    async fn keep(self, released: CancellationToken) {
        loop {
            tokio::select! {
                () = released.cancelled() => return self.remove().await,
                () = self.member.cancel.cancelled() => return,
                () = tokio::time::sleep(RENEW) => self.write().await,
            }
        }
    }

    /// A store that cannot be written fails the deployment itself, with its own words: the lock is
    /// advisory.
    async fn write(&self) {
        let expires_at_ms = now_ms() + LOCK_EXPIRES_MS;
        let writes = self.projects.iter().map(|project| {
            let lock = LockRecord {
                project: project.clone(),
                machine_id: self.member.membership.machine_id.clone(),
                deployment_id: self.deployment.clone(),
                expires_at_ms,
            };
            put(records::LOCK, project.clone(), &lock)
        });
        if let Err(failure) = self.member.write(writes.collect()).await {
            tracing::warn!(%failure, "cannot announce this deployment to the other machines");
        }
    }

    async fn remove(&self) {
        let writes = self
            .projects
            .iter()
            .map(|project| delete(records::LOCK, project.clone()))
            .collect();
        if let Err(failure) = self.member.write(writes).await {
            tracing::warn!(%failure, "the lock of this deployment remains until it expires");
        }
    }
}

/// Removes the locks that this machine's daemon left when it ended during a deployment. To be
/// called before deployments are served. Otherwise the other members would wait for them to expire.
pub(crate) async fn remove_left(member: &Member) {
    let cluster = member.cluster();
    let locks = cluster.locks();
    let own = locks.filter(|lock| lock.machine_id == member.membership.machine_id);
    let removals: Vec<_> = own
        .map(|lock| delete(records::LOCK, lock.project.clone()))
        .collect();
    if removals.is_empty() {
        return;
    }
    if let Err(failure) = member.write(removals).await {
        tracing::warn!(%failure, "the locks of a deployment that was cut short remain until they expire");
    }
}

#[cfg(test)]
mod tests;
