use uc_api::MachineId;
use uc_api::v1::MachineRecord;
use uc_mesh::PrivateKey;

use super::*;
use crate::app::tests::{app, enter_cluster_of_one, member_of_one};

const YEAR_MS: i64 = 365 * 24 * 3_600_000;

fn projects(name: &str) -> BTreeSet<String> {
    BTreeSet::from([name.to_owned()])
}

fn machine(number: u8, name: &str) -> MachineRecord {
    MachineRecord {
        id: MachineId::from_bytes([number; 16]).to_string(),
        name: name.into(),
        public_key: PrivateKey::from_bytes([number; 32]).public().to_string(),
        subnet: format!("10.210.{number}.0/24"),
        ..MachineRecord::default()
    }
}

async fn lock(member: &Member, project: &str, machine_id: &str, expires_in_ms: i64) {
    let lock = LockRecord {
        project: project.into(),
        machine_id: machine_id.into(),
        expires_at_ms: now_ms() + expires_in_ms,
        ..LockRecord::default()
    };
    let write = put(records::LOCK, project, &lock);
    member.write(vec![write]).await.unwrap();
}

#[tokio::test]
async fn take_is_refused_by_locks_of_usable_members_within_the_limit_only() {
    let directory = tempfile::tempdir().unwrap();
    let member = member_of_one(&directory).await;
    let (good, bad) = (machine(2, "m2"), machine(3, "A b"));
    let gone = machine(4, "gone").id;
    let known = [&good, &bad].map(|of| put(records::MACHINE, of.id.clone(), of));
    member.write(known.to_vec()).await.unwrap();
    let refused = async |machine_id: &str, expires_in_ms: i64| {
        lock(&member, "shop", machine_id, expires_in_ms).await;
        match Lock::take(&member, projects("shop"), "d1").await {
            Ok(lock) => {
                lock.release().await;
                None
            }
            Err(failure) => Some(failure.message),
        }
    };
    let other = "another deployment of project shop is running on m2";
    assert_eq!(
        refused(&good.id, LOCK_EXPIRES_MS).await.as_deref(),
        Some(other)
    );
    // The clock of that machine is ahead, within what the store accepts.
    let ahead = LOCK_EXPIRES_MS + 50_000;
    assert_eq!(refused(&good.id, ahead).await.as_deref(), Some(other));
    assert_eq!(refused(&good.id, -1).await, None, "expired");
    assert_eq!(
        refused(&good.id, YEAR_MS).await,
        None,
        "written by a wrong clock"
    );
    assert_eq!(
        refused(&gone, LOCK_EXPIRES_MS).await,
        None,
        "no longer a member"
    );
    assert_eq!(
        refused(&bad.id, LOCK_EXPIRES_MS).await,
        None,
        "its record is faulty"
    );
    assert_eq!(
        refused("nonsense", LOCK_EXPIRES_MS).await,
        None,
        "no machine"
    );
    member.stop().await;
}

#[tokio::test]
async fn member_that_starts_removes_its_own_locks_only() {
    let directory = tempfile::tempdir().unwrap();
    let app = app(&directory);
    let killed = enter_cluster_of_one(&app).await;
    let own = killed.membership.machine_id.clone();
    lock(&killed, "shop", &own, LOCK_EXPIRES_MS).await;
    lock(&killed, "blog", &machine(2, "m2").id, LOCK_EXPIRES_MS).await;
    killed.stop().await;
    let member = enter_cluster_of_one(&app).await;
    let cluster = member.cluster();
    let locked: Vec<_> = cluster.locks().map(|lock| lock.project.as_str()).collect();
    assert_eq!(locked, ["blog"]);
    member.stop().await;
}
