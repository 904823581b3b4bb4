//! What `uc deploy`, `uc scale` and `uc rm` print with `-o json`: where, what was planned, and what
//! became of it. `docs/cli.md` documents the shape; fields are only ever added.

use std::collections::BTreeMap;

use serde::Serialize;
use uc_api::v1;

use super::destination::Cluster;
use crate::connect::Client;
use crate::picture;
use crate::view::Field;
use crate::view::shape::shape;
use crate::words::{mode, service_change, word};

/// What became of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// There was nothing to do.
    Unchanged,
    /// `uc plan` or `--dry-run`: the plan was not executed.
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
    /// The machine that executed it was away, and another deployment began in the meantime.
    Superseded,
}

/// The document.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(super) cluster: Cluster,
    pub(super) plan: Option<Plan>,
    pub(super) outcome: Outcome,
    /// Id of the deployment. `None`: nothing was executed, or the daemon did not tell it.
    pub(super) deployment: Option<String>,
    /// Steps that were started, in the order of their ids.
    pub(super) steps: BTreeMap<String, Step>,
    /// What the machines reported besides the steps, in its order. At most [`MAX_NOTICES`].
    pub(super) notices: Vec<String>,
}

impl Report {
    /// Of a plan that is only shown.
    pub(crate) fn planned(client: &Client, plan: &v1::Plan) -> Self {
        Self {
            cluster: Cluster::from(client.destination()),
            plan: Some(Plan::from(plan)),
            outcome: if picture::is_empty(plan) {
                Outcome::Unchanged
            } else {
                Outcome::Planned
            },
            deployment: None,
            steps: BTreeMap::new(),
            notices: Vec::new(),
        }
    }

    /// Nothing has been planned or reported yet.
    pub(super) fn new(cluster: Cluster, outcome: Outcome) -> Self {
        Self {
            cluster,
            plan: None,
            outcome,
            deployment: None,
            steps: BTreeMap::new(),
            notices: Vec::new(),
        }
    }
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

shape! {
    pub(super) struct Plan of v1::Plan {
        digest: String,
        services: Vec<Service>,
        volumes: Vec<Volume>,
        images: Vec<Image>,
        retirements: Vec<Retirement>,
        warnings: Vec<String>,
    }
}

shape! {
    struct Service of v1::ServicePlan {
        project: String,
        service: String,
        revision: String,
        change: String = |service| service_change(service.change(), !service.steps.is_empty()),
        mode: String = |service| mode(service.mode()),
        replicas: u32 = |service| service.desired,
        unchanged_replicas: u32 = |service| service.kept,
        layer: u32,
        fields: Vec<Field>,
        pre_deploy: Option<PreDeploy>,
        steps: Vec<PlannedStep>,
    }
}

shape! {
    struct PreDeploy of v1::PreDeployStep {
        id: String,
        machine: Machine = |step| machine(&step.machine_id, &step.machine_name),
        command: Vec<String>,
    }
}

shape! {
    struct PlannedStep of v1::ReplicaStep {
        id: String,
        action: String = |step| word(step.action().as_str_name(), "REPLICA_ACTION_"),
        machine: Machine = |step| machine(&step.machine_id, &step.machine_name),
        container_id: Option<String>,
        order: Option<String> = |step| {
            (step.action() == v1::ReplicaAction::Replace)
                .then(|| word(step.order().as_str_name(), "UPDATE_ORDER_"))
        },
        reason: Option<String>,
        old_machine_id: Option<String>,
    }
}

shape! {
    struct Volume of v1::VolumeStep {
        id: String,
        name: Option<String> = |step| step.volume.as_ref().map(|volume| volume.name.clone()),
        machine: Machine = |step| machine(&step.machine_id, &step.machine_name),
    }
}

shape! {
    struct Retirement of v1::Retirement {
        machine: Machine = |of| machine(&of.machine_id, &of.machine_name),
        container_id: String,
        container_name: String,
        project: String,
        service: String,
        reason: String,
    }
}

shape! {
    struct Image of v1::ImageTarget {
        image: String,
        machine_ids: Vec<String>,
    }
}

#[derive(Debug, Serialize)]
struct Machine {
    id: String,
    name: String,
}

fn machine(id: &str, name: &str) -> Machine {
    Machine {
        id: id.to_owned(),
        name: name.to_owned(),
    }
}
