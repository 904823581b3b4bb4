//! Many changes of few records, in a process of its own: what is left on disk and in memory.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use uc_cluster_state::MAX_TRANSACTION;

use crate::load::VALUE;
use crate::{disk, machine, record};

const CHANGES: usize = 1_000_000;
const RECORDS: usize = 20_000;

/// What it cost.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// The database file.
    pub(crate) file: u64,
    /// SQLite's log beside it, while the store is open.
    pub(crate) log: u64,
    pub(crate) resident: u64,
    pub(crate) seconds: f64,
}

/// Makes the changes in `directory` and writes the cost to standard output.
pub(crate) async fn run(directory: &Path) -> anyhow::Result<()> {
    let store = machine::open(1, directory).await?;
    let started = Instant::now();
    for batch in 0..CHANGES / MAX_TRANSACTION {
        let keys = (0..MAX_TRANSACTION).map(|n| (batch * MAX_TRANSACTION + n) % RECORDS);
        let writes = keys
            .map(|key| record::stamped(format!("record/{key}"), VALUE))
            .collect();
        store.write(writes).await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let resident = disk::resident()?;
    let (file, log) = (
        disk::size(&directory.join("1.db")),
        disk::size(&directory.join("1.db-wal")),
    );
    let cost = serde_json::to_string(&Cost {
        file,
        log,
        resident,
        seconds,
    })?;
    tokio::io::stdout().write_all(cost.as_bytes()).await?;
    tokio::io::stdout().flush().await?;
    Ok(store.close().await?)
}

/// Does it in a process of its own.
pub(crate) async fn measure(directory: &Path) -> anyhow::Result<Cost> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command
        .arg("churn")
        .arg(directory)
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true);
    let output = command.output().await?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the churn failed ({})", output.status))
}
