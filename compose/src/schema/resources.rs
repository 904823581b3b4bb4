//! Keys of top-level networks, volumes, secrets, configs and models.

use super::Scalar;
use super::Shape::{Any, Bool, Int, Items, Named, Object, Options, OrObject, Pairs, Path, Set, Text};
use super::Short;
use super::Unset::Empty;
use super::{Key, Shape, honoured, noted};

/// `external: true`, or its obsolete form with a name.
const EXTERNAL: Shape = OrObject(Scalar::Flag, &[honoured("name", Text, "name outside the project")]);

/// A named volume.
pub(crate) const VOLUME: &[Key] = &[
    honoured("name", Text, "name on the machine; absent: `<project>_<key>`"),
    honoured("driver", Text, "volume driver"),
    honoured("driver_opts", Options, "options of the driver, such as an NFS mount"),
    noted("external", EXTERNAL, "made by others: must exist", "on the machine that is to run the service"),
    honoured("labels", Pairs(Empty), "metadata"),
];

/// A network.
pub(crate) const NETWORK: &[Key] = &[
    honoured("name", Text, "name outside the project"),
    honoured("driver", Text, "`bridge`, `overlay`, …"),
    honoured("driver_opts", Options, "options of the driver"),
    honoured("ipam", Object(IPAM), "subnets, ranges, gateways"),
    honoured("external", EXTERNAL, "made by others: must exist"),
    honoured("internal", Bool, "no way out"),
    honoured("enable_ipv4", Bool, "IPv4 on or off"),
    honoured("enable_ipv6", Bool, "IPv6 on or off"),
    honoured("attachable", Bool, "containers outside the project may join"),
    honoured("labels", Pairs(Empty), "metadata"),
];

const IPAM: &[Key] = &[
    honoured("driver", Text, "who gives out addresses"),
    honoured("config", Items(Short::None, SUBNET), "subnets"),
    honoured("options", Options, "options of the driver"),
];

const SUBNET: &[Key] = &[
    honoured("subnet", Text, "the subnet"),
    honoured("ip_range", Text, "the part of it that is given out"),
    honoured("gateway", Text, "its gateway"),
    honoured("aux_addresses", Options, "addresses that are taken"),
];

/// A secret.
pub(crate) const SECRET: &[Key] = &[
    honoured("file", Path, "content from a file"),
    honoured("environment", Text, "content from a variable"),
    honoured("external", EXTERNAL, "made by others"),
    honoured("name", Text, "name outside the project"),
    honoured("labels", Pairs(Empty), "metadata"),
    honoured("driver", Text, "secret driver"),
    honoured("driver_opts", Options, "options of the driver"),
    honoured("template_driver", Text, "templating of the content"),
    honoured("x-command", Any, "Uncloud: command whose output is the secret"),
];

/// A config.
pub(crate) const CONFIG: &[Key] = &[
    honoured("content", Text, "content written here, interpolated"),
    honoured("file", Path, "content from a file"),
    honoured("environment", Text, "content from a variable"),
    honoured("external", EXTERNAL, "made by others"),
    honoured("name", Text, "name outside the project"),
    honoured("labels", Pairs(Empty), "metadata"),
    honoured("template_driver", Text, "templating of the content"),
];

/// A model.
pub(crate) const MODEL: &[Key] = &[
    honoured("model", Text, "the model's OCI artifact"),
    honoured("name", Text, "name outside the project"),
    honoured("context_size", Int, "size of the context window"),
    honoured("runtime_flags", Set(&Text), "flags of the inference engine"),
];

/// An included file.
pub(crate) const INCLUDE: &[Key] = &[
    honoured("path", Shape::TextOrList, "the files"),
    honoured("env_file", Shape::TextOrList, "variables for reading them"),
    honoured("project_directory", Text, "directory their paths start from"),
];

/// Any of these, by the author's name.
pub(crate) const fn named(keys: &'static Shape) -> Shape {
    Named(keys)
}
