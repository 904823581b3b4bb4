//! Keys of ports, mounts and grants in their long form.

use super::Shape::{Bool, Int, Mode, NumberOrText, Object, OneOf, Pairs, Size, Text};
use super::Unset::Empty;
use super::{Key, honoured, no_effect, noted};

/// Keys of a published port.
pub(crate) const PORT: &[Key] = &[
    no_effect(
        "name",
        Text,
        "a name for readers",
        "ignored by Docker Compose too",
    ),
    noted(
        "mode",
        OneOf(&["ingress", "host"]),
        "where the port is published",
        "always on the machines that run a replica, as `host` means; `ingress` is reported where it is written",
    ),
    honoured("host_ip", Text, "address of the machine (all)"),
    honoured("target", Int, "the container's port"),
    noted(
        "published",
        NumberOrText,
        "the machine's port (a free one)",
        "from a range for one container port, the machine takes a free one",
    ),
    honoured("protocol", Text, "`tcp`, `udp` or `sctp`"),
    no_effect(
        "app_protocol",
        Text,
        "application protocol, such as `http`",
        "ignored by Docker Compose too",
    ),
];

/// Keys of a mount.
pub(crate) const VOLUME: &[Key] = &[
    noted(
        "type",
        OneOf(&["volume", "bind", "tmpfs", "image", "npipe", "cluster"]),
        "kind of mount",
        "`npipe` and `cluster` are refused",
    ),
    noted(
        "source",
        Text,
        "volume's name or host path",
        "an absolute path is a path on the machine; a relative one travels with the deployment",
    ),
    honoured("target", Text, "path in the container"),
    honoured("read_only", Bool, "mount read-only"),
    no_effect(
        "consistency",
        Text,
        "cache mode of Docker Desktop",
        "ignored by Docker on Linux too",
    ),
    honoured("bind", Object(BIND), "options of a host path"),
    honoured("volume", Object(NAMED), "options of a volume"),
    honoured("tmpfs", Object(TMPFS), "options of a tmpfs"),
    honoured("image", Object(IMAGE), "options of an image mount"),
];

const BIND: &[Key] = &[
    honoured("propagation", Text, "propagation of mounts below it"),
    noted(
        "create_host_path",
        Bool,
        "create a missing source (`true`)",
        "on the machine; with `false` a missing source is an error",
    ),
    honoured(
        "recursive",
        OneOf(&["enabled", "disabled", "writable", "readonly"]),
        "whether mounts below it are mounted too",
    ),
    honoured("selinux", OneOf(&["z", "Z"]), "relabel for SELinux"),
];

const NAMED: &[Key] = &[
    honoured("labels", Pairs(Empty), "labels of an anonymous volume"),
    honoured("nocopy", Bool, "do not fill it from the image"),
    honoured("subpath", Text, "mount only this path in it"),
];

const TMPFS: &[Key] = &[
    honoured("size", Size, "size limit"),
    honoured("mode", Mode, "permissions"),
];

const IMAGE: &[Key] = &[honoured("subpath", Text, "mount only this path in it")];

/// Keys of a config or secret that a service is granted.
pub(crate) const GRANT: &[Key] = &[
    honoured("source", Text, "name at the top level"),
    honoured(
        "target",
        Text,
        "path in the container (`/run/secrets/NAME`, `/NAME` for a config)",
    ),
    honoured("uid", Text, "owner"),
    honoured("gid", Text, "group"),
    honoured("mode", Mode, "permissions"),
];
