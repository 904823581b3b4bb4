//! Refuses keys that an older engine does not support. It would ignore them and run something else.

use uc_api::v1;

use super::SpecError;
use super::resources::is_cdi;
use crate::engine::ApiVersion;

/// From this version on, the engine passes annotations to the runtime.
const ANNOTATIONS: ApiVersion = ApiVersion::new(1, 43);
/// From this version on, the engine takes a MAC address with the network. Earlier versions took it
/// in a field that the API no longer has.
const MAC_ADDRESS: ApiVersion = ApiVersion::new(1, 44);
/// From this version on, the engine accepts devices by CDI name.
const CDI: ApiVersion = ApiVersion::new(1, 44);
/// From this version on, the engine lets a mount choose how far down it is read-only.
const RECURSIVE: ApiVersion = ApiVersion::new(1, 44);
/// From this version on, a part of a volume can be mounted.
const VOLUME_SUBPATH: ApiVersion = ApiVersion::new(1, 45);
/// From this version on, an image can be mounted.
const IMAGE: ApiVersion = ApiVersion::new(1, 48);

/// Refuses keys that the machine's engine does not support. Called before anything is pulled.
pub(crate) fn check_engine(spec: &v1::ServiceSpec, api: ApiVersion) -> Result<(), SpecError> {
    let depth =
        |mount: &v1::MountSpec| ["writable", "readonly"].contains(&mount.recursive.as_str());
    let mounts = |is: &dyn Fn(&v1::MountSpec) -> bool| spec.mounts.iter().any(is);
    let of = |kind: v1::MountKind| move |mount: &v1::MountSpec| mount.kind() == kind;
    let (bind, volume, image) = (
        of(v1::MountKind::Bind),
        of(v1::MountKind::Volume),
        of(v1::MountKind::Image),
    );
    for (asked, key, since, needs) in [
        (
            !spec.annotations.is_empty(),
            "annotations",
            ANNOTATIONS,
            "24",
        ),
        (
            !spec.mac_address.is_empty(),
            "mac_address",
            MAC_ADDRESS,
            "25",
        ),
        (
            spec.devices.iter().any(|device| is_cdi(&device.source)),
            "devices",
            CDI,
            "25",
        ),
        (
            mounts(&|mount| bind(mount) && depth(mount)),
            "bind.recursive",
            RECURSIVE,
            "25",
        ),
        (
            mounts(&|mount| volume(mount) && !mount.subpath.is_empty()),
            "volume.subpath",
            VOLUME_SUBPATH,
            "26",
        ),
        (mounts(&image), "a mount of an image", IMAGE, "28"),
    ] {
        if asked && api < since {
            return Err(SpecError::TooOld {
                service: spec.name.clone(),
                key,
                needs,
            });
        }
    }
    Ok(())
}
