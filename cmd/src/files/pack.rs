//! Files and folders of this computer as one archive that depends on nothing but their names,
//! contents and permission bits: neither on times nor on owners nor on the order in which the disk
//! lists them. So the same content has the same hash on every computer.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use tar::{Builder, EntryType, Header};
use thiserror::Error;
use uc_api::content::{MAX_ARCHIVE, MAX_ENTRIES, MAX_PATH, ROOT, link_stays_inside};

use crate::words;

/// Set-user-id and the sticky bit do not travel.
const MODE_BITS: u32 = 0o777;
const FOLDER_MODE: u32 = 0o755;
/// Archives consist of blocks of this size; each entry has one before its content.
const BLOCK: u64 = 512;

/// What is not packed, and why.
#[derive(Debug, Error)]
pub(crate) enum PackError {
    /// The disk.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Over [`MAX_ARCHIVE`].
    #[error(
        "it has {}, more than the limit of {} MiB; the largest file is {biggest} with {}",
        words::bytes(*total), MAX_ARCHIVE >> 20, words::bytes(*biggest_size)
    )]
    Size {
        /// Bytes.
        total: u64,
        /// Path below the content.
        biggest: String,
        /// Bytes.
        biggest_size: u64,
    },
    /// Over [`MAX_ENTRIES`].
    #[error("it has more than {MAX_ENTRIES} files and folders, most of them in {most}")]
    Entries {
        /// A folder at its top.
        most: String,
    },
    /// Over [`MAX_PATH`].
    #[error("path {} is longer than {MAX_PATH} bytes", path.display())]
    Path {
        /// Which.
        path: PathBuf,
    },
    /// Leads out of the content.
    #[error("symlink `{}` points outside the folder, to {}", path.display(), target.display())]
    Link {
        /// Which.
        path: PathBuf,
        /// Where to.
        target: PathBuf,
    },
    /// Socket, device or pipe, where a file or folder is needed.
    #[error("it is not a regular file or folder")]
    Kind,
}

/// An archive, and what of the folder is not in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) archive: Vec<u8>,
    /// Sockets, devices and pipes, relative to the folder.
    pub(crate) skipped: Vec<PathBuf>,
}

/// The content of a file that is small enough to travel.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, PackError> {
    let failed = |source| PackError::Read {
        path: path.to_owned(),
        source,
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(PackError::Kind);
    }
    check_size(std::iter::once((Path::new(""), metadata.len())))?;
    fs::read(path).map_err(failed)
}

/// One file with this content, owner and mode.
pub(crate) fn text(bytes: &[u8], mode: u32, uid: u32, gid: u32) -> Result<Vec<u8>, PackError> {
    check_size(std::iter::once((Path::new(""), bytes.len() as u64)))?;
    let mut builder = Builder::new(Vec::new());
    let mut header = header(EntryType::Regular, mode);
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    header.set_size(bytes.len() as u64);
    finish(
        builder
            .append_data(&mut header, ROOT, bytes)
            .and_then(|()| builder.into_inner()),
    )
}

/// A file or folder as it is on the disk, or all that is wrong with it. A link at its very top is
/// followed, as Docker does.
pub(crate) fn path(path: &Path) -> Result<Packed, Vec<PackError>> {
    let walk = Walk::over(path)?;
    let archive = archive(path, &walk.items).map_err(|error| vec![error])?;
    Ok(Packed {
        archive,
        skipped: walk.skipped,
    })
}

fn archive(path: &Path, items: &[(PathBuf, Item)]) -> Result<Vec<u8>, PackError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| PackError::Read { path, source }
    };
    let mut builder = Builder::new(Vec::new());
    for (below, item) in items {
        let name = Path::new(ROOT).join(below);
        let name = if below.as_os_str().is_empty() {
            Path::new(ROOT)
        } else {
            &name
        };
        let appended = match item {
            Item::Folder => {
                let mut header = header(EntryType::Directory, FOLDER_MODE);
                builder.append_data(&mut header, name, io::empty())
            }
            Item::File { mode, .. } => {
                let from = if below.as_os_str().is_empty() {
                    path.to_owned()
                } else {
                    path.join(below)
                };
                // Read completely first, so that a file that grows does not break the archive.
                let bytes = fs::read(&from).map_err(read(&from))?;
                let mut header = header(EntryType::Regular, *mode);
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, name, bytes.as_slice())
            }
            Item::Link(target) => {
                let mut header = header(EntryType::Symlink, MODE_BITS);
                builder.append_link(&mut header, name, target)
            }
        };
        finish(appended)?;
    }
    let archive = finish(builder.into_inner())?;
    // What grew while it was read.
    check_size(std::iter::once((
        Path::new(""),
        (archive.len() as u64).saturating_sub(3 * BLOCK),
    )))?;
    Ok(archive)
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & MODE_BITS);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header
}

/// Writing to memory does not fail; what could is a name that an archive cannot hold.
fn finish<T>(result: io::Result<T>) -> Result<T, PackError> {
    result.map_err(|source| PackError::Read {
        path: PathBuf::new(),
        source,
    })
}

enum Item {
    Folder,
    File { mode: u32, size: u64 },
    Link(PathBuf),
}

impl Item {
    fn size(&self) -> u64 {
        match self {
            Self::File { size, .. } => *size,
            Self::Folder | Self::Link(_) => 0,
        }
    }
}

struct Walk<'a> {
    top: &'a Path,
    /// Each folder before what is in it, names in order.
    items: Vec<(PathBuf, Item)>,
    skipped: Vec<PathBuf>,
    /// What is wrong with single items.
    wrong: Vec<PackError>,
}

impl<'a> Walk<'a> {
    fn over(top: &'a Path) -> Result<Self, Vec<PackError>> {
        let mut walk = Self {
            top,
            items: Vec::new(),
            skipped: Vec::new(),
            wrong: Vec::new(),
        };
        let walked = walk.all();
        walk.wrong.extend(walked.err());
        if walk.wrong.is_empty() {
            Ok(walk)
        } else {
            Err(walk.wrong)
        }
    }

    fn all(&mut self) -> Result<(), PackError> {
        let metadata = fs::metadata(self.top).map_err(|source| PackError::Read {
            path: self.top.to_owned(),
            source,
        })?;
        if metadata.is_dir() {
            self.items.push((PathBuf::new(), Item::Folder));
            self.folder(Path::new(""))?;
        } else if metadata.is_file() {
            let item = Item::File {
                mode: metadata.permissions().mode(),
                size: metadata.len(),
            };
            self.items.push((PathBuf::new(), item));
        } else {
            return Err(PackError::Kind);
        }
        check_size(
            self.items
                .iter()
                .map(|(path, item)| (path.as_path(), item.size())),
        )
    }

    fn folder(&mut self, below: &Path) -> Result<(), PackError> {
        let path = self.top.join(below);
        let read = |source| PackError::Read {
            path: path.clone(),
            source,
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(read)? {
            names.push(entry.map_err(read)?.file_name());
            // One folder may have millions: no need to list them all.
            if names.len() > MAX_ENTRIES {
                break;
            }
        }
        names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        for name in names {
            self.item(below.join(name))?;
        }
        Ok(())
    }

    fn item(&mut self, below: PathBuf) -> Result<(), PackError> {
        let path = self.top.join(&below);
        let read = |source| PackError::Read {
            path: path.clone(),
            source,
        };
        if ROOT.len() + 1 + below.as_os_str().len() > MAX_PATH {
            return Err(PackError::Path { path: below });
        }
        if self.items.len() + self.skipped.len() + self.wrong.len() >= MAX_ENTRIES {
            return Err(PackError::Entries {
                most: self.fullest(),
            });
        }
        let metadata = fs::symlink_metadata(&path).map_err(read)?;
        let kind = metadata.file_type();
        let item = if kind.is_dir() {
            Item::Folder
        } else if kind.is_file() {
            Item::File {
                mode: metadata.permissions().mode(),
                size: metadata.len(),
            }
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(read)?;
            if !link_stays_inside(&below, &target) {
                self.wrong.push(PackError::Link {
                    path: below,
                    target,
                });
                return Ok(());
            }
            Item::Link(target)
        } else {
            self.skipped.push(below);
            return Ok(());
        };
        let is_folder = matches!(item, Item::Folder);
        self.items.push((below.clone(), item));
        if is_folder {
            self.folder(&below)
        } else {
            Ok(())
        }
    }

    /// The folder at the top with the most of what was found so far.
    fn fullest(&self) -> String {
        let mut counts: BTreeMap<&Path, usize> = BTreeMap::new();
        for (path, _) in &self.items {
            let mut parts = path.components();
            if let (Some(first), Some(_)) = (parts.next(), parts.next()) {
                *counts.entry(Path::new(first.as_os_str())).or_default() += 1;
            }
        }
        let fullest = counts.into_iter().max_by_key(|(_, count)| *count);
        fullest.map_or("its top folder".to_owned(), |(path, _)| {
            path.display().to_string()
        })
    }
}

/// As large as an archive of these may be, headers and padding included.
fn check_size<'a>(items: impl Iterator<Item = (&'a Path, u64)>) -> Result<(), PackError> {
    let (mut total, mut biggest) = (2 * BLOCK, (Path::new(""), 0));
    for (path, size) in items {
        total += BLOCK + size.next_multiple_of(BLOCK);
        if size > biggest.1 {
            biggest = (path, size);
        }
    }
    if total <= MAX_ARCHIVE {
        return Ok(());
    }
    let (path, biggest_size) = biggest;
    let biggest = if path.as_os_str().is_empty() {
        "the file itself".to_owned()
    } else {
        path.display().to_string()
    };
    Err(PackError::Size {
        total,
        biggest,
        biggest_size,
    })
}

#[cfg(test)]
mod tests;
