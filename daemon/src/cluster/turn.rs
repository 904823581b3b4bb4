//! One deployment of a project at a time on this machine.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use uc_api::{Code, Failure};

/// Projects that are being deployed from this machine. Two deployments of one project would undo
/// each other.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<BTreeSet<String>>);

/// A project's place in [`Running`]; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    running: Arc<Running>,
    projects: Vec<String>,
}

impl Running {
    pub(crate) fn is_empty(&self) -> bool {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.is_empty()
    }
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
    pub(crate) fn take(
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
}
