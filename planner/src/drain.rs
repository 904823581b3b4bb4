//! Taking all replicas of a project from one machine. Its services keep their specs; only the
//! places change. What has its volumes on the machine stays there with everything that shares its
//! namespaces. A volume of the same name on another machine has other data, unless the volume's
//! driver keeps the data outside the machines.

use std::collections::{BTreeMap, BTreeSet};

use uc_api::ServiceKey;
use uc_api::revision::revision;
use uc_api::v1::{DrainMachine, ServiceMode, ServiceSpec};

use super::data::keeps_data_outside;
use super::desired::{Target, Wanted, known_services, stored_spec};
use super::error::PlanError;
use super::layers::layers;
use super::rules::Rules;
use super::{Cluster, Observed, and, together, volume_names};

/// The machine, as an index into the cluster's machines.
pub(super) fn machine(drain: &DrainMachine, cluster: &Cluster<'_>) -> Result<usize, PlanError> {
    let found = cluster
        .machines
        .iter()
        .position(|machine| machine.id.to_string() == drain.machine);
    found.ok_or_else(|| PlanError::NoSuchMachine {
        machine: drain.machine.clone(),
    })
}

/// The services of the project that have replicas on the machine and can leave it.
pub(super) fn drained(
    drain: &DrainMachine,
    observed: &Observed,
    cluster: &Cluster<'_>,
) -> Result<Wanted, PlanError> {
    let machine = machine(drain, cluster)?;
    let is_there = |key: &ServiceKey| {
        let replicas = cluster.replicas_of(key);
        replicas.iter().any(|(index, _)| *index == machine)
    };
    let mut wanted = Wanted::default();
    let mut specs: BTreeMap<ServiceKey, ServiceSpec> = BTreeMap::new();
    for key in known_services(observed) {
        if key.project.as_str() != drain.project || !is_there(&key) {
            continue;
        }
        match observed.services.get(&key).and_then(stored_spec) {
            Some(spec) => _ = specs.insert(key, spec),
            None => wanted.warnings.push(format!(
                "{key}: its containers on {} are left over from a service that was removed; remove them with `uc rm {key}`",
                cluster.name(machine)
            )),
        }
    }
    for (key, why) in staying(&specs, machine, observed, cluster) {
        specs.remove(&key);
        wanted
            .warnings
            .push(format!("{key} stays on {}: {why}", cluster.name(machine)));
    }
    let edges = together::edges(specs.values());
    let layers = layers(&edges, |_| true)?;
    for (key, spec) in &specs {
        let record = observed.services.get(key);
        wanted.targets.push(Target {
            key: key.clone(),
            revision: revision(spec),
            layer: layers.get(spec.name.as_str()).copied().unwrap_or(0),
            rules: Rules::of(spec)?,
            recreate: false,
            old: Some(spec.clone()),
            volumes: record.map_or_else(Vec::new, |record| record.volumes.clone()),
            spec: spec.clone(),
        });
    }
    Ok(wanted)
}

/// The services that cannot leave the machine, each with the reason.
fn staying(
    specs: &BTreeMap<ServiceKey, ServiceSpec>,
    machine: usize,
    observed: &Observed,
    cluster: &Cluster<'_>,
) -> Vec<(ServiceKey, String)> {
    let mut staying: Vec<(ServiceKey, String)> = Vec::new();
    for (key, spec) in specs {
        // A global service has its own volume on each machine. The one here stays, unused.
        if spec.mode() == ServiceMode::Global {
            continue;
        }
        let record = observed.services.get(key);
        let is_shared = |name: &str| {
            let mut volumes = record.iter().flat_map(|record| &record.volumes);
            volumes.any(|volume| volume.name == name && keeps_data_outside(volume))
        };
        let only_here = |name: &&str| {
            let mut machines = 0..cluster.machines.len();
            let is_elsewhere =
                machines.any(|index| index != machine && cluster.has_volume(index, name));
            cluster.has_volume(machine, name) && !(is_elsewhere && is_shared(name))
        };
        let volumes: Vec<String> = volume_names(spec)
            .into_iter()
            .filter(only_here)
            .map(|name| format!("`{name}`"))
            .collect();
        if !volumes.is_empty() {
            let (noun, verb) = if volumes.len() == 1 {
                ("volume", "is")
            } else {
                ("volumes", "are")
            };
            staying.push((
                key.clone(),
                format!("its {noun} {} {verb} there", and(&volumes)),
            ));
        }
    }
    // Each round adds at least one service, or is the last.
    loop {
        let names: BTreeSet<&str> = staying
            .iter()
            .map(|(key, _)| key.service.as_str())
            .collect();
        let more: Vec<(ServiceKey, String)> = specs
            .iter()
            .filter(|(key, _)| !names.contains(key.service.as_str()))
            .filter_map(|(key, spec)| {
                let shared = together::shared(spec);
                let stays = shared.into_iter().find(|name| names.contains(name))?;
                Some((key.clone(), format!("it shares namespaces of {stays}")))
            })
            .collect();
        if more.is_empty() {
            break;
        }
        staying.extend(more);
    }
    staying.sort();
    staying
}
