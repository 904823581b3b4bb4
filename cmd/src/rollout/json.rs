//! What `uc deploy`, `uc scale` and `uc rm` print with `-o json`: where, what was planned, and what
//! became of it. `docs/cli.md` documents the shape; fields are only ever added.

use std::collections::BTreeMap;

use serde::Serialize;
use uc_api::v1;

use super::destination::Cluster;
use crate::answer::Required as _;
use crate::error::{CliError, CliResult};
use crate::words::{mode, word};

/// What became of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// There was nothing to do.
    Unchanged,
    /// `--dry-run`: the plan was not executed.
    Planned,
    Done,
    /// It was not executed: the question was answered with no, or something failed before.
    NotStarted,
    /// It started, and `uc` stopped watching or lost the connection. It continues on the cluster.
    Unknown,
    RolledBack,
    Paused,
    /// Some replicas failed, and the update policy tolerates that.
    Incomplete,
    /// It failed, and rolling back failed, too.
    Failed,
}

/// The document.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) cluster: Cluster,
    pub(super) plan: Option<Plan>,
    pub(super) outcome: Outcome,
    /// Steps that were started, in the order of their ids.
    pub(super) steps: BTreeMap<String, Step>,
    /// What the machines reported besides the steps, in its order. At most [`MAX_NOTICES`].
    pub(super) notices: Vec<String>,
}

/// Notices that are kept for the document.
pub(super) const MAX_NOTICES: usize = 1000;

/// A step that was started.
#[derive(Debug, Default, Serialize)]
pub(super) struct Step {
    pub(super) service: String,
    pub(super) machine: String,
    pub(super) result: StepResult,
    pub(super) message: Option<String>,
    pub(super) log: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StepResult {
    /// It did not end while `uc` watched.
    #[default]
    Started,
    Done,
    Failed,
    Undone,
}

#[derive(Debug, Serialize)]
pub(super) struct Plan {
    digest: String,
    services: Vec<Service>,
    volumes: Vec<Volume>,
    images: Vec<Image>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Service {
    project: String,
    service: String,
    revision: String,
    change: String,
    mode: String,
    replicas: u32,
    unchanged_replicas: u32,
    layer: u32,
    fields: Vec<Field>,
    pre_deploy: Option<PreDeploy>,
    steps: Vec<PlannedStep>,
}

#[derive(Debug, Serialize)]
struct Field {
    field: String,
    old: Option<String>,
    new: Option<String>,
}

#[derive(Debug, Serialize)]
struct PreDeploy {
    id: String,
    machine: Machine,
    command: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PlannedStep {
    id: String,
    action: String,
    machine: Machine,
    container_id: Option<String>,
    order: Option<String>,
    reason: Option<String>,
    old_machine_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct Machine {
    id: String,
    name: String,
}

#[derive(Debug, Serialize)]
struct Volume {
    id: String,
    name: String,
    machine: Machine,
}

#[derive(Debug, Serialize)]
struct Image {
    image: String,
    machine_ids: Vec<String>,
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl TryFrom<&v1::Plan> for Plan {
    type Error = CliError;

    fn try_from(plan: &v1::Plan) -> CliResult<Self> {
        let v1::Plan {
            digest,
            services,
            volumes,
            warnings,
            images,
        } = plan.clone();
        let volumes = volumes.into_iter().map(Volume::try_from);
        Ok(Self {
            digest,
            services: services.iter().map(Service::from).collect(),
            volumes: volumes.collect::<Result<_, _>>()?,
            images: images
                .into_iter()
                .map(|v1::ImageTarget { image, machine_ids }| Image { image, machine_ids })
                .collect(),
            warnings,
        })
    }
}

impl From<&v1::ServicePlan> for Service {
    fn from(service: &v1::ServicePlan) -> Self {
        let repaired = service.change() == v1::ServiceChange::None && !service.steps.is_empty();
        let v1::ServicePlan {
            project,
            service: name,
            revision,
            change: _,
            fields,
            steps,
            kept,
            mode: _,
            desired,
            layer,
            pre_deploy,
        } = service.clone();
        Self {
            project,
            service: name,
            revision,
            change: if repaired {
                "repair".to_owned()
            } else {
                word(service.change().as_str_name(), "SERVICE_CHANGE_")
            },
            mode: mode(service.mode()),
            replicas: desired,
            unchanged_replicas: kept,
            layer,
            fields: fields
                .into_iter()
                .map(|v1::FieldChange { field, old, new }| Field {
                    field,
                    old: some(&old),
                    new: some(&new),
                })
                .collect(),
            pre_deploy: pre_deploy.map(
                |v1::PreDeployStep {
                     id,
                     machine_id,
                     machine_name,
                     command,
                 }| PreDeploy {
                    id,
                    machine: Machine {
                        id: machine_id,
                        name: machine_name,
                    },
                    command,
                },
            ),
            steps: steps.iter().map(PlannedStep::from).collect(),
        }
    }
}

impl From<&v1::ReplicaStep> for PlannedStep {
    fn from(step: &v1::ReplicaStep) -> Self {
        let v1::ReplicaStep {
            id,
            action: _,
            machine_id,
            machine_name,
            container_id,
            order: _,
            reason,
            old_machine_id,
        } = step.clone();
        Self {
            id,
            action: word(step.action().as_str_name(), "REPLICA_ACTION_"),
            machine: Machine {
                id: machine_id,
                name: machine_name,
            },
            container_id: some(&container_id),
            order: (step.action() == v1::ReplicaAction::Replace)
                .then(|| word(step.order().as_str_name(), "UPDATE_ORDER_")),
            reason: some(&reason),
            old_machine_id: some(&old_machine_id),
        }
    }
}

impl TryFrom<v1::VolumeStep> for Volume {
    type Error = CliError;

    fn try_from(step: v1::VolumeStep) -> CliResult<Self> {
        let v1::VolumeStep {
            id,
            machine_id,
            machine_name,
            volume,
        } = step;
        Ok(Self {
            id,
            name: volume.required("a volume")?.name,
            machine: Machine {
                id: machine_id,
                name: machine_name,
            },
        })
    }
}
