//! Keeps the list of members in `machine.json` up to date. A member that starts without its store,
//! because the file was damaged or lost, reaches the others through that list and gets everything
//! from them.

use std::sync::Arc;
use std::time::Duration;

use uc_api::v1::MachineRecord;
use uc_api::{Code, Failure};

use crate::app::App;
use crate::cluster::member::Member;
use crate::identity::{Identity, Membership};

/// Time between two looks at records that change.
const INTERVAL: Duration = Duration::from_secs(5);

/// Runs until the process ends.
pub(crate) async fn remember_members(app: Arc<App>) {
    let mut members = app.watch_member();
    loop {
        let member = members.borrow_and_update().clone();
        let remembering = async {
            if let Some(member) = &member {
                remember_each_change(&app, member).await;
            }
            // The member has stopped, and another one may follow.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = app.cancel.cancelled() => return,
            changed = members.changed() => if changed.is_err() { return },
            () = remembering => {}
        }
    }
}

/// Until the member stops.
async fn remember_each_change(app: &App, member: &Member) {
    let mut changes = member.changes();
    loop {
        if let Err(failure) = remember(app, member).await {
            tracing::warn!(%failure, "cannot write the list of members");
        }
        tokio::select! {
            () = member.cancel.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        if !changes.next().await {
            return;
        }
    }
}

/// Writes the members that the store has, if they are not those of the list.
async fn remember(app: &App, member: &Member) -> Result<(), Failure> {
    let cluster = member.cluster();
    if !cluster.has_own_record() || member.store.snapshot().is_rejoining() {
        // What is there is older than what is on its way.
        return Ok(());
    }
    let records: Vec<MachineRecord> = cluster.machine_records().to_vec();
    let mut identity = app.identity.lock().await;
    let membership = match &identity.membership {
        Some(membership)
            if membership.machine_id == member.membership.machine_id
                && membership.bootstrap != records =>
        {
            Membership {
                bootstrap: records,
                ..membership.clone()
            }
        }
        // Up to date, or the machine has left in the meantime.
        _ => return Ok(()),
    };
    let next = Identity {
        membership: Some(membership),
        ..identity.clone()
    };
    next.save(&app.paths.identity())
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    *identity = next;
    Ok(())
}

#[cfg(test)]
mod tests {
    use uc_mesh::PrivateKey;

    use super::*;
    use crate::app::tests::{app, enter_cluster_of_one};
    use crate::cluster::records::{self, put};

    fn record(id: &str, name: &str, key: &PrivateKey, subnet: &str) -> MachineRecord {
        MachineRecord {
            id: id.repeat(16),
            name: name.into(),
            public_key: key.public().to_string(),
            subnet: subnet.into(),
            created_at_ms: 1,
            ..MachineRecord::default()
        }
    }

    #[tokio::test]
    async fn task_ends_although_the_member_has_stopped_before() {
        let directory = tempfile::tempdir().unwrap();
        let app = app(&directory);
        let member = enter_cluster_of_one(&app).await;
        let remembering = tokio::spawn(remember_members(Arc::clone(&app)));
        member.stop().await;
        // Time for the task to see it.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        app.cancel.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(60), remembering).await;
        ended.expect("it ends").unwrap();
    }

    /// The founder's list had only itself: without a store it would found the cluster once more,
    /// under its first name, and know nobody.
    #[tokio::test]
    async fn machine_without_its_store_knows_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let app = app(&directory);
        let key = app.identity.lock().await.key().unwrap();
        let own = record("a1", "m1", &key, "10.210.1.0/24");
        let membership = Membership {
            cluster_id: "c1".repeat(16),
            machine_id: own.id.clone(),
            network: "10.210.0.0/16".parse().unwrap(),
            subnet: "10.210.1.0/24".parse().unwrap(),
            wireguard_port: 51820,
            bootstrap: vec![own.clone()],
        };
        app.identity.lock().await.membership = Some(membership.clone());
        let member = app.enter(membership, key).await.unwrap();
        member.finish_init().await.unwrap();
        let remembering = tokio::spawn(remember_members(Arc::clone(&app)));
        let other_key = PrivateKey::generate().unwrap();
        let renamed = MachineRecord {
            name: "front".into(),
            ..own
        };
        let writes = [renamed, record("b2", "m2", &other_key, "10.210.2.0/24")];
        let writes = writes.map(|record| put(records::MACHINE, record.id.clone(), &record));
        member.write(writes.to_vec()).await.unwrap();
        let names = |identity: &Identity| -> Vec<String> {
            let membership = identity.membership.as_ref().unwrap();
            let members = membership.bootstrap.iter();
            members.map(|member| member.name.clone()).collect()
        };
        let written = async {
            while names(&*app.identity.lock().await) != ["front", "m2"] {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), written)
            .await
            .expect("the list has both members");
        app.cancel.cancel();
        remembering.await.unwrap();
        app.stop().await;

        for suffix in ["", "-wal", "-shm"] {
            let mut path = app.paths.store().into_os_string();
            path.push(suffix);
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            }
        }
        let again = crate::app::tests::app(&directory);
        again.start_member().await.unwrap();
        let member = again.try_member().unwrap();
        let cluster = member.cluster();
        let machines: Vec<&str> = cluster
            .machines()
            .iter()
            .map(|machine| machine.name.as_str())
            .collect();
        assert_eq!(machines, ["front", "m2"]);
        assert!(cluster.record().is_none(), "the others have it");
        again.stop().await;
    }
}
