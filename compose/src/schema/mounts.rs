//! Keys of ports, mounts and grants in their long form.

use super::Shape::{Bool, Int, NumberOrText, Object, OneOf, Pairs, Size, Text};
use super::Unset::Empty;
use super::{Key, honoured, noted, reported};

/// A published port.
pub(crate) const PORT: &[Key] = &[
    noted("name", Text, "a name for people", "without effect, as in Docker Compose"),
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
        "of a range for one container port, the first is used (reported)",
    ),
    noted("protocol", Text, "`tcp` or `udp`", "`sctp` is not published (reported)"),
    noted("app_protocol", Text, "what is spoken, such as `http`", "without effect, as in Docker Compose"),
];

/// A mount.
pub(crate) const VOLUME: &[Key] = &[
    noted(
        "type",
        OneOf(&["volume", "bind", "tmpfs", "image", "npipe", "cluster"]),
        "kind of mount",
        "`image`, `npipe` and `cluster` are refused",
    ),
    honoured("source", Text, "volume's name or host path"),
    honoured("target", Text, "path in the container"),
    honoured("read_only", Bool, "no writing"),
    noted("consistency", Text, "for Docker Desktop", "without effect, as in Docker on Linux"),
    honoured("bind", Object(BIND), "options of a host path"),
    honoured("volume", Object(NAMED), "options of a volume"),
    honoured("tmpfs", Object(TMPFS), "options of a tmpfs"),
    honoured("image", Object(IMAGE), "options of an image mount"),
];

const BIND: &[Key] = &[
    reported("propagation", Text, "of mounts below it", "mount propagation is not set yet"),
    noted(
        "create_host_path",
        Bool,
        "create what is missing",
        "what is missing is created, as in Docker Compose",
    ),
    reported(
        "recursive",
        OneOf(&["enabled", "disabled", "writable", "readonly"]),
        "mounts below it come along",
        "it is mounted as the engine does by default",
    ),
    reported("selinux", OneOf(&["z", "Z"]), "relabel for SELinux", "files are not relabelled yet"),
];

const NAMED: &[Key] = &[
    reported("labels", Pairs(Empty), "of an anonymous volume", "anonymous volumes get no labels"),
    reported("nocopy", Bool, "do not fill it from the image", "a new volume is filled from the image"),
    reported("subpath", Text, "only this part of it", "the whole volume is mounted"),
];

const TMPFS: &[Key] = &[
    reported("size", Size, "most bytes", "the size is not limited yet"),
    reported("mode", Int, "permissions", "permissions are the engine's default"),
];

const IMAGE: &[Key] = &[honoured("subpath", Text, "only this part of it")];

/// A config or secret for a service.
pub(crate) const GRANT: &[Key] = &[
    honoured("source", Text, "its name at the top level"),
    honoured("target", Text, "path in the container"),
    honoured("uid", Text, "owner"),
    honoured("gid", Text, "group"),
    honoured("mode", Int, "permissions"),
];
