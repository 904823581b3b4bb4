//! Writes down which volumes this machine has. Others see that also when its observations are not
//! shown, so that a service does not get a second, empty volume elsewhere.

use std::sync::Arc;
use std::time::Duration;

use uc_api::MachineId;
use uc_api::v1::VolumeHomeRecord;
use uc_cluster_state::Write;

use crate::clock::now_ms;
use crate::cluster::member::Member;
use crate::cluster::records::{self, VolumeHome, delete, put};
use crate::cluster::view::Cluster;

/// How soon it is tried again when it failed.
const RETRY: Duration = Duration::from_secs(10);

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    let mut changes = member.changes();
    loop {
        let cluster = member.cluster();
        // A store that is being fetched again shows the past.
        let is_complete = cluster.has_own_record() && !member.store.snapshot().is_rejoining();
        let writes = if is_complete {
            home_writes(&cluster, member.id, now_ms())
        } else {
            Vec::new()
        };
        let mut failed = false;
        if !writes.is_empty()
            && let Err(failure) = member.write(writes).await
        {
            tracing::warn!(%failure, "cannot write down which volumes this machine has");
            failed = true;
        }
        let continues = if failed {
            changes.next_within(RETRY).await
        } else {
            changes.next().await
        };
        if !continues {
            return;
        }
    }
}

/// What makes the homes on this machine equal to its volumes of projects, as the engine reported
/// them last. Nothing while it has not reported anything.
fn home_writes(cluster: &Cluster, own: MachineId, now_ms: i64) -> Vec<Write> {
    let reported = cluster.reported(own);
    if reported.facts.is_none() {
        return Vec::new();
    }
    let is_home = |volume: &str| {
        let mut homes = cluster.volume_homes(own);
        homes.any(|(home, _)| home.volume == volume)
    };
    let new = reported
        .volumes
        .values()
        .filter(|volume| !volume.project.is_empty() && !is_home(&volume.name));
    let new = new.map(|volume| {
        let home = VolumeHome {
            machine: own,
            volume: volume.name.clone(),
        };
        let record = VolumeHomeRecord {
            project: volume.project.clone(),
            driver: volume.driver.clone(),
            created_at_ms: now_ms,
        };
        put(records::VOLUME_HOME, home.key(), &record)
    });
    let gone = cluster
        .volume_homes(own)
        .filter(|(home, _)| !reported.volumes.contains_key(&home.volume));
    new.chain(gone.map(|(home, _)| delete(records::VOLUME_HOME, home.key())))
        .collect()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use uc_api::v1::{MachineFacts, VolumeRecord};

    use super::*;
    use crate::app::tests::member_of_one;
    use crate::cluster::records::{FACTS, FACTS_KEY, VOLUME};

    fn volume(name: &str, project: &str) -> (String, Vec<u8>) {
        let record = VolumeRecord {
            name: name.into(),
            driver: "local".into(),
            project: project.into(),
        };
        (name.into(), record.encode_to_vec())
    }

    #[tokio::test]
    async fn homes_follow_the_volumes_that_the_engine_has() {
        let directory = tempfile::tempdir().unwrap();
        let member = member_of_one(&directory).await;
        let follow = async || {
            let writes = home_writes(&member.cluster(), member.id, 7);
            if !writes.is_empty() {
                member.write(writes).await.unwrap();
            }
            let cluster = member.cluster();
            let homes = cluster.volume_homes(member.id);
            homes
                .map(|(home, record)| format!("{} of {}", home.volume, record.project))
                .collect::<Vec<_>>()
        };
        let volumes = vec![volume("shop_data", "shop"), volume("somebodys", "")];
        member.store.publish(VOLUME, volumes).await.unwrap();
        assert!(follow().await.is_empty(), "not everything was reported yet");
        let facts = MachineFacts::default().encode_to_vec();
        let facts = vec![(FACTS_KEY.to_owned(), facts)];
        member.store.publish(FACTS, facts).await.unwrap();
        assert_eq!(follow().await, ["shop_data of shop"]);
        assert!(home_writes(&member.cluster(), member.id, 8).is_empty());
        let volumes = vec![volume("shop_logs", "shop")];
        member.store.publish(VOLUME, volumes).await.unwrap();
        assert_eq!(follow().await, ["shop_logs of shop"]);
    }
}
