//! The file of a deployment on the machine that executes it. It is written before anything is done
//! and removed when the deployment has ended, so a daemon that was cut short finds there what to
//! continue.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use uc_api::v1::{DeployFinished, DeploymentJournal};
use uc_api::{Code, Failure};

use super::run::projects_of;
use crate::cluster::deployments::is_automatic;
use crate::cluster::executing::Executing;
use crate::cluster::member::disk_full;
use crate::durable::{SavedMessage, read_messages};

/// One deployment and its file.
#[derive(Debug)]
pub(super) struct Journal {
    saved: Arc<SavedMessage<DeploymentJournal>>,
    /// The steps that this process began.
    begun: Mutex<BTreeSet<String>>,
    /// An earlier process began it, with steps that are not known here.
    resumed: bool,
}

impl Journal {
    /// Writes down a deployment that begins.
    pub(super) async fn begin_deployment(
        directory: &Path,
        content: DeploymentJournal,
    ) -> Result<Self, Failure> {
        fs::create_dir_all(directory).map_err(|error| failed("write", &error))?;
        let path = directory.join(&content.deployment_id);
        let journal = Self {
            saved: SavedMessage::new(path, content),
            begun: Mutex::default(),
            resumed: false,
        };
        journal.save().await?;
        Ok(journal)
    }

    /// The deployments that an earlier process of this daemon left.
    pub(super) fn left(directory: &Path) -> Result<Vec<Self>, Failure> {
        let complete =
            |content: &DeploymentJournal| content.plan.is_some() && content.request.is_some();
        let left = read_messages(directory, complete).map_err(|error| failed("read", &error))?;
        let resumed = left.into_iter().map(|saved| Self {
            saved,
            begun: Mutex::default(),
            resumed: true,
        });
        Ok(resumed.collect())
    }

    /// The deployment.
    pub(super) fn content(&self) -> DeploymentJournal {
        self.saved.lock().clone()
    }

    /// Notes that a step begins. The machine concerned keeps the step itself.
    pub(super) fn begin(&self, step: &str) {
        self.begun().insert(step.to_owned());
    }

    /// Whether a step was begun, or may have been.
    pub(super) fn is_begun(&self, step: &str) -> bool {
        self.resumed || self.begun().contains(step)
    }

    /// Whether the command before the deployment of this service has succeeded.
    pub(super) fn is_prepared(&self, service: &str) -> bool {
        self.saved
            .lock()
            .prepared
            .iter()
            .any(|name| name == service)
    }

    /// Notes that the command before the deployment of this service has succeeded.
    pub(super) async fn note_prepared(&self, service: &str) -> Result<(), Failure> {
        self.saved.lock().prepared.push(service.to_owned());
        self.save().await
    }

    /// Notes that the deployment is being undone, and why.
    pub(super) async fn note_failure(&self, failure: Failure) -> Result<(), Failure> {
        self.saved.lock().failure = Some(failure.into());
        self.save().await
    }

    /// Notes how the deployment ended.
    pub(super) async fn note_finished(&self, finished: &DeployFinished) -> Result<(), Failure> {
        self.saved.lock().finished = Some(finished.clone());
        self.save().await
    }

    /// Whether an earlier process began the deployment.
    pub(super) fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Refuses projects of deployments that were cut short and are about to continue. One that no
    /// user asked for is superseded instead.
    pub(super) fn refuse_left(
        directory: &Path,
        executing: &Executing,
        projects: &BTreeSet<String>,
    ) -> Result<(), Failure> {
        for journal in Self::left(directory)? {
            let content = journal.content();
            let id = &content.deployment_id;
            let plan = content.plan.expect("a journal has the plan");
            let project = projects_of(&plan)
                .into_iter()
                .find(|of| projects.contains(of));
            let continues = !is_automatic(id) && executing.get(id).is_none();
            if let Some(project) = project.filter(|_| continues) {
                let message = format!(
                    "deployment {id} of project {project} was cut short on this machine and is about to continue"
                );
                return Err(Failure::new(Code::Refused, message).hint(format!(
                    "`uc deployments watch {id}` shows it; try again when it has ended"
                )));
            }
        }
        Ok(())
    }

    /// Removes the file: the deployment has ended.
    pub(super) fn remove(&self) {
        if let Err(error) = self.saved.remove() {
            tracing::warn!(%error, "cannot remove the journal of a deployment that has ended");
        }
    }

    fn begun(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn save(&self) -> Result<(), Failure> {
        let saved = self.saved.save().await;
        saved.map_err(|error| failed("write", &error))
    }
}

fn failed(action: &str, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::StorageFull {
        return disk_full();
    }
    let message = format!("cannot {action} the journal of deployments: {error}");
    Failure::new(Code::Internal, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uc_api::v1::{Plan, PlanRequest, ServicePlan};

    use super::*;
    use crate::cluster::executing::Executed;

    #[tokio::test]
    async fn only_what_a_user_began_and_what_is_about_to_continue_refuses_its_project() {
        let directory = tempfile::tempdir().unwrap();
        let executing = Arc::new(Executing::default());
        let shop = BTreeSet::from(["shop".to_owned()]);
        let refused = || Journal::refuse_left(directory.path(), &executing, &shop);
        for id in ["auto-1", "d1"] {
            let of_shop = ServicePlan {
                project: "shop".into(),
                ..ServicePlan::default()
            };
            let content = DeploymentJournal {
                deployment_id: id.into(),
                request: Some(PlanRequest::default()),
                plan: Some(Plan {
                    services: vec![of_shop],
                    ..Plan::default()
                }),
                ..DeploymentJournal::default()
            };
            let _journal = Journal::begin_deployment(directory.path(), content)
                .await
                .unwrap();
            assert_eq!(refused().is_ok(), id != "d1", "{id}");
        }
        let _executing = executing.add("d1", Executed::default());
        refused().unwrap();
    }

    #[tokio::test]
    async fn journal_has_what_an_earlier_process_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deployments");
        assert!(Journal::left(&path).unwrap().is_empty());
        let content = DeploymentJournal {
            deployment_id: "d1".into(),
            request: Some(PlanRequest::default()),
            plan: Some(Plan::default()),
            ..DeploymentJournal::default()
        };
        let journal = Journal::begin_deployment(&path, content).await.unwrap();
        journal.begin("p/web/0");
        assert!(journal.is_begun("p/web/0") && !journal.is_begun("p/web/1"));
        journal.note_prepared("web").await.unwrap();
        let failure = Failure::new(Code::Refused, "it exited");
        journal.note_failure(failure.clone()).await.unwrap();
        fs::write(path.join("damaged"), "x").unwrap();
        let left = Journal::left(&path).unwrap();
        let [left] = left.as_slice() else {
            panic!("{left:?}")
        };
        assert!(left.is_prepared("web") && left.is_begun("p/web/1"));
        assert_eq!(left.content().failure.map(Failure::from), Some(failure));
        left.remove();
        assert!(Journal::left(&path).unwrap().is_empty());
    }
}
