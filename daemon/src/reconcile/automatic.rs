//! Deployments that this machine begins by itself. They are ordinary deployments of one service by
//! its record, and make way for those that a user asks for.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use tokio::time::Instant;
use uc_api::v1::plan_request::Change;
use uc_api::v1::{DeployOutcome, DesiredServices, Plan, PlanRequest, deploy_event};
use uc_api::{Code, Failure, MachineId, ServiceKey};

use crate::clock::now_ms;
use crate::cluster::deployments::{automatic_id, deployments};
use crate::cluster::member::Member;
use crate::cluster::view::Cluster;
use crate::deploy::run;

/// How long a deployment without an end is waited for. One of a machine that does not come back has
/// none.
const UNFINISHED_MS: i64 = 3_600_000;

/// The projects that are being deployed, as far as this machine knows: those that it has leased,
/// and those of recent deployments without an end, whose machines will continue them. Only machines
/// for which `counts` is true are waited for.
pub(super) fn deployed_projects(
    member: &Member,
    counts: impl Fn(MachineId) -> bool,
) -> BTreeSet<String> {
    let cluster = member.cluster();
    let leases = member.node.leases().list(Instant::now());
    let mut projects: BTreeSet<String> = leases.into_iter().map(|lease| lease.project).collect();
    let now_ms = now_ms();
    let unfinished = deployments(&member.store.snapshot())
        .into_iter()
        .filter(|of| {
            let recent = now_ms.saturating_sub(of.began_at_ms) < UNFINISHED_MS;
            let exists = cluster.machine_by_id(of.machine).is_some();
            of.ended.is_none() && recent && exists && counts(of.machine)
        });
    let services = unfinished.flat_map(|of| of.began.services);
    projects.extend(services.map(|service| service.project));
    projects
}

/// A deployment of the service as its record says, which leaves the rest of its project alone.
fn request(cluster: &Cluster, key: &ServiceKey) -> Option<PlanRequest> {
    let record = cluster.services().get(key)?;
    let others = cluster.services().keys();
    let others = others.filter(|other| other.project == key.project && *other != key);
    Some(PlanRequest {
        change: Some(Change::Deploy(DesiredServices {
            project: key.project.to_string(),
            services: vec![record.spec.clone()?],
            volumes: record.volumes.clone(),
            recreate: false,
            other_services: others.map(|other| other.service.to_string()).collect(),
            remove_orphans: false,
            images_resolved: true,
        })),
    })
}

/// Deploys the service by its record, if this machine `accepts` the plan. Returns how it ended.
pub(super) async fn deploy(
    member: &Arc<Member>,
    service: &ServiceKey,
    accepts: impl Fn(&Plan) -> bool,
) -> Result<Option<DeployOutcome>, Failure> {
    let Some(request) = request(&member.cluster(), service) else {
        return Ok(None);
    };
    let plan = run::plan_request(member, &request).await?;
    if !accepts(&plan) {
        return Ok(None);
    }
    for target in &plan.images {
        for machine in &target.machine_ids {
            let remote = member.remote(machine)?;
            let lacking = remote.missing_images(vec![target.image.clone()]).await?;
            if let Some(image) = lacking.first() {
                let message = format!("the built image {image} is missing");
                return Err(Failure::new(Code::Refused, message)
                    .on(machine)
                    .hint("`uc deploy` sends it"));
            }
        }
    }
    let order = run::Order {
        request,
        digest: plan.digest,
        deployment: automatic_id(),
        skip_health: false,
    };
    let started = run::start(Arc::clone(member), order).await?;
    let mut events = pin!(started.subscribe());
    // If the daemon stops, the deployment has no outcome, and the stream ends without it.
    drop(started);
    let mut outcome = None;
    while let Some(event) = events.next().await {
        if let Some(deploy_event::Event::Finished(finished)) = event.event {
            if finished.outcome() != DeployOutcome::Done {
                tracing::warn!(%service, message = finished.message, "a deployment that no user asked for did not succeed");
            }
            outcome = Some(finished.outcome());
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use uc_api::v1::{ServiceRecord, ServiceSpec};

    use super::*;
    use crate::cluster::machines::Own;

    #[test]
    fn request_is_the_record_and_leaves_other_services_alone() {
        let own = Own {
            id: MachineId::from_bytes([1; 16]),
            key: uc_mesh::PrivateKey::from_bytes([1; 32]).public(),
            network: "10.210.0.0/16".parse().unwrap(),
            prefix_length: 24,
        };
        let cluster = ["shop/agent", "shop/logs", "shop/web", "blog/web"]
            .into_iter()
            .fold(Cluster::of_machines(own, []), |cluster, name| {
                let key: ServiceKey = name.parse().unwrap();
                let spec = ServiceSpec {
                    project: key.project.to_string(),
                    name: key.service.to_string(),
                    ..ServiceSpec::default()
                };
                let record = ServiceRecord {
                    spec: Some(spec),
                    ..ServiceRecord::default()
                };
                cluster.with_service(key, record)
            });
        let request = request(&cluster, &"shop/agent".parse().unwrap()).unwrap();
        let Some(Change::Deploy(desired)) = request.change else {
            panic!("{request:?}");
        };
        assert_eq!(desired.services.len(), 1);
        assert_eq!(desired.services[0].name, "agent");
        assert_eq!(desired.other_services, ["logs", "web"]);
        assert!(!desired.remove_orphans && !desired.recreate);
    }
}
