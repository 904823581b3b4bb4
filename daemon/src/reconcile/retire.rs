//! Removes the containers of this machine that a deployment retired while the machine was away.
//! DNS has not given them since, on any machine that knows the record.
//!
//! A store that is being fetched again shows the past, so nothing is removed until it is complete.

use std::sync::Arc;
use std::time::Duration;

use uc_api::v1::{ReplicaState, RetireRecord, ServiceMode};
use uc_api::{Failure, ServiceKey};

use crate::backoff::Backoff;
use crate::cluster::member::Member;
use crate::cluster::records::{self, OnMachine, delete};
use crate::cluster::view::Cluster;
use crate::deploy::resume::catch_up;

/// Waits between attempts: Docker may be away, or a container may not end.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_mins(1);

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    let mut changes = member.changes();
    loop {
        let done = tokio::select! {
            () = member.cancel.cancelled() => return,
            done = retire_all(&member) => done,
        };
        if done {
            backoff.reset();
            if !changes.next().await {
                return;
            }
        } else {
            tokio::select! {
                () = member.cancel.cancelled() => return,
                () = tokio::time::sleep(backoff.wait(rand::random())) => {}
            }
        }
    }
}

/// Returns whether nothing is left to do.
async fn retire_all(member: &Member) -> bool {
    let mut done = true;
    for (container, record) in due(member) {
        let RetireRecord {
            container_name,
            reason,
            deployment_id,
            ..
        } = &*record;
        match retire(member, &container, &record).await {
            Ok(()) => tracing::info!(
                container_name,
                reason,
                deployment_id,
                "removed a container that was retired while this machine was away"
            ),
            Err(failure) => {
                tracing::warn!(container_name, %failure, "cannot remove a retired container");
                done = false;
            }
        }
    }
    done
}

/// What this machine has to remove.
fn due(member: &Member) -> Vec<(OnMachine, Arc<RetireRecord>)> {
    let cluster = member.cluster();
    if !cluster.has_own_record() || member.store.snapshot().is_rejoining() {
        return Vec::new();
    }
    let own = cluster
        .retirements()
        .filter(|(container, _)| container.machine == member.id);
    own.map(|(container, record)| (container.clone(), Arc::clone(record)))
        .collect()
}

/// Whether the service still exists and nothing else of it runs on a machine that is up. On two
/// sides of a partition each can have retired what the other one kept.
fn is_last(cluster: &Cluster, container: &OnMachine, record: &RetireRecord) -> bool {
    let key = format!("{}/{}", record.project, record.service);
    let Ok(service) = key.parse::<ServiceKey>() else {
        return false;
    };
    let wanted = cluster.services().get(&service);
    let wanted = wanted.and_then(|wanted| wanted.spec.as_ref());
    let is_wanted =
        wanted.is_some_and(|spec| spec.mode() != ServiceMode::Global && spec.replicas > 0);
    let mut others = cluster.replicas().filter(|(machine, replica)| {
        let id = &replica.record.container_id;
        replica.service == service
            && replica.record.state() == ReplicaState::Running
            && !cluster.is_down(machine.id)
            && *id != container.container
            && cluster.retirement(machine.id, id).is_none()
    });
    is_wanted && others.next().is_none()
}

/// Stops and removes a container, and then deletes its record. One that does not exist is what is
/// wanted.
async fn retire(
    member: &Member,
    container: &OnMachine,
    record: &RetireRecord,
) -> Result<(), Failure> {
    let mut last = is_last(&member.cluster(), container, record);
    if last {
        // What runs elsewhere may be on its way here.
        catch_up(member).await;
        last = is_last(&member.cluster(), container, record);
    }
    if last {
        tracing::warn!(
            container = container.container,
            "a replica that was to be removed is the last one of its service and stays"
        );
    } else {
        member.node.remove(&container.container).await?;
    }
    member
        .write(vec![delete(records::RETIRE, container.key())])
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::member_of_one;
    use crate::cluster::records::put;

    #[tokio::test]
    async fn machine_removes_only_its_own_containers_and_keeps_trying() {
        let directory = tempfile::tempdir().unwrap();
        let member = member_of_one(&directory).await;
        assert!(retire_all(&member).await, "nothing is left to do");
        let other = uc_api::MachineId::from_bytes([9; 16]);
        let writes = [member.id, other].map(|machine| {
            let container = "abcd".to_owned();
            let key = OnMachine { machine, container }.key();
            put(records::RETIRE, key, &RetireRecord::default())
        });
        member.write(writes.to_vec()).await.unwrap();
        let containers = || -> Vec<OnMachine> {
            let due = due(&member).into_iter();
            due.map(|(container, _)| container).collect()
        };
        let own = OnMachine {
            machine: member.id,
            container: "abcd".into(),
        };
        assert_eq!(containers(), std::slice::from_ref(&own));
        // There is no Docker.
        assert!(!retire_all(&member).await);
        assert_eq!(containers(), std::slice::from_ref(&own));
        let done = delete(records::RETIRE, own.key());
        member.write(vec![done]).await.unwrap();
        assert!(retire_all(&member).await);
        assert_eq!(member.cluster().retirements().count(), 1, "of another");
    }
}
