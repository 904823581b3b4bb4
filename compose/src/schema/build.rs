//! Keys of `build`.

use super::Shape::{
    Bool, Context, Contexts, Hosts, Int, Items, Keys, List, Named, NumberOrText, OrObject, Pairs,
    Set, Size, Text, TextOrList,
};
use super::Unset::{Empty, FromProcess};
use super::mounts::GRANT;
use super::{Key, Scalar, Short, honoured, noted, reported};

const BUILDKIT: &str = "needs BuildKit (docker buildx) on this computer";

/// `build`.
pub(crate) const BUILD: &[Key] = &[
    noted(
        "context",
        Context,
        "what is built: a directory, a Git URL or an archive's URL",
        "the local docker builds; machines that miss the image are sent it",
    ),
    honoured(
        "dockerfile",
        Text,
        "its Dockerfile, from the context (`Dockerfile`)",
    ),
    honoured(
        "dockerfile_inline",
        Text,
        "the Dockerfile's text itself; excludes `dockerfile`",
    ),
    honoured("args", Pairs(FromProcess), "build arguments"),
    honoured("target", Text, "stage to build"),
    noted(
        "additional_contexts",
        Contexts,
        "further named contexts: directory, image, URL, `service:x` (which is built first)",
        BUILDKIT,
    ),
    honoured("cache_from", List(&Text), "where to read the build cache"),
    noted(
        "cache_to",
        List(&Text),
        "where to write the build cache",
        BUILDKIT,
    ),
    honoured("no_cache", Bool, "build everything anew"),
    noted(
        "no_cache_filter",
        TextOrList,
        "stages to build anew",
        BUILDKIT,
    ),
    honoured("pull", Bool, "look for newer base images"),
    honoured("labels", Pairs(Empty), "labels on the image"),
    honoured(
        "tags",
        Set(&Text),
        "further names of the image, on this computer",
    ),
    noted(
        "platforms",
        List(&Text),
        "platforms to build for",
        "a service with `platform` is built for that one; several need the containerd image store",
    ),
    honoured("network", Text, "network of `RUN` steps"),
    honoured("extra_hosts", Hosts, "`/etc/hosts` lines for the build"),
    honoured("shm_size", Size, "size of `/dev/shm` in the build"),
    honoured(
        "ulimits",
        Named(&OrObject(Scalar::Number, ULIMIT)),
        "limits in the build",
    ),
    noted(
        "secrets",
        Items(Short::Secret, GRANT),
        "secrets for the build, of a file or a variable",
        BUILDKIT,
    ),
    noted("ssh", Keys, "SSH agent or keys for the build", BUILDKIT),
    noted("privileged", Bool, "build with elevated rights", BUILDKIT),
    noted(
        "entitlements",
        List(&Text),
        "extra rights of the builder",
        BUILDKIT,
    ),
    reported(
        "isolation",
        Text,
        "isolation technology",
        "it chooses between kinds of Windows containers; machines run Linux",
    ),
    noted(
        "provenance",
        NumberOrText,
        "attach a provenance attestation",
        BUILDKIT,
    ),
    noted("sbom", NumberOrText, "attach a bill of materials", BUILDKIT),
];

const ULIMIT: &[Key] = &[
    honoured("soft", Int, "soft limit"),
    honoured("hard", Int, "hard limit"),
];
