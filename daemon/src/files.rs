//! The contents of this machine on its disk. `<state>/files/<hash>/` has the archive as received,
//! and next to it the unpacked content. A content appears there complete and fsynced, or not at
//! all. `docs/files.md` explains what travels and why.

pub(crate) mod sweep;
mod unpack;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use futures_util::{Stream, StreamExt as _};
use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::Status;
use uc_api::content::{MAX_ARCHIVE, MAX_VALUE, ROOT};
use uc_api::v1::content_part::Part;
use uc_api::v1::{ContentPart, ContentStart};
use uc_api::{Code, ContentHash, Failure};
pub(crate) use unpack::UnpackError;

/// The archive as received, next to the unpacked content.
const ARCHIVE: &str = "archive";
/// Prefix of folders that are being filled. What a crash leaves of them is removed at the next
/// start.
const INCOMING: &str = "incoming-";
/// Readable by root only: the folder of a secret, and any folder that is being filled.
const SECRET_MODE: u32 = 0o700;
/// Readable by all users of the machine, as far as they can enter the state directory.
const OPEN_MODE: u32 = 0o755;
/// Contents received at the same time, and also contents sent at the same time. Each is in memory
/// during its transfer.
const MAX_TRANSFERS: usize = 4;
/// A sender that is silent for this long is given up.
const SILENCE_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// Why a content is not received or not sent.
#[derive(Debug, Error)]
pub enum FileError {
    /// The bytes received do not have the announced hash.
    #[error("the received content does not match {hash}: it was changed or truncated in transit")]
    Hash {
        /// The announced hash.
        hash: ContentHash,
    },
    /// Larger than [`MAX_ARCHIVE`].
    #[error("the content is larger than {} MiB", MAX_ARCHIVE >> 20)]
    TooLarge,
    /// The content is not on this machine.
    #[error("content {hash} not found on this machine")]
    Missing { hash: ContentHash },
    /// The archive cannot be unpacked.
    #[error("cannot unpack content {hash}: {source}")]
    Unpack {
        hash: ContentHash,
        source: UnpackError,
    },
    /// The content is a folder, or text that an environment variable cannot hold.
    #[error("content {hash} cannot be the value of a variable: {reason}")]
    Value {
        hash: ContentHash,
        reason: &'static str,
    },
    /// A disk operation failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Disk {
        /// The action, as a verb.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        source: io::Error,
    },
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let message = error.to_string();
        let full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
        match &error {
            FileError::Disk { source, .. }
            | FileError::Unpack {
                source: UnpackError::Disk(source),
                ..
            } => {
                if full(source) {
                    return Self::new(Code::Exhausted, message)
                        .hint("free some disk space (`docker image prune` often helps)");
                }
                Self::new(Code::Internal, message)
            }
            FileError::Missing { .. } => Self::new(Code::NotFound, message),
            FileError::Hash { .. }
            | FileError::TooLarge
            | FileError::Unpack { .. }
            | FileError::Value { .. } => Self::new(Code::Invalid, message),
        }
    }
}

/// One content on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub hash: ContentHash,
    /// When it was last requested or named.
    pub used: SystemTime,
}

/// The contents of this machine. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    root: Arc<PathBuf>,
    incoming: Arc<Semaphore>,
    outgoing: Arc<Semaphore>,
    /// One lock for each machine that this one has sent contents to.
    turns: Arc<std::sync::Mutex<BTreeMap<String, Arc<Mutex<()>>>>>,
}

impl Files {
    /// `root` need not exist yet.
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: Arc::new(root.into()),
            incoming: Arc::new(Semaphore::new(MAX_TRANSFERS)),
            outgoing: Arc::new(Semaphore::new(MAX_TRANSFERS)),
            turns: Arc::default(),
        }
    }

    /// Removes what a crash left half-done. Must be called before anything is received.
    pub(crate) async fn clear_incoming(&self) -> Result<(), Failure> {
        let root = self.root.clone();
        blocking(move || {
            for entry in entries(&root)? {
                if entry.file_name().to_string_lossy().starts_with(INCOMING) {
                    fs::remove_dir_all(entry.path())
                        .map_err(disk_error("remove", &entry.path()))?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Returns the hashes that are not on this machine. The others count as used now.
    pub(crate) async fn missing(
        &self,
        hashes: Vec<ContentHash>,
    ) -> Result<Vec<ContentHash>, Failure> {
        let files = self.clone();
        blocking(move || {
            Ok(hashes
                .into_iter()
                .filter(|hash| files.touch(hash).is_err())
                .collect())
        })
        .await
    }

    /// Receives one content: its start, then its archive. Fails if the sender is silent for longer
    /// than `SILENCE_LIMIT` or sends more than a content can have.
    pub(crate) async fn receive<S>(&self, mut parts: S) -> Result<(), Failure>
    where
        S: Stream<Item = Result<ContentPart, Status>> + Send + Unpin,
    {
        let Some(Part::Start(ContentStart { hash, secret })) = next_part(&mut parts).await? else {
            return Err(Failure::new(
                Code::Invalid,
                "the first part of a content must be a start",
            ));
        };
        let hash: ContentHash = parse(&hash)?;
        let permit = self.incoming.clone().acquire_owned().await;
        let mut archive = Vec::new();
        while let Some(part) = next_part(&mut parts).await? {
            let Part::Chunk(chunk) = part else {
                return Err(Failure::new(
                    Code::Invalid,
                    "unexpected second start in a content",
                ));
            };
            if (archive.len() + chunk.len()) as u64 > MAX_ARCHIVE {
                return Err(FileError::TooLarge.into());
            }
            archive.extend_from_slice(&chunk);
        }
        let files = self.clone();
        blocking(move || {
            let stored = files.store(&hash, secret, &archive, rand::random());
            drop(permit);
            stored
        })
        .await
    }

    /// Waits for the lock on the contents of another machine. A deployment creates several replicas
    /// there at the same time, and each content must be sent only once.
    pub(crate) async fn turn(&self, machine: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(machine.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }

    /// Waits until one more content can be in memory for sending.
    pub(crate) async fn outgoing(&self) -> Option<OwnedSemaphorePermit> {
        self.outgoing.clone().acquire_owned().await.ok()
    }

    /// Returns the archive of a content, and whether the content is a secret.
    pub(crate) async fn archive(&self, hash: ContentHash) -> Result<(bool, Vec<u8>), Failure> {
        let files = self.clone();
        blocking(move || {
            let folder = files.touch(&hash)?;
            let mode = fs::metadata(&folder)
                .map_err(disk_error("read", &folder))?
                .permissions()
                .mode();
            let path = folder.join(ARCHIVE);
            let bytes = fs::read(&path).map_err(disk_error("read", &path))?;
            Ok((mode & 0o777 == SECRET_MODE, bytes))
        })
        .await
    }

    /// Returns the path of a content, which is a file or a folder. A content that is a secret for
    /// any service is readable by root only, even if another service has it in plain view.
    pub(crate) async fn path(&self, hash: ContentHash, secret: bool) -> Result<PathBuf, Failure> {
        let files = self.clone();
        blocking(move || {
            let folder = files.touch(&hash)?;
            if secret {
                restrict_to_root(&folder)?;
            }
            Ok(folder.join(ROOT))
        })
        .await
    }

    /// Returns the text of a content that is a single file, as the value of a variable.
    pub(crate) async fn value(&self, hash: ContentHash) -> Result<String, Failure> {
        let files = self.clone();
        blocking(move || {
            let path = files.touch(&hash)?.join(ROOT);
            let file = File::open(&path).map_err(disk_error("read", &path))?;
            let value = |reason| FileError::Value {
                hash: hash.clone(),
                reason,
            };
            if file.metadata().map_err(disk_error("read", &path))?.is_dir() {
                return Err(value("it is a directory"));
            }
            let mut bytes = Vec::new();
            file.take(MAX_VALUE + 1)
                .read_to_end(&mut bytes)
                .map_err(disk_error("read", &path))?;
            if bytes.len() as u64 > MAX_VALUE {
                return Err(value("it is too long"));
            }
            if bytes.contains(&0) {
                return Err(value("it contains a zero byte"));
            }
            String::from_utf8(bytes).map_err(|_| value("it is not UTF-8"))
        })
        .await
    }

    /// Returns all contents on this machine, ordered by hash.
    pub(crate) async fn stored(&self) -> Result<Vec<Stored>, Failure> {
        let root = self.root.clone();
        blocking(move || {
            let mut stored = Vec::new();
            for entry in entries(&root)? {
                let Ok(hash) = entry.file_name().to_string_lossy().parse() else {
                    continue;
                };
                let used = entry.metadata().and_then(|metadata| metadata.modified());
                stored.push(Stored {
                    hash,
                    used: used.map_err(disk_error("read", &entry.path()))?,
                });
            }
            stored.sort_by(|a: &Stored, b| a.hash.cmp(&b.hash));
            Ok(stored)
        })
        .await
    }

    /// Marks some contents as used now and removes others. A content that was used after the caller
    /// listed it is not removed.
    pub(crate) async fn settle(
        &self,
        refresh: Vec<ContentHash>,
        remove: Vec<Stored>,
    ) -> Result<(), Failure> {
        let files = self.clone();
        blocking(move || {
            for hash in &refresh {
                files.touch(hash)?;
            }
            for Stored { hash, used } in &remove {
                let (from, to) = (files.folder(hash), files.incoming_folder(rand::random()));
                let now = fs::metadata(&from).and_then(|metadata| metadata.modified());
                if now.map_err(disk_error("read", &from))? != *used {
                    continue;
                }
                // The rename makes the content disappear immediately. What a crash leaves of it is
                // removed at the next start.
                fs::rename(&from, &to).map_err(disk_error("remove", &from))?;
                fs::remove_dir_all(&to).map_err(disk_error("remove", &to))?;
            }
            Ok(())
        })
        .await
    }

    fn folder(&self, hash: &ContentHash) -> PathBuf {
        self.root.join(hash.as_str())
    }

    fn incoming_folder(&self, random: u64) -> PathBuf {
        self.root.join(format!("{INCOMING}{random:016x}"))
    }

    /// Returns the folder of a content on this machine, and marks it as used now.
    fn touch(&self, hash: &ContentHash) -> Result<PathBuf, FileError> {
        let folder = self.folder(hash);
        match File::open(&folder) {
            Ok(file) => file
                .set_modified(SystemTime::now())
                .map_err(disk_error("update the time of", &folder))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(FileError::Missing { hash: hash.clone() });
            }
            Err(error) => return Err(disk_error("read", &folder)(error)),
        }
        Ok(folder)
    }

    /// Unpacks the archive into a temporary folder and then moves it into place. `random` names the
    /// temporary folder.
    fn store(
        &self,
        hash: &ContentHash,
        secret: bool,
        archive: &[u8],
        random: u64,
    ) -> Result<(), FileError> {
        if ContentHash::of(archive) != *hash {
            return Err(FileError::Hash { hash: hash.clone() });
        }
        let target = self.folder(hash);
        if self.touch(hash).is_err() {
            let mut builder = DirBuilder::new();
            let root = self.root.as_path();
            builder
                .recursive(true)
                .mode(OPEN_MODE)
                .create(root)
                .map_err(disk_error("create", root))?;
            let incoming = IncomingFolder::new(self.incoming_folder(random))?;
            let path = incoming.0.join(ARCHIVE);
            write_synced(&path, archive).map_err(disk_error("write", &path))?;
            unpack::unpack(archive, &incoming.0).map_err(|source| FileError::Unpack {
                hash: hash.clone(),
                source,
            })?;
            sync_folder(&incoming.0)?;
            match fs::rename(&incoming.0, &target) {
                Ok(()) => {}
                // Another sender of the same content was faster.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                    ) => {}
                Err(error) => return Err(disk_error("create", &target)(error)),
            }
            if !secret {
                let open = Permissions::from_mode(OPEN_MODE);
                fs::set_permissions(&target, open)
                    .map_err(disk_error("change the mode of", &target))?;
            }
            sync_folder(root)?;
        } else if secret {
            restrict_to_root(&target)?;
        }
        Ok(())
    }
}

/// A folder that is being filled. It is removed on drop, unless it was moved into place.
struct IncomingFolder(PathBuf);

impl IncomingFolder {
    fn new(path: PathBuf) -> Result<Self, FileError> {
        DirBuilder::new()
            .mode(SECRET_MODE)
            .create(&path)
            .map_err(disk_error("create", &path))?;
        Ok(Self(path))
    }
}

impl Drop for IncomingFolder {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), %error, "cannot remove an incomplete content; it remains until the next start");
            }
            _ => {}
        }
    }
}

/// Parses a hash that came from another machine or a client.
pub(crate) fn parse(hash: &str) -> Result<ContentHash, Failure> {
    hash.parse()
        .map_err(|error: uc_api::id::IdError| Failure::new(Code::Invalid, error.to_string()))
}

async fn next_part<S>(parts: &mut S) -> Result<Option<Part>, Failure>
where
    S: Stream<Item = Result<ContentPart, Status>> + Send + Unpin,
{
    let part = timeout(SILENCE_LIMIT, parts.next()).await.map_err(|_| {
        Failure::new(
            Code::TimedOut,
            format!(
                "the sender of a content sent nothing for {} s",
                SILENCE_LIMIT.as_secs()
            ),
        )
    })?;
    Ok(part
        .transpose()
        .map_err(Failure::from)?
        .and_then(|part| part.part))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done
        .map_err(|error| Failure::new(Code::Internal, format!("internal error in ucd: {error}")))?;
    done.map_err(Failure::from)
}

fn disk_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Disk {
        doing,
        path,
        source,
    }
}

fn restrict_to_root(folder: &Path) -> Result<(), FileError> {
    fs::set_permissions(folder, Permissions::from_mode(SECRET_MODE))
        .map_err(disk_error("restrict access to", folder))
}

/// Lists the folder. A folder that does not exist has no entries.
fn entries(root: &Path) -> Result<Vec<fs::DirEntry>, FileError> {
    match fs::read_dir(root) {
        Ok(entries) => entries
            .collect::<io::Result<Vec<_>>>()
            .map_err(disk_error("list", root)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(disk_error("list", root)(error)),
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> Result<(), FileError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(disk_error("sync", path))
}

#[cfg(test)]
pub(crate) mod tests;
