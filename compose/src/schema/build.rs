//! Keys of `build`.

use super::Scalar;
use super::Shape::{
    Bool, Context, Contexts, Hosts, Items, List, Named, NumberOrText, OrObject, Pairs, Set, Size, Text,
    TextOrList,
};
use super::Short;
use super::Unset::{Empty, FromProcess};
use super::mounts::GRANT;
use super::{Key, honoured, reported};

const PLAIN: &str =
    "images are built by the local engine with context, Dockerfile, arguments and target only";
const OUTSIDE: &str = "builds use the local engine's own cache";

/// `build`.
pub(crate) const BUILD: &[Key] = &[
    honoured("context", Context, "directory with what is built"),
    honoured("dockerfile", Text, "its Dockerfile, from the context (`Dockerfile`)"),
    honoured("dockerfile_inline", Text, "the Dockerfile's text itself; excludes `dockerfile`"),
    honoured("args", Pairs(FromProcess), "build arguments"),
    honoured("target", Text, "stage to build"),
    reported(
        "additional_contexts",
        Contexts,
        "further named contexts: directory, image, URL, `service:x`",
        PLAIN,
    ),
    reported("cache_from", List(&Text), "where to read the build cache", OUTSIDE),
    reported("cache_to", List(&Text), "where to write the build cache", OUTSIDE),
    reported("no_cache", Bool, "build everything anew", OUTSIDE),
    reported("no_cache_filter", TextOrList, "stages to build anew", OUTSIDE),
    reported("pull", Bool, "look for newer base images", PLAIN),
    reported("labels", Pairs(Empty), "labels on the image", PLAIN),
    reported("tags", Set(&Text), "further names of the image", PLAIN),
    reported("platforms", List(&Text), "platforms to build for", PLAIN),
    reported("network", Text, "network of `RUN` steps", PLAIN),
    reported("extra_hosts", Hosts, "`/etc/hosts` lines for the build", PLAIN),
    reported("shm_size", Size, "size of `/dev/shm` in the build", PLAIN),
    reported("ulimits", Named(&OrObject(Scalar::Number, ULIMIT)), "limits in the build", PLAIN),
    reported("secrets", Items(Short::Secret, GRANT), "secrets for the build", PLAIN),
    reported("ssh", Pairs(Empty), "SSH agent or keys for the build", PLAIN),
    reported("privileged", Bool, "build with elevated rights", PLAIN),
    reported("entitlements", List(&Text), "extra rights of the builder", PLAIN),
    reported("isolation", Text, "isolation technology (Windows)", PLAIN),
    reported("provenance", NumberOrText, "attach a provenance attestation", PLAIN),
    reported("sbom", NumberOrText, "attach a bill of materials", PLAIN),
];

const ULIMIT: &[Key] =
    &[honoured("soft", NumberOrText, "soft limit"), honoured("hard", NumberOrText, "hard limit")];
