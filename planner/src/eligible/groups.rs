//! Services that depend on each other's places: those that share a namespace, and those that share
//! a volume which is not there yet.

use uc_api::v1::ServiceMode;

use super::super::desired::Target;
use super::super::error::PlanError;
use super::super::{Cluster, is_of, place, ports, together, volume_names};
use super::{Eligible, places};

/// Where a service may run that shares a namespace of another, and where that may run, once both
/// have to be on one machine. The shared one is narrowed too if it is replicated: otherwise it
/// could go where nobody can follow.
pub(super) fn bring_together(
    targets: &[Target],
    eligible: &mut [Eligible],
) -> Result<(), PlanError> {
    let pairs = sharing(targets);
    // Each round that changes something takes machines away, so this ends.
    loop {
        let before = eligible.to_vec();
        for (sharer, shared) in &pairs {
            let both: Vec<usize> = eligible[*sharer]
                .all()
                .filter(|index| eligible[*shared].all().any(|other| other == *index))
                .collect();
            if both.is_empty() {
                return Err(PlanError::SharedApart {
                    service: targets[*sharer].key.to_string(),
                    shared: targets[*shared].key.service.to_string(),
                });
            }
            eligible[*sharer].keep(&both);
            if !targets[*shared].global() {
                eligible[*shared].keep(&both);
            }
        }
        if before == eligible {
            return Ok(());
        }
    }
}

/// Pairs of a service that shares a namespace and the one whose it is, where both are to run.
fn sharing(targets: &[Target]) -> Vec<(usize, usize)> {
    let runs = |target: &Target| target.global() || target.spec.replicas > 0;
    let mut pairs = Vec::new();
    for (sharer, target) in targets
        .iter()
        .enumerate()
        .filter(|(_, target)| runs(target))
    {
        for name in together::shared(&target.spec) {
            let shared = targets
                .iter()
                .position(|other| other.spec.name == name && runs(other));
            pairs.extend(shared.map(|shared| (sharer, shared)));
        }
    }
    pairs
}

/// Replicated services that must go to one machine, because they share volumes that do not exist
/// yet.
pub(super) fn groups(targets: &[Target], cluster: &Cluster<'_>) -> Vec<Vec<usize>> {
    let pairs = sharing(targets);
    let mut groups: Vec<(Vec<usize>, Vec<Bond>)> = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        if target.spec.mode() == ServiceMode::Global || target.spec.replicas == 0 {
            continue;
        }
        let missing = volume_names(&target.spec)
            .into_iter()
            .filter(|name| places(name, cluster).is_empty());
        let mut bonds: Vec<Bond> = missing.map(|name| Bond::Volume(name.to_owned())).collect();
        let of_pair = pairs
            .iter()
            .filter(|(sharer, shared)| *sharer == index || *shared == index);
        bonds.extend(of_pair.map(|(_, shared)| Bond::Namespace(*shared)));
        if bonds.is_empty() {
            continue;
        }
        let (joined, apart): (Vec<_>, Vec<_>) = groups
            .into_iter()
            .partition(|(_, others)| others.iter().any(|bond| bonds.contains(bond)));
        let mut members = vec![index];
        for (more_members, more_bonds) in joined {
            members.extend(more_members);
            bonds.extend(more_bonds);
        }
        members.sort_unstable();
        groups = apart;
        groups.push((members, bonds));
    }
    // Sharing alone binds nobody to one machine.
    groups.retain(|(_, bonds)| bonds.iter().any(|bond| matches!(bond, Bond::Volume(_))));
    groups.sort();
    groups.into_iter().map(|(members, _)| members).collect()
}

/// What puts services into one group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Bond {
    /// A volume that is not there yet.
    Volume(String),
    /// A namespace of this target.
    Namespace(usize),
}

/// Brings a group to one machine.
pub(super) fn gather(
    group: &[usize],
    targets: &[Target],
    eligible: &mut [Eligible],
    cluster: &Cluster<'_>,
) -> Result<(), PlanError> {
    let common: Vec<usize> = (0..cluster.machines.len())
        .filter(|machine| {
            group
                .iter()
                .all(|member| eligible[*member].all().any(|index| index == *machine))
        })
        .collect();
    if common.is_empty() {
        let services = group
            .iter()
            .map(|member| targets[*member].key.to_string())
            .collect();
        let shared = group
            .iter()
            .flat_map(|member| volume_names(&targets[*member].spec))
            .find(|name| places(name, cluster).is_empty())
            .unwrap_or_default();
        return Err(PlanError::NoCommonMachine {
            volume: shared.to_owned(),
            services,
        });
    }
    let choice = Eligible::of(common, cluster);
    let best = choice.up.iter().copied().min_by_key(|machine| {
        let replicas = &cluster.machines[*machine].replicas;
        let of_group =
            |key: &dyn Fn(&Target) -> bool| group.iter().any(|member| key(&targets[*member]));
        let blocked =
            replicas
                .iter()
                .filter(|replica| place::holds_ports(replica))
                .any(|replica| {
                    !of_group(&|target| is_of(replica, &target.key))
                        && of_group(&|target| {
                            target.spec.ports.iter().any(|port| {
                                replica.ports.iter().any(|held| ports::clash(port, held))
                            })
                        })
                });
        let there = replicas
            .iter()
            .any(|replica| of_group(&|target| is_of(replica, &target.key)));
        (
            blocked,
            !there,
            load(*machine, group, targets, eligible, cluster),
            *machine,
        )
    });
    for member in group {
        eligible[*member] = Eligible {
            up: best.into_iter().collect(),
            // With a machine chosen, the ones that are down do not matter any more.
            down: if best.is_some() {
                Vec::new()
            } else {
                choice.down.clone()
            },
            stranded: false,
        };
    }
    Ok(())
}

/// Replicas on a machine, and those that groups already brought to it will have.
fn load(
    machine: usize,
    group: &[usize],
    targets: &[Target],
    eligible: &[Eligible],
    cluster: &Cluster<'_>,
) -> usize {
    let bound: usize = targets
        .iter()
        .enumerate()
        .filter(|(index, _)| !group.contains(index))
        .filter(|(index, target)| !target.global() && eligible[*index].up == [machine])
        .map(|(_, target)| target.spec.replicas as usize)
        .sum();
    let strangers = cluster.machines[machine]
        .replicas
        .iter()
        .filter(|replica| place::is_alive(replica))
        .filter(|replica| !targets.iter().any(|target| is_of(replica, &target.key)))
        .count();
    bound + strangers
}
