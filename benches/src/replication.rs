//! `bench replication`: how soon three machines see what one of them wrote. All are processes of
//! this machine and share its clock, so the values contain the time at which their writes began.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::cluster::Cluster;
use crate::figure::{Budget, Figure, note, p50_p99_ms};
use crate::load::VALUE;
use crate::machine::Command;
use crate::record::now_ns;
use crate::scratch::Scratch;

const WRITES: u64 = 1_000;
const GAP: Duration = Duration::from_millis(10);
/// One way; a round trip takes twice as long.
const FAR: Duration = Duration::from_millis(25);
const IMPORTED: u64 = 10_000;
/// As many as a machine with many services and clients would have.
const WATCHERS: usize = 32;

/// Measures and reports.
pub(crate) async fn run() -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    note("one machine, one clock: times are differences of CLOCK_REALTIME between processes");
    let mut near = Cluster::start(&scratch.directory("near")?, None).await?;
    visible(
        &mut near,
        ["replication/visible_p50", "replication/visible_p99"],
        [4.0, 10.0],
    )
    .await?;
    let took = near.import("import/", IMPORTED, VALUE).await?;
    Figure::new(
        "replication/import_10000",
        took.as_secs_f64(),
        "s",
        Budget::AtMost(1.5),
    )
    .report()?;
    watched(&mut near).await?;
    down(&mut near).await?;
    drop(near);
    let mut far = Cluster::start(&scratch.directory("far")?, Some(FAR)).await?;
    visible(
        &mut far,
        [
            "replication/visible_50ms_rtt_p50",
            "replication/visible_50ms_rtt_p99",
        ],
        [30.0, 40.0],
    )
    .await
}

/// From before a write begins to both others showing it.
async fn visible(
    cluster: &mut Cluster,
    [p50_name, p99_name]: [&'static str; 2],
    [p50_budget, p99_budget]: [f64; 2],
) -> anyhow::Result<()> {
    let seen = cluster.observe("visible/", WRITES, GAP, 1).await?;
    let mut last: HashMap<String, u64> = HashMap::new();
    for (key, delay) in seen.into_iter().flatten().flatten() {
        let slowest = last.entry(key).or_default();
        *slowest = delay.max(*slowest);
    }
    let (p50, p99) = p50_p99_ms(&mut last.into_values().collect::<Vec<_>>());
    Figure::new(p50_name, p50, "ms", Budget::AtMost(p50_budget)).report()?;
    Figure::new(p99_name, p99, "ms", Budget::AtMost(p99_budget)).report()
}

/// From before a write begins to each of many watchers on other machines being told, beside 10,000
/// other records.
async fn watched(cluster: &mut Cluster) -> anyhow::Result<()> {
    let seen = cluster.observe("watched/", WRITES, GAP, WATCHERS).await?;
    let mut delays: Vec<u64> = seen
        .into_iter()
        .flatten()
        .flatten()
        .map(|(_, delay)| delay)
        .collect();
    let (p50, p99) = p50_p99_ms(&mut delays);
    Figure::new("replication/watch_p50", p50, "ms", Budget::AtMost(5.0)).report()?;
    Figure::new("replication/watch_p99", p99, "ms", Budget::AtMost(20.0)).report()
}

/// From the end of a machine, without a word, to both others taking it for dead.
async fn down(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.look().await?;
    let mut gone = cluster.machines.pop().context("no machines")?;
    for machine in &mut cluster.machines {
        machine.tell(&Command::Await { peer: 3, up: false }).await?;
    }
    let killed = now_ns();
    gone.kill().await?;
    let mut last = killed;
    for machine in &mut cluster.machines {
        last = last.max(machine.moment().await?.ns);
    }
    if last == killed {
        bail!("no machine detected that another was killed");
    }
    Figure::new(
        "replication/kill_to_down",
        (last - killed) as f64 / 1e9,
        "s",
        Budget::AtMost(8.0),
    )
    .report()
}
