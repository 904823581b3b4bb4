//! Which members this machine keeps a replication stream with.

use std::collections::BTreeSet;

use uc_api::MachineId;
use uc_cluster_state::overlay::{self, FULL_MESH};

use super::view::Cluster;

/// All other members, or some of them in a larger cluster (`overlay`). In a full mesh, members that
/// are down are called too: they may answer before membership sees them.
pub(crate) fn neighbours(own: MachineId, cluster: &Cluster) -> BTreeSet<MachineId> {
    let mut members: BTreeSet<MachineId> = cluster
        .machines()
        .iter()
        .map(|machine| machine.id)
        .collect();
    if members.len() > FULL_MESH {
        members.retain(|machine| *machine == own || !cluster.is_down(*machine));
    }
    overlay::neighbours(own, &members)
}

#[cfg(test)]
mod tests;
