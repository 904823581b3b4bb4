//! Contents that travel with a deployment: what they are called, and how large they may be. Both
//! sides hold to the same limits, for a machine believes neither its client nor the other machines.
//! `docs/files.md` has the whole.

use std::fmt;
use std::path::{Component, Path};
use std::str::FromStr;

use crate::id::IdError;

/// Bytes of one archive, its headers included: room for any configuration and for a folder of
/// scripts or templates; what is larger is data or a program, and belongs into a volume or an
/// image. A machine holds one archive in memory at a time for each transfer.
pub const MAX_ARCHIVE: u64 = 16 * 1024 * 1024;
/// Files, folders and links of one content: each is a file to be fsynced on every machine.
pub const MAX_ENTRIES: usize = 4_096;
/// Bytes of the path of an entry: a quarter of what Linux takes, so that the store's own folders
/// fit before it.
pub const MAX_PATH: usize = 1_024;
/// Bytes of the value of a secret variable: Linux takes 128 KiB together with the name.
pub const MAX_VALUE: u64 = 120 * 1024;
/// The name of what an archive holds: a file or a folder. Nothing else is at the top of an archive.
pub const ROOT: &str = "content";
/// Bytes of an archive in one message.
pub const CHUNK: usize = 64 * 1024;

/// BLAKE3 of a content's archive: 64 hexadecimal digits in lower case. A valid one is also a safe
/// name for a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(String);

impl ContentHash {
    /// Of these bytes.
    pub fn of(archive: &[u8]) -> Self {
        Self(blake3::hash(archive).to_hex().to_string())
    }

    /// All digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight digits, for people.
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
            kind: "hash of a content",
            expected: "64 hexadecimal digits in lower case",
        })
    }
}

/// Whether a link stays in its content, wherever it leads. `link` is its path below [`ROOT`].
///
/// A target may go up only at its beginning, where each step is a real folder; once names follow,
/// going up would mean to go up from where another link leads. So by induction no chain of links
/// leaves.
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
