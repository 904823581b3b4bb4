//! The planner: what a user wants and what the cluster is, in; every change that would be made,
//! out.
//!
//! It is pure: it has no clock, no randomness and no store. The same input gives the same plan and
//! the same digest on any machine, so a user can confirm a plan on one machine, and another one can
//! check that it is still the plan. The executor carries it out. It also waits for health and for
//! the conditions of `depends_on`.

mod data;
mod desired;
pub mod diff;
mod drain;
mod eligible;
mod error;
mod layers;
mod place;
mod ports;
mod rules;
mod steps;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use prost::Message as _;
use uc_api::v1::plan_request::Change;
use uc_api::v1::{
    self, ImageTarget, MountKind, ReplicaRecord, Retirement, ServiceRecord, ServiceSpec,
    VolumeRecord,
};
use uc_api::{MachineId, MachineName, ServiceKey};

pub use self::data::kept_on_machine;
pub use self::eligible::global_replicas;
pub use self::error::PlanError;
pub use self::together::shared;

/// A machine as the planner sees it.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its id.
    pub id: MachineId,
    /// Its name.
    pub name: MachineName,
    /// Of the machines that have this name, it is the one that services mean by it. The others are
    /// about to take another name, or do so when they are back.
    pub holds_name: bool,
    /// It is not down and can be reached: steps can be sent to it.
    pub up: bool,
    /// Address of its DNS server. `None` while it has no subnet of its own.
    pub dns_server: Option<Ipv4Addr>,
    /// Processor architecture as the machine reports it (`x86_64`, `aarch64`); empty: unknown.
    pub arch: String,
    /// Set by users, for placement.
    pub labels: BTreeMap<String, String>,
    /// A user keeps new replicas away from it.
    pub cordoned: bool,
    /// Logical CPUs; 0: unknown, and then not counted.
    pub cpus: u32,
    /// Bytes of memory; 0: unknown, and then not counted.
    pub memory: u64,
    /// Every replica known on it, of every project.
    pub replicas: Vec<ReplicaRecord>,
    /// Every Docker volume known on it.
    pub volumes: Vec<VolumeRecord>,
    /// By name: since when it has the volume, in Unix milliseconds, as far as that was written
    /// down.
    pub volume_homes: BTreeMap<String, i64>,
}

impl Machine {
    /// A service that names `name` means this machine.
    fn has_name(&self, name: &str) -> bool {
        self.holds_name && self.name.as_str() == name
    }
}

/// The cluster as it is.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Members, the down ones included, in any order.
    pub machines: Vec<Machine>,
    /// What was asked for last.
    pub services: BTreeMap<ServiceKey, ServiceRecord>,
}

/// A plan and what it was made from.
#[derive(Debug, Clone)]
pub struct Planned {
    pub plan: v1::Plan,
    /// By service name: the specs that the plan makes true, as they are written down and given to
    /// containers, with their defaults and with what the planner adds. All are of one project.
    /// Services that are removed are not among them.
    pub specs: BTreeMap<String, ServiceSpec>,
    pub observed: Observed,
}

/// The plan that makes the request true, as far as the machines that are up can.
pub fn plan(request: &v1::PlanRequest, observed: Observed) -> Result<Planned, PlanError> {
    let change = request.change.as_ref().ok_or(PlanError::NothingAsked)?;
    let (plan, specs) = make(change, &observed)?;
    Ok(Planned {
        plan,
        specs,
        observed,
    })
}

/// The projects that a plan for this request changes. `known` are all services of the cluster.
pub fn projects(
    request: &v1::PlanRequest,
    known: &BTreeSet<ServiceKey>,
) -> Result<BTreeSet<String>, PlanError> {
    let change = request.change.as_ref().ok_or(PlanError::NothingAsked)?;
    desired::projects(change, known)
}

fn make(
    change: &Change,
    observed: &Observed,
) -> Result<(v1::Plan, BTreeMap<String, ServiceSpec>), PlanError> {
    let mut cluster = Cluster::new(observed)?;
    if let Change::Drain(drain) = change {
        cluster.drained = Some(drain::machine(drain, &cluster)?);
    }
    let wanted = desired::resolve(change, observed, &cluster)?;
    let mut warnings = wanted.warnings.clone();
    let mut services = Vec::new();
    let mut volumes = BTreeMap::new();
    let mut images = BTreeMap::new();
    let mut retirements = Vec::new();

    let eligible = eligible::eligible(&wanted.targets, &cluster, &mut warnings)?;
    let placements = place::place(&wanted, &eligible, &cluster, &mut warnings)?;
    let disturbed: Vec<bool> = placements
        .iter()
        .map(place::Placement::takes_away)
        .collect();
    warnings.extend(together::left_behind(&wanted.targets, &disturbed, observed));
    let layers = steps::order_of_targets(&wanted.targets, &placements)?;
    let (targets_later, removals_later) = steps::layer_offsets(
        &wanted.targets,
        &placements,
        &layers,
        &wanted.removals,
        &cluster,
    );
    for ((target, placement), layer) in wanted.targets.iter().zip(&placements).zip(layers) {
        services.push(steps::service_plan(
            target,
            layer + targets_later,
            placement,
            &cluster,
            &mut warnings,
        ));
        data::warn_about_data(target, placement, &cluster, &mut warnings);
        data::warn_about_rescheduling(target, &cluster, &mut warnings);
        steps::add_volumes(target, placement, &cluster, &mut volumes);
        steps::add_images(target, placement, &cluster, &mut images);
        let retired = placement.retired.iter();
        retirements
            .extend(retired.map(|retired| steps::retirement(&target.key, retired, &cluster)));
    }
    for removal in &wanted.removals {
        services.push(steps::removal_plan(
            removal,
            removal.layer + removals_later,
            &cluster,
            &mut retirements,
        ));
    }
    let distances = together::distances(&wanted.targets);
    services.sort_by_cached_key(|of| {
        let of_plan = |(key, _): &(&ServiceKey, &u32)| {
            key.project.as_str() == of.project && key.service.as_str() == of.service
        };
        let distance = distances
            .iter()
            .find(of_plan)
            .map(|(_, distance)| *distance);
        (of.layer, of.project.clone(), distance, of.service.clone())
    });
    fn order(of: &Retirement) -> impl Ord + '_ {
        (&of.machine_name, &of.project, &of.service, &of.container_id)
    }
    retirements.sort_by(|a, b| order(a).cmp(&order(b)));
    steps::warn_about_architectures(&images, &cluster, &mut warnings);

    let mut plan = v1::Plan {
        digest: String::new(),
        services,
        volumes: volumes.into_values().collect(),
        warnings,
        images: images
            .into_iter()
            .map(|(image, machine_ids)| ImageTarget {
                image,
                machine_ids: machine_ids.into_iter().collect(),
            })
            .collect(),
        retirements,
    };
    plan.digest = digest(&plan);
    let targets = wanted.targets.into_iter();
    let specs = targets.map(|target| (target.key.service.to_string(), target.spec));
    Ok((plan, specs.collect()))
}

/// The digest of everything in the plan but the digest itself: 64 hexadecimal digits.
fn digest(plan: &v1::Plan) -> String {
    let bare = v1::Plan {
        digest: String::new(),
        ..plan.clone()
    };
    blake3::hash(&bare.encode_to_vec()).to_hex().to_string()
}

/// The observed machines in the order of their names: the order in which everything is decided.
struct Cluster<'a> {
    machines: Vec<&'a Machine>,
    /// The machine that the plan takes all replicas from.
    drained: Option<usize>,
}

impl<'a> Cluster<'a> {
    fn new(observed: &'a Observed) -> Result<Self, PlanError> {
        let mut machines: Vec<&Machine> = observed.machines.iter().collect();
        machines.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        if machines.is_empty() {
            Err(PlanError::NoMachines)
        } else {
            Ok(Self {
                machines,
                drained: None,
            })
        }
    }

    /// The replicas of a service with the index of their machine, the oldest first.
    fn replicas_of(&self, key: &ServiceKey) -> Vec<(usize, &'a ReplicaRecord)> {
        let mut found: Vec<_> = self
            .machines
            .iter()
            .enumerate()
            .flat_map(|(index, machine)| {
                machine.replicas.iter().map(move |replica| (index, replica))
            })
            .filter(|(_, replica)| is_of(replica, key))
            .collect();
        found.sort_by(|(_, a), (_, b)| {
            (a.created_at_ms, &a.container_id).cmp(&(b.created_at_ms, &b.container_id))
        });
        found
    }

    /// Why a machine takes no new replica, if it takes none.
    fn closed(&self, index: usize) -> Option<&'static str> {
        if self.drained == Some(index) {
            return Some("drained");
        }
        self.machines[index].cordoned.then_some("cordoned")
    }

    fn name(&self, index: usize) -> &'a str {
        self.machines[index].name.as_str()
    }

    fn names(&self, indexes: &[usize]) -> Vec<String> {
        indexes
            .iter()
            .map(|index| self.name(*index).to_owned())
            .collect()
    }

    fn volume(&self, index: usize, name: &str) -> Option<&'a VolumeRecord> {
        self.machines[index]
            .volumes
            .iter()
            .find(|volume| volume.name == name)
    }

    /// A container that mounts it says so as well: the record of the volume itself may be on its
    /// way still.
    fn has_volume(&self, index: usize, name: &str) -> bool {
        let mounts = |replica: &ReplicaRecord| {
            replica
                .mounts
                .iter()
                .any(|mount| mount.kind() == MountKind::Volume && mount.source == name)
        };
        self.volume(index, name).is_some() || self.machines[index].replicas.iter().any(mounts)
    }
}

fn is_of(replica: &ReplicaRecord, key: &ServiceKey) -> bool {
    replica.project == key.project.as_str() && replica.service == key.service.as_str()
}

/// The names of the Docker volumes that a service mounts, each once.
fn volume_names(spec: &ServiceSpec) -> BTreeSet<&str> {
    spec.mounts
        .iter()
        .filter(|mount| mount.kind() == MountKind::Volume && !mount.source.is_empty())
        .map(|mount| mount.source.as_str())
        .collect()
}

/// "a", "a and b", "a, b and c".
fn and(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests;
