//! What `uc config` prints instead of the file: names, images, hashes, variables.

use clap::Args;
use serde_json::{Value as Json, json};
use uc_compose::{Project, Variable};

use super::ConfigFormat;
use crate::error::{CliError, CliResult};
use crate::suggest;
use crate::ui::{Table, Ui};

/// At most one of these.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct ListArgs {
    /// Names of the services, one per line
    #[arg(long, help_heading = "Print instead of the file")]
    services: bool,
    /// Images of the services, one per line
    #[arg(long, help_heading = "Print instead of the file")]
    images: bool,
    /// Names of the volumes that services use
    #[arg(long, help_heading = "Print instead of the file")]
    volumes: bool,
    /// Names of the networks that services use
    #[arg(long, help_heading = "Print instead of the file")]
    networks: bool,
    /// Names of all profiles
    #[arg(long, help_heading = "Print instead of the file")]
    profiles: bool,
    /// Variables that the file uses, with their defaults
    #[arg(long, help_heading = "Print instead of the file")]
    pub(super) variables: bool,
    /// Variables that are set for the file, as NAME=VALUE
    #[arg(long, help_heading = "Print instead of the file")]
    environment: bool,
    /// Hash of a service's configuration: one service, several with commas, or `*` for all
    #[arg(
        long,
        value_name = "SERVICE",
        help_heading = "Print instead of the file"
    )]
    hash: Option<String>,
}

/// The listing that was asked for; `None`: print the file itself.
pub(super) fn lines(list: &ListArgs, project: &Project) -> CliResult<Option<Vec<String>>> {
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    let lines = if list.services {
        owned(project.service_names())
    } else if list.volumes {
        owned(project.volume_names())
    } else if list.networks {
        owned(project.network_names())
    } else if list.images {
        images(project)
    } else if list.profiles {
        project.profiles().iter().cloned().collect()
    } else if list.environment {
        project
            .environment()
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    } else if let Some(wanted) = &list.hash {
        hashes(wanted, project)?
    } else {
        return Ok(None);
    };
    Ok(Some(lines))
}

/// The image of every service, each followed by the images that the service mounts. An image that
/// is built and has no name gets the name of its last build.
fn images(project: &Project) -> Vec<String> {
    let document = project.to_json();
    let mut images: Vec<String> = Vec::new();
    for (name, service) in document
        .get("services")
        .and_then(Json::as_object)
        .into_iter()
        .flatten()
    {
        let own = service
            .get("image")
            .and_then(Json::as_str)
            .filter(|image| !image.is_empty());
        images.push(own.map_or_else(|| format!("{}-{name}", project.name), str::to_owned));
        let mounts = service
            .get("volumes")
            .and_then(Json::as_array)
            .into_iter()
            .flatten();
        let mounted =
            mounts.filter(|mount| mount.get("type").and_then(Json::as_str) == Some("image"));
        images.extend(
            mounted
                .filter_map(|mount| mount.get("source")?.as_str())
                .map(str::to_owned),
        );
    }
    images
}

fn hashes(wanted: &str, project: &Project) -> CliResult<Vec<String>> {
    let all = project.service_names();
    let names: Vec<&str> = if wanted == "*" {
        all.clone()
    } else {
        wanted.split(',').map(str::trim).collect()
    };
    names
        .into_iter()
        .map(|name| {
            let hash = project.hash(name).ok_or_else(|| {
                CliError::usage(format!(
                    "service `{name}` not found in project {}",
                    project.name
                ))
                .hint(suggest::hint(name, all.iter().copied()))
            })?;
            Ok(format!("{name} {hash}"))
        })
        .collect()
}

/// The variables of the file, as Docker Compose prints them.
pub(super) fn variables(
    variables: &[Variable],
    format: Option<ConfigFormat>,
    json: bool,
    ui: &Ui,
) -> CliResult {
    if json || format == Some(ConfigFormat::Json) {
        return ui.json(&by_name(
            variables,
            ["Name", "DefaultValue", "PresenceValue", "Required"],
        ));
    }
    if format == Some(ConfigFormat::Yaml) {
        let keys = ["name", "defaultvalue", "presencevalue", "required"];
        return ui.out(&uc_compose::to_yaml(&by_name(variables, keys)));
    }
    let mut table = Table::new(&["NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"]);
    for variable in variables {
        table.row([
            variable.name.as_str().into(),
            variable.required.to_string().into(),
            variable.default_value.as_str().into(),
            variable.alternate_value.as_str().into(),
        ]);
    }
    ui.out(&table.render())
}

fn by_name(variables: &[Variable], [name, default, alternate, required]: [&str; 4]) -> Json {
    let entries = variables.iter().map(|variable| {
        let value = json!({
            name: variable.name,
            default: variable.default_value,
            alternate: variable.alternate_value,
            required: variable.required,
        });
        (variable.name.clone(), value)
    });
    Json::Object(entries.collect())
}
