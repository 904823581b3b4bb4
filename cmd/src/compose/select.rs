//! Selects the services of a project that a command is about, and what to build for them.

use std::collections::{BTreeMap, BTreeSet};

use uc_compose::{BuildContext, Project, Service, own_name};

use super::BuildJob;
use crate::error::{CliError, CliResult};
use crate::suggest;

/// The named services and all that they depend on. Without names, all services.
pub(crate) fn select(project: &Project, names: &[String]) -> CliResult<Vec<Service>> {
    if names.is_empty() {
        return Ok(project.services.clone());
    }
    let by_name: BTreeMap<&str, &Service> = project
        .services
        .iter()
        .map(|service| (service.spec.name.as_str(), service))
        .collect();
    let mut wanted = BTreeSet::new();
    let mut next: Vec<&str> = Vec::new();
    for name in names {
        let own = own_name(&project.name, name);
        if !by_name.contains_key(own) {
            return Err(CliError::usage(format!(
                "service `{name}` not found in project {}",
                project.name
            ))
            .hint(suggest::hint(name, by_name.keys().copied())));
        }
        next.push(own);
    }
    while let Some(name) = next.pop() {
        let Some(service) = by_name.get(name).filter(|_| wanted.insert(name)) else {
            continue;
        };
        next.extend(
            service
                .spec
                .depends_on
                .iter()
                .map(|dependency| dependency.service.as_str()),
        );
    }
    Ok(project
        .services
        .iter()
        .filter(|service| wanted.contains(service.spec.name.as_str()))
        .cloned()
        .collect())
}

/// What has to be built for these services, in the order in which it must be: a service whose image
/// another build needs comes first, even if that service is not among them.
pub(crate) fn build_jobs(project: &Project, services: &[Service]) -> Vec<BuildJob> {
    fn visit(name: &str, project: &Project, seen: &mut BTreeSet<String>, jobs: &mut Vec<BuildJob>) {
        let found = project
            .services
            .iter()
            .find(|service| service.spec.name == name);
        let Some((service, build)) =
            found.and_then(|service| Some((service, service.build.as_ref()?)))
        else {
            return;
        };
        if !seen.insert(name.to_owned()) {
            return;
        }
        for context in std::iter::once(&build.context).chain(build.additional_contexts.values()) {
            if let BuildContext::Service(needed) = context {
                visit(needed, project, seen, jobs);
            }
        }
        jobs.push(BuildJob {
            project: service.spec.project.clone(),
            service: name.to_owned(),
            build: build.clone(),
        });
    }
    let (mut seen, mut jobs) = (BTreeSet::new(), Vec::new());
    for service in services {
        visit(&service.spec.name, project, &mut seen, &mut jobs);
    }
    jobs
}
