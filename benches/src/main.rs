//! Benchmarks of the record store and of replication: `cargo xtask bench store|replication`. Figures go to standard
//! output, one a line; everything else goes to standard error. The program starts itself again as the machines of a
//! cluster, so that each has its own memory, threads and file.

mod churn;
mod cluster;
mod disk;
mod etcd;
mod figure;
mod link;
mod load;
mod machine;
mod observe;
mod put;
mod relay;
mod replication;
mod scratch;
mod store;

use std::path::PathBuf;

use anyhow::bail;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["store"] => store::run().await,
        ["replication"] => replication::run().await,
        // The program's own children.
        ["machine", number, directory] => machine::run(number.parse()?, &PathBuf::from(directory)).await,
        ["churn", directory] => churn::run(&PathBuf::from(directory)).await,
        _ => bail!("usage: uc-bench store|replication"),
    }
}
