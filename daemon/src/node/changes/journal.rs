//! The files that keep the changes of this machine's replicas, one for each change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use uc_api::v1::{ChangeRecord, ReplicaChange};
use uc_api::{Code, Failure};

use crate::durable::{SavedMessage, read_messages};

/// A change and its file.
pub(super) type Saved = Arc<SavedMessage<ChangeRecord>>;

/// The directory of the files.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    directory: PathBuf,
}

impl Journal {
    /// Reads all changes.
    pub(super) fn read(directory: &Path) -> Result<(Self, Vec<Saved>), Failure> {
        let journal = Self {
            directory: directory.to_owned(),
        };
        let read = fs::create_dir_all(directory).and_then(|()| {
            read_messages(directory, |record: &ChangeRecord| record.change.is_some())
        });
        let records = read.map_err(|error| journal.failed("read", &error))?;
        Ok((journal, records))
    }

    /// A change that is not written yet.
    pub(super) fn saved(&self, change: &ReplicaChange, record: ChangeRecord) -> Saved {
        SavedMessage::new(self.path(change), record)
    }

    /// Writes a change. It is on the disk when this returns.
    pub(super) async fn write(&self, saved: &Saved) -> Result<(), Failure> {
        let written = saved.save().await;
        written.map_err(|error| self.failed("write", &error))
    }

    /// Removes a change for good.
    pub(super) fn remove(&self, saved: &Saved) -> Result<(), Failure> {
        let removed = saved.remove();
        removed.map_err(|error| self.failed("remove from", &error))
    }

    /// The names of steps have characters that a file name cannot have.
    fn path(&self, change: &ReplicaChange) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        for part in [&change.deployment_id, &change.step_id] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        self.directory.join(hasher.finalize().to_hex().as_str())
    }

    fn failed(&self, action: &str, error: &io::Error) -> Failure {
        let code = if error.kind() == io::ErrorKind::StorageFull {
            Code::Exhausted
        } else {
            Code::Internal
        };
        let directory = self.directory.display();
        Failure::new(
            code,
            format!("cannot {action} the journal {directory}: {error}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn journal_keeps_changes_until_they_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("changes");
        let (journal, records) = Journal::read(&path).unwrap();
        assert!(records.is_empty());
        let saved = |step: &str| {
            let change = ReplicaChange {
                deployment_id: "d1".into(),
                step_id: step.into(),
                ..ReplicaChange::default()
            };
            let record = ChangeRecord {
                change: Some(change.clone()),
                ..ChangeRecord::default()
            };
            journal.saved(&change, record)
        };
        let (first, second) = (saved("p/web/0"), saved("p/web/1"));
        journal.write(&first).await.unwrap();
        first.lock().container_id = "c1".into();
        journal.write(&first).await.unwrap();
        journal.write(&second).await.unwrap();
        // Half a file of a machine that died, and one that is damaged.
        fs::write(path.join("half.new"), "x").unwrap();
        fs::write(path.join("damaged"), "x").unwrap();
        let ids = || {
            let (_, records) = Journal::read(&path).unwrap();
            let mut ids: Vec<_> = records
                .iter()
                .map(|saved| saved.lock().container_id.clone())
                .collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(), ["", "c1"]);
        journal.remove(&first).unwrap();
        journal.remove(&first).unwrap();
        // A write that was under way does not bring it back.
        journal.write(&first).await.unwrap();
        assert_eq!(ids(), [""]);
    }
}
