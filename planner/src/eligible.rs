//! Which machines may run which service: the allow list, its constraints and platform, whether
//! users keep it free of new replicas, where its volumes are, and where what it shares may run.
//!
//! A volume that exists binds a service to the machines that have it. One that does not exist yet
//! is made on exactly one machine, so all replicated services that share it go there. A second,
//! empty volume of the same name is never made behind somebody's back.

mod groups;
mod homes;

use std::collections::{BTreeMap, BTreeSet};

use uc_api::nearest::nearest;
use uc_api::v1::ServiceSpec;

use self::groups::{bring_together, gather, groups};
use self::homes::keep_one_home;
use super::desired::Target;
use super::error::PlanError;
use super::rules::Rules;
use super::{Cluster, Machine, volume_names};

/// Where a service may run; indexes into the cluster's machines, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Eligible {
    pub(super) up: Vec<usize>,
    pub(super) down: Vec<usize>,
    /// Its volume is out of reach, which has been said; nothing more is to be said about its
    /// replicas.
    pub(super) stranded: bool,
}

impl Eligible {
    fn of(machines: impl IntoIterator<Item = usize>, cluster: &Cluster<'_>) -> Self {
        let (up, down) = machines
            .into_iter()
            .partition(|index| cluster.machines[*index].up);
        Self {
            up,
            down,
            stranded: false,
        }
    }

    fn all(&self) -> impl Iterator<Item = usize> + '_ {
        self.up.iter().chain(&self.down).copied()
    }

    fn keep(&mut self, machines: &[usize]) {
        self.up.retain(|index| machines.contains(index));
        self.down.retain(|index| machines.contains(index));
    }

    pub(super) fn count(&self) -> usize {
        self.up.len() + self.down.len()
    }
}

/// For each target in turn, where it may run.
pub(super) fn eligible(
    targets: &[Target],
    cluster: &Cluster<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Eligible>, PlanError> {
    refuse_mixed_sharing(targets)?;
    let mut result = Vec::new();
    for target in targets {
        let allowed = allowed(target, cluster)?;
        check_drivers(target, &allowed, cluster)?;
        let found = if target.global() {
            check_external_everywhere(target, &allowed, cluster)?;
            allowed
        } else if target.spec.replicas == 0 {
            // What runs nowhere needs nothing; its volumes may come to be where it could not run.
            allowed
        } else {
            with_volumes(target, &allowed, cluster, warnings)?
        };
        result.push(found);
    }
    bring_together(targets, &mut result)?;
    for group in groups(targets, cluster) {
        gather(&group, targets, &mut result, cluster)?;
    }
    Ok(result)
}

fn allowed(target: &Target, cluster: &Cluster<'_>) -> Result<Eligible, PlanError> {
    let listed = listed(target, cluster)?;
    let needed = target.global() || target.spec.replicas > 0;
    let mut excluded = Vec::new();
    let mut found = Vec::new();
    for index in listed {
        let why = target.rules.excludes(cluster.machines[index]);
        match why.or_else(|| closed(target, index, cluster)) {
            Some(why) => excluded.push(format!("{} ({why})", cluster.name(index))),
            None => found.push(index),
        }
    }
    // A global service without any machine has no replicas.
    let may_be_nowhere = target.global() && cluster.drained.is_some();
    if found.is_empty() && needed && !may_be_nowhere {
        return Err(PlanError::NoMachineFits {
            service: target.key.to_string(),
            machines: excluded,
        });
    }
    Ok(Eligible::of(found, cluster))
}

/// Why a machine is closed to a service, if it is. What runs on a cordoned machine stays there.
fn closed(target: &Target, index: usize, cluster: &Cluster<'_>) -> Option<String> {
    let why = cluster.closed(index)?;
    let mut replicas = cluster.machines[index].replicas.iter();
    let keeps = cluster.drained != Some(index)
        && replicas.any(|replica| super::is_of(replica, &target.key));
    (!keeps).then(|| why.to_owned())
}

/// The allow list means this machine by `wanted`.
fn is_meant(wanted: &str, machine: &Machine) -> bool {
    machine.has_name(wanted) || machine.id.to_string() == wanted
}

/// The number of replicas that a global service should have: one on each machine that is up and
/// that its allow list, its constraints and its platform admit. None, if a constraint cannot be
/// understood.
#[must_use]
pub fn global_replicas(spec: &ServiceSpec, machines: &[Machine]) -> usize {
    let Ok(rules) = Rules::of(spec) else {
        return 0;
    };
    let listed = |machine: &Machine| {
        let mut list = spec.machines.iter();
        spec.machines.is_empty() || list.any(|wanted| is_meant(wanted, machine))
    };
    // What runs on a cordoned machine stays there.
    let has_replica = |machine: &Machine| {
        let mut replicas = machine.replicas.iter();
        replicas.any(|replica| replica.project == spec.project && replica.service == spec.name)
    };
    machines
        .iter()
        .filter(|machine| machine.up && (!machine.cordoned || has_replica(machine)))
        .filter(|machine| listed(machine) && rules.excludes(machine).is_none())
        .count()
}

/// The machines of the allow list, or all.
fn listed(target: &Target, cluster: &Cluster<'_>) -> Result<Vec<usize>, PlanError> {
    let all = 0..cluster.machines.len();
    if target.spec.machines.is_empty() {
        return Ok(all.collect());
    }
    let mut found = Vec::new();
    for wanted in &target.spec.machines {
        let index = all
            .clone()
            .find(|index| is_meant(wanted, cluster.machines[*index]));
        found.push(index.ok_or_else(|| PlanError::UnknownMachine {
            service: target.key.to_string(),
            machine: wanted.clone(),
            nearest:
                nearest(wanted, all.clone().map(|index| cluster.name(index))).map(str::to_owned),
        })?);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// A global service has its volumes on every machine, a replicated one wants one place: together
/// they cannot both be right.
fn refuse_mixed_sharing(targets: &[Target]) -> Result<(), PlanError> {
    let mut users: BTreeMap<String, (Option<&Target>, Option<&Target>)> = BTreeMap::new();
    for target in targets {
        for name in volume_names(&target.spec) {
            let (global, replicated) = users.entry(name.to_owned()).or_default();
            if target.global() { global } else { replicated }.get_or_insert(target);
        }
    }
    for (volume, users) in users {
        if let (Some(global), Some(replicated)) = users {
            return Err(PlanError::VolumeOfBoth {
                volume,
                global: global.key.to_string(),
                replicated: replicated.key.to_string(),
            });
        }
    }
    Ok(())
}

fn check_drivers(
    target: &Target,
    allowed: &Eligible,
    cluster: &Cluster<'_>,
) -> Result<(), PlanError> {
    let or_local = |driver: &str| {
        if driver.is_empty() {
            "local".to_owned()
        } else {
            driver.to_owned()
        }
    };
    for name in volume_names(&target.spec) {
        let spec = target.volume(name);
        let wanted = or_local(&spec.driver);
        for index in allowed.all() {
            let Some(found) = cluster
                .volume(index, name)
                .map(|volume| or_local(&volume.driver))
            else {
                continue;
            };
            // Of an external volume only the name is said.
            if found != wanted && !spec.external {
                return Err(PlanError::VolumeDriver {
                    service: target.key.to_string(),
                    volume: name.to_owned(),
                    machine: cluster.name(index).to_owned(),
                    found,
                    wanted,
                });
            }
        }
    }
    Ok(())
}

fn check_external_everywhere(
    target: &Target,
    allowed: &Eligible,
    cluster: &Cluster<'_>,
) -> Result<(), PlanError> {
    for name in volume_names(&target.spec)
        .into_iter()
        .filter(|name| target.volume(name).external)
    {
        let without: Vec<usize> = allowed
            .up
            .iter()
            .copied()
            .filter(|index| !cluster.has_volume(*index, name))
            .collect();
        if !without.is_empty() {
            return Err(PlanError::ExternalMissing {
                service: target.key.to_string(),
                volume: name.to_owned(),
                machines: cluster.names(&without),
            });
        }
    }
    Ok(())
}

/// Machines on which a volume is, the down ones included.
fn places(name: &str, cluster: &Cluster<'_>) -> Vec<usize> {
    (0..cluster.machines.len())
        .filter(|index| cluster.has_volume(*index, name))
        .collect()
}

/// The allowed machines that have every volume of the service that exists anywhere.
fn with_volumes(
    target: &Target,
    allowed: &Eligible,
    cluster: &Cluster<'_>,
    warnings: &mut Vec<String>,
) -> Result<Eligible, PlanError> {
    let mut machines: Vec<usize> = allowed.all().collect();
    machines.sort_unstable();
    let mut existing: Vec<(&str, Vec<usize>)> = Vec::new();
    for name in volume_names(&target.spec) {
        let at = places(name, cluster);
        if at.is_empty() {
            if target.volume(name).external {
                return Err(PlanError::ExternalMissing {
                    service: target.key.to_string(),
                    volume: name.to_owned(),
                    machines: Vec::new(),
                });
            }
        } else {
            machines.retain(|index| at.contains(index));
            existing.push((name, at));
        }
    }
    if machines.is_empty() && !existing.is_empty() {
        let mut places: Vec<String> = existing
            .iter()
            .map(|(name, at)| format!("volume `{name}` is on {}", super::and(&cluster.names(at))))
            .collect();
        if !target.spec.machines.is_empty() {
            places.push(format!(
                "x-machines allows {}",
                super::and(&target.spec.machines)
            ));
        }
        let out = existing.iter().flat_map(|(_, at)| at).copied();
        let out: BTreeSet<usize> = out
            .filter(|index| !allowed.all().any(|allowed| allowed == *index))
            .collect();
        places.extend(out.into_iter().filter_map(|index| {
            let name = cluster.name(index);
            match target.rules.excludes(cluster.machines[index]) {
                Some(why) => Some(format!("{name} is excluded by {why}")),
                None => closed(target, index, cluster).map(|why| format!("{name} is {why}")),
            }
        }));
        return Err(PlanError::VolumesApart {
            service: target.key.to_string(),
            places,
        });
    }
    let mut found = Eligible::of(machines, cluster);
    for (name, _) in &existing {
        keep_one_home(target, name, &mut found, cluster, warnings);
    }
    if let (true, Some((name, _))) = (found.up.is_empty(), existing.first()) {
        let machines = cluster.names(&found.down);
        // Somebody who deploys the rest of the project while a machine is down did not ask about
        // this service.
        if target.unchanged() && !target.recreate {
            found.stranded = true;
            warnings.push(format!(
                "{}: its volume `{name}` is on {}, which is unreachable; the service is not changed",
                target.key,
                super::and(&machines)
            ));
        } else {
            return Err(PlanError::VolumeDown {
                service: target.key.to_string(),
                volume: (*name).to_owned(),
                machines,
            });
        }
    }
    Ok(found)
}
