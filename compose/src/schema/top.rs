//! Keys at the top level of a file.

use super::Shape::{Items, Object, Text};
use super::resources::{CONFIG, INCLUDE, MODEL, NETWORK, SECRET, VOLUME, named};
use super::service::SERVICE;
use super::{Key, Short, honoured, noted, reported};

/// Everything a compose file may say.
pub(crate) const TOP: &[Key] = &[
    noted(
        "version",
        Text,
        "obsolete",
        "without effect, as in Docker Compose",
    ),
    honoured("name", Text, "project name, unless given outside"),
    honoured(
        "include",
        Items(Short::Include, INCLUDE),
        "other compose files, each with its own directory and variables",
    ),
    honoured("services", named(&Object(SERVICE)), "the services"),
    reported(
        "models",
        named(&Object(MODEL)),
        "AI models for services",
        "there is no model runner on the machines",
    ),
    noted(
        "networks",
        named(&Object(NETWORK)),
        "networks that services join",
        "every service joins the cluster's one network; where a file keeps services apart, that is reported",
    ),
    honoured("volumes", named(&Object(VOLUME)), "named volumes"),
    noted(
        "secrets",
        named(&Object(SECRET)),
        "sensitive data granted to services",
        TRAVEL,
    ),
    noted(
        "configs",
        named(&Object(CONFIG)),
        "files granted to services",
        TRAVEL,
    ),
    honoured("x-context", Text, "Uncloud: the context to deploy to"),
];

const TRAVEL: &str = "contents travel with the deployment, at most 16 MiB each";
