//! Keys of top-level networks, volumes, secrets, configs and models.

use super::Shape::{
    Any, Bool, Int, Items, List, Named, Object, Options, OrObject, Pairs, Path, Text,
};
use super::Unset::Empty;
use super::{Key, Scalar, Shape, Short, honoured, noted, reported};

/// `external: true`, or its obsolete form with a name.
const EXTERNAL: Shape = OrObject(
    Scalar::Flag,
    &[honoured("name", Text, "name outside the project")],
);

/// A named volume.
pub(crate) const VOLUME: &[Key] = &[
    honoured(
        "name",
        Text,
        "name on the machine; absent: `<project>_<key>`",
    ),
    honoured("driver", Text, "volume driver"),
    honoured(
        "driver_opts",
        Options,
        "options of the driver, such as an NFS mount",
    ),
    noted(
        "external",
        EXTERNAL,
        "made by others: must exist",
        "on the machine that is to run the service",
    ),
    honoured("labels", Pairs(Empty), "metadata"),
];

/// A network.
pub(crate) const NETWORK: &[Key] = &[
    noted("name", Text, "name outside the project", ONE),
    noted(
        "driver",
        Text,
        "`bridge`, `overlay`, …",
        "others than these two are reported",
    ),
    reported(
        "driver_opts",
        Options,
        "options of the driver",
        "the cluster's network has no options of its own",
    ),
    noted(
        "ipam",
        Object(IPAM),
        "subnets, ranges, gateways",
        "key by key, see below",
    ),
    noted("external", EXTERNAL, "made by others: must exist", ONE),
    noted(
        "internal",
        Bool,
        "no way out",
        "reported when it is `true`: services reach the internet",
    ),
    noted(
        "enable_ipv4",
        Bool,
        "IPv4 on or off",
        "without effect: the cluster's network has IPv4",
    ),
    reported(
        "enable_ipv6",
        Bool,
        "IPv6 on or off",
        "the cluster's network has IPv4 only",
    ),
    noted(
        "attachable",
        Bool,
        "containers outside the project may join",
        "without effect, as in Docker Compose",
    ),
    noted("labels", Pairs(Empty), "metadata", ONE),
];

const ONE: &str = "without effect: every service joins the cluster's one network";
const SUBNETS: &str = "each machine has a subnet of the cluster's network";

const IPAM: &[Key] = &[
    noted(
        "driver",
        Text,
        "who gives out addresses",
        "without effect: each machine gives its own",
    ),
    reported("config", Items(Short::Subnet, SUBNET), "subnets", SUBNETS),
    reported("options", Options, "options of the driver", SUBNETS),
];

const SUBNET: &[Key] = &[
    honoured("subnet", Text, "the subnet"),
    honoured("ip_range", Text, "the part of it that is given out"),
    honoured("gateway", Text, "its gateway"),
    honoured("aux_addresses", Options, "addresses that are taken"),
];

const TEMPLATES: &str = "the content is passed on as it is";

/// A secret.
pub(crate) const SECRET: &[Key] = &[
    honoured("file", Path, "content from a file"),
    honoured("environment", Text, "content from a variable"),
    noted(
        "external",
        EXTERNAL,
        "made by others",
        "refused where a service uses it: the cluster keeps none of its own",
    ),
    honoured("name", Text, "name outside the project"),
    honoured("labels", Pairs(Empty), "metadata"),
    noted(
        "driver",
        Text,
        "secret driver",
        "`exec` (Uncloud) runs `driver_opts.command`; others are refused",
    ),
    noted(
        "driver_opts",
        Options,
        "options of the driver",
        "`command`, for `exec`",
    ),
    reported(
        "template_driver",
        Text,
        "templating of the content",
        TEMPLATES,
    ),
    noted(
        "x-command",
        Any,
        "Uncloud: command whose output is the secret",
        "run where `uc deploy` runs",
    ),
];

/// A config.
pub(crate) const CONFIG: &[Key] = &[
    honoured("content", Text, "content written here, interpolated"),
    honoured("file", Path, "content from a file"),
    honoured("environment", Text, "content from a variable"),
    noted(
        "external",
        EXTERNAL,
        "made by others",
        "refused where a service uses it: the cluster keeps none of its own",
    ),
    honoured("name", Text, "name outside the project"),
    honoured("labels", Pairs(Empty), "metadata"),
    reported(
        "template_driver",
        Text,
        "templating of the content",
        TEMPLATES,
    ),
];

/// A model.
pub(crate) const MODEL: &[Key] = &[
    honoured("model", Text, "the model's OCI artifact"),
    honoured("name", Text, "name outside the project"),
    honoured("context_size", Int, "size of the context window"),
    honoured(
        "runtime_flags",
        List(&Text),
        "flags of the inference engine",
    ),
];

/// An included file.
pub(crate) const INCLUDE: &[Key] = &[
    honoured("path", Shape::TextOrList, "the files"),
    honoured("env_file", Shape::TextOrList, "variables for reading them"),
    honoured(
        "project_directory",
        Text,
        "directory their paths start from",
    ),
];

/// Any of these, by the author's name.
pub(crate) const fn named(keys: &'static Shape) -> Shape {
    Named(keys)
}
