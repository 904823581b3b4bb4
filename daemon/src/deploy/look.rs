//! Looking at all machines at once: before a plan is made, and after it was carried out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use uc_api::v1::{
    Kept, ObserveResponse, Plan, PlanRequest, ReplicaRecord, VolumeRecord, plan_request,
};
use uc_api::{Failure, MachineId};
use uc_planner::Observed;

use crate::cluster::machines::Machine;
use crate::cluster::member::Member;
use crate::cluster::peers::LOOK_LIMIT;
use crate::cluster::records::Replica;
use crate::cluster::view::Cluster;

/// Replication takes milliseconds; a replica whose health changes again meanwhile is not waited
/// for.
const SETTLE_LIMIT: Duration = Duration::from_secs(3);

/// All machines as they are now, for a plan of this request. One that cannot be asked is taken from
/// the store and counts as not up; the texts say which.
pub(super) async fn observe(member: &Member, request: &PlanRequest) -> (Observed, Vec<String>) {
    let cluster = member.cluster();
    let answers = join_all(cluster.machines().iter().map(|machine| {
        let down = cluster.is_down(machine.id);
        async move {
            if down {
                Err(None)
            } else {
                ask(member, machine).await.map_err(Some)
            }
        }
    }))
    .await;
    let mut warnings = Vec::new();
    let mut planned = Vec::new();
    for (machine, answer) in cluster.machines().iter().zip(answers) {
        let name = &machine.name;
        let reported = cluster.reported(machine.id);
        let (replicas, volumes, up) = match answer {
            Ok(observed) => {
                let mut replicas = observed.replicas;
                // It is about to be removed, and still holds its ports: like a replica that an
                // interrupted deployment left.
                for replica in &mut replicas {
                    let retires = cluster.retirement(machine.id, &replica.container_id);
                    replica.draining |= retires.is_some();
                }
                (replicas, observed.volumes, true)
            }
            Err(why) => {
                warnings.push(match why {
                    Some(failure) => {
                        format!("{name} does not answer and is skipped: {}", failure.message)
                    }
                    None => format!("{name} is down and is skipped"),
                });
                // What its machine removes when it is back has no part in what is planned.
                let stays = |of: &&Arc<Replica>| {
                    cluster
                        .retirement(machine.id, &of.record.container_id)
                        .is_none()
                };
                let replicas = reported.replicas.values().filter(stays);
                let replicas = replicas.map(|of| of.record.clone());
                (replicas.collect(), volumes(&cluster, machine.id), false)
            }
        };
        let replicas: Vec<ReplicaRecord> = replicas;
        let replicas = replicas.into_iter();
        planned.push(uc_planner::Machine {
            replicas: replicas
                .filter(|of| counts(of, request, &cluster))
                .collect(),
            volumes,
            volume_homes: cluster
                .volume_homes(machine.id)
                .map(|(home, record)| (home.volume.clone(), record.created_at_ms))
                .collect(),
            ..cluster.planner_machine(machine, up)
        });
    }
    let faulty = cluster.machine_records().iter().filter(|record| {
        let usable = cluster.machines().iter();
        !usable
            .map(|machine| &machine.record.id)
            .any(|id| *id == record.id)
    });
    warnings.extend(faulty.map(|record| {
        format!(
            "the record of machine {} is faulty; the machine is skipped",
            record.name
        )
    }));
    let services = cluster.services().iter();
    let services = services.map(|(key, record)| (key.clone(), (**record).clone()));
    (
        Observed {
            machines: planned,
            services: services.collect(),
        },
        warnings,
    )
}

/// Whether a container has a part in a plan. One that is only kept is not a replica, and the next
/// deployment of its service removes it. But a service whose first deployment failed has nothing
/// else, and a user removes the service by its name.
fn counts(replica: &ReplicaRecord, request: &PlanRequest, cluster: &Cluster) -> bool {
    let is_removal = matches!(request.change, Some(plan_request::Change::Remove(_)));
    let is_all = || {
        let service = format!("{}/{}", replica.project, replica.service);
        let service = service.parse();
        service.is_ok_and(|service| !cluster.services().contains_key(&service))
    };
    match replica.kept() {
        Kept::Unspecified => true,
        Kept::Failed => is_removal && is_all(),
        Kept::Replaced => false,
    }
}

/// The volumes of a machine that cannot be asked: those that it reported, and those that are at
/// home on it. Nothing that it reported is shown while it is evicted, or before it has arrived.
fn volumes(cluster: &Cluster, machine: MachineId) -> Vec<VolumeRecord> {
    let reported = &cluster.reported(machine).volumes;
    let homes = cluster.volume_homes(machine);
    let unreported = homes.filter(|(home, _)| !reported.contains_key(&home.volume));
    let unreported = unreported.map(|(home, record)| VolumeRecord {
        name: home.volume.clone(),
        driver: record.driver.clone(),
        project: record.project.clone(),
    });
    let reported = reported.values().map(|of| (**of).clone());
    reported.chain(unreported).collect()
}

async fn ask(member: &Member, machine: &Machine) -> Result<ObserveResponse, Failure> {
    member.peers.machine(machine).observe(LOOK_LIMIT).await
}

/// Waits until the store says of the touched services what their machines say, so that who looks
/// right after a deployment sees its result.
pub(super) async fn settle(member: &Member, machines: &[String], plan: &Plan) {
    let touched: BTreeSet<(&str, &str)> = plan
        .services
        .iter()
        .filter(|service| !service.steps.is_empty())
        .map(|service| (service.project.as_str(), service.service.as_str()))
        .collect();
    let of_touched = |replicas: &mut dyn Iterator<Item = &ReplicaRecord>| -> BTreeSet<_> {
        replicas
            .filter(|replica| {
                touched.contains(&(replica.project.as_str(), replica.service.as_str()))
            })
            .map(|replica| (replica.container_id.clone(), replica.state, replica.health))
            .collect()
    };
    let cluster = member.cluster();
    let up = cluster
        .machines()
        .iter()
        .filter(|machine| machines.contains(&machine.id.to_string()));
    let answers =
        join_all(up.map(|machine| async move { (machine, ask(member, machine).await) })).await;
    let mut changes = member.changes();
    let told = async {
        for (machine, answer) in answers {
            let Ok(truth) = answer else { continue };
            let truth = of_touched(&mut truth.replicas.iter());
            let is_told = || {
                let cluster = member.cluster();
                let replicas = cluster.reported(machine.id).replicas.values();
                of_touched(&mut replicas.map(|replica| &replica.record)) == truth
            };
            while !is_told() {
                if !changes.next().await {
                    return;
                }
            }
        }
    };
    if timeout(SETTLE_LIMIT, told).await.is_err() {
        tracing::info!("the deployment ended before the store had all of its result");
    }
}

#[cfg(test)]
mod tests {
    use uc_api::v1::{RemoveServices, ScaleService, ServiceRecord, VolumeHomeRecord};
    use uc_cluster_state::{MemberStatus, Write};

    use super::*;
    use crate::app::tests::member_of_one;
    use crate::cluster::records::{VOLUME_HOME, VolumeHome, put};

    #[test]
    fn what_a_failed_first_deployment_left_can_be_removed_by_its_service() {
        let own = crate::cluster::machines::Own {
            id: MachineId::from_bytes([1; 16]),
            key: uc_mesh::PrivateKey::from_bytes([1; 32]).public(),
            network: "10.210.0.0/16".parse().unwrap(),
            prefix_length: 24,
        };
        let cluster = Cluster::of_machines(own, []);
        let exists = cluster
            .clone()
            .with_service("shop/web".parse().unwrap(), ServiceRecord::default());
        let of = |change: plan_request::Change| PlanRequest {
            change: Some(change),
        };
        let remove = of(plan_request::Change::Remove(RemoveServices::default()));
        let scale = of(plan_request::Change::Scale(ScaleService::default()));
        let kept = |kept: Kept| ReplicaRecord {
            project: "shop".into(),
            service: "web".into(),
            kept: kept.into(),
            ..ReplicaRecord::default()
        };
        assert!(counts(&kept(Kept::Unspecified), &scale, &cluster));
        assert!(counts(&kept(Kept::Failed), &remove, &cluster));
        assert!(!counts(&kept(Kept::Failed), &scale, &cluster));
        assert!(!counts(&kept(Kept::Failed), &remove, &exists));
        assert!(!counts(&kept(Kept::Replaced), &remove, &cluster));
    }

    /// F8: nothing that an evicted machine reported is shown, and its volumes still are where they
    /// were.
    #[tokio::test]
    async fn volumes_of_an_evicted_machine_are_still_known() {
        let directory = tempfile::tempdir().unwrap();
        let member = member_of_one(&directory).await;
        let machine = MachineId::from_bytes([9; 16]);
        let home = VolumeHome {
            machine,
            volume: "shop_data".into(),
        };
        let record = VolumeHomeRecord {
            project: "shop".into(),
            driver: "local".into(),
            created_at_ms: 1,
        };
        let evicted = Write::Declare {
            machine,
            status: MemberStatus::Evicted,
        };
        let writes = vec![evicted, put(VOLUME_HOME, home.key(), &record)];
        member.write(writes).await.unwrap();
        let known = VolumeRecord {
            name: "shop_data".into(),
            driver: "local".into(),
            project: "shop".into(),
        };
        assert_eq!(volumes(&member.cluster(), machine), [known]);
        assert!(volumes(&member.cluster(), member.id).is_empty());
    }
}
