//! Gives up a name and a subnet that an older machine has, too, and takes others. Deletes other
//! records that have this machine's key, because only the machine itself knows which id is its own.
//!
//! Two members can give out one name or one subnet, on two sides of a partition or within the
//! milliseconds that a record needs to arrive. All machines agree on who holds it
//! ([`crate::cluster::machines`]). Only the other machine itself changes its record.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uc_api::v1::MachineRecord;
use uc_api::{Failure, MachineName};

use crate::cluster::labels;
use crate::cluster::machines::{Machine, free_subnet};
use crate::cluster::member::Member;
use crate::cluster::records::{self, delete};
use crate::cluster::view::Cluster;

/// How long a double name or subnet must last. The machine that had it first may be on its way out
/// of the cluster, or this one may be about to be renamed.
const LASTS: Duration = Duration::from_secs(3);
/// How soon it is tried again when it failed, and when a deployment runs on this machine.
const RETRY: Duration = Duration::from_secs(10);

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    let mut changes = member.changes();
    loop {
        let cluster = member.cluster();
        let waiting = if replacement(&cluster).is_some() || !ghosts(&member, &cluster).is_empty() {
            tokio::select! {
                () = member.cancel.cancelled() => return,
                () = tokio::time::sleep(LASTS) => {}
            }
            if let Err(failure) = delete_ghosts(&member).await {
                tracing::warn!(%failure, "cannot delete another record with the key of this machine");
            }
            if let Err(failure) = take_others(&member).await {
                tracing::warn!(%failure, "cannot take another name or subnet");
            }
            true
        } else {
            !announce_subnet(&member)
        };
        let running = if waiting {
            changes.next_within(RETRY).await
        } else {
            changes.next().await
        };
        if !running {
            return;
        }
    }
}

/// The ids of other records that have this machine's key. None while its own record is not in the
/// store: it may be this machine that is out of date.
fn ghosts(member: &Member, cluster: &Cluster) -> Vec<String> {
    if !cluster.has_own_record() {
        return Vec::new();
    }
    let (own_id, key) = (member.id.to_string(), member.key.public());
    let others = cluster.machine_records().iter();
    others
        .filter(|other| other.id != own_id && other.public_key.parse() == Ok(key))
        .map(|other| other.id.clone())
        .collect()
}

async fn delete_ghosts(member: &Member) -> Result<(), Failure> {
    if member.store.snapshot().is_rejoining() {
        // The records are those of before; the present ones are on their way.
        return Ok(());
    }
    let _one_at_a_time = member.registering.lock().await;
    let ghosts = ghosts(member, &member.cluster());
    if ghosts.is_empty() {
        return Ok(());
    }
    tracing::warn!(
        ?ghosts,
        "deleting other records that have the key of this machine"
    );
    let deletes = ghosts.into_iter().map(|id| delete(records::MACHINE, id));
    member.write(deletes.collect()).await
}

/// Writes this machine's record with a name and a subnet that no other machine has.
async fn take_others(member: &Member) -> Result<(), Failure> {
    if member.store.snapshot().is_rejoining() {
        // The records are those of before; the present ones are on their way.
        return Ok(());
    }
    let _one_at_a_time = member.registering.lock().await;
    let cluster = member.cluster();
    let Some(replacement) = replacement(&cluster).transpose()? else {
        return Ok(());
    };
    let own = cluster.own().expect("it has a replacement");
    tracing::warn!(
        from = %own.name,
        to = replacement.name,
        from_subnet = own.record.subnet,
        to_subnet = replacement.subnet,
        "taking another name or subnet: the present one is invalid, or an older machine has it"
    );
    member.write(vec![labels::write_record(replacement)]).await
}

/// This machine's record with another name or subnet, if it has to give one up.
fn replacement(cluster: &Cluster) -> Option<Result<MachineRecord, Failure>> {
    let own = cluster.own()?;
    if own.holds_name && own.subnet.is_some() {
        return None;
    }
    Some(replaced(own, cluster))
}

fn replaced(own: &Machine, cluster: &Cluster) -> Result<MachineRecord, Failure> {
    let mut record = own.record.clone();
    if !own.holds_name {
        record.name = numbered(own, cluster).to_string();
    }
    if own.subnet.is_none() {
        let subnet = free_subnet(cluster.network(), cluster.machine_records(), Some(own.id))?;
        record.subnet = subnet.to_string();
    }
    Ok(record)
}

/// The name with a number that makes it free: `web-2`, `web-3`. Of several machines that have to
/// give up one name, the oldest takes the first free number, the next one the second, so that they
/// do not collide again.
fn numbered(own: &Machine, cluster: &Cluster) -> MachineName {
    let name = &own.name;
    let age = |of: &Machine| (of.record.created_at_ms, of.id);
    let losers = cluster.machines().iter();
    let losers = losers.filter(|other| other.name == *name && !other.holds_name);
    let older = losers.filter(|other| age(other) < age(own)).count();
    let taken: BTreeSet<&str> = cluster
        .machine_records()
        .iter()
        .map(|record| record.name.as_str())
        .collect();
    let names = (2_u32..).map(|number| {
        let number = format!("-{number}");
        let kept = name
            .as_str()
            .len()
            .min(uc_api::name::MAX_LABEL - number.len());
        format!("{}{number}", name.as_str()[..kept].trim_end_matches('-'))
    });
    let mut free = names.filter(|name| !taken.contains(name.as_str()));
    let free = free
        .nth(older)
        .expect("there are more numbers than machines");
    free.parse()
        .expect("a valid name, cut and with a number, is valid")
}

/// Has this machine take the subnet of its record, if it has another one. False while it has to
/// wait for a deployment.
fn announce_subnet(member: &Member) -> bool {
    let Some(subnet) = member.wanted_subnet() else {
        return true;
    };
    // Deployments of other machines need this machine as well.
    if !member.node.leases().is_idle(Instant::now()) {
        return false;
    }
    member.new_subnet.send_replace(Some(subnet));
    true
}

#[cfg(test)]
mod tests;
