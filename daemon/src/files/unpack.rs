//! Unpacks a content's archive onto the disk. The sender is not trusted. Only files, folders and
//! links that stay inside the content are created. Each is created in a folder that this same
//! archive has created before, so nothing is ever written through a link.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Entry, EntryType};
use thiserror::Error;
use uc_api::content::{MAX_ENTRIES, MAX_PATH, ROOT, link_stays_inside};

/// Anyone can enter and list folders. The modes of the files protect what is secret.
const FOLDER_MODE: u32 = 0o755;
/// The set-user-id, set-group-id and sticky bits are dropped.
const MODE_BITS: u32 = 0o777;

/// Why an archive cannot be unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The bytes are not an archive, or a truncated one.
    #[error("invalid archive: {0}")]
    Archive(#[source] io::Error),
    /// The archive has no entry called [`ROOT`].
    #[error("the archive is empty")]
    Empty,
    /// More than [`MAX_ENTRIES`].
    #[error("the archive has more than {MAX_ENTRIES} entries")]
    Entries,
    /// The path is absolute, contains `..`, is too long, or is not below a folder of the archive.
    #[error("invalid path `{path}` in the archive")]
    Path {
        /// The path as given.
        path: String,
    },
    /// Two entries have the same path.
    #[error("duplicate path `{path}` in the archive")]
    Twice { path: String },
    /// A link leads out of the content.
    #[error("link `{path}` leads out of the archive")]
    Link { path: String },
    /// The entry is not a file, a folder or a symbolic link.
    #[error("`{path}` is not a file, a directory or a symbolic link")]
    Kind { path: String },
    /// A disk operation failed.
    #[error("{0}")]
    Disk(#[source] io::Error),
}

/// Creates `<into>/content` from the archive. Everything is fsynced when it returns. After a
/// failure the caller must remove `into`.
pub(super) fn unpack(archive: &[u8], into: &Path) -> Result<(), UnpackError> {
    let mut unpacking = Unpacking {
        into,
        seen: BTreeSet::new(),
        folders: BTreeSet::new(),
    };
    let mut archive = Archive::new(archive);
    for entry in archive.entries().map_err(UnpackError::Archive)? {
        unpacking.unpack_entry(&mut entry.map_err(UnpackError::Archive)?)?;
    }
    if unpacking.seen.is_empty() {
        return Err(UnpackError::Empty);
    }
    for folder in &unpacking.folders {
        File::open(into.join(folder))
            .and_then(|folder| folder.sync_all())
            .map_err(UnpackError::Disk)?;
    }
    Ok(())
}

struct Unpacking<'a> {
    into: &'a Path,
    /// Every path so far.
    seen: BTreeSet<PathBuf>,
    /// The paths that are folders.
    folders: BTreeSet<PathBuf>,
}

impl Unpacking<'_> {
    fn unpack_entry(&mut self, entry: &mut Entry<'_, &[u8]>) -> Result<(), UnpackError> {
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        let shown = || path.display().to_string();
        if self.seen.len() >= MAX_ENTRIES {
            return Err(UnpackError::Entries);
        }
        if !self.is_allowed_path(&path) {
            return Err(UnpackError::Path { path: shown() });
        }
        if !self.seen.insert(path.clone()) {
            return Err(UnpackError::Twice { path: shown() });
        }
        let to = self.into.join(&path);
        match entry.header().entry_type() {
            EntryType::Directory => {
                make_folder(&to).map_err(UnpackError::Disk)?;
                self.folders.insert(path);
            }
            EntryType::Regular => write_file(entry, &to)?,
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = Path::new(OsStr::from_bytes(&target));
                let below = path.strip_prefix(ROOT).unwrap_or(&path);
                let good = below != Path::new("") && !target.as_os_str().is_empty();
                if !good || !link_stays_inside(below, target) {
                    return Err(UnpackError::Link { path: shown() });
                }
                std::os::unix::fs::symlink(target, &to).map_err(UnpackError::Disk)?;
            }
            _ => return Err(UnpackError::Kind { path: shown() }),
        }
        Ok(())
    }

    /// Reports whether an entry can have this path: it is the root, or it is in a folder that this
    /// archive has created.
    fn is_allowed_path(&self, path: &Path) -> bool {
        if path.as_os_str().len() > MAX_PATH
            || !path
                .components()
                .all(|part| matches!(part, Component::Normal(_)))
        {
            return false;
        }
        match path.parent() {
            Some(parent) if parent == Path::new("") => path == Path::new(ROOT),
            Some(parent) => self.folders.contains(parent),
            None => false,
        }
    }
}

fn make_folder(to: &Path) -> io::Result<()> {
    DirBuilder::new().mode(FOLDER_MODE).create(to)?;
    // Independent of the process's umask.
    fs::set_permissions(to, Permissions::from_mode(FOLDER_MODE))
}

fn write_file(entry: &mut Entry<'_, &[u8]>, to: &Path) -> Result<(), UnpackError> {
    let header = entry.header();
    let mode = header.mode().map_err(UnpackError::Archive)? & MODE_BITS;
    let uid = header.uid().map_err(UnpackError::Archive)?;
    let gid = header.gid().map_err(UnpackError::Archive)?;
    let size = entry.size();
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(UnpackError::Disk)?;
    let written = io::copy(entry, &mut file).map_err(UnpackError::Disk)?;
    if written != size {
        return Err(UnpackError::Archive(io::ErrorKind::UnexpectedEof.into()));
    }
    // Id 0 is root, which the daemon runs as.
    let other = |id: u64| u32::try_from(id).ok().filter(|id| *id != 0);
    if other(uid).is_some() || other(gid).is_some() {
        fchown(&file, other(uid), other(gid)).map_err(UnpackError::Disk)?;
    }
    file.set_permissions(Permissions::from_mode(mode))
        .map_err(UnpackError::Disk)?;
    file.sync_all().map_err(UnpackError::Disk)
}

#[cfg(test)]
pub(super) mod tests;
