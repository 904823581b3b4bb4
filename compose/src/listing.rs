//! What `uc config` lists of a resolved project: names, variables, hashes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::project::Project;

impl Project {
    /// Active services, in order of their names. Also there when variables were not put in, where
    /// [`Project::services`] is empty.
    pub fn service_names(&self) -> Vec<&str> {
        self.names("services")
    }

    /// Volumes that active services use, by their names in the file, in order.
    pub fn volume_names(&self) -> Vec<&str> {
        self.names("volumes")
    }

    /// Networks that active services use, by their names in the file, in order.
    pub fn network_names(&self) -> Vec<&str> {
        self.names("networks")
    }

    /// Every profile of the file, also of services that are not active.
    pub fn profiles(&self) -> &BTreeSet<String> {
        &self.profiles
    }

    /// The variables that were at hand for the file: the process's, those of `.env`,
    /// `COMPOSE_PROJECT_NAME`.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// A value that changes when what the file says about an active service changes: 64 hexadecimal
    /// digits, the BLAKE3 hash of its resolved form. Docker Compose computes another value for the
    /// same purpose.
    pub fn hash(&self, service: &str) -> Option<String> {
        let resolved = self.document.get("services")?.get(service)?;
        Some(
            blake3::hash(resolved.to_string().as_bytes())
                .to_hex()
                .to_string(),
        )
    }

    fn names(&self, kind: &str) -> Vec<&str> {
        let entries = self.document.get(kind).and_then(Json::as_object);
        entries
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect()
    }
}
