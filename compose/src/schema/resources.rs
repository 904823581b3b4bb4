//! Keys of top-level networks, volumes, secrets, configs and models.

use super::Shape::{
    Any, Bool, Int, Items, List, Named, Object, Options, OrObject, Pairs, Path, Text,
};
use super::Unset::Empty;
use super::{Key, Reason, Scalar, Shape, Short, because, honoured, no_effect, noted, reported};

/// `external: true`, or the obsolete mapping with a name.
const EXTERNAL: Shape = OrObject(
    Scalar::Flag,
    &[honoured("name", Text, "name outside the project")],
);

/// Keys of a named volume.
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
        "not created here: it must exist already",
        "on the machine that will run the service",
    ),
    honoured("labels", Pairs(Empty), "metadata"),
];

/// Keys of a network.
pub(crate) const NETWORK: &[Key] = &[
    no_effect("name", Text, "name outside the project", ONE),
    noted(
        "driver",
        Text,
        "`bridge`, `overlay`, …",
        "any driver but these two is reported",
    ),
    reported("driver_opts", Options, "options of the driver", NO_OPTIONS),
    noted(
        "ipam",
        Object(IPAM),
        "subnets, ranges, gateways",
        "key by key, see below",
    ),
    no_effect(
        "external",
        EXTERNAL,
        "not created here: it must exist already",
        ONE,
    ),
    noted(
        "internal",
        Bool,
        "no access to the outside",
        "reported when it is `true`, because services can reach the internet",
    ),
    no_effect(
        "enable_ipv4",
        Bool,
        "IPv4 on or off",
        "the cluster's network always has IPv4",
    ),
    reported(
        "enable_ipv6",
        Bool,
        "IPv6 on or off",
        because(
            "the cluster's network has IPv4 only",
            "remove it; services reach each other by name over IPv4",
        ),
    ),
    no_effect(
        "attachable",
        Bool,
        "containers outside the project can join",
        "ignored by Docker Compose too",
    ),
    no_effect("labels", Pairs(Empty), "metadata", ONE),
];

const ONE: &str = "every service joins the cluster's one network";
const SUBNETS: Reason = because(
    "each machine has a subnet of the cluster's network",
    "remove it; `uc machine init --network` sets the cluster's network",
);
/// Why `driver_opts` of a network is not honoured, at the top level and in a service.
pub(super) const NO_OPTIONS: Reason = because(
    "the cluster's network has no options",
    "remove it; every service joins the cluster's network",
);

const IPAM: &[Key] = &[
    no_effect(
        "driver",
        Text,
        "driver that assigns addresses",
        "each machine assigns addresses of its own subnet",
    ),
    reported("config", Items(Short::Subnet, SUBNET), "subnets", SUBNETS),
    reported("options", Options, "options of the driver", SUBNETS),
];

const SUBNET: &[Key] = &[
    honoured("subnet", Text, "the subnet"),
    honoured("ip_range", Text, "the part of it to assign addresses from"),
    honoured("gateway", Text, "its gateway"),
    honoured(
        "aux_addresses",
        Options,
        "addresses that are in use already",
    ),
];

const TEMPLATES: Reason = because(
    "the content is passed on unchanged",
    "write the final content, or use variables (`${NAME}`) in `content`",
);
const NO_NAME: &str = "the content travels with the service and has no name of its own";

/// Keys of a secret.
pub(crate) const SECRET: &[Key] = &[
    honoured("file", Path, "content from a file"),
    honoured("environment", Text, "content from a variable"),
    noted(
        "external",
        EXTERNAL,
        "not defined in the file",
        "refused where a service uses it, because the cluster stores no secrets",
    ),
    no_effect("name", Text, "name outside the project", NO_NAME),
    no_effect("labels", Pairs(Empty), "metadata", NO_NAME),
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
        "only `command`, for `exec`",
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
        "runs on the computer that runs `uc deploy`",
    ),
];

/// Keys of a config.
pub(crate) const CONFIG: &[Key] = &[
    honoured(
        "content",
        Text,
        "the content itself, with variables replaced",
    ),
    honoured("file", Path, "content from a file"),
    honoured("environment", Text, "content from a variable"),
    noted(
        "external",
        EXTERNAL,
        "not defined in the file",
        "refused where a service uses it, because the cluster stores no configs",
    ),
    no_effect("name", Text, "name outside the project", NO_NAME),
    no_effect("labels", Pairs(Empty), "metadata", NO_NAME),
    reported(
        "template_driver",
        Text,
        "templating of the content",
        TEMPLATES,
    ),
];

/// Keys of a model.
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

/// Keys of an included file.
pub(crate) const INCLUDE: &[Key] = &[
    honoured("path", Shape::TextOrList, "the files"),
    honoured("env_file", Shape::TextOrList, "variables for reading them"),
    honoured(
        "project_directory",
        Text,
        "directory that their relative paths start from",
    ),
];

/// A mapping of names that the author chooses.
pub(crate) const fn named(keys: &'static Shape) -> Shape {
    Named(keys)
}
