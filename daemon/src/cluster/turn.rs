//! One deployment of a project at a time on this machine.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uc_api::{Code, Failure};

/// Projects that are being deployed from this machine. Two deployments of one project would undo
/// each other.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<Projects>);

#[derive(Debug, Default)]
struct Projects {
    deployed: BTreeSet<String>,
    closed: bool,
}

/// A project's place in [`Running`]; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    running: Arc<Running>,
    projects: Vec<String>,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, Projects> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().deployed.is_empty()
    }

    /// Refuses all further deployments of this member, unless one is running. Returns whether it
    /// does.
    pub(crate) fn close(&self) -> bool {
        let mut projects = self.lock();
        projects.closed = projects.deployed.is_empty();
        projects.closed
    }

    /// Undoes [`close`](Self::close).
    pub(crate) fn open(&self) {
        self.lock().closed = false;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        for project in &self.projects {
            running.deployed.remove(project);
        }
    }
}

impl Turn {
    pub(crate) fn take(
        running: &Arc<Running>,
        projects: BTreeSet<String>,
    ) -> Result<Self, Failure> {
        let mut present = running.lock();
        if present.closed {
            let message = "this machine is taking another subnet";
            return Err(Failure::new(Code::Refused, message).hint("try again in a minute"));
        }
        let taken = &mut present.deployed;
        if let Some(project) = projects.iter().find(|project| taken.contains(*project)) {
            return Err(Failure::new(
                Code::Refused,
                format!("another deployment of project {project} is running"),
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn close_waits_for_the_running_deployment_and_refuses_the_next() {
        let running = Arc::new(Running::default());
        let take = || Turn::take(&running, BTreeSet::from(["shop".to_owned()]));
        let first = take().unwrap();
        assert!(!running.close());
        drop(first);
        assert!(running.close());
        let refused = take().unwrap_err();
        assert!(refused.message.contains("another subnet"), "{refused}");
        running.open();
        assert!(take().is_ok());
    }
}
