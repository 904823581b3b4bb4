//! Anonymous volumes: those that the engine creates for a container, because its image or its spec
//! asks for a volume without a name.

use crate::v1::{MountKind, MountSpec, ServiceSpec};

/// The engine names an anonymous volume by 64 hexadecimal digits.
#[must_use]
pub fn is_anonymous(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Of the mounts of a replica, the anonymous volumes that its successor on the same machine gets.
/// A volume is left out if the successor mounts something else at its place.
pub fn handed_on<'a>(
    old: &'a [MountSpec],
    successor: &'a ServiceSpec,
) -> impl Iterator<Item = &'a MountSpec> {
    old.iter().filter(|mount| {
        mount.kind() == MountKind::Volume
            && is_anonymous(&mount.source)
            && !mounts_something_else(successor, &mount.target)
    })
}

/// Reports whether a spec mounts something at this place that is not an anonymous volume.
#[must_use]
pub fn mounts_something_else(spec: &ServiceSpec, target: &str) -> bool {
    let is_unnamed =
        |mount: &MountSpec| mount.kind() == MountKind::Volume && mount.source.is_empty();
    let mounts = spec.mounts.iter().filter(|mount| !is_unnamed(mount));
    let mut targets = mounts
        .map(|mount| &mount.target)
        .chain(spec.files.iter().map(|file| &file.target));
    targets.any(|other| is_same_path(other, target))
}

/// Compares two absolute paths in a container.
#[must_use]
pub fn is_same_path(a: &str, b: &str) -> bool {
    let parts = |path: &'_ str| -> Vec<String> {
        let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
        parts.map(str::to_owned).collect()
    };
    parts(a) == parts(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::FileSpec;

    const NAME: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn mount(kind: MountKind, source: &str, target: &str) -> MountSpec {
        MountSpec {
            kind: kind.into(),
            source: source.into(),
            target: target.into(),
            ..Default::default()
        }
    }

    #[test]
    fn handed_on_leaves_out_what_the_successor_mounts_itself() {
        let old = [mount(MountKind::Volume, NAME, "/data")];
        let with = |mounts: Vec<MountSpec>| ServiceSpec {
            mounts,
            ..Default::default()
        };
        let file = FileSpec {
            target: "/data".into(),
            ..Default::default()
        };
        for (what, successor, expected) in [
            ("a volume of the image", with(vec![]), 1),
            (
                "an unnamed volume",
                with(vec![mount(MountKind::Volume, "", "/data/")]),
                1,
            ),
            (
                "another place",
                with(vec![mount(MountKind::Volume, "shop_data", "/data/sub")]),
                1,
            ),
            (
                "a named volume",
                with(vec![mount(MountKind::Volume, "shop_data", "/data/")]),
                0,
            ),
            (
                "a path of the machine",
                with(vec![mount(MountKind::Bind, "/srv", "//data")]),
                0,
            ),
            (
                "memory",
                with(vec![mount(MountKind::Tmpfs, "", "/data")]),
                0,
            ),
            (
                "a content",
                ServiceSpec {
                    files: vec![file],
                    ..Default::default()
                },
                0,
            ),
        ] {
            assert_eq!(handed_on(&old, &successor).count(), expected, "{what}");
        }
        let named = [
            mount(MountKind::Volume, "shop_data", "/data"),
            mount(MountKind::Bind, NAME, "/data"),
        ];
        assert_eq!(handed_on(&named, &with(vec![])).count(), 0);
    }
}
