//! One deployment of a project at a time. On this machine that is certain ([`Turn`]). Across
//! machines it is a record that everybody who can be reached sees ([`Lock`]): advisory, because no
//! write waits for another machine. Two people who begin within the same few milliseconds, or on
//! two sides of a partition, are not kept apart; their plans are compared with the cluster again
//! before anything is done.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uc_api::v1::LockRecord;
use uc_api::{Code, Failure};
use uc_cluster_state::membership::Liveness;

use crate::member::Member;
use crate::records::{self, delete, put};

/// A lock that is not renewed for this long is nobody's: its machine died. Also bounds how far
/// clocks may differ.
const EXPIRES_MS: i64 = 60_000;
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(15);

/// Projects that are being deployed from this machine. Two deployments of one project would undo
/// each other.
#[derive(Debug, Default)]
pub struct Running(Mutex<BTreeSet<String>>);

/// A project's place in [`Running`]; gives it back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    running: Arc<Running>,
    projects: Vec<String>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut running = self
            .running
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for project in &self.projects {
            running.remove(project);
        }
    }
}

impl Turn {
    pub(super) fn take(
        running: &Arc<Running>,
        projects: BTreeSet<String>,
    ) -> Result<Self, Failure> {
        let mut taken = running.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(project) = projects.iter().find(|project| taken.contains(*project)) {
            return Err(Failure::new(
                Code::Refused,
                format!("another deployment of project {project} is running on this machine"),
            )
            .hint("wait until it has ended; `uc ps` shows the replicas"));
        }
        taken.extend(projects.iter().cloned());
        Ok(Self {
            running: Arc::clone(running),
            projects: projects.into_iter().collect(),
        })
    }
}

/// The projects' records in the store, renewed until they are released by one task, which alone
/// writes and removes them.
#[derive(Debug)]
pub(super) struct Lock {
    released: CancellationToken,
    task: JoinHandle<()>,
}

impl Lock {
    /// Refuses if another machine that is not down holds one of the projects.
    pub(super) async fn take(
        member: &Arc<Member>,
        projects: BTreeSet<String>,
        deployment: &str,
    ) -> Result<Self, Failure> {
        let view = member.view();
        let alive = member.liveness();
        let others: Vec<LockRecord> = view
            .locks()
            .into_iter()
            .filter(|lock| lock.machine_id != member.membership.machine_id)
            .filter(|lock| alive.get(&lock.machine_id) != Some(&Liveness::Down))
            .collect();
        if let Some(lock) = held(&others, &projects, member.now_ms()) {
            let holder = view.machine(&lock.machine_id).map(|machine| machine.name);
            let holder =
                holder.unwrap_or_else(|_| "a machine that is no longer a member".to_owned());
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
        Ok(Self { released, task })
    }

    /// Gives the projects back.
    pub(super) async fn release(self) {
        self.released.cancel();
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
        let expires_at_ms = self.member.now_ms() + EXPIRES_MS;
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

/// The lock that keeps a deployment of these projects from starting, if there is one.
fn held<'a>(
    locks: &'a [LockRecord],
    projects: &BTreeSet<String>,
    now_ms: i64,
) -> Option<&'a LockRecord> {
    locks
        .iter()
        .find(|lock| projects.contains(&lock.project) && lock.expires_at_ms > now_ms)
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
        let locks = [lock.clone()];
        let projects = |name: &str| BTreeSet::from([name.to_owned()]);
        assert_eq!(held(&locks, &projects("shop"), 99), Some(&lock));
        assert_eq!(held(&locks, &projects("shop"), 100), None);
        assert_eq!(held(&locks, &projects("blog"), 0), None);
    }

    #[test]
    fn one_project_is_deployed_once_at_a_time() {
        let running = Arc::new(Running::default());
        let first = Turn::take(&running, BTreeSet::from(["shop".to_owned()])).unwrap();
        let refused = Turn::take(
            &running,
            BTreeSet::from(["blog".to_owned(), "shop".to_owned()]),
        )
        .unwrap_err();
        assert!(refused.message.contains("project shop"), "{refused}");
        let _other = Turn::take(&running, BTreeSet::from(["blog".to_owned()])).unwrap();
        drop(first);
        assert!(Turn::take(&running, BTreeSet::from(["shop".to_owned()])).is_ok());
    }
}
