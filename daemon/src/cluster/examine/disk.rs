//! Whether the disk accepts writes now. The store's failed commits only show that it once did not.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

/// In the state directory. Removed when the call ends; one that a dead daemon left is overwritten.
const PROBE: &str = "examine.tmp";
/// About the size of one transaction of the store.
const BYTES: usize = 64 * 1024;

/// Why a small file cannot be written beside the store and fsynced; empty if it can.
pub(super) async fn failure(state: &Path, limit: Duration) -> String {
    let path = state.join(PROBE);
    let written = tokio::task::spawn_blocking(move || {
        let written = write(&path);
        let removed = fs::remove_file(&path);
        written?;
        match removed {
            // Another examination at the same time has removed it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    });
    match timeout(limit, written).await {
        Ok(Ok(Ok(()))) => String::new(),
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(error)) => format!("internal error in ucd: {error}"),
        Err(_) => format!(
            "writing {} KiB takes more than {} s",
            BYTES / 1024,
            limit.as_secs()
        ),
    }
}

fn write(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&vec![0x5a; BYTES])?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn failure_is_empty_and_the_probe_is_removed() {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join(PROBE), "left by a dead daemon").unwrap();
        assert_eq!(failure(state.path(), LIMIT).await, "");
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn failure_has_the_reason_of_the_system() {
        let state = tempfile::tempdir().unwrap();
        let gone = failure(&state.path().join("gone"), LIMIT).await;
        assert!(gone.contains("No such file"), "{gone}");
        // The one file that is always on a full disk.
        std::os::unix::fs::symlink("/dev/full", state.path().join(PROBE)).unwrap();
        let full = failure(state.path(), LIMIT).await;
        assert!(full.contains("No space left"), "{full}");
        assert!(Path::new("/dev/full").exists());
    }
}
