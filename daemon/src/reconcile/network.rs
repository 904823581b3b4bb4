//! Keeps the machine's container network and firewall rules in place, also after a restart of
//! Docker or of the firewall.

use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use uc_api::Failure;

use super::Part;
use crate::backoff::Backoff;
use crate::cluster::member::Member;
use crate::engine::Engine as _;
use crate::identity::Membership;
use crate::network::{
    DockerVersion, Firewall, FirewallSpec, ensure_docker_network, remove_docker_network,
};

/// How long our chains may be missing after Docker was restarted and rewrote its own.
const RECHECK: Duration = Duration::from_secs(30);

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    let mut part = Part {
        member: &member,
        purpose: "set up the container network",
        stage: |readiness| &mut readiness.network,
        backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(15)),
    };
    while part.until_done(|| ensure(&member)).await.is_some() {
        tokio::select! {
            () = member.cancel.cancelled() => return,
            () = tokio::time::sleep(RECHECK) => {}
        }
    }
}

async fn ensure(member: &Member) -> Result<(), Failure> {
    // This call has the best error message when the engine is missing, stopped or too old.
    member.engine.version().await.map_err(Failure::from)?;
    let docker = member.engine.docker().await.map_err(Failure::from)?;
    let membership = &member.membership;
    let version = DockerVersion::of(&docker).await.map_err(Failure::from)?;
    let network = ensure_docker_network(
        &docker,
        membership.subnet,
        &membership.cluster_id,
        &member.paths.moved_containers(),
    )
    .await
    .map_err(Failure::from);
    // The rules do not depend on the network, and protect what is on it also if it is wrong.
    let rules = firewall(membership, Some(version)).ensure().await;
    network.and(rules.map_err(Failure::from))
}

fn firewall(membership: &Membership, docker: Option<DockerVersion>) -> Firewall {
    Firewall::new(FirewallSpec {
        subnet: membership.subnet,
        docker,
    })
}

/// Removes the container network and all our rules. The rules are removed even if the network
/// cannot be.
pub(crate) async fn remove(member: &Member) -> Result<(), Failure> {
    let network = remove_network(member).await;
    let rules = firewall(&member.membership, None)
        .remove()
        .await
        .map_err(Failure::from);
    network.and(rules)
}

async fn remove_network(member: &Member) -> Result<(), Failure> {
    let docker: Docker = member.engine.docker().await.map_err(Failure::from)?;
    remove_docker_network(&docker).await.map_err(Failure::from)
}
