//! Keys of ports, mounts and grants in their long form.

use super::Shape::{Bool, Int, Mode, NumberOrText, Object, OneOf, Pairs, Size, Text};
use super::Unset::Empty;
use super::{Key, honoured, noted};

/// A published port.
pub(crate) const PORT: &[Key] = &[
    noted(
        "name",
        Text,
        "a name for people",
        "without effect, as in Docker Compose",
    ),
    noted(
        "mode",
        OneOf(&["ingress", "host"]),
        "Swarm's way of publishing",
        "both publish on every machine that runs a replica",
    ),
    honoured("host_ip", Text, "address of the machine; absent: all"),
    honoured("target", Int, "the container's port"),
    noted(
        "published",
        NumberOrText,
        "the machine's port; absent: a free one",
        "of a range for one container port, the machine takes a free one",
    ),
    honoured("protocol", Text, "`tcp`, `udp` or `sctp`"),
    noted(
        "app_protocol",
        Text,
        "what is spoken, such as `http`",
        "without effect, as in Docker Compose",
    ),
];

/// A mount.
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
        "an absolute path is the machine's own; a relative one travels with the deployment",
    ),
    honoured("target", Text, "path in the container"),
    honoured("read_only", Bool, "no writing"),
    noted(
        "consistency",
        Text,
        "for Docker Desktop",
        "without effect, as in Docker on Linux",
    ),
    honoured("bind", Object(BIND), "options of a host path"),
    honoured("volume", Object(NAMED), "options of a volume"),
    honoured("tmpfs", Object(TMPFS), "options of a tmpfs"),
    honoured("image", Object(IMAGE), "options of an image mount"),
];

const BIND: &[Key] = &[
    honoured("propagation", Text, "of mounts below it"),
    noted(
        "create_host_path",
        Bool,
        "create what is missing",
        "on the machine; `false`: what is missing is an error",
    ),
    honoured(
        "recursive",
        OneOf(&["enabled", "disabled", "writable", "readonly"]),
        "mounts below it come along",
    ),
    honoured("selinux", OneOf(&["z", "Z"]), "relabel for SELinux"),
];

const NAMED: &[Key] = &[
    honoured("labels", Pairs(Empty), "of an anonymous volume"),
    honoured("nocopy", Bool, "do not fill it from the image"),
    honoured("subpath", Text, "only this part of it"),
];

const TMPFS: &[Key] = &[
    honoured("size", Size, "most bytes"),
    honoured("mode", Mode, "permissions"),
];

const IMAGE: &[Key] = &[honoured("subpath", Text, "only this part of it")];

/// A config or secret for a service.
pub(crate) const GRANT: &[Key] = &[
    honoured("source", Text, "its name at the top level"),
    honoured(
        "target",
        Text,
        "path in the container; `/run/secrets/NAME` or `/NAME`",
    ),
    honoured("uid", Text, "owner"),
    honoured("gid", Text, "group"),
    honoured("mode", Mode, "permissions"),
];
