//! Clients that write one record after the other, each through a connection of its own, and what they saw.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::task::JoinSet;

use crate::put::Client;

/// Bytes of a value.
pub(crate) const VALUE: usize = 256;
/// Writes in this time are not counted: connections, caches and the first files' growth.
const WARM_UP: Duration = Duration::from_secs(2);
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
pub(crate) async fn run(server: SocketAddr, clients: u64, time: Duration) -> anyhow::Result<Load> {
    let mut tasks = JoinSet::new();
    let begin = Instant::now() + WARM_UP;
    for client in 0..clients {
        tasks.spawn(write(server, client, begin, begin + time));
    }
    let mut latencies = Vec::new();
    while let Some(task) = tasks.join_next().await {
        latencies.extend(task??);
    }
    ensure!(!latencies.is_empty(), "no write to {server} was acknowledged in {} s", time.as_secs());
    Ok(Load { rate: latencies.len() as f64 / time.as_secs_f64(), latencies })
}

async fn write(server: SocketAddr, client: u64, begin: Instant, end: Instant) -> anyhow::Result<Vec<u64>> {
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
