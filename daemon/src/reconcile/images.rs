//! Removes built images that neither a container nor a kept revision names, see
//! [`sweep`](crate::node::NodeService::sweep_images).
//!
//! A store that is being fetched again lacks records, so nothing is removed until it is complete.

use std::sync::Arc;
use std::time::Duration;

use uc_api::Failure;

use crate::cluster::history::named_images;
use crate::cluster::member::Member;
use crate::node::NamedImages;

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
    let Some(named) = named_by_records(member) else {
        return Ok(());
    };
    for image in member.node.sweep_images(&named).await? {
        tracing::info!(
            image,
            "removed a built image that nothing has named for an hour"
        );
    }
    Ok(())
}

/// The images that the records name. `None` while this machine may lack records.
fn named_by_records(member: &Member) -> Option<NamedImages> {
    let (cluster, snapshot) = (member.cluster(), member.store.snapshot());
    let is_complete = cluster.has_own_record() && !snapshot.is_rejoining();
    is_complete.then(|| named_images(&cluster, &snapshot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::member_of_one;
    use crate::cluster::records::{self, delete};

    #[tokio::test]
    async fn machine_without_a_record_of_its_own_sweeps_no_images() {
        let directory = tempfile::tempdir().unwrap();
        let member = member_of_one(&directory).await;
        assert_eq!(named_by_records(&member), Some(NamedImages::default()));
        let own = delete(records::MACHINE, member.id.to_string());
        member.write(vec![own]).await.unwrap();
        assert_eq!(named_by_records(&member), None);
    }
}
