//! Resolves the host names among other machines' endpoints, see [`crate::endpoint_names`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use uc_api::HostName;
use uc_api::v1::MachineRecord;

use crate::cluster::member::Member;
use crate::endpoint_names::{
    Schedule, SystemResolver, names_of, names_of_unreachable, refresh, warn_of_invalid,
};

/// How often the task looks whether machines with a name answer.
const CHECK: Duration = Duration::from_secs(15);

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    let mut records = member.store.watch();
    let mut schedule = Schedule::default();
    let mut invalid = BTreeSet::new();
    loop {
        let cluster = member.cluster();
        let others: Vec<&MachineRecord> = cluster.others().map(|other| &other.record).collect();
        warn_of_invalid(&others, &mut invalid);
        let wanted = names_of(others.iter().copied());
        let round = async {
            let unreachable = if wanted.is_empty() {
                BTreeSet::new()
            } else {
                unreachable_names(&member, &others).await
            };
            let published = &member.endpoint_names;
            refresh(
                &mut schedule,
                &SystemResolver,
                &wanted,
                &unreachable,
                published,
            )
            .await;
        };
        tokio::select! {
            () = member.cancel.cancelled() => return,
            () = round => {}
        }
        tokio::select! {
            () = member.cancel.cancelled() => return,
            changed = records.changed() => if changed.is_err() { return },
            // Without names, only a changed record gives something to do.
            () = sleep(CHECK), if !wanted.is_empty() => {}
        }
    }
}

/// The names of machines whose path does not work, as the mesh process reports it.
async fn unreachable_names(member: &Member, machines: &[&MachineRecord]) -> BTreeSet<HostName> {
    match member.mesh.status().await {
        Ok(status) => names_of_unreachable(machines, &status),
        Err(error) => {
            tracing::debug!(%error, "cannot ask the mesh which machines answer");
            BTreeSet::new()
        }
    }
}
