//! Which content the images of a deployment mean. A tag is looked up once for each deployment, and
//! its digest becomes part of the spec, so that all replicas of a revision run the same content on
//! every machine, and a rollback gets the former content again.
//!
//! A service keeps the digest of its record while its image and its pull policy are the same,
//! unless the policy asks for newer content. An image without a digest stays as it is: it is built,
//! or it exists on machines only. Engines give a digest to an image that was built there as well,
//! so a digest counts only if the registry has it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{join_all, select_ok};
use tokio::time::timeout;
use uc_api::revision::revision;
use uc_api::v1::plan_request::Change;
use uc_api::v1::{PlanRequest, PullPolicy, ResolveImageResponse, ServiceRecord, ServiceSpec};
use uc_api::{Code, Failure, MachineId, ServiceKey};

use crate::cluster::member::Member;
use crate::cluster::view::Cluster;
use crate::engine::reference;

/// Machines that ask the registry at the same time. The first answer counts.
const MACHINES_ASKED: usize = 3;
/// Time limit for what the machines have. An engine that works answers immediately.
const LOCAL_LIMIT: Duration = Duration::from_secs(3);
/// Time limit for the registry's answer about one image, after the machines were asked what they
/// have.
const REGISTRY_LIMIT: Duration = Duration::from_secs(12);

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
    /// It is this one if the machines have it. No registry is asked.
    IfPresent(String),
    Asked {
        /// What the machines have is good enough.
        local: bool,
        /// The digest if there is no answer.
        otherwise: String,
    },
}

/// `old` is the service's present spec. With `recreate`, all its replicas are replaced.
fn source(spec: &ServiceSpec, old: Option<&ServiceSpec>, recreate: bool) -> Source {
    if spec.built || spec.image.contains('@') {
        return Source::Known(String::new());
    }
    let old = old.filter(|old| old.image == spec.image && !old.built);
    let present = old.map_or_else(String::new, |old| old.image_digest.clone());
    let asks_again = recreate || old.is_some_and(|old| policy(old) != policy(spec));
    match policy(spec) {
        // A digest that no machine has any longer would be refused.
        PullPolicy::Never if present.is_empty() => Source::Known(present),
        PullPolicy::Never => Source::IfPresent(present),
        PullPolicy::Always => Source::Asked {
            local: false,
            otherwise: present,
        },
        PullPolicy::Missing | PullPolicy::Unspecified => match old {
            Some(old) if !asks_again && (!present.is_empty() || has_same_containers(spec, old)) => {
                Source::Known(present)
            }
            _ => Source::Asked {
                local: true,
                otherwise: present,
            },
        },
    }
}

/// The pull policy, with the default filled in.
fn policy(spec: &ServiceSpec) -> PullPolicy {
    match spec.pull_policy() {
        PullPolicy::Unspecified => PullPolicy::Missing,
        policy => policy,
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
    /// For none of its services, the registry is asked.
    never: bool,
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
        let source = source(spec, old.as_ref(), desired.recreate);
        let (registry, never) = match &source {
            Source::Known(_) => (false, false),
            Source::IfPresent(_) => (false, true),
            Source::Asked { local, .. } => (!local, false),
        };
        if !matches!(source, Source::Known(_)) {
            let question = questions.entry(spec.image.clone());
            let question = question.or_insert_with(|| Question {
                never: true,
                ..Question::default()
            });
            question.registry |= registry;
            question.never &= never;
            question.machines.extend(machines.that_can_run(spec));
        }
        sources.push(source);
    }
    let answers = join_all(questions.iter().map(async |(image, question)| {
        let local = ask_machines(machines, image, question).await;
        let asked = ask(machines, image, question, &local);
        let digest = timeout(REGISTRY_LIMIT, asked).await.unwrap_or_else(|_| {
            let message = format!("cannot look up `{image}` in its registry: it does not answer");
            Err(Failure::new(Code::TimedOut, message))
        });
        Answer { local, digest }
    }));
    let answers: BTreeMap<&String, Answer> = questions.keys().zip(answers.await).collect();
    let mut warnings = BTreeMap::new();
    for (spec, source) in desired.services.iter_mut().zip(sources) {
        let Some(answer) = answers.get(&spec.image) else {
            spec.image_digest = source.without_answer();
            continue;
        };
        if let Some(warning) = source.warning(answer) {
            warnings.insert(spec.image.clone(), warning);
        }
        spec.image_digest = source.digest(answer);
    }
    (request, warnings.into_values().collect())
}

/// What each machine has; `None` if it does not answer.
type Local = Vec<(MachineId, Option<ResolveImageResponse>)>;

/// What is known about one image.
#[derive(Debug)]
struct Answer {
    local: Local,
    /// `None`: it exists on machines only, or no machine can be asked.
    digest: Result<Option<String>, Failure>,
}

impl Answer {
    fn present(&self) -> impl Iterator<Item = &ResolveImageResponse> {
        let answers = self.local.iter().filter_map(|(_, answer)| answer.as_ref());
        answers.filter(|answer| answer.present)
    }
}

impl Source {
    /// The digest of a service for whose image nothing was asked.
    fn without_answer(self) -> String {
        match self {
            Self::Known(digest) | Self::IfPresent(digest) => digest,
            Self::Asked { otherwise, .. } => otherwise,
        }
    }

    fn digest(self, answer: &Answer) -> String {
        match (self, &answer.digest) {
            (Self::IfPresent(digest), _)
                if answer.present().any(|present| present.digest != digest) =>
            {
                String::new()
            }
            (Self::Asked { .. }, Ok(Some(digest))) => digest.clone(),
            // The machines have an image that is in no registry.
            (Self::Asked { local: true, .. }, Ok(None)) if answer.present().next().is_some() => {
                String::new()
            }
            (source, _) => source.without_answer(),
        }
    }

    fn warning(&self, answer: &Answer) -> Option<String> {
        let (Self::Asked { otherwise, .. }, Err(failure)) = (self, &answer.digest) else {
            return None;
        };
        let effect = if otherwise.is_empty() {
            "the image is not pinned, and machines can run different content of it"
        } else {
            "no replica is replaced for a newer image"
        };
        Some(format!("{}; {effect}", failure.message))
    }
}

async fn ask_machines(machines: &impl Machines, image: &str, question: &Question) -> Local {
    join_all(question.machines.iter().map(async |machine| {
        let answer = timeout(LOCAL_LIMIT, machines.ask(*machine, image, false)).await;
        (*machine, answer.ok().and_then(Result::ok))
    }))
    .await
}

/// The digest of an image. `None`: it exists on machines only, or no machine can be asked.
async fn ask(
    machines: &impl Machines,
    image: &str,
    question: &Question,
    local: &[(MachineId, Option<ResolveImageResponse>)],
) -> Result<Option<String>, Failure> {
    if question.never {
        return Ok(None);
    }
    if !question.registry {
        match of_machines(local) {
            OfMachines::Same(digest) => {
                let pinned = reference::by_digest(image, &digest);
                return match ask_registry(machines, &pinned, local).await {
                    // It was built on the machines.
                    Err(failure) if matches!(failure.code, Code::NotFound | Code::Refused) => {
                        Ok(None)
                    }
                    confirmed => confirmed,
                };
            }
            OfMachines::WithoutDigest => return Ok(None),
            OfMachines::Different => {}
        }
    }
    ask_registry(machines, image, local).await
}

/// The digest that the registry has. Machines that answer are asked before the others. `None` if
/// no machine can be asked.
async fn ask_registry(
    machines: &impl Machines,
    image: &str,
    local: &[(MachineId, Option<ResolveImageResponse>)],
) -> Result<Option<String>, Failure> {
    let answered = local.iter().filter(|(_, answer)| answer.is_some());
    let silent = local.iter().filter(|(_, answer)| answer.is_none());
    let asked = answered.chain(silent).take(MACHINES_ASKED);
    let questions: Vec<_> = asked
        .map(|(machine, _)| machines.ask(*machine, image, true))
        .collect();
    if questions.is_empty() {
        return Ok(None);
    }
    let (resolved, _slower) = select_ok(questions).await?;
    Ok(Some(resolved.digest))
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

fn of_machines(answers: &[(MachineId, Option<ResolveImageResponse>)]) -> OfMachines {
    let known = || answers.iter().filter_map(|(_, answer)| answer.as_ref());
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
