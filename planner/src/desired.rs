//! From what was asked for to a list of services that shall be so and services that shall go: names
//! resolved, values checked.

use std::collections::{BTreeMap, BTreeSet};

use uc_api::layout::MAX_REPLICAS;
use uc_api::nearest::nearest;
use uc_api::revision::revision;
use uc_api::v1::{
    DesiredServices, RemoveServices, ScaleService, ServiceMode, ServiceRecord, ServiceSpec,
    VolumeSpec,
};
use uc_api::{ProjectName, ServiceKey};

use super::error::PlanError;
use super::layers::layers;
use super::rules::Rules;
use super::{Change, Cluster, Observed, and, drain, ports, together};

/// A service that shall be as its spec says.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) key: ServiceKey,
    /// Mode is never unspecified.
    pub(super) spec: ServiceSpec,
    pub(super) revision: String,
    pub(super) layer: u32,
    /// What it asks of its machines.
    pub(super) rules: Rules,
    /// Replace even what is up to date.
    pub(super) recreate: bool,
    /// What the store has.
    pub(super) old: Option<ServiceSpec>,
    pub(super) volumes: Vec<VolumeSpec>,
}

impl Target {
    /// The spec of a volume that the service mounts; one that nobody described is a local volume of
    /// the project.
    pub(super) fn volume(&self, name: &str) -> VolumeSpec {
        self.volumes
            .iter()
            .find(|volume| volume.name == name)
            .cloned()
            .unwrap_or_else(|| VolumeSpec {
                project: self.spec.project.clone(),
                name: name.to_owned(),
                ..VolumeSpec::default()
            })
    }

    /// Nothing of it differs from what the store has.
    pub(super) fn unchanged(&self) -> bool {
        self.old.as_ref().is_some_and(|old| *old == self.spec)
    }

    pub(super) fn global(&self) -> bool {
        self.spec.mode() == ServiceMode::Global
    }
}

/// A service that shall go.
#[derive(Debug, Clone)]
pub(super) struct Removal {
    pub(super) key: ServiceKey,
    pub(super) revision: String,
    pub(super) mode: ServiceMode,
    pub(super) layer: u32,
    /// Why it is removed, for people.
    pub(super) reason: &'static str,
}

/// What was asked for, resolved.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) targets: Vec<Target>,
    pub(super) removals: Vec<Removal>,
    pub(super) warnings: Vec<String>,
}

/// The projects that the change concerns. `known` are all services of the cluster.
pub(super) fn projects(
    change: &Change,
    known: &BTreeSet<ServiceKey>,
) -> Result<BTreeSet<String>, PlanError> {
    let project = |named: &str| find(named, known).map(|key| key.project.to_string());
    match change {
        Change::Deploy(deploy) => Ok(BTreeSet::from([deploy.project.clone()])),
        Change::RollBack(_) => Err(PlanError::NothingAsked),
        Change::Scale(scale) => Ok(BTreeSet::from([project(&scale.service)?])),
        Change::Remove(remove) if remove.services.is_empty() => {
            Ok(BTreeSet::from([remove.project.clone()]))
        }
        Change::Drain(drain) => Ok(BTreeSet::from([drain.project.clone()])),
        Change::Remove(remove) => {
            let services = remove.services.iter();
            services
                .map(|service| project(&in_project(remove, service)))
                .collect()
        }
    }
}

/// The name of a service to remove, with its project where the request has one.
fn in_project(remove: &RemoveServices, service: &str) -> String {
    if remove.project.is_empty() || service.contains('/') {
        service.to_owned()
    } else {
        format!("{}/{service}", remove.project)
    }
}

pub(super) fn resolve(
    desired: &Change,
    observed: &Observed,
    cluster: &Cluster<'_>,
) -> Result<Wanted, PlanError> {
    match desired {
        Change::Drain(drain) => drain::drained(drain, observed, cluster),
        Change::Deploy(deploy) => deployed(deploy, observed),
        Change::RollBack(_) => Err(PlanError::NothingAsked),
        Change::Scale(scale) => scaled(scale, observed),
        Change::Remove(remove) => removed(remove, observed),
    }
}

fn deployed(deploy: &DesiredServices, observed: &Observed) -> Result<Wanted, PlanError> {
    let project: ProjectName = deploy.project.parse()?;
    let mut specs: BTreeMap<ServiceKey, ServiceSpec> = BTreeMap::new();
    for spec in &deploy.services {
        let spec = checked(spec, &project)?;
        let key = ServiceKey {
            project: project.clone(),
            service: spec.name.parse()?,
        };
        let service = spec.name.clone();
        if specs.insert(key, spec).is_some() {
            return Err(PlanError::ServiceTwice { service });
        }
    }
    let mut wanted = Wanted::default();
    together::check(&specs, &project, observed)?;
    let known = |name: &str| {
        observed
            .services
            .keys()
            .any(|key| key.project == project && key.service.as_str() == name)
    };
    let layers: BTreeMap<ServiceKey, u32> = {
        let edges = together::edges(specs.values());
        let layers = layers(&edges, known)?;
        let layer = |name: &str| layers.get(name).copied().unwrap_or(0);
        specs
            .iter()
            .map(|(key, spec)| (key.clone(), layer(&spec.name)))
            .collect()
    };
    let mut order: Vec<ServiceKey> = layers.keys().cloned().collect();
    order.sort_by_key(|key| layers.get(key));
    together::set_revisions(&mut specs, &order, observed);
    for (key, spec) in &specs {
        wanted.targets.push(Target {
            key: key.clone(),
            revision: revision(spec),
            layer: layers.get(key).copied().unwrap_or(0),
            rules: Rules::of(spec)?,
            recreate: deploy.recreate,
            old: observed.services.get(key).and_then(stored_spec),
            volumes: deploy.volumes.clone(),
            spec: spec.clone(),
        });
    }
    let orphans: BTreeSet<ServiceKey> = known_services(observed)
        .into_iter()
        .filter(|key| {
            let in_file = specs.contains_key(key)
                || deploy
                    .other_services
                    .iter()
                    .any(|name| name == key.service.as_str());
            key.project == project && !in_file
        })
        .collect();
    if deploy.remove_orphans {
        let stays = specs.iter().chain(
            observed
                .services
                .iter()
                .filter(|(key, _)| !specs.contains_key(*key))
                .filter_map(|(key, record)| Some((key, record.spec.as_ref()?))),
        );
        removals(
            &orphans,
            "not in the compose file",
            stays,
            observed,
            &mut wanted,
        );
    } else if !orphans.is_empty() {
        let names: Vec<String> = orphans.iter().map(ToString::to_string).collect();
        let (verb, pronoun) = if names.len() == 1 {
            ("is", "it")
        } else {
            ("are", "them")
        };
        wanted.warnings.push(format!(
            "{} {verb} not in the compose file; `uc deploy --remove-orphans` removes {pronoun}",
            and(&names)
        ));
    }
    Ok(wanted)
}

fn checked(spec: &ServiceSpec, project: &ProjectName) -> Result<ServiceSpec, PlanError> {
    let mut spec = spec.clone();
    if spec.project.is_empty() {
        spec.project = project.to_string();
    }
    if spec.project != project.as_str() {
        return Err(PlanError::OtherProject {
            service: spec.name,
            found: spec.project,
            project: project.to_string(),
        });
    }
    if spec.image.is_empty() {
        return Err(PlanError::NoImage { service: spec.name });
    }
    if spec.mode() == ServiceMode::Unspecified {
        spec.set_mode(ServiceMode::Replicated);
    }
    for (index, port) in spec.ports.iter().enumerate() {
        if spec
            .ports
            .iter()
            .skip(index + 1)
            .any(|other| ports::clash(port, other))
        {
            return Err(PlanError::PortTwice {
                service: spec.name,
                port: ports::show(port),
            });
        }
    }
    limit_replicas(&spec.name, spec.replicas)?;
    Ok(spec)
}

fn limit_replicas(service: &str, replicas: u32) -> Result<(), PlanError> {
    if replicas > MAX_REPLICAS {
        return Err(PlanError::TooManyReplicas {
            service: service.to_owned(),
            replicas,
        });
    }
    Ok(())
}

fn scaled(scale: &ScaleService, observed: &Observed) -> Result<Wanted, PlanError> {
    let stored: BTreeSet<ServiceKey> = observed.services.keys().cloned().collect();
    let key = find(&scale.service, &stored)?;
    let unknown = || PlanError::UnknownService {
        service: scale.service.clone(),
        nearest: None,
    };
    let record = observed.services.get(&key).ok_or_else(unknown)?;
    let old = stored_spec(record).ok_or_else(unknown)?;
    if old.mode() == ServiceMode::Global {
        return Err(PlanError::ScaleGlobal {
            service: key.to_string(),
        });
    }
    limit_replicas(key.service.as_str(), scale.replicas)?;
    let spec = ServiceSpec {
        replicas: scale.replicas,
        ..old.clone()
    };
    let mut specs = BTreeMap::from([(key.clone(), spec)]);
    together::check(&specs, &key.project, observed)?;
    together::set_revisions(&mut specs, std::slice::from_ref(&key), observed);
    let spec = specs.remove(&key).ok_or_else(unknown)?;
    let target = Target {
        key,
        revision: revision(&spec),
        layer: 0,
        rules: Rules::of(&spec)?,
        recreate: false,
        old: Some(old),
        volumes: record.volumes.clone(),
        spec,
    };
    Ok(Wanted {
        targets: vec![target],
        ..Wanted::default()
    })
}

fn removed(remove: &RemoveServices, observed: &Observed) -> Result<Wanted, PlanError> {
    let known = known_services(observed);
    let mut keys = BTreeSet::new();
    if !remove.project.is_empty() && remove.services.is_empty() {
        keys.extend(
            known
                .iter()
                .filter(|key| key.project.as_str() == remove.project)
                .cloned(),
        );
        if keys.is_empty() {
            let projects: BTreeSet<&str> = known.iter().map(|key| key.project.as_str()).collect();
            return Err(PlanError::UnknownProject {
                project: remove.project.clone(),
                nearest: nearest(&remove.project, projects).map(str::to_owned),
            });
        }
    }
    for service in &remove.services {
        keys.insert(find(&in_project(remove, service), &known)?);
    }
    if keys.is_empty() {
        return Err(PlanError::NothingAsked);
    }

    let mut wanted = Wanted::default();
    let stays = observed
        .services
        .iter()
        .filter_map(|(key, record)| Some((key, record.spec.as_ref()?)));
    removals(&keys, "service removed", stays, observed, &mut wanted);
    Ok(wanted)
}

/// Adds the removal of these services, and a warning for each that another one depends on. `stays`
/// are the services as they will be; those to remove are ignored among them.
fn removals<'a>(
    keys: &BTreeSet<ServiceKey>,
    reason: &'static str,
    stays: impl Iterator<Item = (&'a ServiceKey, &'a ServiceSpec)>,
    observed: &Observed,
    wanted: &mut Wanted,
) {
    let stays: Vec<_> = stays.filter(|(key, _)| !keys.contains(*key)).collect();
    let layers = removal_layers(keys, observed);
    for key in keys {
        let record = observed.services.get(key);
        let spec = record.and_then(stored_spec);
        wanted.removals.push(Removal {
            revision: record
                .map(|record| record.revision.clone())
                .unwrap_or_default(),
            mode: spec.map_or(ServiceMode::Unspecified, |spec| spec.mode()),
            layer: layers.get(key).copied().unwrap_or(0),
            key: key.clone(),
            reason,
        });
        let depends = |spec: &ServiceSpec| {
            together::edges([spec])
                .values()
                .flatten()
                .any(|edge| edge.on == key.service.as_str())
        };
        let dependents: Vec<String> = stays
            .iter()
            .filter(|(other, spec)| other.project == key.project && depends(spec))
            .map(|(other, _)| other.to_string())
            .collect();
        if !dependents.is_empty() {
            let verb = if dependents.len() == 1 {
                "depends"
            } else {
                "depend"
            };
            wanted.warnings.push(format!(
                "{key} will be removed, but {}, which {verb} on it, will not",
                and(&dependents)
            ));
        }
    }
}

/// What depends on others goes before them. What the store holds may be anything, so a cycle there
/// is no error: those services go side by side.
fn removal_layers(keys: &BTreeSet<ServiceKey>, observed: &Observed) -> BTreeMap<ServiceKey, u32> {
    let mut result = BTreeMap::new();
    let projects: BTreeSet<&ProjectName> = keys.iter().map(|key| &key.project).collect();
    for project in projects {
        let specs: Vec<&ServiceSpec> = keys
            .iter()
            .filter(|key| key.project == *project)
            .filter_map(|key| observed.services.get(key)?.spec.as_ref())
            .collect();
        let Ok(layers) = layers(&together::edges_apart(specs), |_| true) else {
            continue;
        };
        let top = layers.values().copied().max().unwrap_or(0);
        for key in keys.iter().filter(|key| key.project == *project) {
            let layer = layers.get(key.service.as_str()).copied().unwrap_or(top);
            result.insert(key.clone(), top - layer);
        }
    }
    result
}

/// A stored spec with the defaults of today, so that it compares equal to the same spec sent again.
pub(super) fn stored_spec(record: &ServiceRecord) -> Option<ServiceSpec> {
    let mut spec = record.spec.clone()?;
    if spec.mode() == ServiceMode::Unspecified {
        spec.set_mode(ServiceMode::Replicated);
    }
    Some(spec)
}

/// Services of the store, and those of which only containers are left.
pub(super) fn known_services(observed: &Observed) -> BTreeSet<ServiceKey> {
    let mut known: BTreeSet<ServiceKey> = observed.services.keys().cloned().collect();
    for replica in observed
        .machines
        .iter()
        .flat_map(|machine| &machine.replicas)
    {
        if let (Ok(project), Ok(service)) = (replica.project.parse(), replica.service.parse()) {
            known.insert(ServiceKey { project, service });
        }
    }
    known
}

/// By `project/service`, or by `service` where that is unique.
fn find(name: &str, known: &BTreeSet<ServiceKey>) -> Result<ServiceKey, PlanError> {
    let found: Vec<&ServiceKey> = known
        .iter()
        .filter(|key| {
            if name.contains('/') {
                key.to_string() == name
            } else {
                key.service.as_str() == name
            }
        })
        .collect();
    match found.as_slice() {
        [key] => Ok((*key).clone()),
        [] => {
            let whole: Vec<String> = known.iter().map(ToString::to_string).collect();
            let candidates: Vec<&str> = if name.contains('/') {
                whole.iter().map(String::as_str).collect()
            } else {
                known.iter().map(|key| key.service.as_str()).collect()
            };
            Err(PlanError::UnknownService {
                service: name.to_owned(),
                nearest: nearest(name, candidates).map(str::to_owned),
            })
        }
        several => Err(PlanError::AmbiguousService {
            service: name.to_owned(),
            candidates: several.iter().map(ToString::to_string).collect(),
        }),
    }
}
