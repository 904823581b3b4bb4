//! Looking at all machines at once: before a plan is made, and after it was carried out.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use uc_api::Failure;
use uc_api::v1::{MachineRecord, ObserveResponse, Plan, ReplicaRecord};
use uc_cluster_state::membership::Liveness;

use super::plan::{self, Observed};
use crate::member::Member;
use crate::peers::LOOK_LIMIT;

/// Replication takes milliseconds; a replica whose health changes again meanwhile is not waited
/// for.
const SETTLE_LIMIT: Duration = Duration::from_secs(3);

/// All machines as they are now. One that cannot be asked is taken from the store and counts as not
/// up; the texts say which.
pub(super) async fn observe(member: &Member) -> (Observed, Vec<String>) {
    let view = member.view();
    let liveness = member.liveness();
    let machines = view.machines();
    let answers = join_all(machines.iter().map(|machine| {
        let down = liveness.get(&machine.id) == Some(&Liveness::Down);
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
    for (machine, answer) in machines.iter().zip(answers) {
        let (replicas, volumes, up) = match answer {
            Ok(observed) => (observed.replicas, observed.volumes, true),
            Err(why) => {
                warnings.push(match why {
                    Some(failure) => {
                        format!(
                            "{} does not answer and is skipped: {}",
                            machine.name, failure.message
                        )
                    }
                    None => format!("{} is down and is skipped", machine.name),
                });
                (
                    view.replicas_of(&machine.id),
                    view.volumes_of(&machine.id),
                    false,
                )
            }
        };
        let (Ok(id), Ok(name)) = (machine.id.parse(), machine.name.parse()) else {
            warnings.push(format!(
                "the record of machine {} is damaged; the machine is skipped",
                machine.name
            ));
            continue;
        };
        let facts = view.facts_of(&machine.id).unwrap_or_default();
        planned.push(plan::Machine {
            id,
            name,
            up,
            arch: facts.arch,
            labels: machine.labels.clone(),
            cpus: facts.cpus,
            memory: facts.memory,
            replicas,
            volumes,
        });
    }
    (
        Observed {
            machines: planned,
            services: view.services(),
        },
        warnings,
    )
}

async fn ask(member: &Member, machine: &MachineRecord) -> Result<ObserveResponse, Failure> {
    member.peers.machine(machine)?.observe(LOOK_LIMIT).await
}

/// Waits until the store says of the touched services what their machines say, so that who looks
/// right after a deployment sees its result.
pub(super) async fn settle(member: &Member, observed: &Observed, plan: &Plan) {
    let touched: BTreeSet<(&str, &str)> = plan
        .services
        .iter()
        .filter(|service| !service.steps.is_empty())
        .map(|service| (service.project.as_str(), service.service.as_str()))
        .collect();
    let of_touched = |replicas: Vec<ReplicaRecord>| -> BTreeSet<(String, i32, i32)> {
        replicas
            .into_iter()
            .filter(|replica| {
                touched.contains(&(replica.project.as_str(), replica.service.as_str()))
            })
            .map(|replica| (replica.container_id, replica.state, replica.health))
            .collect()
    };
    let machines = member.view().machines();
    let up = machines.iter().filter(|machine| {
        observed
            .machines
            .iter()
            .any(|m| m.up && m.id.to_string() == machine.id)
    });
    let answers =
        join_all(up.map(|machine| async move { (machine, ask(member, machine).await) })).await;
    let mut watch = member.store.watch();
    let told = async {
        for (machine, answer) in answers {
            let Ok(truth) = answer else { continue };
            let truth = of_touched(truth.replicas);
            while of_touched(member.view().replicas_of(&machine.id)) != truth {
                if watch.changed().await.is_err() {
                    return;
                }
            }
        }
    };
    if timeout(SETTLE_LIMIT, told).await.is_err() {
        tracing::info!("the deployment ended before the store had all of its result");
    }
}
