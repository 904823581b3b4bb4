//! Computes the revision: a hash of the part of a spec whose change requires a new container.

use prost::Message as _;

use crate::v1::{FileSpec, ServiceSpec};

/// Returns sixteen hexadecimal digits that change exactly when a container of the service must be
/// replaced.
///
/// The hash leaves out what [`service_fields!`](crate::service_fields) marks as `service`. Maps are
/// sorted (`BTreeMap`), so equal specs have the same encoding.
pub fn revision(spec: &ServiceSpec) -> String {
    let hash = blake3::hash(&in_container(spec).encode_to_vec());
    hash.to_hex().chars().take(16).collect()
}

/// Contents count by their hash, not by their name.
fn unnamed(files: &[FileSpec]) -> Vec<FileSpec> {
    let unnamed = |file: &FileSpec| FileSpec {
        name: String::new(),
        ..file.clone()
    };
    files.iter().map(unnamed).collect()
}

macro_rules! in_container {
    ($($place:ident $field:ident: $kind:ident($key:literal);)*) => {
        /// Returns the spec without what is not in the container.
        fn in_container(spec: &ServiceSpec) -> ServiceSpec {
            ServiceSpec {
                $($field: in_container!(@ $place $kind, spec.$field),)*
            }
        }
    };
    (@ service $kind:ident, $value:expr) => { Default::default() };
    (@ $place:ident contents, $value:expr) => { unnamed(&$value) };
    (@ $place:ident $kind:ident, $value:expr) => { $value.clone() };
}

crate::service_fields!(in_container);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::every_field;

    /// Here as well as in the table: a field that gets the wrong mark is noticed.
    const NOT_IN_CONTAINER: [&str; 12] = [
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
        "reschedule_after_ms",
    ];

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
    fn spec_with_every_field_keeps_its_revision() {
        // Recorded when the fields from 30 on had come. A new field changes it: record it again
        // only after `a_spec_of_before_keeps_its_revision` has passed.
        assert_eq!(revision(&every_field::spec()), "7b7228b412cc78fd");
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
