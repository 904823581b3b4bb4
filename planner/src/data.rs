//! Where a service keeps data: whether two of its replicas must not write at the same time, and
//! what stays behind when a replica moves to another machine.

use std::collections::BTreeSet;

use uc_api::v1::{MountKind, MountSpec, ReplicaAction, ReplicaRecord, ServiceSpec, VolumeSpec};
use uc_api::volumes::handed_on;

use super::desired::Target;
use super::place::Placement;
use super::{Cluster, and};

/// Folders of a machine that hold no data of a service: interfaces of the kernel, and sockets.
const SYSTEM_FOLDERS: [&str; 6] = ["/dev", "/proc", "/sys", "/run", "/var/run", "/lib/modules"];
/// Files of a machine that hold no data of a service. They are often mounted without `:ro`.
const SYSTEM_FILES: [&str; 2] = ["/etc/localtime", "/etc/timezone"];
/// Ending of a socket's name.
const SOCKET: &str = ".sock";

/// A path of the machine, mounted so that the service can write data there.
fn is_data_folder(mount: &MountSpec) -> bool {
    let source = mount.source.trim_end_matches('/');
    let in_folder = |folder: &str| {
        let rest = source.strip_prefix(folder);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    mount.kind() == MountKind::Bind
        && !mount.read_only
        && !SYSTEM_FOLDERS.iter().any(|folder| in_folder(folder))
        && !SYSTEM_FILES.contains(&source)
        && !source.ends_with(SOCKET)
}

/// The new replica would write to what the old one writes to: a volume, a path of the machine, or
/// an anonymous volume that is handed on to it.
pub(super) fn shares_data(spec: &ServiceSpec, old: &ReplicaRecord, same_machine: bool) -> bool {
    let is_volume = |mount: &MountSpec| {
        mount.kind() == MountKind::Volume && !mount.source.is_empty() && !mount.read_only
    };
    spec.mounts
        .iter()
        .any(|mount| is_volume(mount) || is_data_folder(mount))
        || (same_machine && hands_on(spec, old))
}

/// The old replica has an anonymous volume that the new one would write to.
pub(super) fn hands_on(spec: &ServiceSpec, old: &ReplicaRecord) -> bool {
    handed_on(&old.mounts, spec).any(|mount| !mount.read_only)
}

/// Types of file systems that are on a server. With `local` as driver, all others (a bind mount, a
/// partition, memory) are on the machine.
const NETWORK_FILE_SYSTEMS: [&str; 7] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "ceph",
    "glusterfs",
    "fuse.sshfs",
];

/// Whether a volume has the same data on several machines: another driver than that of the
/// machine's disk, or one that mounts a server's file system. Of an external one only its user
/// knows, so it does not count.
pub(super) fn keeps_data_outside(volume: &VolumeSpec) -> bool {
    let is_local = matches!(volume.driver.as_str(), "" | "local");
    let of_server = || {
        let kind = volume.driver_opts.get("type");
        kind.is_some_and(|kind| NETWORK_FILE_SYSTEMS.contains(&kind.as_str()))
    };
    !volume.external && (!is_local || of_server())
}

/// What the service keeps on the machine of a replica: its first volume or path. `volumes` are
/// those that it declares.
pub fn kept_on_machine<'a>(spec: &'a ServiceSpec, volumes: &[VolumeSpec]) -> Option<&'a str> {
    let stays = |mount: &&MountSpec| {
        let is_outside = || {
            let mut declared = volumes.iter();
            declared.any(|volume| volume.name == mount.source && keeps_data_outside(volume))
        };
        is_data_folder(mount) || mount.kind() == MountKind::Volume && !is_outside()
    };
    let mount = spec.mounts.iter().find(stays)?;
    Some(if mount.source.is_empty() {
        &mount.target
    } else {
        &mount.source
    })
}

/// Warns where `x-reschedule` does nothing.
pub(super) fn warn_about_rescheduling(
    target: &Target,
    cluster: &Cluster<'_>,
    warnings: &mut Vec<String>,
) {
    if target.spec.reschedule_after_ms.is_none() {
        return;
    }
    let why = if target.global() {
        Some("it runs on every machine already".to_owned())
    } else if let Some(kept) = kept_on_machine(&target.spec, &target.volumes) {
        Some(format!("its data in `{kept}` is on the machine"))
    } else if cluster.machines.len() < 3 {
        Some(
            "more than half of the machines must see that one is down, so it takes three"
                .to_owned(),
        )
    } else {
        None
    };
    if let Some(why) = why {
        warnings.push(format!(
            "{}: `x-reschedule` has no effect: {why}",
            target.key
        ));
    }
}

/// Warns about data that the new replicas of a service do not find, because it is on a machine that
/// the service had before.
pub(super) fn warn_about_data(
    target: &Target,
    placement: &Placement<'_>,
    cluster: &Cluster<'_>,
    warnings: &mut Vec<String>,
) {
    if target.global() {
        return;
    }
    let before: BTreeSet<usize> = cluster
        .replicas_of(&target.key)
        .into_iter()
        .map(|(machine, _)| machine)
        .collect();
    let entered: BTreeSet<usize> = placement
        .steps
        .iter()
        .filter(|draft| draft.action != ReplicaAction::Remove)
        .map(|draft| draft.machine)
        .filter(|machine| !before.contains(machine))
        .collect();
    let names = |machines: &BTreeSet<usize>| {
        let machines: Vec<usize> = machines.iter().copied().collect();
        and(&cluster.names(&machines))
    };
    let folders = target
        .spec
        .mounts
        .iter()
        .filter(|mount| is_data_folder(mount));
    let folders: BTreeSet<String> = folders.map(|mount| format!("`{}`", mount.source)).collect();
    if !before.is_empty() && !entered.is_empty() && !folders.is_empty() {
        let folders: Vec<String> = folders.into_iter().collect();
        warnings.push(format!(
            "{}: {} on {} is not that of {}; its content is not copied",
            target.key,
            and(&folders),
            names(&entered),
            names(&before)
        ));
    }
    for draft in &placement.steps {
        let Some((machine, old)) = draft.old else {
            continue;
        };
        if draft.action != ReplicaAction::Replace || machine == draft.machine {
            continue;
        }
        for mount in handed_on(&old.mounts, &target.spec) {
            warnings.push(format!(
                "{}: the data in `{}` stays on {}, in an anonymous volume that is removed with the old replica",
                target.key,
                mount.target,
                cluster.name(machine)
            ));
        }
    }
}
