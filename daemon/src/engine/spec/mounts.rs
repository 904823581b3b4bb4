//! The mounts of a container.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use bollard::models::{
    HostConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum as Propagation,
    MountImageOptions, MountType, MountVolumeOptions,
};
use uc_api::v1;
use uc_api::volumes::is_same_path;

use super::super::AnonymousVolume;
use super::{Placement, SpecError, map, some_if, text};

/// Fills in mounts of all types, and the contents that came with the deployment.
pub(super) fn fill(
    spec: &v1::ServiceSpec,
    placement: &Placement<'_>,
    host: &mut HostConfig,
) -> Result<(), SpecError> {
    let mut binds = Vec::new();
    let mut mounts = Vec::new();
    let mut tmpfs = HashMap::new();
    for mount in &spec.mounts {
        match mount.kind() {
            v1::MountKind::Tmpfs => {
                tmpfs.insert(mount.target.clone(), tmpfs_options(mount));
            }
            v1::MountKind::Bind if is_short(mount) => binds.push(short(mount)),
            v1::MountKind::Bind => mounts.push(bind(mount)),
            v1::MountKind::Image => mounts.push(image(mount)),
            v1::MountKind::Volume | v1::MountKind::Unspecified => {
                mounts.push(volume(mount, placement.handed_on));
            }
        }
    }
    // The others have been mounted at the place of an unnamed volume of the spec.
    let of_image = placement.handed_on.iter().filter(|volume| {
        let mut targets = spec.mounts.iter().map(|mount| &mount.target);
        !targets.any(|target| is_same_path(target, &volume.target))
    });
    mounts.extend(of_image.map(handed_on_mount));
    mounts.extend(files(spec, placement.files)?);
    host.binds = some_if(!binds.is_empty(), || binds);
    host.mounts = some_if(!mounts.is_empty(), || mounts);
    host.tmpfs = some_if(!tmpfs.is_empty(), || tmpfs);
    Ok(())
}

fn handed_on_mount(volume: &AnonymousVolume) -> Mount {
    Mount {
        target: Some(volume.target.clone()),
        source: Some(volume.name.clone()),
        typ: Some(MountType::VOLUME),
        ..Default::default()
    }
}

/// Reports whether a bind mount can use the engine's short notation. On every supported engine only
/// that one creates a missing source folder, as Compose does, and supports SELinux labels.
fn is_short(mount: &v1::MountSpec) -> bool {
    let created = mount.create_host_path.unwrap_or(true);
    let plain =
        mount.recursive.is_empty() && !mount.source.contains(':') && !mount.target.contains(':');
    plain && (created || !mount.selinux.is_empty())
}

fn short(mount: &v1::MountSpec) -> String {
    let read_only = if mount.read_only { "ro" } else { "" };
    let options: Vec<&str> = [read_only, &mount.selinux, &mount.propagation]
        .into_iter()
        .filter(|option| !option.is_empty())
        .collect();
    let colon = if options.is_empty() { "" } else { ":" };
    format!(
        "{}:{}{colon}{}",
        mount.source,
        mount.target,
        options.join(",")
    )
}

fn plain(mount: &v1::MountSpec, typ: MountType) -> Mount {
    Mount {
        target: Some(mount.target.clone()),
        source: text(&mount.source),
        typ: Some(typ),
        read_only: some_if(mount.read_only, || true),
        ..Default::default()
    }
}

fn bind(mount: &v1::MountSpec) -> Mount {
    let recursive = mount.recursive.as_str();
    let propagation = match mount.propagation.as_str() {
        "private" => Some(Propagation::PRIVATE),
        "rprivate" => Some(Propagation::RPRIVATE),
        "shared" => Some(Propagation::SHARED),
        "rshared" => Some(Propagation::RSHARED),
        "slave" => Some(Propagation::SLAVE),
        "rslave" => Some(Propagation::RSLAVE),
        // The engine requires this value to be explicit.
        _ if recursive == "readonly" => Some(Propagation::RPRIVATE),
        _ => None,
    };
    Mount {
        bind_options: Some(MountBindOptions {
            propagation,
            create_mountpoint: some_if(mount.create_host_path.unwrap_or(true), || true),
            non_recursive: some_if(recursive == "disabled", || true),
            read_only_non_recursive: some_if(recursive == "writable", || true),
            read_only_force_recursive: some_if(recursive == "readonly", || true),
        }),
        ..plain(mount, MountType::BIND)
    }
}

fn volume(mount: &v1::MountSpec, handed_on: &[AnonymousVolume]) -> Mount {
    let options = MountVolumeOptions {
        no_copy: some_if(mount.nocopy, || true),
        labels: map(&mount.labels),
        subpath: text(&mount.subpath),
        driver_config: None,
    };
    let old = handed_on
        .iter()
        .find(|old| mount.source.is_empty() && is_same_path(&old.target, &mount.target))
        .map(|old| old.name.clone());
    let plain = plain(mount, MountType::VOLUME);
    Mount {
        volume_options: some_if(options != MountVolumeOptions::default(), || options),
        source: old.or(plain.source),
        ..plain
    }
}

fn image(mount: &v1::MountSpec) -> Mount {
    let options = || MountImageOptions {
        subpath: text(&mount.subpath),
    };
    Mount {
        image_options: some_if(!mount.subpath.is_empty(), options),
        ..plain(mount, MountType::IMAGE)
    }
}

fn tmpfs_options(mount: &v1::MountSpec) -> String {
    let read_only = some_if(mount.read_only, || "ro".to_owned());
    let size = mount.tmpfs_size.map(|bytes| format!("size={bytes}"));
    let mode = mount.tmpfs_mode.map(|mode| format!("mode={mode:o}"));
    let known = [read_only, size, mode].into_iter().flatten();
    known
        .chain(mount.tmpfs_options.iter().cloned())
        .collect::<Vec<_>>()
        .join(",")
}

/// Mounts contents read-only. Uses the long notation, which refuses a source that does not exist.
fn files(
    spec: &v1::ServiceSpec,
    sources: &BTreeMap<String, PathBuf>,
) -> Result<Vec<Mount>, SpecError> {
    let mount = |file: &v1::FileSpec| {
        let source = sources.get(&file.hash).ok_or_else(|| SpecError::Content {
            service: spec.name.clone(),
            name: format!("the content of {}", file.name),
        })?;
        Ok(Mount {
            target: Some(file.target.clone()),
            source: Some(source.to_string_lossy().into_owned()),
            typ: Some(MountType::BIND),
            read_only: Some(true),
            ..Default::default()
        })
    };
    spec.files.iter().map(mount).collect()
}
