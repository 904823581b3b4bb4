//! `bench store`: local durable writes, writes through gRPC with three replicas beside etcd, and
//! what many changes leave behind.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::cluster::Cluster;
use crate::etcd::Etcd;
use crate::figure::{Budget, Figure, Rival, note, p50_p99_ms, percentile};
use crate::load::{self, Load, VALUE};
use crate::scratch::Scratch;
use crate::{churn, disk, machine, record};

const RIVAL: &str = "etcd";
const FSYNCS: usize = 400;
const WRITES: usize = 2_000;
/// How much a write may cost above an fsync, in milliseconds.
const ABOVE_FSYNC: f64 = 0.3;
const LOADED: Duration = Duration::from_secs(8);
const MB: f64 = 1_000_000.0;

/// Measures and reports.
pub(crate) async fn run() -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    local(&scratch.directory("local")?).await?;
    through_grpc(&scratch).await?;
    churned(&scratch.directory("churn")?).await
}

/// One client that writes to the store in its own process.
async fn local(directory: &Path) -> anyhow::Result<()> {
    let store = machine::open(1, directory).await?;
    let mut fsyncs = disk::fsyncs(directory, FSYNCS)?;
    let mut writes = Vec::with_capacity(WRITES);
    for n in 0..WRITES {
        let write = record::stamped(format!("record/{n}"), VALUE);
        let started = Instant::now();
        store.write(vec![write]).await?;
        writes.push(started.elapsed().as_nanos() as u64);
    }
    store.close().await?;
    // A shared disk has its moods: before and after count alike.
    fsyncs.extend(disk::fsyncs(directory, FSYNCS)?);
    let (fsync, fsync_p99) = p50_p99_ms(&mut fsyncs);
    note(&format!(
        "fsync of 4 KiB: p50 {fsync:.2}, p99 {fsync_p99:.2} ms"
    ));
    let (p50, p99) = p50_p99_ms(&mut writes);
    Figure::new(
        "store/local_write_p50",
        p50,
        "ms",
        Budget::AtMost(fsync + ABOVE_FSYNC),
    )
    .report()?;
    Figure::new("store/local_write_p99", p99, "ms", Budget::AtMost(5.0)).report()
}

/// Clients of three replicas, ours and etcd's.
async fn through_grpc(scratch: &Scratch) -> anyhow::Result<()> {
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    // Ours and theirs in turn, so that a busy minute of the machine meets both.
    for clients in [64, 1] {
        let mut cluster =
            Cluster::start(&scratch.directory(&format!("ours-{clients}"))?, None).await?;
        let server = cluster
            .machines
            .first()
            .map(|machine| machine.put.clone())
            .context("no machines")?;
        let load = load::run(&server, clients, LOADED).await?;
        let settled = cluster.settle().await?;
        note(&format!(
            "{clients} clients, ours: {:.0} /s; all three replicas the same {} ms after the last write",
            load.rate,
            settled.as_millis()
        ));
        ours.push(load);
        drop(cluster);
        let etcd = Etcd::start(&scratch.directory(&format!("etcd-{clients}"))?).await?;
        let load = load::run(&etcd.leader, clients, LOADED).await?;
        note(&format!(
            "{clients} clients, etcd {}: {:.0} /s",
            etcd.version, load.rate
        ));
        theirs.push(load);
        etcd.stop().await?;
    }
    let (mut ours, mut theirs) = (ours.into_iter(), theirs.into_iter());
    if let (Some(ours), Some(theirs)) = (ours.next(), theirs.next()) {
        let names = [
            "store/writes_64_clients",
            "store/write_64_clients_p50",
            "store/write_64_clients_p99",
        ];
        compare(names, ours, theirs, 5_000.0, 5.0)?;
    }
    if let (Some(ours), Some(theirs)) = (ours.next(), theirs.next()) {
        let names = [
            "store/writes_1_client",
            "store/write_1_client_p50",
            "store/write_1_client_p99",
        ];
        let rate = theirs.rate;
        compare(names, ours, theirs, rate, 1.0)?;
    }
    Ok(())
}

fn compare(
    [rate, p50, p99]: [&'static str; 3],
    mut ours: Load,
    mut theirs: Load,
    budget: f64,
    times: f64,
) -> anyhow::Result<()> {
    let rival = Rival {
        name: RIVAL,
        value: theirs.rate,
        ratio: Budget::AtLeast(times),
    };
    let figure = Figure::new(rate, ours.rate, "/s", Budget::AtLeast(budget));
    Figure {
        rivals: vec![rival],
        ..figure
    }
    .report()?;
    for (name, percent) in [(p50, 50.0), (p99, 99.0)] {
        let ms = |samples: &mut [u64]| percentile(samples, percent) as f64 / 1e6;
        let theirs = ms(&mut theirs.latencies);
        let figure = Figure::new(name, ms(&mut ours.latencies), "ms", Budget::AtMost(theirs));
        let rival = Rival {
            name: RIVAL,
            value: theirs,
            ratio: Budget::AtMost(1.0),
        };
        Figure {
            rivals: vec![rival],
            ..figure
        }
        .report()?;
    }
    Ok(())
}

/// A million changes of 20,000 records.
async fn churned(directory: &Path) -> anyhow::Result<()> {
    let cost = churn::measure(directory).await?;
    note(&format!(
        "1,000,000 changes of 20,000 records in {:.1} s; log beside the file {:.1} MB",
        cost.seconds,
        cost.log as f64 / MB
    ));
    Figure::new(
        "store/million_changes_file",
        cost.file as f64 / MB,
        "MB",
        Budget::AtMost(16.0),
    )
    .report()?;
    Figure::new(
        "store/million_changes_rss",
        cost.resident as f64 / MB,
        "MB",
        Budget::AtMost(60.0),
    )
    .report()
}
