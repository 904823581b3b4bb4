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
use crate::cluster::records::{self, delete, put};

/// A lock that is not renewed for this long is nobody's: its machine died. Also bounds how far
/// clocks may differ.
const EXPIRES_MS: i64 = 60_000;
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
    /// Refuses if another machine that is not down holds one of the projects.
    pub(super) async fn take(
        member: &Arc<Member>,
        projects: BTreeSet<String>,
        deployment: &str,
    ) -> Result<Self, Failure> {
        let cluster = member.cluster();
        let is_down = |machine: &str| machine.parse().is_ok_and(|id| cluster.is_down(id));
        let mut others = cluster
            .locks()
            .filter(|lock| lock.machine_id != member.membership.machine_id)
            .filter(|lock| !is_down(&lock.machine_id));
        if let Some(lock) = others.find(|lock| holds(lock, &projects, now_ms())) {
            let holder = cluster.machine(&lock.machine_id);
            let holder = holder.map_or("a machine that is no longer a member", |machine| {
                machine.name.as_str()
            });
            return Err(Failure::new(
                Code::Refused,
                format!(
                    "another deployment of project {} is running on {holder}",
                    lock.project
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
    /// A daemon that stops leaves them to expire: its deployment has not ended well.
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
        let expires_at_ms = now_ms() + EXPIRES_MS;
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

/// Whether the lock keeps a deployment of these projects from starting.
fn holds(lock: &LockRecord, projects: &BTreeSet<String>, now_ms: i64) -> bool {
    projects.contains(&lock.project) && lock.expires_at_ms > now_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_holds_its_project_until_it_expires() {
        let lock = LockRecord {
            project: "shop".into(),
            expires_at_ms: 100,
            ..LockRecord::default()
        };
        let projects = |name: &str| BTreeSet::from([name.to_owned()]);
        assert!(holds(&lock, &projects("shop"), 99));
        assert!(!holds(&lock, &projects("shop"), 100));
        assert!(!holds(&lock, &projects("blog"), 0));
    }
}
