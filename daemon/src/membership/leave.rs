//! How a machine leaves its cluster: because its user resets it, because another member removed it,
//! or because entering failed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use uc_api::{Code, Failure};
use uc_mesh::MeshClient;

use crate::app::App;
use crate::backoff::Backoff;
use crate::cluster::member::Member;
use crate::identity::Identity;
use crate::membership::join::close_mesh;
use crate::reconcile::network;

/// Leaves the cluster. Removes the containers, the network, the firewall rules and the state, and
/// keeps named volumes and images. Returns what was removed, for the user.
///
/// With an id, only the machine with that id leaves. The caller then undoes the join that gave the
/// machine this id, and must not end a membership that began after it.
pub(crate) async fn reset(app: &App, machine_id: Option<&str>) -> Result<Vec<String>, Failure> {
    app.abort_joins(machine_id);
    let mut identity = app.identity.lock().await;
    let Some(membership) = &identity.membership else {
        return match machine_id {
            None => close_left_mesh(app, &identity).await,
            // The join under this id has closed its mesh.
            Some(_) => Ok(Vec::new()),
        };
    };
    if machine_id.is_some_and(|id| id != membership.machine_id) {
        return Ok(Vec::new());
    }
    let Some(member) = app.try_member() else {
        // Entering or leaving failed half-way. No task runs, so there is nothing to stop.
        let mesh = MeshClient::new(app.paths.mesh_socket());
        forget(app, &mut identity, fresh_identity()?, &mesh, Vec::new()).await?;
        return Ok(vec!["mesh and state".to_owned()]);
    };
    let containers = member.cluster().reported(member.id).replicas.len();
    member.node.remove_all().await?;
    leave(app, &mut identity, &member).await?;
    Ok(vec![
        format!("{containers} containers"),
        "container network, firewall rules, mesh and state".to_owned(),
    ])
}

/// Closes the mesh of a join that did not end, because the daemon was killed: a machine outside a
/// cluster has no mesh. Returns what was removed, for the user. The caller holds the lock of the
/// identity, so no join runs.
async fn close_left_mesh(app: &App, identity: &Identity) -> Result<Vec<String>, Failure> {
    if identity.membership.is_some() {
        return Ok(Vec::new());
    }
    let mesh = MeshClient::new(app.paths.mesh_socket());
    let opened = match mesh.status().await {
        Ok(status) => !status.interface.is_empty(),
        // Without its process there is no mesh, and without its file none is restored.
        Err(_) if matches!(app.paths.mesh_config().try_exists(), Ok(false)) => {
            return Ok(Vec::new());
        }
        // Closing it says what is wrong.
        Err(_) => true,
    };
    close_mesh(&mesh).await.map_err(|failure| {
        failure.hint("check `systemctl status uc-mesh`, and run `sudo ucd reset --yes` again")
    })?;
    Ok(if opened {
        vec!["mesh of a join that did not end".to_owned()]
    } else {
        Vec::new()
    })
}

/// Closes the mesh of a join that did not end before this process started. The mesh process may
/// start later than this one, so it tries until that answers.
pub(crate) async fn close_left_mesh_at_start(app: Arc<App>) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
    loop {
        let closing = async {
            let identity = app.identity.lock().await;
            close_left_mesh(&app, &identity).await
        };
        // A join can hold the lock for minutes, and the end of the process does not wait for it.
        let closed = tokio::select! {
            () = app.cancel.cancelled() => return,
            closed = closing => closed,
        };
        match closed {
            Ok(removed) => {
                for what in removed {
                    tracing::info!("removed the {what}");
                }
                return;
            }
            Err(failure) => {
                tracing::warn!(%failure, "the mesh of a join that did not end is still open");
            }
        }
        tokio::select! {
            () = app.cancel.cancelled() => return,
            () = sleep(backoff.wait(rand::random())) => {}
        }
    }
}

/// Leaves whenever another member requests it. The listener finishes its answers before the mesh is
/// removed, so the member that requested it learns the outcome.
pub(crate) async fn leave_when_asked(app: Arc<App>) {
    let mut members = app.watch_member();
    loop {
        let member = members.borrow_and_update().clone();
        let asked = async {
            match &member {
                Some(member) => member.leave.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = app.cancel.cancelled() => return,
            changed = members.changed() => if changed.is_err() { return },
            () = asked => {
                let id = member.as_ref().map(|member| member.membership.machine_id.as_str());
                if let Err(failure) = reset(&app, id).await {
                    tracing::error!(%failure, "cannot leave the cluster completely; run `sudo ucd reset --yes`");
                }
            }
        }
    }
}

/// Stops the member and removes its parts. A failure does not stop it, because a partly removed
/// member is useless; the error names what is left.
///
/// The machine gets a new key.
pub(crate) async fn leave(
    app: &App,
    identity: &mut Identity,
    member: &Member,
) -> Result<(), Failure> {
    let fresh = fresh_identity()?;
    leave_as(app, identity, member, fresh).await
}

/// Leaves after a join that failed. The machine keeps its key, so that it can use its join token
/// again.
pub(crate) async fn leave_failed_join(
    app: &App,
    identity: &mut Identity,
    member: &Member,
) -> Result<(), Failure> {
    let next = outside(identity);
    leave_as(app, identity, member, next).await
}

/// The same machine, in no cluster.
fn outside(identity: &Identity) -> Identity {
    Identity {
        membership: None,
        ..identity.clone()
    }
}

async fn leave_as(
    app: &App,
    identity: &mut Identity,
    member: &Member,
    next: Identity,
) -> Result<(), Failure> {
    app.set_member(None);
    member.stop().await;
    let mut left = Vec::new();
    if let Err(failure) = network::remove(member).await {
        left.push(format!("the container network: {failure}"));
    }
    forget(app, identity, next, &member.mesh, left).await
}

fn fresh_identity() -> Result<Identity, Failure> {
    Identity::fresh().map_err(|error| Failure::new(Code::Internal, error.to_string()))
}

/// Removes the mesh's configuration, the membership and the state. `left` are the parts that could
/// not be removed before; the error names them as well.
async fn forget(
    app: &App,
    identity: &mut Identity,
    next: Identity,
    mesh: &MeshClient,
    mut left: Vec<String>,
) -> Result<(), Failure> {
    if let Err(failure) = close_mesh(mesh).await {
        left.push(format!("the mesh: {failure}"));
    }
    // First on disk: if that fails, the membership remains known, and the next reset removes it.
    next.save(&app.paths.identity())
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    *identity = next;
    left.extend(remove_state(app));
    if left.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Code::Internal,
        format!(
            "the machine left its cluster, but could not remove {}",
            left.join("; ")
        ),
    )
    .hint("remove the rest by hand: `docker network rm uc`, `systemctl restart uc-mesh`"))
}

/// Puts back the identity that the machine had before it tried to enter a cluster, for a member
/// that could not be started.
pub(crate) async fn undo_entry(
    app: &App,
    identity: &mut Identity,
    before: Identity,
) -> Result<(), Failure> {
    // First on disk: if that fails, the membership remains known, and a reset removes it.
    before
        .save(&app.paths.identity())
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    *identity = before;
    for left in remove_state(app) {
        tracing::warn!("cannot remove {left}");
    }
    // A join with a token has opened it.
    if let Err(failure) = close_mesh(&MeshClient::new(app.paths.mesh_socket())).await {
        tracing::warn!("{failure}");
    }
    Ok(())
}

/// Removes the store, the contents, the journals and the list of moved containers. Returns what
/// could not be removed, with the cause.
fn remove_state(app: &App) -> Vec<String> {
    let mut left = Vec::new();
    let store = ["", "-wal", "-shm"].map(|suffix| {
        let mut path = app.paths.store().into_os_string();
        path.push(suffix);
        PathBuf::from(path)
    });
    let lists = [app.paths.moved_containers(), app.paths.built_images()];
    for path in store.into_iter().chain(lists) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                left.push(format!("{}: {error}", path.display()));
            }
            _ => {}
        }
    }
    let (files, changes) = (app.paths.files(), app.paths.changes());
    let pre_deploys = app.paths.pre_deploys();
    for directory in [files, changes, pre_deploys, app.paths.deployments()] {
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                left.push(format!("{}: {error}", directory.display()));
            }
            _ => {}
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use uc_api::v1::{ClusterRecord, InitRequest, JoinRequest, MachineRecord};
    use uc_mesh::{DEFAULT_MTU, MeshConfig, PrivateKey};

    use super::*;
    use crate::app::tests::app;
    use crate::fake_mesh::{Change, FakeMesh};
    use crate::identity::Membership;
    use crate::membership::join;

    /// The identity on disk.
    fn saved(app: &App) -> Identity {
        Identity::load_or_create(&app.paths.identity()).unwrap()
    }

    async fn enter_without_member(app: &App, machine_id: &str) -> Identity {
        let mut identity = app.identity.lock().await;
        identity.membership = Some(Membership {
            cluster_id: "c1".repeat(16),
            machine_id: machine_id.to_owned(),
            network: "10.210.0.0/16".parse().unwrap(),
            subnet: "10.210.0.0/24".parse().unwrap(),
            wireguard_port: 51820,
            bootstrap: Vec::new(),
        });
        identity.save(&app.paths.identity()).unwrap();
        identity.clone()
    }

    #[tokio::test]
    async fn reset_of_another_machine_id_keeps_the_membership() {
        let directory = tempfile::tempdir().unwrap();
        let app = app(&directory);
        let member = enter_without_member(&app, "a").await;
        assert_eq!(reset(&app, Some("b")).await, Ok(Vec::new()));
        assert_eq!(saved(&app).membership, member.membership);
        assert_eq!(saved(&app).private_key, member.private_key);
    }

    #[tokio::test]
    async fn reset_clears_an_identity_without_member() {
        for machine_id in [None, Some("a")] {
            let directory = tempfile::tempdir().unwrap();
            let app = app(&directory);
            let member = enter_without_member(&app, "a").await;
            let failure = reset(&app, machine_id).await.unwrap_err();
            assert!(
                failure.message.contains("the mesh"),
                "there is none: {failure}"
            );
            assert_eq!(saved(&app).membership, None);
            assert_ne!(saved(&app).private_key, member.private_key);
            assert_eq!(reset(&app, machine_id).await, Ok(Vec::new()));
        }
    }

    #[tokio::test]
    async fn reset_outside_a_cluster_closes_the_mesh_of_a_join_that_died() {
        let directory = tempfile::tempdir().unwrap();
        let app = app(&directory);
        let mesh = FakeMesh::listen(&app.paths.mesh_socket());
        let key = PrivateKey::generate().unwrap();
        let token_mesh = MeshConfig {
            private_key: key.clone(),
            listen_port: 51820,
            interface: "uc".into(),
            addresses: Vec::new(),
            mtu: DEFAULT_MTU,
            peers: Vec::new(),
        };
        let client = MeshClient::new(app.paths.mesh_socket());
        client.apply(&token_mesh).await.unwrap();
        let removed = reset(&app, None).await.unwrap();
        assert_eq!(mesh.changes(), [Change::Apply(key.public()), Change::Down]);
        assert_eq!(removed, ["mesh of a join that did not end"]);
        assert_eq!(reset(&app, None).await, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn start_closes_the_mesh_only_of_a_machine_outside_a_cluster() {
        let directory = tempfile::tempdir().unwrap();
        let app = app(&directory);
        let mesh = FakeMesh::listen(&app.paths.mesh_socket());
        enter_without_member(&app, "a").await;
        close_left_mesh_at_start(Arc::clone(&app)).await;
        assert_eq!(mesh.changes(), []);
        app.identity.lock().await.membership = None;
        close_left_mesh_at_start(Arc::clone(&app)).await;
        assert_eq!(mesh.changes(), [Change::Down]);
    }

    #[tokio::test]
    async fn failed_join_keeps_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let app = app(&directory);
        let member = enter_without_member(&app, "a").await;
        let mut identity = app.identity.lock().await;
        let next = outside(&identity);
        let mesh = MeshClient::new(app.paths.mesh_socket());
        let left = forget(&app, &mut identity, next, &mesh, Vec::new()).await;
        assert!(
            left.unwrap_err().message.contains("the mesh"),
            "there is none"
        );
        assert_eq!(saved(&app).membership, None);
        assert_eq!(saved(&app).private_key, member.private_key);
    }

    #[tokio::test]
    async fn failed_start_of_a_member_puts_the_identity_back() {
        let directory = tempfile::tempdir().unwrap();
        let app = app(&directory);
        let before = saved(&app);
        // The store cannot be opened.
        std::fs::create_dir(app.paths.store()).unwrap();
        let request = InitRequest {
            name: "m1".into(),
            ..InitRequest::default()
        };
        let initialised = join::init(&app, &request).await;
        assert!(
            initialised
                .unwrap_err()
                .message
                .contains("cannot open the store")
        );
        assert_eq!(saved(&app).membership, None);
        let request = JoinRequest {
            cluster: Some(ClusterRecord {
                id: "c1".repeat(16),
                network: "10.210.0.0/16".into(),
                ..ClusterRecord::default()
            }),
            machine: Some(MachineRecord {
                id: "a1".repeat(16),
                public_key: before.public_key().unwrap().to_string(),
                subnet: "10.210.1.0/24".into(),
                ..MachineRecord::default()
            }),
            ..JoinRequest::default()
        };
        // Not refused as a member.
        let joined = join::join(&app, request).await;
        assert!(
            joined
                .unwrap_err()
                .message
                .contains("cannot open the store")
        );
        assert_eq!(saved(&app).membership, None);
        assert_eq!(saved(&app).private_key, before.private_key);
        assert!(app.identity.lock().await.membership.is_none());
    }
}
