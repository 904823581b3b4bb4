//! The connection of each context that worked last, kept between commands so that it is dialled
//! first: `$XDG_STATE_HOME/uc/last-connections.json`, context name to address.
//!
//! The file only saves logins. If it cannot be read or written, connections are dialled in the
//! order of the config file.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Larger files are ignored and replaced.
const MAX_SIZE: u64 = 256 * 1024;

/// The file, as it was when the command started.
#[derive(Debug, Clone)]
pub(super) struct LastGood {
    path: PathBuf,
    by_context: BTreeMap<String, String>,
}

impl LastGood {
    /// Reads the file below the state directory.
    pub(super) fn load(state_dir: &Path) -> Self {
        let path = state_dir.join("uc/last-connections.json");
        let small = fs::metadata(&path).is_ok_and(|meta| meta.len() <= MAX_SIZE);
        let text = if small {
            fs::read_to_string(&path).ok()
        } else {
            None
        };
        let by_context = text.and_then(|text| serde_json::from_str(&text).ok());
        Self {
            path,
            by_context: by_context.unwrap_or_default(),
        }
    }

    /// The address that worked last for a context.
    pub(super) fn address(&self, context: &str) -> Option<&str> {
        self.by_context.get(context).map(String::as_str)
    }

    /// Notes that an address worked. `contexts` are all that exist: the others are dropped, so that
    /// the file stays as small as the config. Writes nothing if nothing changes.
    pub(super) fn remember<'a>(
        mut self,
        context: &str,
        address: &str,
        contexts: impl IntoIterator<Item = &'a str>,
    ) {
        if self.address(context) == Some(address) {
            return;
        }
        let contexts: Vec<&str> = contexts.into_iter().collect();
        self.by_context
            .retain(|name, _| contexts.contains(&name.as_str()));
        self.by_context.insert(context.into(), address.into());
        // A state directory that is read only costs a login or two each time, and nothing else.
        _ = self.write();
    }

    fn write(&self) -> std::io::Result<()> {
        let text = serde_json::to_string_pretty(&self.by_context)?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let temporary = self
            .path
            .with_extension(format!("json.{}", std::process::id()));
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&temporary, &self.path));
        if written.is_err() {
            _ = fs::remove_file(&temporary);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_good_reads_back_and_drops_contexts_that_are_gone() {
        let home = tempfile::tempdir().unwrap();
        let remember = |context: &str, address: &str, all: &[&str]| {
            LastGood::load(home.path()).remember(context, address, all.iter().copied());
        };
        remember("a", "ssh://1", &["a", "b"]);
        remember("b", "ssh://2", &["a", "b"]);
        let both = LastGood::load(home.path());
        assert_eq!(both.address("a"), Some("ssh://1"));
        assert_eq!(both.address("b"), Some("ssh://2"));
        remember("b", "ssh://3", &["b"]);
        let left = LastGood::load(home.path());
        assert_eq!(
            (left.address("a"), left.address("b")),
            (None, Some("ssh://3"))
        );
    }

    #[test]
    fn last_good_ignores_a_damaged_file() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("uc")).unwrap();
        fs::write(home.path().join("uc/last-connections.json"), "{oops").unwrap();
        let last = LastGood::load(home.path());
        assert_eq!(last.address("a"), None);
        last.remember("a", "ssh://1", ["a"]);
        assert_eq!(LastGood::load(home.path()).address("a"), Some("ssh://1"));
    }
}
