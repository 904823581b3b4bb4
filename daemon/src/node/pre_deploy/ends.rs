//! Which commands are known to have ended on their own, for a process of the daemon that did not
//! see it. There is an empty file for each, named by the id of its container.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::durable;

/// The directory of the files.
#[derive(Debug)]
pub(super) struct Ends {
    directory: PathBuf,
}

impl Ends {
    pub(super) fn open(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Whether the command of this container ended on its own.
    pub(super) fn has(&self, container: &str) -> bool {
        self.directory.join(container).exists()
    }

    /// Notes that the command of this container has ended on its own. If that is impossible, the
    /// next process does not know it, and the deployment fails if it asks that process.
    pub(super) fn add(&self, container: &str) {
        let written = fs::create_dir_all(&self.directory)
            .and_then(|()| durable::replace(&self.directory.join(container), &[]));
        if let Err(error) = written {
            tracing::warn!(container, %error, "cannot write down that a pre-deploy command has ended");
        }
    }

    /// Forgets a container that was removed.
    pub(super) fn forget(&self, container: &str) {
        match fs::remove_file(self.directory.join(container)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(container, %error, "cannot forget a pre-deploy command");
            }
            _ => {}
        }
    }

    /// Forgets all containers but these.
    pub(super) fn forget_others(&self, containers: &BTreeSet<&str>) {
        let Ok(files) = fs::read_dir(&self.directory) else {
            return;
        };
        for file in files.flatten() {
            let name = file.file_name();
            if let Some(name) = name.to_str().filter(|name| !containers.contains(name)) {
                self.forget(name);
            }
        }
    }
}
