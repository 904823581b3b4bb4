//! Keys at the top level of a file.

use super::Shape::{Items, Object, Text};
use super::resources::{CONFIG, INCLUDE, MODEL, NETWORK, SECRET, VOLUME, named};
use super::service::{MODELS, SERVICE};
use super::{Key, Short, honoured, no_effect, noted, reported};

/// Everything a compose file may say.
pub(crate) const TOP: &[Key] = &[
    no_effect("version", Text, "obsolete", "ignored by Docker Compose too"),
    honoured(
        "name",
        Text,
        "project name, unless `-p` or `COMPOSE_PROJECT_NAME` gives it",
    ),
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
        MODELS,
    ),
    noted(
        "networks",
        named(&Object(NETWORK)),
        "networks that services join",
        "every service joins the cluster's one network; a file that keeps services apart is reported",
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
