//! The names of the images that deployments of this cluster brought to this machine, or that its
//! records called built. The name alone does not tell: a computer that is a member of one cluster
//! can build images for another one.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::Mutex;

use crate::durable;

/// The names, and the file that has them. Only what the daemon knows to be its own is removed, so
/// after the loss of the file, the images that no record names any longer are kept forever.
#[derive(Debug)]
pub(super) struct BuiltImages {
    path: PathBuf,
    names: Mutex<Names>,
}

#[derive(Debug)]
struct Names {
    present: BTreeSet<String>,
    /// What the file has.
    saved: BTreeSet<String>,
}

impl BuiltImages {
    /// Reads the file. One that does not exist has no names, and neither has one that cannot be
    /// read.
    pub(super) fn open(path: &Path) -> Self {
        let saved = match read(path) {
            Ok(names) => names,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "cannot read the names of the built images; they are not removed");
                BTreeSet::new()
            }
        };
        let present = saved.clone();
        Self {
            path: path.to_owned(),
            names: Mutex::new(Names { present, saved }),
        }
    }

    pub(super) async fn names(&self) -> BTreeSet<String> {
        self.names.lock().await.present.clone()
    }

    /// Changes the names. They are on the disk when this returns, or the next change writes them.
    pub(super) async fn change(&self, change: impl FnOnce(&mut BTreeSet<String>)) {
        let mut names = self.names.lock().await;
        change(&mut names.present);
        if names.present == names.saved {
            return;
        }
        let (path, present) = (self.path.clone(), names.present.clone());
        let written = tokio::task::spawn_blocking(move || {
            durable::replace(&path, &serde_json::to_vec(&present)?)?;
            io::Result::Ok(present)
        });
        match written.await.expect("writing a file does not panic") {
            Ok(saved) => names.saved = saved,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot write the names of the built images");
            }
        }
    }
}

fn read(path: &Path) -> io::Result<BTreeSet<String>> {
    match std::fs::read(path) {
        Ok(content) => Ok(serde_json::from_slice(&content)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_are_on_the_disk_after_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("built-images");
        let built = BuiltImages::open(&path);
        for name in ["a", "b"] {
            built.change(|names| names.extend([name.to_owned()])).await;
        }
        built.change(|names| names.retain(|name| name != "a")).await;
        let again = BuiltImages::open(&path);
        assert_eq!(again.names().await, BTreeSet::from(["b".to_owned()]));
        std::fs::write(&path, "no names").unwrap();
        assert!(BuiltImages::open(&path).names().await.is_empty());
    }

    #[tokio::test]
    async fn names_that_could_not_be_written_are_written_later() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/built-images");
        let built = BuiltImages::open(&path);
        built.change(|names| names.extend(["a".to_owned()])).await;
        std::fs::create_dir(directory.path().join("state")).unwrap();
        built.change(|_| {}).await;
        let again = BuiltImages::open(&path);
        assert_eq!(again.names().await, BTreeSet::from(["a".to_owned()]));
    }
}
