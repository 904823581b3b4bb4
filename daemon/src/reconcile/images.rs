//! Removes built images that neither a container nor a kept revision names, see
//! [`sweep`](crate::node::NodeService::sweep_images).

use std::sync::Arc;
use std::time::Duration;

use uc_api::Failure;

use crate::cluster::history::named_images;
use crate::cluster::member::Member;

/// Interval of the sweeps. An image can also be kept this much longer than an hour.
const SWEEP_INTERVAL: Duration = Duration::from_mins(10);

/// Sweeps immediately and then every [`SWEEP_INTERVAL`], until the daemon stops.
pub(crate) async fn run(member: Arc<Member>) {
    loop {
        let swept = tokio::select! {
            () = member.cancel.cancelled() => return,
            swept = sweep_once(&member) => swept,
        };
        // Without an answer from the engine nothing is removed.
        if let Err(failure) = swept {
            tracing::debug!(%failure, "cannot sweep the images now");
        }
        tokio::select! {
            () = member.cancel.cancelled() => return,
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
    }
}

async fn sweep_once(member: &Member) -> Result<(), Failure> {
    let named = named_images(&member.cluster(), &member.store.snapshot());
    for image in member.node.sweep_images(&named).await? {
        tracing::info!(
            image,
            "removed a built image that nothing has named for an hour"
        );
    }
    Ok(())
}
