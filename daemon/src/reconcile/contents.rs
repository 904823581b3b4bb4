//! Removes contents that nothing names any more, see [`sweep`](crate::files::sweep).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uc_api::{ContentHash, Failure};

use crate::cluster::member::Member;
use crate::files::sweep::{SweepPlan, named_by, plan_sweep};

/// Interval of the sweeps. A content can also be kept this much shorter than the time that `sweep`
/// keeps it after its last container was removed.
const SWEEP_INTERVAL: Duration = Duration::from_mins(10);

/// Sweeps immediately and then every [`SWEEP_INTERVAL`], until the daemon stops.
pub(crate) async fn run(member: Arc<Member>) {
    loop {
        // Without an answer from the engine nothing is removed.
        if let Err(failure) = sweep_once(&member).await {
            tracing::debug!(%failure, "cannot sweep the contents now");
        }
        tokio::select! {
            () = member.cancel.cancelled() => return,
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
    }
}

async fn sweep_once(member: &Member) -> Result<(), Failure> {
    let files = member.node.files();
    // List the contents first, so that one that arrives later is never removed.
    let stored = files.stored().await?;
    if stored.is_empty() {
        return Ok(());
    }
    let mut named: BTreeSet<ContentHash> = BTreeSet::new();
    for record in member.cluster().services().values() {
        named.extend(record.spec.iter().flat_map(named_by));
    }
    let replicas = member.node.observe_now().await?.replicas;
    let of_replicas = replicas.iter().flat_map(|replica| &replica.files);
    named.extend(of_replicas.filter_map(|hash| hash.parse().ok()));
    let SweepPlan { refresh, remove } = plan_sweep(&stored, &named, SystemTime::now());
    for content in &remove {
        tracing::info!(
            content = content.hash.short(),
            "removed a content that nothing has named for an hour"
        );
    }
    files.settle(refresh, remove).await
}
