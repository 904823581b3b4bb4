//! Services that go together: those that share a namespace (`network_mode`, `ipc`, `pid`:
//! `service:X`) run where the other one runs and are replaced with it; those that ask for it
//! (`depends_on.restart`) are replaced when what they depend on is.

use std::collections::{BTreeMap, BTreeSet};

use uc_api::nearest::nearest;
use uc_api::revision::revision;
use uc_api::v1::{DependencyCondition, ServiceSpec};
use uc_api::{ProjectName, ServiceKey};

use super::Observed;
use super::desired::Target;
use super::error::PlanError;
use super::layers::{Edge, Edges, layers};

/// The services of its project whose namespaces a service shares, each once, by name.
pub fn shared(spec: &ServiceSpec) -> Vec<&str> {
    let mut names: Vec<&str> = [&spec.network_mode, &spec.ipc, &spec.pid]
        .into_iter()
        .filter_map(|mode| mode.strip_prefix("service:"))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What must be there before a service: what it depends on and what it shares. A dependency that
/// only has to be started may be side by side: the executor waits until it is.
pub(super) fn edges<'a>(specs: impl IntoIterator<Item = &'a ServiceSpec>) -> Edges<'a> {
    let of = |spec: &'a ServiceSpec| {
        let depends = spec.depends_on.iter().map(|dependency| Edge {
            on: dependency.service.as_str(),
            side_by_side: match dependency.condition() {
                DependencyCondition::Started | DependencyCondition::Unspecified => true,
                DependencyCondition::Healthy | DependencyCondition::Completed => false,
            },
        });
        let shared = shared(spec).into_iter().map(Edge::after);
        (spec.name.as_str(), depends.chain(shared).collect())
    };
    specs.into_iter().map(of).collect()
}

/// The same, with each dependency apart from what depends on it.
pub(super) fn edges_apart<'a>(specs: impl IntoIterator<Item = &'a ServiceSpec>) -> Edges<'a> {
    let mut edges = edges(specs);
    for edge in edges.values_mut().flatten() {
        edge.side_by_side = false;
    }
    edges
}

/// How far each service is from those that depend on no other, for listings: what others depend on
/// comes before them. Services of a cycle have no place.
pub(super) fn distances(targets: &[Target]) -> BTreeMap<ServiceKey, u32> {
    let mut distances = BTreeMap::new();
    let projects: BTreeSet<&ProjectName> =
        targets.iter().map(|target| &target.key.project).collect();
    for project in projects {
        let of_project = || {
            targets
                .iter()
                .filter(|target| target.key.project == *project)
        };
        let edges = edges_apart(of_project().map(|target| &target.spec));
        let Ok(layers) = layers(&edges, |_| true) else {
            continue;
        };
        distances.extend(of_project().filter_map(|target| {
            let distance = layers.get(target.spec.name.as_str())?;
            Some((target.key.clone(), *distance))
        }));
    }
    distances
}

/// What a service is replaced with, should it be.
pub(super) fn restarts_with(spec: &ServiceSpec) -> impl Iterator<Item = &str> {
    spec.depends_on
        .iter()
        .filter(|dependency| dependency.restart)
        .map(|dependency| dependency.service.as_str())
}

/// Which services have to be placed before which: 0 for those that look at no other.
pub(super) fn ranks(targets: &[Target]) -> Vec<u32> {
    let mut edges: Edges<'_> = targets
        .iter()
        .map(|target| {
            let on = shared(&target.spec)
                .into_iter()
                .chain(restarts_with(&target.spec))
                .map(Edge::after)
                .collect();
            (target.spec.name.as_str(), on)
        })
        .collect();
    // What the plan does not touch is looked at as well.
    for shared in targets.iter().flat_map(|target| shared(&target.spec)) {
        edges.entry(shared).or_default();
    }
    let ranks = layers(&edges, |_| true)
        .expect("a cycle has been refused: these are some of the edges that make the layers");
    targets
        .iter()
        .map(|target| ranks.get(target.spec.name.as_str()).copied().unwrap_or(0))
        .collect()
}

/// Every shared service is one of the deployment, or known already.
pub(super) fn check(
    specs: &BTreeMap<ServiceKey, ServiceSpec>,
    project: &ProjectName,
    observed: &Observed,
) -> Result<(), PlanError> {
    let of_project = specs
        .keys()
        .chain(observed.services.keys())
        .filter(|key| key.project == *project);
    let known: Vec<&str> = of_project.map(|key| key.service.as_str()).collect();
    for spec in specs.values() {
        if let Some(missing) = shared(spec).into_iter().find(|name| !known.contains(name)) {
            let others = known.iter().copied().filter(|name| *name != spec.name);
            return Err(PlanError::UnknownShared {
                service: spec.name.clone(),
                shared: missing.to_owned(),
                nearest: nearest(missing, others).map(str::to_owned),
            });
        }
    }
    Ok(())
}

/// Writes into each spec what the services it shares are now. `order`: each service after those it
/// shares.
pub(super) fn set_revisions(
    specs: &mut BTreeMap<ServiceKey, ServiceSpec>,
    order: &[ServiceKey],
    observed: &Observed,
) {
    for key in order {
        let Some(spec) = specs.get(key) else { continue };
        let of = |name: &str| {
            let project = key.project.clone();
            let other = ServiceKey {
                project,
                service: name.parse().ok()?,
            };
            let stored = || observed.services.get(&other)?.spec.as_ref();
            specs.get(&other).or_else(stored).map(revision)
        };
        let revisions = shared(spec).into_iter().filter_map(of).collect();
        if let Some(spec) = specs.get_mut(key) {
            spec.shared_revisions = revisions;
        }
    }
}

/// Services that the plan leaves out although they go with one whose replicas it replaces or takes
/// away.
pub(super) fn left_behind(
    targets: &[Target],
    disturbed: &[bool],
    observed: &Observed,
) -> Vec<String> {
    let mut warnings = Vec::new();
    for (target, _) in targets
        .iter()
        .zip(disturbed)
        .filter(|(_, disturbed)| **disturbed)
    {
        let name = target.key.service.as_str();
        for (other, record) in &observed.services {
            let in_plan = targets.iter().any(|target| target.key == *other);
            let Some(spec) = record
                .spec
                .as_ref()
                .filter(|_| !in_plan && other.project == target.key.project)
            else {
                continue;
            };
            if shared(spec).contains(&name) {
                warnings.push(format!(
                    "{other} shares namespaces of {}, whose replicas change, and is not part of this deployment: \
                     it may lose them until it is deployed with `--recreate`",
                    target.key
                ));
            } else if restarts_with(spec).any(|on| on == name) {
                warnings.push(format!(
                    "{other} is to be replaced together with {}, but is not part of this deployment",
                    target.key
                ));
            }
        }
    }
    warnings
}
