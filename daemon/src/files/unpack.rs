//! A content's archive onto the disk. Whoever sent it may lie: only files, folders and links that
//! stay inside are made, each below a folder that this very archive has made before, so that
//! nothing is ever written through a link.

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

/// Folders may be entered and read by everybody; what may not be read is said by the files.
const FOLDER_MODE: u32 = 0o755;
/// Neither set-user-id nor the sticky bit travels.
const MODE_BITS: u32 = 0o777;

/// Why an archive is not unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// Not an archive, or a cut one.
    #[error("it is no archive: {0}")]
    Archive(#[source] io::Error),
    /// Nothing is called [`ROOT`].
    #[error("there is nothing in it")]
    Empty,
    /// More than [`MAX_ENTRIES`].
    #[error("it has more than {MAX_ENTRIES} entries")]
    Entries,
    /// A path that is absolute, goes up, is too long or is not below a folder of the archive.
    #[error("the path `{path}` is not allowed in it")]
    Path {
        /// As it was given.
        path: String,
    },
    /// Twice the same path.
    #[error("`{path}` is in it twice")]
    Twice {
        /// Which.
        path: String,
    },
    /// A link that leaves.
    #[error("the link `{path}` leads out of it")]
    Link {
        /// Which.
        path: String,
    },
    /// Neither file nor folder nor symbolic link.
    #[error("`{path}` is neither a file nor a folder nor a symbolic link")]
    Kind {
        /// Which.
        path: String,
    },
    /// The disk.
    #[error("{0}")]
    Disk(#[source] io::Error),
}

/// Makes `<into>/content` from the archive; everything is on the disk when it returns. After a
/// failure the caller removes `into`.
pub(super) fn unpack(archive: &[u8], into: &Path) -> Result<(), UnpackError> {
    let mut unpacking = Unpacking {
        into,
        seen: BTreeSet::new(),
        folders: BTreeSet::new(),
    };
    let mut archive = Archive::new(archive);
    for entry in archive.entries().map_err(UnpackError::Archive)? {
        unpacking.entry(&mut entry.map_err(UnpackError::Archive)?)?;
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
    /// Those that are folders.
    folders: BTreeSet<PathBuf>,
}

impl Unpacking<'_> {
    fn entry(&mut self, entry: &mut Entry<'_, &[u8]>) -> Result<(), UnpackError> {
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        let shown = || path.display().to_string();
        if self.seen.len() >= MAX_ENTRIES {
            return Err(UnpackError::Entries);
        }
        if !self.may_be(&path) {
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
            EntryType::Regular => write(entry, &to)?,
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

    /// The root, or something in a folder that was made from this archive.
    fn may_be(&self, path: &Path) -> bool {
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
    // Whatever the process's mask is.
    fs::set_permissions(to, Permissions::from_mode(FOLDER_MODE))
}

fn write(entry: &mut Entry<'_, &[u8]>, to: &Path) -> Result<(), UnpackError> {
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
    // 0 is whoever runs the daemon, which is root.
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
