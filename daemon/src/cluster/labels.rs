//! Labels of machines, which users set to control placement.
//!
//! The labels are a separate group of fields in the machine's record. If one user labels a machine
//! and another renames it on two sides of a partition, both changes survive. The group's value is a
//! [`MachineRecord`] that has only labels.

use std::collections::BTreeMap;

use prost::Message as _;
use uc_api::v1::{LabelMachineRequest, MachineRecord};
use uc_api::{Code, Failure};
use uc_cluster_state::Write;

use crate::cluster::records;

/// The group of fields of a machine's record for its labels. Group 0 is the record itself.
pub(crate) const GROUP: u16 = 1;
/// Most bytes of a key: as long as a DNS label.
const MAX_KEY: usize = 63;
/// Most bytes of a value.
const MAX_VALUE: usize = 256;
/// Most labels of one machine. All of them are sent with each change and shown in listings.
const MAX_LABELS: usize = 64;

/// The labels after the requested changes. If one key or value is invalid, or there are too many,
/// all changes are refused.
pub(crate) fn changed(
    labels: &BTreeMap<String, String>,
    request: &LabelMachineRequest,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = labels.clone();
    for key in request.set.keys().chain(&request.remove) {
        check_key(key)?;
    }
    for key in &request.remove {
        if request.set.contains_key(key) {
            return Err(Failure::new(
                Code::Invalid,
                format!("label `{key}` is both set and removed"),
            ));
        }
        labels.remove(key);
    }
    for (key, value) in &request.set {
        check_value(key, value)?;
        labels.insert(key.clone(), value.clone());
    }
    if labels.len() > MAX_LABELS {
        return Err(Failure::new(
            Code::Exhausted,
            format!(
                "a machine has at most {MAX_LABELS} labels; this one would have {}",
                labels.len()
            ),
        )
        .hint("remove a label that is not needed: `uc machine label MACHINE KEY-`"));
    }
    Ok(labels)
}

fn check_key(key: &str) -> Result<(), Failure> {
    let possible = (1..=MAX_KEY).contains(&key.len())
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_/".contains(&byte));
    if possible {
        return Ok(());
    }
    Err(Failure::new(
        Code::Invalid,
        format!("invalid label key `{}`", key.escape_debug()),
    )
    .hint(format!(
        "use 1 to {MAX_KEY} letters, digits, `.`, `-`, `_` and `/`"
    )))
}

fn check_value(key: &str, value: &str) -> Result<(), Failure> {
    let problem = if value.len() > MAX_VALUE {
        format!(
            "it has {} bytes, and at most {MAX_VALUE} are allowed",
            value.len()
        )
    } else if value.chars().any(char::is_control) {
        "it contains a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(Failure::new(
        Code::Invalid,
        format!("invalid value of label `{key}`: {problem}"),
    ))
}

/// Writes the labels and leaves the rest of the record as it is.
pub(crate) fn write(machine_id: &str, labels: BTreeMap<String, String>) -> Write {
    let value = MachineRecord {
        labels,
        ..MachineRecord::default()
    }
    .encode_to_vec();
    Write::Edit {
        kind: records::MACHINE,
        key: machine_id.to_owned(),
        groups: vec![(GROUP, Some(value))],
    }
}

/// Writes the record and leaves the other groups of its fields as they are: its labels, and whether
/// it is cordoned.
pub(crate) fn write_record(machine: MachineRecord) -> Write {
    let key = machine.id.clone();
    let value = MachineRecord {
        labels: BTreeMap::new(),
        cordoned_at_ms: 0,
        ..machine
    }
    .encode_to_vec();
    Write::Edit {
        kind: records::MACHINE,
        key,
        groups: vec![(0, Some(value))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(set: &[(&str, &str)], remove: &[&str]) -> LabelMachineRequest {
        LabelMachineRequest {
            machine: "m1".into(),
            set: map(set),
            remove: remove.iter().map(|key| (*key).to_owned()).collect(),
        }
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn labels_are_set_and_removed() {
        let old = map(&[("disk", "hdd"), ("zone", "a")]);
        let new = changed(
            &old,
            &request(
                &[("disk", "ssd"), ("example.com/x_1", "")],
                &["zone", "nope"],
            ),
        );
        assert_eq!(
            new.unwrap(),
            map(&[("disk", "ssd"), ("example.com/x_1", "")])
        );
    }

    #[test]
    fn invalid_label_changes_are_refused() {
        let long = "k".repeat(MAX_KEY + 1);
        let big = "é".repeat(MAX_VALUE / 2) + "x";
        for (set, remove, said) in [
            (vec![("", "x")], vec![], "invalid label key"),
            (vec![(long.as_str(), "x")], vec![], "invalid label key"),
            (vec![("a b", "x")], vec![], "invalid label key"),
            (vec![("é", "x")], vec![], "invalid label key"),
            (vec![], vec!["a\n"], "invalid label key `a\\n`"),
            (vec![("a", "x\ty")], vec![], "control character"),
            (vec![("a", big.as_str())], vec![], "257 bytes"),
            (vec![("a", "x")], vec!["a"], "both set and removed"),
        ] {
            let failure = changed(&BTreeMap::new(), &request(&set, &remove)).unwrap_err();
            assert!(
                failure.code == Code::Invalid && failure.message.contains(said),
                "{failure:?}"
            );
        }
        let fits = "é".repeat(MAX_VALUE / 2);
        let key = "k".repeat(MAX_KEY);
        changed(&BTreeMap::new(), &request(&[(&key, &fits)], &[])).unwrap();
    }

    #[test]
    fn labels_of_a_machine_are_limited() {
        let many: BTreeMap<String, String> = (0..MAX_LABELS)
            .map(|number| (format!("k{number}"), String::new()))
            .collect();
        assert!(changed(&many, &request(&[("k0", "x")], &[])).is_ok());
        assert!(changed(&many, &request(&[("new", "x")], &["k0"])).is_ok());
        assert_eq!(
            changed(&many, &request(&[("new", "x")], &[]))
                .unwrap_err()
                .code,
            Code::Exhausted
        );
    }
}
