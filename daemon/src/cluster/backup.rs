//! A copy of the store on this machine's disk, made while the store is in use. It appears under its
//! name when it is complete and synced, or not at all. It never replaces another file. Only root
//! can read it, since it contains the environment of services. The confinement of the systemd unit
//! (docs/install.md) decides where the daemon can write.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use uc_api::{Code, Failure};
use uc_cluster_state::{BackupError, Store};

use crate::cluster::member::write_failure;

/// Directory, in the state directory, of copies that are given only a name.
const BACKUPS: &str = "backups";
/// Hint for places where the daemon cannot write, or that only the daemon sees.
const CONFINED: &str = "ucd can write only to a few directories (docs/install.md): give a name without `/`, then copy the file from /var/lib/uc/backups";
/// Bytes of the copy that are read at a time.
const CHUNK: usize = 64 * 1024;

/// A copy that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// BLAKE3 of the file, hexadecimal.
    pub(crate) digest: String,
}

/// Copies the store to `to`: an absolute path whose directory exists, or a name in the directory
/// `backups` of `state`, which is created.
pub(crate) async fn run(store: &Store, state: &Path, to: &str) -> Result<Done, Failure> {
    let (state, wanted) = (state.to_owned(), to.to_owned());
    let (room, to) = blocking(move || {
        let to = target(&state, &wanted)?;
        Ok((Room::beside(&to)?, to))
    })
    .await?;
    let copied = store
        .backup(&room.copy())
        .await
        .map_err(|error| failure(&error, &to))?;
    tracing::info!(path = %to.display(), bytes = copied.bytes, "the store was copied");
    blocking(move || room.publish(to)).await
}

fn target(state: &Path, wanted: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(wanted);
    let mut parts = path.components();
    match (parts.next(), parts.next()) {
        (Some(Component::RootDir), Some(_)) if path.file_name().is_some() => Ok(path.to_owned()),
        (Some(Component::Normal(name)), None) => {
            let directory = state.join(BACKUPS);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(|error| io_failure("make", &directory, &error))?;
            Ok(directory.join(name))
        }
        _ => Err(Failure::new(
            Code::Invalid,
            format!("invalid file `{wanted}`: write a name or an absolute path"),
        )),
    }
}

/// Whether systemd has replaced this directory by a private one of the service, which is removed
/// with the service.
fn hidden(directory: &Path, mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(3);
        let (Some(root), Some(mount_point)) = (fields.next(), fields.next()) else {
            return false;
        };
        root.contains("/systemd-private-") && directory.starts_with(mount_point)
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::new(Code::Internal, format!("internal error in ucd: {error}")))?
}

fn failure(error: &BackupError, to: &Path) -> Failure {
    match error {
        BackupError::Store(error) => write_failure(error),
        other => Failure::new(
            Code::Internal,
            format!("cannot copy the store to {}: {other}", to.display()),
        ),
    }
}

fn io_failure(doing: &str, path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot {doing} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            Failure::new(Code::Refused, message).hint(CONFINED)
        }
        io::ErrorKind::StorageFull => {
            Failure::new(Code::Exhausted, message).hint("free some space")
        }
        _ => Failure::new(Code::Refused, message),
    }
}

fn exists(path: &Path) -> Failure {
    let failure = Failure::new(
        Code::Exists,
        format!("{} already exists; nothing was written", path.display()),
    );
    failure.hint(if path.is_dir() {
        "name a file in it"
    } else {
        "choose another name"
    })
}

/// A directory beside the target that only root can open; removed when this value is dropped.
#[derive(Debug)]
struct Room(PathBuf);

impl Room {
    fn beside(to: &Path) -> Result<Self, Failure> {
        let parent = to.parent().unwrap_or(Path::new("/"));
        if to.symlink_metadata().is_ok() {
            return Err(exists(to));
        }
        if !parent.is_dir() {
            let message = format!("ucd cannot see the directory {}", parent.display());
            return Err(Failure::new(Code::Refused, message).hint(CONFINED));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| {
            let message = format!("cannot read /proc/self/mountinfo: {error}");
            Failure::new(Code::Internal, message)
        })?;
        if hidden(parent, &mounts) {
            let message = format!(
                "{} is private to ucd: a file in it could not be found by others",
                parent.display()
            );
            return Err(Failure::new(Code::Refused, message).hint(CONFINED));
        }
        let name = to.file_name().unwrap_or_default();
        let room = parent.join(format!(
            ".{}.{:08x}",
            name.to_string_lossy(),
            rand::random::<u32>()
        ));
        DirBuilder::new()
            .mode(0o700)
            .create(&room)
            .map_err(|error| io_failure("write to", parent, &error))?;
        Ok(Self(room))
    }

    fn copy(&self) -> PathBuf {
        self.0.join("copy")
    }

    /// Moves the finished copy to its name.
    fn publish(self, to: PathBuf) -> Result<Done, Failure> {
        let copy = self.copy();
        let (bytes, digest) =
            seal(&copy).map_err(|error| io_failure("finish the copy for", &to, &error))?;
        // A link fails if the name exists by now; renaming would replace that file.
        fs::hard_link(&copy, &to).map_err(|error| io_failure("write", &to, &error))?;
        let parent = to.parent().unwrap_or(Path::new("/"));
        File::open(parent)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| io_failure("sync", parent, &error))?;
        Ok(Done {
            path: to,
            bytes,
            digest,
        })
    }
}

/// Makes the copy readable by root only and syncs it. Returns its size and digest.
fn seal(copy: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(copy)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.sync_all()?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        hasher.update(
            chunk
                .get(..count)
                .expect("a read fills no more than the buffer"),
        );
        bytes += count as u64;
    }
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove the temporary directory of a backup");
        }
    }
}

#[cfg(test)]
mod tests {
    use uc_cluster_state::{ClusterId, MachineId, Options};

    use super::*;
    use crate::cluster::records::{self, KINDS};

    async fn store(directory: &Path) -> Store {
        let options = Options::new(
            directory.join("state.db"),
            ClusterId([1; 16]),
            MachineId([2; 16]),
            KINDS,
        );
        Store::open(options).await.unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn run_writes_a_store_with_size_and_digest() {
        let directory = tempfile::tempdir().unwrap();
        let original = store(directory.path()).await;
        let write = records::put(
            records::SERVICE,
            "shop/web",
            &uc_api::v1::ServiceRecord::default(),
        );
        original.write(vec![write]).await.unwrap();
        let target = directory.path().join("backups");
        let to = target.join("state.db");

        let done = run(&original, directory.path(), "state.db").await.unwrap();
        assert_eq!(done.path, to);
        let content = fs::read(&to).unwrap();
        assert_eq!(done.bytes, content.len() as u64);
        assert_eq!(done.digest, blake3::hash(&content).to_hex().to_string());
        assert_eq!(
            fs::metadata(&to).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(names(&target), ["state.db"]);

        // Later writes are not in the copy, and a store opened on it is another incarnation.
        original
            .write(vec![records::delete(records::SERVICE, "shop/web")])
            .await
            .unwrap();
        let restored = store(&target).await;
        assert!(
            restored
                .snapshot()
                .get(records::SERVICE, "shop/web")
                .is_some()
        );
        assert_ne!(restored.incarnation(), original.incarnation());
    }

    #[tokio::test]
    async fn run_refuses_bad_targets_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let original = store(directory.path()).await;
        let target = directory.path().join("there");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("taken"), "mine").unwrap();
        std::os::unix::fs::symlink("nowhere", target.join("dangling")).unwrap();
        let there = target.display().to_string();
        for (to, code, said) in [
            (
                format!("{there}/taken"),
                Code::Exists,
                "choose another name",
            ),
            (
                format!("{there}/dangling"),
                Code::Exists,
                "choose another name",
            ),
            (there.clone(), Code::Exists, "name a file in it"),
            (
                format!("{there}/no/where"),
                Code::Refused,
                "give a name without `/`",
            ),
            ("a/b".to_owned(), Code::Invalid, ""),
            ("..".to_owned(), Code::Invalid, ""),
            ("/a/..".to_owned(), Code::Invalid, ""),
            ("/".to_owned(), Code::Invalid, ""),
            (String::new(), Code::Invalid, ""),
        ] {
            let failure = run(&original, directory.path(), &to).await.unwrap_err();
            assert_eq!(failure.code, code, "{failure}");
            assert!(failure.hint.unwrap_or_default().contains(said), "{to}");
        }
        assert_eq!(names(&target), ["dangling", "taken"]);
        assert_eq!(fs::read(target.join("taken")).unwrap(), b"mine");
    }

    #[test]
    fn publish_does_not_replace_a_file_created_in_the_meantime() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("a.db");
        let room = Room::beside(&to).unwrap();
        fs::write(room.copy(), "copy").unwrap();
        fs::write(&to, "mine").unwrap();
        assert_eq!(room.publish(to.clone()).unwrap_err().code, Code::Exists);
        assert_eq!(fs::read(&to).unwrap(), b"mine");
        assert_eq!(names(directory.path()), ["a.db"]);
    }

    #[test]
    fn hidden_recognizes_private_directories_by_their_mount() {
        let mounts = "29 1 8:1 / / ro,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      90 29 8:1 /tmp/systemd-private-0f-ucd.service-x/tmp /tmp rw shared:5 - ext4 /dev/sda1 rw\n\
                      91 29 8:1 /var/lib/uc /var/lib/uc rw shared:6 - ext4 /dev/sda1 rw\n";
        assert!(hidden(Path::new("/tmp"), mounts) && hidden(Path::new("/tmp/a/b"), mounts));
        assert!(
            !hidden(Path::new("/tmpx"), mounts)
                && !hidden(Path::new("/var/lib/uc/backups"), mounts)
        );
        assert!(!hidden(Path::new("/tmp"), ""));
    }
}
