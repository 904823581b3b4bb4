//! What makes a revision: the part of a spec whose change needs a new container.

use std::collections::BTreeMap;

use prost::Message as _;

use crate::v1::{FileSpec, ServiceSpec};

/// Sixteen hexadecimal digits that change exactly when a container of the service must be replaced.
///
/// How many replicas run, where they may run, how and in which order they are replaced, what runs
/// or must run before, and under which names others find them is left out: none of it is in the
/// container. Maps are sorted (`BTreeMap`), so the encoding is one for equal specs.
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
        // Contents are what they hold, not what they are called.
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
        // Written down when the fields from 30 on did not exist: machines that are upgraded must
        // not replace every container.
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
