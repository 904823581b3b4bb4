//! Files that are written completely or not at all.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Replaces a file that only root can read. It is on the disk when this returns.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::File::open(directory)?.sync_all()
}

/// A message and its file. Writes follow one another, and each writes the message as it is then. So
/// a write whose caller has gone cannot undo a later one.
#[derive(Debug)]
pub(crate) struct SavedMessage<T> {
    path: PathBuf,
    message: Mutex<T>,
    /// Whether the file was removed. Locked during a write.
    removed: Mutex<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: prost::Message + 'static> SavedMessage<T> {
    /// A message that is in this file, or will be.
    pub(crate) fn new(path: PathBuf, message: T) -> Arc<Self> {
        Arc::new(Self {
            path,
            message: Mutex::new(message),
            removed: Mutex::new(false),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        lock(&self.message)
    }

    /// Writes the message. It is on the disk when this returns.
    pub(crate) async fn save(self: &Arc<Self>) -> io::Result<()> {
        let saved = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || {
            let removed = lock(&saved.removed);
            if *removed {
                return Ok(());
            }
            let content = saved.lock().encode_to_vec();
            replace(&saved.path, &content)
        });
        written.await.expect("writing a file does not panic")
    }

    /// Removes the file for good. One that does not exist is no error.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let mut removed = lock(&self.removed);
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                *removed = true;
                Ok(())
            }
        }
    }
}

/// Reads the messages in the files of a directory. A file that cannot be decoded, or that has no
/// `good` message, is left where it is, and logged.
pub(crate) fn read_messages<T: prost::Message + Default + 'static>(
    directory: &Path,
    good: impl Fn(&T) -> bool,
) -> io::Result<Vec<Arc<SavedMessage<T>>>> {
    let files = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    let mut messages = Vec::new();
    for file in files {
        let path = file?.path();
        if path.extension().is_some() {
            // It was being written when the machine died.
            continue;
        }
        match T::decode(fs::read(&path)?.as_slice()) {
            Ok(message) if good(&message) => messages.push(SavedMessage::new(path, message)),
            Ok(_) | Err(_) => {
                tracing::error!(path = %path.display(), "a file of the journal cannot be read and is ignored");
            }
        }
    }
    Ok(messages)
}
