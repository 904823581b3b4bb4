//! How a machine leaves its cluster: because its user resets it, because another member removed it,
//! or because entering failed.

use std::sync::Arc;

use uc_api::{Code, Failure};

use crate::app::App;
use crate::host_network;
use crate::identity::Identity;
use crate::join::close_mesh;
use crate::member::Member;

/// Leaves the cluster. Removes the containers, the network, the firewall rules and the state, and
/// keeps named volumes and images. Returns what was removed, for the user.
pub(crate) async fn reset(app: &App) -> Result<Vec<String>, Failure> {
    app.abort_joins();
    let mut identity = app.identity.lock().await;
    let Some(member) = app.try_member() else {
        return Ok(Vec::new());
    };
    let containers = member
        .view()
        .replicas_of(&member.membership.machine_id)
        .len();
    member.node.remove_all().await?;
    leave(app, &mut identity, &member).await?;
    Ok(vec![
        format!("{containers} containers"),
        "container network, firewall rules, mesh and state".to_owned(),
    ])
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
                if let Err(failure) = reset(&app).await {
                    tracing::error!(%failure, "cannot leave the cluster completely; run `sudo ucd reset --yes`");
                }
            }
        }
    }
}

/// Stops the member and removes its parts. A failure does not stop it, because a partly removed
/// member is useless; the error names what is left.
pub(crate) async fn leave(
    app: &App,
    identity: &mut Identity,
    member: &Member,
) -> Result<(), Failure> {
    app.set_member(None);
    member.stop().await;
    let mut left = Vec::new();
    if let Err(failure) = host_network::remove(member).await {
        left.push(format!("the container network: {failure}"));
    }
    if let Err(failure) = close_mesh(&member.mesh).await {
        left.push(format!("the mesh: {failure}"));
    }
    *identity =
        Identity::fresh().map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    identity
        .save(&app.paths.identity())
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    for suffix in ["", "-wal", "-shm"] {
        let mut path = app.paths.store().into_os_string();
        path.push(suffix);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                left.push(format!("{}: {error}", path.display()));
            }
            _ => {}
        }
    }
    match std::fs::remove_dir_all(app.paths.files()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            left.push(format!("{}: {error}", app.paths.files().display()));
        }
        _ => {}
    }
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
