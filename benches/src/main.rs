//! Benchmarks of the record store, of replication, of the daemon, of reading compose files and of
//! deployments: `cargo xtask bench store|replication|daemon|compose|deploy`. Figures go to standard
//! output, one per line, and everything else to standard error. The program starts itself again as
//! the machines of a cluster, so that each has its own memory, threads and file; those of `deploy`
//! are the testbed's.

mod churn;
mod client;
mod cluster;
mod compose;
mod daemon;
mod deploy;
mod disk;
mod etcd;
mod figure;
mod link;
mod load;
mod machine;
mod observe;
mod put;
mod record;
mod relay;
mod replication;
mod scratch;
mod serve;
mod store;

use std::path::PathBuf;

use anyhow::bail;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut builder = match arguments.first().map(String::as_str) {
        // The clients mostly wait, and work-stealing threads would cost more than the work. The
        // same holds for the machines beside a daemon.
        Some("store" | "daemon-machine") => Builder::new_current_thread(),
        // As the daemon runs.
        _ => Builder::new_multi_thread(),
    };
    builder.enable_all().build()?.block_on(run(&arguments))
}

async fn run(arguments: &[String]) -> anyhow::Result<()> {
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["store"] => until_terminated(store::run()).await,
        ["replication"] => until_terminated(replication::run()).await,
        ["daemon", ucd] => until_terminated(daemon::run(&PathBuf::from(ucd))).await,
        ["compose", uc] => compose::run(&PathBuf::from(uc)),
        ["deploy", programs, testbed] => deploy::run(&PathBuf::from(programs), &testbed.parse()?),
        // The program's own children.
        ["machine", number, directory] => {
            machine::run(number.parse()?, &PathBuf::from(directory)).await
        }
        ["churn", directory] => churn::run(&PathBuf::from(directory)).await,
        ["daemon-apart", ucd, directory] => {
            let (ucd, directory) = (PathBuf::from(ucd), PathBuf::from(directory));
            until_terminated(daemon::run_apart(&ucd, &directory)).await
        }
        ["daemon-machine", number, measured] => {
            daemon::run_machine(number.parse()?, measured).await
        }
        ["daemon-peer", directory, measured] => {
            daemon::run_peer(&PathBuf::from(directory), measured).await
        }
        _ => {
            bail!("usage: uc-bench store|replication|daemon UCD|compose UC|deploy PROGRAMS TESTBED")
        }
    }
}

/// Drops a run, its children and its files on SIGTERM and Ctrl-C.
async fn until_terminated(bench: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = bench => outcome,
        _ = terminate.recv() => bail!("terminated"),
        outcome = tokio::signal::ctrl_c() => {
            outcome?;
            bail!("interrupted")
        }
    }
}
