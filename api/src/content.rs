//! Contents: files and folders that travel with a deployment. This module defines their names and
//! limits. Client and daemon enforce the same limits, because a machine trusts neither its client
//! nor the other machines. `docs/files.md` describes the whole.

use std::fmt;
use std::path::{Component, Path};
use std::str::FromStr;

use crate::id::IdError;

/// Maximum size of one archive in bytes, headers included. This is enough for any configuration, or
/// for a folder of scripts or templates. Anything larger is data or a program, and belongs in a
/// volume or an image. A machine holds one archive in memory for each concurrent transfer.
pub const MAX_ARCHIVE: u64 = 16 * 1024 * 1024;
/// Maximum number of files, folders and links in one content. Each is fsynced on every machine.
pub const MAX_ENTRIES: usize = 4_096;
/// Maximum length of an entry's path in bytes. This is a quarter of the Linux limit, which leaves
/// room for the path of the daemon's own folder.
pub const MAX_PATH: usize = 1_024;
/// Maximum length of a secret variable's value in bytes. Linux allows 128 KiB, the variable's name
/// included.
pub const MAX_VALUE: u64 = 120 * 1024;
/// The path of the content's file or folder in its archive. It is the only top-level entry.
pub const ROOT: &str = "content";
/// Bytes of an archive in one message.
pub const CHUNK: usize = 64 * 1024;

/// BLAKE3 hash of a content's archive: 64 lower-case hexadecimal digits. A valid hash is also a
/// safe folder name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(String);

impl ContentHash {
    /// Hashes an archive.
    pub fn of(archive: &[u8]) -> Self {
        Self(blake3::hash(archive).to_hex().to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight digits, for display.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContentHash {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(digit) {
            return Ok(Self(text.to_owned()));
        }
        Err(IdError {
            text: text.to_owned(),
            kind: "content hash",
            expected: "64 lower-case hexadecimal digits",
        })
    }
}

/// Reports whether a link stays inside its content. `link` is the link's path below [`ROOT`].
///
/// A target can go up only at its start, where each step leaves a real folder. After the first
/// name, `..` is refused, because that name could be another link and `..` would go up from where
/// that link leads. By induction, no chain of links leaves the content.
pub fn link_stays_inside(link: &Path, target: &Path) -> bool {
    let depth = link.components().count().saturating_sub(1);
    let (mut ups, mut names) = (0, 0);
    for component in target.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if names == 0 => ups += 1,
            Component::Normal(_) => names += 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    ups <= depth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_leave_are_told_from_those_that_stay() {
        for (link, target) in [
            ("a", "b"),
            ("a", "./b"),
            ("a/b", "../c"),
            ("a/b/c", "../../d/e"),
            ("a/b", ".."),
            ("a", "b/c"),
        ] {
            assert!(
                link_stays_inside(Path::new(link), Path::new(target)),
                "{link} -> {target}"
            );
        }
        for (link, target) in [
            ("a", "/etc"),
            ("a", ".."),
            ("a", "../b"),
            ("a/b", "../../c"),
            ("a/b/c", "x/../../y"),
            ("a", "b/.."),
        ] {
            assert!(
                !link_stays_inside(Path::new(link), Path::new(target)),
                "{link} -> {target}"
            );
        }
    }

    #[test]
    fn a_hash_prints_what_it_parses() {
        let hash = ContentHash::of(b"abc");
        assert_eq!(hash.to_string().parse::<ContentHash>().unwrap(), hash);
        assert_eq!(hash.short(), "6437b3ac");
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let hash = ContentHash::of(b"abc").to_string();
        for text in [
            "",
            "..",
            &hash[1..],
            &hash.to_uppercase(),
            &format!("{hash}0"),
            &hash.replace('a', "/"),
        ] {
            assert!(text.parse::<ContentHash>().is_err(), "{text:?}");
        }
    }
}
