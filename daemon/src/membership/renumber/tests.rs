use std::time::Duration;

use tokio::time::timeout;
use uc_api::v1::MachineRecord;

use super::*;
use crate::app::tests::app;
use crate::cluster::labels;
use crate::cluster::records::{self, put};

const LIMIT: Duration = Duration::from_secs(60);

/// Two machines have one subnet and one name. The younger one, which is this one, takes others, and
/// finds them again when it starts.
#[tokio::test]
async fn younger_machine_starts_again_with_another_name_and_subnet() {
    let directory = tempfile::tempdir().unwrap();
    let app = app(&directory);
    let key = app.identity.lock().await.key().unwrap();
    let record = |id: &str, key: String, created_at_ms| MachineRecord {
        id: id.repeat(16),
        name: "web".into(),
        public_key: key,
        subnet: "10.210.1.0/24".into(),
        created_at_ms,
        ..MachineRecord::default()
    };
    let own = record("a1", key.public().to_string(), 2);
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
    let with_subnet = |subnet: &str| {
        let record = MachineRecord {
            subnet: subnet.into(),
            ..own.clone()
        };
        vec![put(records::MACHINE, record.id.clone(), &record)]
    };
    let nine = "10.210.9.0/24";
    // A subnet that its record no longer has is not taken.
    renumber(&app, &member, nine.parse().unwrap())
        .await
        .unwrap();
    assert!(Arc::ptr_eq(&app.try_member().unwrap(), &member));
    member.write(with_subnet(nine)).await.unwrap();
    // Not while a deployment runs here.
    let executing = member.node.leases().execute().unwrap();
    let refused = renumber(&app, &member, nine.parse().unwrap()).await;
    assert!(refused.unwrap_err().message.contains("deployment"));
    drop(executing);
    // An identity that cannot be written leaves everything as it is.
    let obstacle = app.paths.identity().with_extension("new");
    std::fs::create_dir(&obstacle).unwrap();
    let refused = renumber(&app, &member, nine.parse().unwrap()).await;
    assert!(refused.is_err());
    assert!(member.node.leases().execute().is_ok());
    assert!(Arc::ptr_eq(&app.try_member().unwrap(), &member));
    let membership = app.identity.lock().await.membership.clone().unwrap();
    assert_eq!(membership.subnet, member.membership.subnet);
    std::fs::remove_dir(&obstacle).unwrap();
    member.write(with_subnet("10.210.1.0/24")).await.unwrap();
    let renumbering = tokio::spawn(renumber_when_needed(Arc::clone(&app)));

    let other_key = uc_mesh::PrivateKey::generate().unwrap().public();
    let other = record("b2", other_key.to_string(), 1);
    let write = put(records::MACHINE, other.id.clone(), &other);
    member.write(vec![write]).await.unwrap();
    let mut members = app.watch_member();
    let moved = async {
        loop {
            let member = members.borrow_and_update().clone();
            if let Some(member) = member
                && member.membership.subnet.to_string() != "10.210.1.0/24"
            {
                return member;
            }
            members.changed().await.unwrap();
        }
    };
    let moved = timeout(LIMIT, moved).await.expect("another subnet");
    let cluster = moved.cluster();
    let own = cluster.own().unwrap();
    assert_eq!(own.name.as_str(), "web-2");
    assert_eq!(own.subnet, Some(moved.membership.subnet));
    let saved = Identity::load_or_create(&app.paths.identity()).unwrap();
    assert_eq!(saved.membership.unwrap().subnet, moved.membership.subnet);
    assert_eq!(cluster.problems().count(), 0);

    // What others write of it, such as its labels, does not bring the old one back.
    let labels = labels::write(&own.record.id, [("disk".into(), "ssd".into())].into());
    moved.write(vec![labels]).await.unwrap();
    assert_eq!(moved.cluster().own().unwrap().subnet, own.subnet);
    app.cancel.cancel();
    renumbering.await.unwrap();
    app.stop().await;
}
