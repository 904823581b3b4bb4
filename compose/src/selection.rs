//! A part of a project: some services, and what they use of what the file declares.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use uc_api::ProjectName;

use crate::project::Project;

/// Kinds of things at the top level that services use by name.
const USED: [&str; 4] = ["networks", "volumes", "secrets", "configs"];

/// The name that a service has in the file: `web` for both `web` and `shop/web` in project `shop`.
pub fn own_name<'a>(project: &ProjectName, name: &'a str) -> &'a str {
    name.strip_prefix(project.as_str())
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(name)
}

impl Project {
    /// Drops all other services, and the networks, volumes, secrets and configs that only those
    /// used.
    pub fn keep(&mut self, services: &BTreeSet<String>) {
        self.services
            .retain(|service| services.contains(&service.spec.name));
        self.images.retain(|service, _| services.contains(service));
        let Some(document) = self.document.as_object_mut() else {
            return;
        };
        let mut used: BTreeSet<(&str, String)> = BTreeSet::new();
        if let Some(Json::Object(map)) = document.get_mut("services") {
            map.retain(|name, _| services.contains(name));
            for service in map.values() {
                names(service, &mut used);
            }
        }
        for kind in USED {
            if let Some(Json::Object(map)) = document.get_mut(kind) {
                map.retain(|name, _| used.contains(&(kind, name.clone())));
                if map.is_empty() {
                    document.shift_remove(kind);
                }
            }
        }
        let sources: BTreeSet<&str> = self
            .services
            .iter()
            .flat_map(|service| &service.spec.mounts)
            .map(|mount| mount.source.as_str())
            .collect();
        self.volumes
            .retain(|volume| sources.contains(volume.name.as_str()));
    }
}

/// What a service uses, by kind.
fn names(service: &Json, used: &mut BTreeSet<(&'static str, String)>) {
    for (network, _) in service
        .get("networks")
        .and_then(Json::as_object)
        .into_iter()
        .flatten()
    {
        used.insert(("networks", network.clone()));
    }
    for mount in service
        .get("volumes")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
    {
        if mount.get("type").and_then(Json::as_str) == Some("volume")
            && let Some(source) = mount.get("source").and_then(Json::as_str)
        {
            used.insert(("volumes", source.to_owned()));
        }
    }
    for kind in ["secrets", "configs"] {
        let of_build = service.get("build").and_then(|build| build.get(kind));
        for grant in service
            .get(kind)
            .into_iter()
            .chain(of_build)
            .filter_map(Json::as_array)
            .flatten()
        {
            if let Some(source) = grant.get("source").and_then(Json::as_str) {
                used.insert((kind, source.to_owned()));
            }
        }
    }
}
