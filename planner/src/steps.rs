//! From placements to the plan's own words: steps with ids and reasons, volumes, images, and the
//! order of services.

use std::collections::{BTreeMap, BTreeSet};

use uc_api::ServiceKey;
use uc_api::revision::revision;
use uc_api::v1::{
    self, PreDeployStep, ReplicaAction, ReplicaRecord, ReplicaStep, Retirement, ServiceChange,
    ServiceMode, ServicePlan, ServiceSpec, UpdateOrder, VolumeStep,
};

use super::desired::{Removal, Target};
use super::error::PlanError;
use super::layers::{Edge, layers};
use super::place::{self, Draft, Placement, Retired};
use super::{Cluster, and, data, diff, ports, together, volume_names};

/// The layer of each target, in their order. A service that takes a port over from another one
/// waits for it as if it depended on it: side by side, the new container would find the port taken.
pub(super) fn order_of_targets(
    targets: &[Target],
    placements: &[Placement<'_>],
) -> Result<Vec<u32>, PlanError> {
    let mut edges = together::edges(targets.iter().map(|target| &target.spec));
    let mut handed_over = false;
    for (taker, takes) in targets.iter().zip(placements) {
        for (giver, gives) in targets.iter().zip(placements) {
            if taker.key != giver.key && takes_port(taker, takes, gives) {
                edges
                    .entry(taker.spec.name.as_str())
                    .or_default()
                    .push(Edge::after(giver.spec.name.as_str()));
                handed_over = true;
            }
        }
    }
    if !handed_over {
        return Ok(targets.iter().map(|target| target.layer).collect());
    }
    let layers = layers(&edges, |_| true).map_err(|error| match error {
        PlanError::DependencyCycle { cycle } => PlanError::PortsTraded { cycle },
        other => other,
    })?;
    Ok(targets
        .iter()
        .map(|target| layers.get(target.spec.name.as_str()).copied().unwrap_or(0))
        .collect())
}

/// A new container of the one wants a port that a container of the other holds until it goes.
fn takes_port(taker: &Target, takes: &Placement<'_>, gives: &Placement<'_>) -> bool {
    takes
        .steps
        .iter()
        .filter(|draft| draft.action != ReplicaAction::Remove)
        .any(|new| {
            gives
                .steps
                .iter()
                .filter_map(|draft| draft.old)
                .any(|(machine, old)| {
                    machine == new.machine
                        && place::holds_ports(old)
                        && taker
                            .spec
                            .ports
                            .iter()
                            .any(|port| old.ports.iter().any(|held| ports::clash(port, held)))
                })
        })
}

pub(super) fn service_plan(
    target: &Target,
    layer: u32,
    placement: &Placement<'_>,
    cluster: &Cluster<'_>,
    warnings: &mut Vec<String>,
) -> ServicePlan {
    let fields = target
        .old
        .as_ref()
        .map_or_else(Vec::new, |old| diff::fields(old, &target.spec));
    let steps: Vec<ReplicaStep> = placement
        .steps
        .iter()
        .enumerate()
        .map(|(number, draft)| step(target, draft, number, &fields, cluster, warnings))
        .collect();
    let change = match (&target.old, fields.is_empty() && steps.is_empty()) {
        (None, _) => ServiceChange::Create,
        (Some(_), true) => ServiceChange::None,
        (Some(_), false) => ServiceChange::Update,
    };
    ServicePlan {
        project: target.spec.project.clone(),
        service: target.spec.name.clone(),
        revision: target.revision.clone(),
        change: change.into(),
        fields,
        kept: placement.kept,
        mode: target.spec.mode,
        desired: placement.desired,
        layer,
        pre_deploy: pre_deploy(target, &steps),
        steps,
        image_digest: target.spec.image_digest.clone(),
    }
}

/// Where the first new replica goes, there its command runs before it: the image and the volumes
/// are there, or come there anyway.
fn pre_deploy(target: &Target, steps: &[ReplicaStep]) -> Option<PreDeployStep> {
    let hook = target.spec.pre_deploy.as_ref()?;
    let first = steps
        .iter()
        .find(|step| step.action() != ReplicaAction::Remove)?;
    Some(PreDeployStep {
        id: format!("{}/pre-deploy", target.key),
        machine_id: first.machine_id.clone(),
        machine_name: first.machine_name.clone(),
        command: hook.command.clone(),
    })
}

fn step(
    target: &Target,
    draft: &Draft<'_>,
    number: usize,
    fields: &[v1::FieldChange],
    cluster: &Cluster<'_>,
    warnings: &mut Vec<String>,
) -> ReplicaStep {
    let machine = cluster.machines[draft.machine];
    let old_machine = draft
        .old
        .map(|(index, _)| index)
        .filter(|index| *index != draft.machine);
    let order = match (draft.action, draft.old) {
        (ReplicaAction::Replace, Some((_, old))) => {
            update_order(target, old, old_machine.is_none(), warnings)
        }
        _ => UpdateOrder::Unspecified,
    };
    let reason = match &draft.reason {
        place::Reason::Outdated => outdated(target, fields),
        place::Reason::Other(text) => text.clone(),
    };
    ReplicaStep {
        id: format!("{}/{number}", target.key),
        action: draft.action.into(),
        machine_id: machine.id.to_string(),
        machine_name: machine.name.to_string(),
        container_id: draft
            .old
            .map_or_else(String::new, |(_, old)| old.container_id.clone()),
        order: order.into(),
        reason,
        old_machine_id: old_machine
            .map_or_else(String::new, |index| cluster.machines[index].id.to_string()),
    }
}

/// Why a replica of another revision is replaced: what changed in the file, or else what it shares.
fn outdated(target: &Target, fields: &[v1::FieldChange]) -> String {
    let shares_anew = target.old.as_ref().is_some_and(|old| {
        let shared_revisions = target.spec.shared_revisions.clone();
        old.shared_revisions != shared_revisions
            && revision(&ServiceSpec {
                shared_revisions,
                ..old.clone()
            }) == target.revision
    });
    if shares_anew {
        let names: Vec<String> = together::shared(&target.spec)
            .into_iter()
            .map(str::to_owned)
            .collect();
        return place::was_replaced(&names);
    }
    if image_moved(target) {
        return format!("image {} has moved", target.spec.image);
    }
    diff::reason(fields)
}

/// Nothing differs but the content that the image's tag means.
fn image_moved(target: &Target) -> bool {
    let image_digest = &target.spec.image_digest;
    target.old.as_ref().is_some_and(|old| {
        !old.image_digest.is_empty()
            && old.image_digest != *image_digest
            && revision(&ServiceSpec {
                image_digest: image_digest.clone(),
                ..old.clone()
            }) == target.revision
    })
}

/// Old and new would listen in one network: of the machine, or of another container. Whatever port
/// the program has is taken then.
fn shares_network(target: &Target) -> bool {
    let mode = target.spec.network_mode.as_str();
    mode == "host" || mode.starts_with("service:") || mode.starts_with("container:")
}

/// Start-first where it can be, and where the old replica does not run. Not where old and new want
/// the same port of the same machine or listen in the same network, and not where a lone replica
/// writes to a volume or to a path of the machine: two databases on one data directory are worse
/// than a pause.
fn update_order(
    target: &Target,
    old: &ReplicaRecord,
    same_machine: bool,
    warnings: &mut Vec<String>,
) -> UpdateOrder {
    // Without a program that runs there is nothing to stop first, and nothing to start again if the
    // new replica fails: a job that has ended must not run a second time.
    if !place::is_alive(old) {
        return UpdateOrder::StartFirst;
    }
    let clash = same_machine
        && place::holds_ports(old)
        && target
            .spec
            .ports
            .iter()
            .any(|new| old.ports.iter().any(|port| ports::clash(new, port)));
    match target.spec.update_order() {
        UpdateOrder::StopFirst => UpdateOrder::StopFirst,
        UpdateOrder::StartFirst if clash => {
            let warning = format!(
                "{}: cannot start the new replica first: the old and the new replica publish the same port; \
                 they are replaced stop-first",
                target.key
            );
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
            UpdateOrder::StopFirst
        }
        UpdateOrder::StartFirst => UpdateOrder::StartFirst,
        UpdateOrder::Unspecified => {
            let alone = target.spec.mode() == ServiceMode::Global || target.spec.replicas <= 1;
            let writes = data::shares_data(&target.spec, old, same_machine);
            // An anonymous volume belongs to one replica, however many there are.
            let handed_on = same_machine && data::hands_on(&target.spec, old);
            if clash || (same_machine && shares_network(target)) || (alone && writes) || handed_on {
                UpdateOrder::StopFirst
            } else {
                UpdateOrder::StartFirst
            }
        }
    }
}

/// How many layers later the targets and the removals of one plan run. Removals come last, so that
/// a deployment that fails has removed nothing. They come first if a new replica needs a port that
/// a removed one holds, as after a service was renamed.
pub(super) fn layer_offsets(
    targets: &[Target],
    placements: &[Placement<'_>],
    target_layers: &[u32],
    removals: &[Removal],
    cluster: &Cluster<'_>,
) -> (u32, u32) {
    let (Some(last_target), Some(last_removal)) = (
        target_layers.iter().max(),
        removals.iter().map(|removal| removal.layer).max(),
    ) else {
        return (0, 0);
    };
    let holds = |machine: usize, target: &Target| {
        removals
            .iter()
            .flat_map(|removal| cluster.replicas_of(&removal.key))
            .filter(|(index, old)| *index == machine && place::holds_ports(old))
            .any(|(_, old)| {
                target
                    .spec
                    .ports
                    .iter()
                    .any(|port| old.ports.iter().any(|held| ports::clash(port, held)))
            })
    };
    let needs_port = targets.iter().zip(placements).any(|(target, placement)| {
        placement
            .steps
            .iter()
            .filter(|draft| draft.action != ReplicaAction::Remove)
            .any(|draft| holds(draft.machine, target))
    });
    if needs_port {
        (last_removal + 1, 0)
    } else {
        (0, last_target + 1)
    }
}

/// What the machine of a replica that is out of reach does when it is back.
pub(super) fn retirement(
    key: &ServiceKey,
    retired: &Retired<'_>,
    cluster: &Cluster<'_>,
) -> Retirement {
    let machine = cluster.machines[retired.machine];
    Retirement {
        machine_id: machine.id.to_string(),
        machine_name: machine.name.to_string(),
        container_id: retired.replica.container_id.clone(),
        container_name: retired.replica.container_name.clone(),
        project: key.project.to_string(),
        service: key.service.to_string(),
        reason: retired.reason.to_owned(),
    }
}

pub(super) fn removal_plan(
    removal: &Removal,
    layer: u32,
    cluster: &Cluster<'_>,
    retirements: &mut Vec<Retirement>,
) -> ServicePlan {
    let (reachable, left): (Vec<_>, Vec<_>) = cluster
        .replicas_of(&removal.key)
        .into_iter()
        .partition(|(index, _)| cluster.machines[*index].up);
    for (machine, replica) in left {
        let reason = removal.reason;
        let retired = Retired {
            machine,
            replica,
            reason,
        };
        retirements.push(retirement(&removal.key, &retired, cluster));
    }
    let steps = reachable
        .into_iter()
        .enumerate()
        .map(|(number, (index, replica))| ReplicaStep {
            id: format!("{}/{number}", removal.key),
            action: ReplicaAction::Remove.into(),
            machine_id: cluster.machines[index].id.to_string(),
            machine_name: cluster.name(index).to_owned(),
            container_id: replica.container_id.clone(),
            reason: removal.reason.into(),
            ..ReplicaStep::default()
        })
        .collect();
    ServicePlan {
        project: removal.key.project.to_string(),
        service: removal.key.service.to_string(),
        revision: removal.revision.clone(),
        change: ServiceChange::Remove.into(),
        fields: Vec::new(),
        steps,
        kept: 0,
        mode: removal.mode.into(),
        desired: 0,
        layer,
        pre_deploy: None,
        image_digest: String::new(),
    }
}

/// A volume is made where a replica goes that mounts it, once however many replicas share it.
pub(super) fn add_volumes(
    target: &Target,
    placement: &Placement<'_>,
    cluster: &Cluster<'_>,
    volumes: &mut BTreeMap<(String, usize), VolumeStep>,
) {
    for draft in placement
        .steps
        .iter()
        .filter(|draft| draft.action != ReplicaAction::Remove)
    {
        for name in volume_names(&target.spec) {
            if cluster.has_volume(draft.machine, name) {
                continue;
            }
            let machine = cluster.machines[draft.machine];
            volumes
                .entry((name.to_owned(), draft.machine))
                .or_insert_with(|| VolumeStep {
                    id: format!("volume/{name}/{}", machine.name),
                    machine_id: machine.id.to_string(),
                    machine_name: machine.name.to_string(),
                    volume: Some(target.volume(name)),
                });
        }
    }
}

pub(super) fn add_images(
    target: &Target,
    placement: &Placement<'_>,
    cluster: &Cluster<'_>,
    images: &mut BTreeMap<String, BTreeSet<String>>,
) {
    if !target.spec.built {
        return;
    }
    for draft in placement
        .steps
        .iter()
        .filter(|draft| draft.action != ReplicaAction::Remove)
    {
        let machines = images.entry(target.spec.image.clone()).or_default();
        machines.insert(cluster.machines[draft.machine].id.to_string());
    }
}

/// A client builds for one architecture; on a machine of another one the program would not start.
pub(super) fn warn_about_architectures(
    images: &BTreeMap<String, BTreeSet<String>>,
    cluster: &Cluster<'_>,
    warnings: &mut Vec<String>,
) {
    for (image, ids) in images {
        let mut by_arch: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for machine in &cluster.machines {
            if ids.contains(&machine.id.to_string()) && !machine.arch.is_empty() {
                by_arch
                    .entry(&machine.arch)
                    .or_default()
                    .push(machine.name.to_string());
            }
        }
        if by_arch.len() > 1 {
            let list: Vec<String> = by_arch
                .iter()
                .map(|(arch, names)| format!("{} ({arch})", and(names)))
                .collect();
            warnings.push(format!(
                "{image} is built for one architecture but is needed on {}; limit the service with `x-machines`",
                and(&list)
            ));
        }
    }
}
