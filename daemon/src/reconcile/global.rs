//! Brings global services to this machine: when it joins, and when it is back after it was away
//! while they changed.
//!
//! It is an ordinary deployment of the service by its record, carried out only if all that it would
//! do is on this machine. What else is to be done is for a user to decide; `uc doctor` names it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uc_api::v1::{DeployOutcome, Plan, ServiceChange, ServiceMode};
use uc_api::{Failure, MachineId, ServiceKey};

use super::automatic;
use crate::backoff::Backoff;
use crate::cluster::member::Member;
use crate::cluster::view::Cluster;

/// How long a service must be missing. A deployment or a retirement that is about to change it may
/// be on its way here.
const LASTS: Duration = Duration::from_secs(5);
/// Waits after a deployment that failed, or that is not possible now. Each failed one is visible to
/// users, and what it lacks (an image that only a laptop has) seldom comes on its own.
const FIRST_RETRY: Duration = Duration::from_mins(1);
const LAST_RETRY: Duration = Duration::from_hours(1);

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    if !super::ready(&member, |readiness| &readiness.dns).await {
        return;
    }
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    let mut changes = member.changes();
    loop {
        if missing(&member).is_empty() {
            backoff.reset();
            if !changes.next().await {
                return;
            }
            continue;
        }
        if !pause(&member, LASTS).await {
            return;
        }
        for service in missing(&member) {
            match deploy_here(&member, &service).await {
                Ok(Some(outcome)) => {
                    tracing::info!(%service, outcome = outcome.as_str_name(), "deployed a global service on this machine");
                }
                Ok(None) => tracing::debug!(%service, "a global service cannot come here now"),
                Err(failure) => {
                    tracing::warn!(%service, %failure, "cannot deploy a global service on this machine");
                }
            }
        }
        let left = missing(&member);
        // Another service does not wait for one that cannot come.
        let until = Instant::now() + backoff.wait(rand::random());
        while missing(&member) == left && !left.is_empty() && Instant::now() < until {
            if !changes.next_within(until - Instant::now()).await {
                return;
            }
        }
    }
}

/// False when the member stops first.
async fn pause(member: &Member, time: Duration) -> bool {
    tokio::select! {
        () = member.cancel.cancelled() => false,
        () = tokio::time::sleep(time) => true,
    }
}

fn missing(member: &Member) -> Vec<ServiceKey> {
    let cluster = member.cluster();
    if !cluster.has_own_record() || member.store.snapshot().is_rejoining() {
        return Vec::new();
    }
    // One that was cut short continues when its machine is back.
    let deployed = automatic::deployed_projects(member, |_| true);
    missing_services(&cluster, member.id, &deployed)
}

/// Global services of which this machine has no replica, but not of the projects that are being
/// `deployed`. None while its engine has not reported, or does not answer.
fn missing_services(
    cluster: &Cluster,
    own: MachineId,
    deployed: &BTreeSet<String>,
) -> Vec<ServiceKey> {
    let reported = cluster.reported(own);
    if reported.facts.is_none() || cluster.engine_away_since_ms(own).is_some() {
        return Vec::new();
    }
    let here: BTreeSet<&ServiceKey> = reported.replicas.values().map(|of| &of.service).collect();
    let Some(machine) = cluster.machine_by_id(own) else {
        return Vec::new();
    };
    let place = [cluster.planner_machine(machine, true)];
    let services = cluster.services().iter().filter(|(key, record)| {
        let spec = record.spec.as_ref();
        spec.is_some_and(|spec| {
            spec.mode() == ServiceMode::Global && uc_planner::global_replicas(spec, &place) == 1
        }) && !here.contains(key)
            && !deployed.contains(key.project.as_str())
    });
    services.map(|(key, _)| key.clone()).collect()
}

/// The plan changes no spec and removes nothing: it only creates replicas where there are none, and
/// one of them here. Two machines that lack a service at the same time would otherwise wait for
/// each other.
fn only_creates(plan: &Plan, own: &str) -> bool {
    let mut steps = plan.services.iter().flat_map(|service| &service.steps);
    let is_here = steps.clone().any(|step| step.machine_id == own);
    is_here
        && plan.retirements.is_empty()
        && plan
            .services
            .iter()
            .all(|of| of.fields.is_empty() && of.change() != ServiceChange::Remove)
        && steps.all(|step| step.container_id.is_empty())
}

/// Deploys the service if that is possible without anything elsewhere. Returns how it ended.
async fn deploy_here(
    member: &Arc<Member>,
    service: &ServiceKey,
) -> Result<Option<DeployOutcome>, Failure> {
    let own = &member.membership.machine_id;
    automatic::deploy(member, service, |plan| only_creates(plan, own)).await
}

#[cfg(test)]
mod tests {
    use uc_api::v1::{
        FieldChange, MachineFacts, MachineRecord, ReplicaRecord, ReplicaStep, Retirement,
        ServicePlan, ServiceRecord, ServiceSpec,
    };
    use uc_mesh::PrivateKey;

    use super::*;
    use crate::cluster::machines::Own;
    use crate::cluster::records::Replica;

    fn id(number: u8) -> MachineId {
        MachineId::from_bytes([number; 16])
    }

    fn cluster() -> Cluster {
        let key = PrivateKey::from_bytes([1; 32]).public();
        let own = Own {
            id: id(1),
            key,
            network: "10.210.0.0/16".parse().unwrap(),
            prefix_length: 24,
        };
        let machine = MachineRecord {
            id: id(1).to_string(),
            name: "m1".into(),
            public_key: key.to_string(),
            subnet: "10.210.1.0/24".into(),
            ..MachineRecord::default()
        };
        let service = |name: &str, mode: ServiceMode| {
            let spec = ServiceSpec {
                project: "shop".into(),
                name: name.into(),
                mode: mode.into(),
                ..ServiceSpec::default()
            };
            let record = ServiceRecord {
                spec: Some(spec),
                ..ServiceRecord::default()
            };
            (format!("shop/{name}").parse().unwrap(), record)
        };
        let services = [
            service("agent", ServiceMode::Global),
            service("logs", ServiceMode::Global),
            service("web", ServiceMode::Replicated),
        ];
        let cluster = Cluster::of_machines(own, [machine]);
        services
            .into_iter()
            .fold(cluster, |cluster, (key, record)| {
                cluster.with_service(key, record)
            })
    }

    fn with_facts(cluster: Cluster, engine_away_since_ms: i64) -> Cluster {
        let facts = MachineFacts {
            engine_away_since_ms,
            ..MachineFacts::default()
        };
        cluster.with_facts(id(1), facts)
    }

    #[test]
    fn global_services_without_a_replica_here_are_missing() {
        let missing = |cluster: &Cluster| {
            let services = missing_services(cluster, id(1), &BTreeSet::new()).into_iter();
            services.map(|key| key.to_string()).collect::<Vec<_>>()
        };
        assert!(missing(&cluster()).is_empty(), "nothing was reported yet");
        assert!(missing(&with_facts(cluster(), 7)).is_empty(), "no Docker");
        let cluster = with_facts(cluster(), 0);
        assert_eq!(missing(&cluster), ["shop/agent", "shop/logs"]);
        // One that has failed is not missing: it is not tried again without end.
        let agent = Replica {
            service: "shop/agent".parse().unwrap(),
            ip: None,
            record: ReplicaRecord::default(),
        };
        assert_eq!(missing(&cluster.with_replica(id(1), agent)), ["shop/logs"]);
    }

    #[test]
    fn plan_that_does_more_than_create_is_for_a_user() {
        let step = |machine: &str| ReplicaStep {
            machine_id: machine.into(),
            ..ReplicaStep::default()
        };
        let plan = |steps: Vec<ReplicaStep>| Plan {
            services: vec![ServicePlan {
                steps,
                ..ServicePlan::default()
            }],
            ..Plan::default()
        };
        assert!(only_creates(&plan(vec![step("m1")]), "m1"));
        assert!(only_creates(&plan(vec![step("m1"), step("m2")]), "m1"));
        assert!(!only_creates(&plan(vec![]), "m1"), "not eligible");
        assert!(!only_creates(&plan(vec![step("m2")]), "m1"));
        let mut replaces = step("m1");
        replaces.container_id = "abcd".into();
        assert!(!only_creates(&plan(vec![step("m1"), replaces]), "m1"));
        let mut changes = plan(vec![step("m1")]);
        changes.services[0].fields.push(FieldChange::default());
        assert!(!only_creates(&changes, "m1"));
        let mut retires = plan(vec![step("m1")]);
        retires.retirements.push(Retirement::default());
        assert!(!only_creates(&retires, "m1"));
    }
}
