//! Looking at all machines at once: before a plan is made, and after it was carried out.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use uc_api::Failure;
use uc_api::v1::{Kept, ObserveResponse, Plan, ReplicaRecord};
use uc_planner::Observed;

use crate::cluster::machines::Machine;
use crate::cluster::member::Member;
use crate::cluster::peers::LOOK_LIMIT;
use crate::network::gateway;

/// Replication takes milliseconds; a replica whose health changes again meanwhile is not waited
/// for.
const SETTLE_LIMIT: Duration = Duration::from_secs(3);

/// All machines as they are now. One that cannot be asked is taken from the store and counts as not
/// up; the texts say which.
pub(super) async fn observe(member: &Member) -> (Observed, Vec<String>) {
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
            Ok(observed) => (observed.replicas, observed.volumes, true),
            Err(why) => {
                warnings.push(match why {
                    Some(failure) => {
                        format!("{name} does not answer and is skipped: {}", failure.message)
                    }
                    None => format!("{name} is down and is skipped"),
                });
                let replicas = reported.replicas.values().map(|of| of.record.clone());
                let volumes = reported.volumes.values().map(|of| (**of).clone());
                (replicas.collect(), volumes.collect(), false)
            }
        };
        // What is only kept is no replica, and its deployment ends it.
        let replicas: Vec<ReplicaRecord> = replicas;
        let replicas = replicas
            .into_iter()
            .filter(|of| of.kept() == Kept::Unspecified);
        // Empty and 0 are unknown: the facts have not arrived.
        let facts = reported.facts.as_deref();
        planned.push(uc_planner::Machine {
            id: machine.id,
            name: name.clone(),
            holds_name: machine.holds_name,
            up,
            dns_server: machine.subnet.map(gateway),
            arch: facts.map_or_else(String::new, |facts| facts.arch.clone()),
            labels: machine.record.labels.clone(),
            cpus: facts.map_or(0, |facts| facts.cpus),
            memory: facts.map_or(0, |facts| facts.memory),
            replicas: replicas.collect(),
            volumes,
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
