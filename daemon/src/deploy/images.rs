//! Which content the images of a deployment mean. A tag is looked up once for each deployment, and
//! its digest becomes part of the spec, so that all replicas of a revision run the same content on
//! every machine, and a rollback gets the former content again.
//!
//! A service keeps the digest of its record while its image is the same, unless its pull policy
//! asks for newer content. An image without a digest stays as it is: it is built, or it exists on
//! machines only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::timeout;
use uc_api::revision::revision;
use uc_api::v1::plan_request::Change;
use uc_api::v1::{PlanRequest, PullPolicy, ResolveImageResponse, ServiceRecord, ServiceSpec};
use uc_api::{Code, Failure, MachineId, ServiceKey};

use crate::cluster::member::Member;
use crate::cluster::view::Cluster;

/// Machines that are asked, one after another, until the registry answers one of them.
const MACHINES_ASKED: usize = 3;
/// Time limit for all questions about one image.
const LIMIT: Duration = Duration::from_secs(15);

/// The request with the digests of its images, and warnings for the plan. A request that has them
/// is returned as it is.
pub(super) async fn resolve_images(
    member: &Member,
    request: PlanRequest,
) -> (PlanRequest, Vec<String>) {
    let cluster = member.cluster();
    let record = |key: &ServiceKey| cluster.services().get(key).map(|record| (**record).clone());
    let machines = Members {
        member,
        cluster: &cluster,
    };
    resolve(&machines, record, request).await
}

/// The machines that know what an image means.
#[async_trait]
trait Machines: Sync {
    /// The machines that are up and can run the service.
    fn that_can_run(&self, spec: &ServiceSpec) -> Vec<MachineId>;

    async fn ask(
        &self,
        machine: MachineId,
        image: &str,
        registry: bool,
    ) -> Result<ResolveImageResponse, Failure>;
}

struct Members<'a> {
    member: &'a Member,
    cluster: &'a Cluster,
}

#[async_trait]
impl Machines for Members<'_> {
    fn that_can_run(&self, spec: &ServiceSpec) -> Vec<MachineId> {
        let machines = self.cluster.machines().iter();
        let up = machines.filter(|machine| !self.cluster.is_down(machine.id));
        let can_run = up.filter(|machine| {
            let place = [self.cluster.planner_machine(machine, true)];
            uc_planner::global_replicas(spec, &place) == 1
        });
        can_run.map(|machine| machine.id).collect()
    }

    async fn ask(
        &self,
        machine: MachineId,
        image: &str,
        registry: bool,
    ) -> Result<ResolveImageResponse, Failure> {
        let remote = self.member.remote(&machine.to_string())?;
        remote.resolve_image(image, registry).await
    }
}

/// Where the digest of a service's image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// It is this one. Empty: it is not pinned.
    Known(String),
    Asked {
        /// What the machines have is good enough.
        local: bool,
        /// The digest if there is no answer.
        otherwise: String,
    },
}

/// `old` is the service's present spec.
fn source(spec: &ServiceSpec, old: Option<&ServiceSpec>) -> Source {
    if spec.built || spec.image.contains('@') {
        return Source::Known(String::new());
    }
    let old = old.filter(|old| old.image == spec.image && !old.built);
    let present = old.map_or_else(String::new, |old| old.image_digest.clone());
    match spec.pull_policy() {
        PullPolicy::Never => Source::Known(present),
        PullPolicy::Always => Source::Asked {
            local: false,
            otherwise: present,
        },
        PullPolicy::Missing | PullPolicy::Unspecified => match old {
            Some(old) if !present.is_empty() || has_same_containers(spec, old) => {
                Source::Known(present)
            }
            _ => Source::Asked {
                local: true,
                otherwise: String::new(),
            },
        },
    }
}

/// Nothing replaces the containers of the old spec. A record of an earlier version has no digest,
/// and a digest alone must not replace them.
fn has_same_containers(spec: &ServiceSpec, old: &ServiceSpec) -> bool {
    let same = ServiceSpec {
        project: old.project.clone(),
        shared_revisions: old.shared_revisions.clone(),
        image_digest: old.image_digest.clone(),
        ..spec.clone()
    };
    revision(&same) == revision(old)
}

/// One image that has to be asked for.
#[derive(Debug, Default)]
struct Question {
    /// For one of its services, the registry has to answer.
    registry: bool,
    machines: BTreeSet<MachineId>,
}

async fn resolve(
    machines: &impl Machines,
    record: impl Fn(&ServiceKey) -> Option<ServiceRecord>,
    mut request: PlanRequest,
) -> (PlanRequest, Vec<String>) {
    let Some(Change::Deploy(desired)) = &mut request.change else {
        return (request, Vec::new());
    };
    if desired.images_resolved {
        return (request, Vec::new());
    }
    desired.images_resolved = true;
    let mut sources = Vec::new();
    let mut questions: BTreeMap<String, Question> = BTreeMap::new();
    for spec in &desired.services {
        // The planner refuses an invalid name.
        let key = desired.project.parse().ok().zip(spec.name.parse().ok());
        let key = key.map(|(project, service)| ServiceKey { project, service });
        let old = key.and_then(|key| record(&key)?.spec);
        let source = source(spec, old.as_ref());
        if let Source::Asked { local, .. } = &source {
            let question = questions.entry(spec.image.clone()).or_default();
            question.registry |= !local;
            question.machines.extend(machines.that_can_run(spec));
        }
        sources.push(source);
    }
    let answers = join_all(questions.iter().map(|(image, question)| async move {
        let answer = timeout(LIMIT, ask(machines, image, question)).await;
        answer.unwrap_or_else(|_| {
            let message = format!("cannot look up `{image}` in its registry: it does not answer");
            Err(Failure::new(Code::TimedOut, message))
        })
    }));
    let answers: BTreeMap<&String, _> = questions.keys().zip(answers.await).collect();
    for (spec, source) in desired.services.iter_mut().zip(sources) {
        spec.image_digest = match source {
            Source::Known(digest) => digest,
            Source::Asked { otherwise, .. } => match answers.get(&spec.image) {
                Some(Ok(Some(digest))) => digest.clone(),
                _ => otherwise,
            },
        };
    }
    let asked = answers
        .iter()
        .filter(|(image, _)| questions[**image].registry);
    let warnings = asked.filter_map(|(_, answer)| {
        let failure = answer.as_ref().err()?;
        Some(format!(
            "{}; no replica is replaced for a newer image",
            failure.message
        ))
    });
    let warnings = warnings.collect();
    (request, warnings)
}

/// The digest of an image. `None`: it exists on machines only, or no machine can be asked.
async fn ask(
    machines: &impl Machines,
    image: &str,
    question: &Question,
) -> Result<Option<String>, Failure> {
    if !question.registry {
        let asked = question.machines.iter();
        let answers = join_all(asked.map(|machine| machines.ask(*machine, image, false)));
        match of_machines(&answers.await) {
            OfMachines::Same(digest) => return Ok(Some(digest)),
            OfMachines::WithoutDigest => return Ok(None),
            OfMachines::Different => {}
        }
    }
    let mut failed = None;
    for machine in question.machines.iter().take(MACHINES_ASKED) {
        match machines.ask(*machine, image, true).await {
            Ok(resolved) => return Ok(Some(resolved.digest)),
            Err(failure) => failed = Some(failure),
        }
    }
    failed.map_or(Ok(None), Err)
}

/// What the engines of the machines say about one image.
#[derive(Debug, PartialEq, Eq)]
enum OfMachines {
    /// All have this one.
    Same(String),
    /// One has it from elsewhere than a registry.
    WithoutDigest,
    /// Some lack it, or have another one.
    Different,
}

fn of_machines(answers: &[Result<ResolveImageResponse, Failure>]) -> OfMachines {
    let known = || answers.iter().flatten();
    if known().any(|answer| answer.present && answer.digest.is_empty()) {
        return OfMachines::WithoutDigest;
    }
    let digests: BTreeSet<&String> = known().map(|answer| &answer.digest).collect();
    match digests.first() {
        Some(digest) if digests.len() == 1 && known().all(|answer| answer.present) => {
            OfMachines::Same((*digest).clone())
        }
        _ => OfMachines::Different,
    }
}

#[cfg(test)]
mod tests;
