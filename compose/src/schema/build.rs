//! Keys of `build`.

use super::Shape::{
    Bool, Context, Contexts, Hosts, Int, Items, Keys, List, Named, NumberOrText, OrObject, Pairs,
    Set, Size, Text, TextOrList,
};
use super::Unset::{Empty, FromProcess};
use super::mounts::GRANT;
use super::{Key, Scalar, Short, because, honoured, noted, reported};

const BUILDKIT: &str = "needs BuildKit (docker buildx) on this computer";

/// Keys of `build`.
pub(crate) const BUILD: &[Key] = &[
    noted(
        "context",
        Context,
        "what to build: a directory, a Git URL or the URL of an archive",
        "the local Docker builds it; `uc` sends the image to machines that do not have it",
    ),
    honoured(
        "dockerfile",
        Text,
        "path of the Dockerfile in the context (`Dockerfile`)",
    ),
    honoured(
        "dockerfile_inline",
        Text,
        "text of the Dockerfile; excludes `dockerfile`",
    ),
    honoured("args", Pairs(FromProcess), "build arguments"),
    honoured("target", Text, "stage to build"),
    noted(
        "additional_contexts",
        Contexts,
        "more contexts by name: directory, image, URL, `service:x` (which is built first)",
        BUILDKIT,
    ),
    honoured("cache_from", List(&Text), "where to read the build cache"),
    noted(
        "cache_to",
        List(&Text),
        "where to write the build cache",
        BUILDKIT,
    ),
    honoured("no_cache", Bool, "do not use the build cache"),
    noted(
        "no_cache_filter",
        TextOrList,
        "stages to build without the cache",
        BUILDKIT,
    ),
    honoured("pull", Bool, "pull newer base images"),
    honoured("labels", Pairs(Empty), "labels on the image"),
    honoured(
        "tags",
        Set(&Text),
        "more names of the image, on this computer",
    ),
    noted(
        "platforms",
        List(&Text),
        "platforms to build for",
        "a service with `platform` is built for that platform only; several platforms need the containerd image store",
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
        "secrets for the build, from a file or a variable",
        BUILDKIT,
    ),
    noted("ssh", Keys, "SSH agent or keys for the build", BUILDKIT),
    noted("privileged", Bool, "build with all privileges", BUILDKIT),
    noted(
        "entitlements",
        List(&Text),
        "extra privileges of the build",
        BUILDKIT,
    ),
    reported(
        "isolation",
        Text,
        "isolation technology",
        because(
            "it selects a kind of Windows container, and machines run Linux",
            "remove it",
        ),
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
