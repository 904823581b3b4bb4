//! A member for tests of what needs one.

use tempfile::TempDir;
use uc_api::v1::MachineRecord;

use super::*;

/// An app in this directory, without Docker and mesh.
pub(crate) fn app(directory: &TempDir) -> Arc<App> {
    let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
    let engine = Arc::new(DockerEngine::new(directory.path().join("no-docker.sock")));
    App::new(paths, engine, CancellationToken::new(), |_, _| {
        Box::pin(async {})
    })
    .unwrap()
}

/// Enters a cluster of one machine, `m1`, or starts again as its member.
pub(crate) async fn enter_cluster_of_one(app: &App) -> Arc<Member> {
    let key = app.identity.lock().await.key().unwrap();
    let own = MachineRecord {
        id: "a1".repeat(16),
        name: "m1".into(),
        public_key: key.public().to_string(),
        subnet: "10.210.0.0/24".into(),
        ..MachineRecord::default()
    };
    let membership = Membership {
        cluster_id: "c1".repeat(16),
        machine_id: own.id.clone(),
        network: "10.210.0.0/16".parse().unwrap(),
        subnet: "10.210.0.0/24".parse().unwrap(),
        wireguard_port: 51820,
        bootstrap: vec![own],
    };
    let member = app.enter(membership, key).await.unwrap();
    member.finish_init().await.unwrap();
    member
}

/// The member of a cluster of one machine, `m1`.
pub(crate) async fn member_of_one(directory: &TempDir) -> Arc<Member> {
    enter_cluster_of_one(&app(directory)).await
}
