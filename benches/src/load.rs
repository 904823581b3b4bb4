//! Clients that write one record after the other, each through a connection of its own, and what
//! they saw.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;

use crate::client::Client;

/// Bytes of a value.
pub(crate) const VALUE: usize = 256;
/// Writes in this time are not counted: connections, caches and the first files' growth.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long a client may take after its time, for its last write.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Keys that each client writes in turn.
const KEYS: u64 = 256;

/// What the clients saw together.
#[derive(Debug)]
pub(crate) struct Load {
    /// Acknowledged writes a second.
    pub(crate) rate: f64,
    /// From before the call to after the answer, in nanoseconds.
    pub(crate) latencies: Vec<u64>,
}

/// Lets `clients` write to `server` for `time` after a warm-up.
pub(crate) async fn run(server: &Path, clients: u64, time: Duration) -> anyhow::Result<Load> {
    let mut tasks = JoinSet::new();
    let begin = Instant::now() + WARM_UP;
    for client in 0..clients {
        let server = server.to_owned();
        tasks.spawn(async move {
            let writing = write(&server, client, begin, begin + time);
            // One timer for all calls of a client: a timer for each would show in the figures.
            tokio::time::timeout(WARM_UP + time + TIMEOUT, writing)
                .await
                .context("a write was not answered")?
        });
    }
    let mut latencies = Vec::new();
    while let Some(task) = tasks.join_next().await {
        latencies.extend(task??);
    }
    ensure!(
        !latencies.is_empty(),
        "no write to {} was acknowledged in {} s",
        server.display(),
        time.as_secs()
    );
    Ok(Load {
        rate: latencies.len() as f64 / time.as_secs_f64(),
        latencies,
    })
}

async fn write(
    server: &Path,
    client: u64,
    begin: Instant,
    end: Instant,
) -> anyhow::Result<Vec<u64>> {
    let mut connection = Client::connect(server).await?;
    let mut latencies = Vec::new();
    for n in 0_u64.. {
        let mut value = vec![b'v'; VALUE];
        value[..8].copy_from_slice(&n.to_le_bytes());
        let key = format!("client-{client}/{}", n % KEYS).into_bytes();
        let started = Instant::now();
        connection.put(key, value).await?;
        let ended = Instant::now();
        if ended >= end {
            break;
        }
        if ended >= begin {
            latencies.push((ended - started).as_nanos() as u64);
        }
    }
    Ok(latencies)
}
