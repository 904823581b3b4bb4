//! Computes the revision: a hash of the part of a spec whose change requires a new container.

use std::collections::BTreeMap;

use prost::Message as _;

use crate::v1::{FileSpec, ServiceSpec};

/// Returns sixteen hexadecimal digits that change exactly when a container of the service must be
/// replaced.
///
/// The hash leaves out whatever is not in the container: the number of replicas, placement, the
/// update policy, dependencies, hooks before the deployment, and the names under which other
/// services find it. Maps are sorted (`BTreeMap`), so equal specs have the same encoding.
pub fn revision(spec: &ServiceSpec) -> String {
    let in_container = ServiceSpec {
        replicas: 0,
        mode: 0,
        depends_on: Vec::new(),
        update_order: 0,
        machines: Vec::new(),
        pull_policy: 0,
        aliases: Vec::new(),
        pre_deploy: None,
        update: None,
        placement: None,
        service_labels: BTreeMap::new(),
        // Contents count by their hash, not by their name.
        files: spec
            .files
            .iter()
            .map(|file| FileSpec {
                name: String::new(),
                ..file.clone()
            })
            .collect(),
        ..spec.clone()
    };
    let hash = blake3::hash(&in_container.encode_to_vec());
    hash.to_hex().chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::every_field;

    fn spec() -> ServiceSpec {
        ServiceSpec {
            project: "p".into(),
            name: "web".into(),
            image: "web:1".into(),
            ..Default::default()
        }
    }

    #[test]
    fn scaling_keeps_the_revision() {
        let scaled = ServiceSpec {
            replicas: 5,
            ..spec()
        };
        assert_eq!(revision(&spec()), revision(&scaled));
    }

    #[test]
    fn what_is_in_the_container_changes_it() {
        let mut other = spec();
        other.environment.insert("A".into(), "1".into());
        assert_ne!(revision(&spec()), revision(&other));
        assert_ne!(
            revision(&spec()),
            revision(&ServiceSpec {
                image: "web:2".into(),
                ..spec()
            })
        );
        assert_eq!(revision(&spec()).len(), 16);
    }

    #[test]
    fn exactly_what_is_in_the_container_changes_it() {
        const NOT_IN_CONTAINER: [&str; 11] = [
            "mode",
            "replicas",
            "depends_on",
            "update_order",
            "machines",
            "pull_policy",
            "aliases",
            "pre_deploy",
            "update",
            "placement",
            "service_labels",
        ];
        let whole = revision(&every_field::spec());
        for (path, changed) in every_field::changes() {
            let field = path.split(['.', '[']).next().unwrap();
            let kept = NOT_IN_CONTAINER.contains(&field) || path == "files[].name";
            assert_eq!(revision(&changed) == whole, kept, "{path}");
        }
    }

    #[test]
    fn a_spec_of_before_keeps_its_revision() {
        // Recorded before the fields from 30 on existed. An upgraded machine must not replace every
        // container.
        let mut spec = spec();
        spec.environment.insert("A".into(), "1".into());
        assert_eq!(revision(&spec), "094959c6daf5d98f");
    }

    #[test]
    fn no_command_and_an_empty_one_differ() {
        let empty = ServiceSpec {
            command: Some(crate::v1::StringList::default()),
            ..spec()
        };
        assert_ne!(revision(&spec()), revision(&empty));
    }
}
