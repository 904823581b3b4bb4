//! Keys at the top level of a file.

use super::Shape::{Items, Object, Text};
use super::Short;
use super::resources::{CONFIG, INCLUDE, MODEL, NETWORK, SECRET, VOLUME, named};
use super::service::SERVICE;
use super::{Key, honoured, noted, reported};

/// Everything a compose file may say.
pub(crate) const TOP: &[Key] = &[
    noted("version", Text, "obsolete", "without effect, as in Docker Compose"),
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
    reported(
        "networks",
        named(&Object(NETWORK)),
        "networks that services join",
        "every service joins the cluster's one network, where it is found by its name",
    ),
    honoured("volumes", named(&Object(VOLUME)), "named volumes"),
    reported("secrets", named(&Object(SECRET)), "sensitive data granted to services", FILES),
    reported("configs", named(&Object(CONFIG)), "files granted to services", FILES),
    honoured("x-context", Text, "Uncloud: the context to deploy to"),
];

const FILES: &str = "configs and secrets are not carried to the machines yet";
