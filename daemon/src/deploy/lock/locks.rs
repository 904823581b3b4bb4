//! Which project is leased to which deployment, as all machines report it, for `uc lock`.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use tokio::time::Instant;
use uc_api::v1::release_request::What;
use uc_api::v1::{Lease, ListLocksResponse, Lock, ReleaseLockResponse};
use uc_api::{Code, Failure};

use super::{executor, reachable, release_on};
use crate::cluster::member::Member;
use crate::cluster::view::Cluster;

/// All leases that the machines report.
pub(crate) async fn list(member: &Member) -> ListLocksResponse {
    let cluster = member.cluster();
    let ids = reachable(&cluster);
    let answers = join_all(ids.iter().map(async |id| {
        if *id == member.id {
            return Ok(member.node.leases().list(Instant::now()));
        }
        member.remote(&id.to_string())?.leases().await
    }))
    .await;
    let mut reports = Vec::new();
    let mut warnings = Vec::new();
    for (id, answer) in ids.iter().zip(answers) {
        let name = executor(&cluster, &id.to_string());
        match answer {
            Ok(leases) => reports.push((name, leases)),
            Err(failure) => warnings.push(format!("{name} does not answer: {}", failure.message)),
        }
    }
    ListLocksResponse {
        locks: merge(&cluster, reports),
        warnings,
    }
}

/// Releases a project on all machines that answer.
pub(crate) async fn release(
    member: &Member,
    project: &str,
) -> Result<ReleaseLockResponse, Failure> {
    let cluster = member.cluster();
    let ids = reachable(&cluster);
    let what = What::Project(project.to_owned());
    let answers = join_all(ids.iter().map(|id| release_on(member, *id, what.clone()))).await;
    let mut reports = Vec::new();
    let mut warnings = Vec::new();
    for (id, answer) in ids.iter().zip(answers) {
        let name = executor(&cluster, &id.to_string());
        match answer {
            Ok(leases) => reports.push((name, leases)),
            Err(failure) => warnings.push(format!(
                "{name} does not answer, and can hold the lock for another minute: {}",
                failure.message
            )),
        }
    }
    let locks = merge(&cluster, reports);
    if locks.is_empty() {
        let message = format!("no deployment of project `{project}` is running");
        return Err(Failure::new(Code::NotFound, message)
            .hint("`uc lock show` lists the projects that are being deployed"));
    }
    Ok(ReleaseLockResponse { locks, warnings })
}

/// One lock for each project and deployment, with the machines that hold it.
fn merge(cluster: &Cluster, reports: Vec<(String, Vec<Lease>)>) -> Vec<Lock> {
    let mut locks: BTreeMap<(String, String), Lock> = BTreeMap::new();
    for (holder, leases) in reports {
        for lease in leases {
            let key = (lease.project.clone(), lease.deployment_id.clone());
            let lock = locks.entry(key).or_insert_with(|| Lock {
                project: lease.project,
                deployment_id: lease.deployment_id,
                machine_name: executor(cluster, &lease.machine_id),
                machine_id: lease.machine_id,
                ..Lock::default()
            });
            // A machine that got the lease with a renewal knows its age as well. The oldest report
            // is the nearest to the truth, because each one took some time to arrive.
            lock.age_ms = lock.age_ms.max(lease.age_ms);
            lock.confirmed |= lease.confirmed;
            lock.holders.push(holder.clone());
        }
    }
    locks.into_values().collect()
}
