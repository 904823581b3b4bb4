//! A part of a project: some services, and what they use of what the file declares.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use uc_api::ProjectName;

use crate::document::{self, NAMED};
use crate::project::Project;

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
            used.extend(map.values().flat_map(document::used));
        }
        for kind in NAMED {
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
