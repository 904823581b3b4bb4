//! Figures of the disk and the kernel: the cost of an fsync, file sizes, resident memory.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;

const BLOCK: [u8; 4_096] = [0x5a; 4_096];

/// Appends blocks of 4 KiB to a new file in `directory`, each followed by fdatasync; nanoseconds of
/// each.
pub(crate) fn fsyncs(directory: &Path, count: usize) -> anyhow::Result<Vec<u64>> {
    let path = directory.join("fsync");
    let mut file =
        File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        samples.push(started.elapsed().as_nanos() as u64);
    }
    std::fs::remove_file(&path)?;
    Ok(samples)
}

/// The size of a file in bytes; 0 if it is not there.
pub(crate) fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

/// Resident memory of this process in bytes.
pub(crate) fn resident() -> anyhow::Result<u64> {
    let status =
        std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    parse_resident(&status).context("no VmRSS in /proc/self/status")
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(
            parse_resident("VmPeak:\t  9 kB\nVmRSS:\t    5124 kB\n"),
            Some(5124 * 1024)
        );
        assert_eq!(parse_resident("VmPeak:\t  9 kB\n"), None);
    }
}
