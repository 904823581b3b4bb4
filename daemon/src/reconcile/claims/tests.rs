use uc_api::MachineId;
use uc_mesh::PrivateKey;

use super::*;
use crate::app::tests::member_of_one;
use crate::cluster::machines::Own;
use crate::cluster::records::put;

fn machine(number: u8, name: &str, subnet: u8) -> MachineRecord {
    MachineRecord {
        id: MachineId::from_bytes([number; 16]).to_string(),
        name: name.into(),
        public_key: PrivateKey::from_bytes([number; 32]).public().to_string(),
        subnet: format!("10.210.{subnet}.0/24"),
        created_at_ms: i64::from(number),
        ..MachineRecord::default()
    }
}

/// What machine 5 writes, as name and subnet.
fn replaced_by(
    others: impl IntoIterator<Item = MachineRecord>,
    own: MachineRecord,
) -> Option<(String, String)> {
    let of_own = Own {
        id: own.id.parse().unwrap(),
        key: own.public_key.parse().unwrap(),
        network: "10.210.0.0/16".parse().unwrap(),
        prefix_length: 24,
    };
    let machines = others.into_iter().chain([own]);
    let cluster = Cluster::of_machines(of_own, machines);
    let record = replacement(&cluster)?.unwrap();
    Some((record.name, record.subnet))
}

#[test]
fn younger_machine_takes_another_name_and_subnet() {
    let own = || machine(5, "web", 1);
    let kept = |others: &[MachineRecord]| replaced_by(others.to_vec(), own());
    assert_eq!(kept(&[machine(1, "m1", 2)]), None);
    assert_eq!(kept(&[machine(9, "web", 1)]), None, "that one is younger");
    let (name, subnet) = kept(&[machine(1, "web", 2)]).unwrap();
    assert_eq!((name.as_str(), subnet.as_str()), ("web-2", "10.210.1.0/24"));
    let (name, subnet) = kept(&[machine(1, "web", 1), machine(2, "web-2", 3)]).unwrap();
    assert_eq!(name, "web-3");
    assert!(
        !["10.210.1.0/24", "10.210.3.0/24"].contains(&subnet.as_str()),
        "{subnet}"
    );
}

#[test]
fn two_machines_that_lost_one_subnet_take_different_ones() {
    let holder = machine(1, "m1", 1);
    let (five, six) = (machine(5, "m5", 1), machine(6, "m6", 1));
    let of_five = replaced_by([holder.clone(), six.clone()], five.clone()).unwrap();
    let of_six = replaced_by([holder, five], six).unwrap();
    assert_ne!(of_five.1, of_six.1);
}

#[test]
fn machines_that_lost_one_name_take_different_ones() {
    let machines = [
        machine(1, "web", 1),
        machine(5, "web", 5),
        machine(6, "web", 6),
        machine(7, "web-3", 7),
        machine(8, "web", 8),
    ];
    let name_of = |number: usize| {
        let others = machines.iter().enumerate();
        let others = others.filter(|(at, _)| *at != number);
        let others = others.map(|(_, other)| other.clone());
        replaced_by(others, machines[number].clone()).map(|(name, _)| name)
    };
    let names: Vec<_> = (0..machines.len()).map(name_of).collect();
    let expected = [None, Some("web-2"), Some("web-4"), None, Some("web-5")];
    assert_eq!(names, expected.map(|name| name.map(ToOwned::to_owned)));
}

/// The records of a machine that has this one's key, as after a join that was repeated.
#[tokio::test]
async fn other_records_with_the_own_key_are_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let member = member_of_one(&directory).await;
    let other = machine(9, "m9", 9);
    let ghost = MachineRecord {
        public_key: format!("{}\n", member.key.public()),
        ..machine(8, "m8", 8)
    };
    let records = [other, ghost].map(|record| put(records::MACHINE, record.id.clone(), &record));
    member.write(records.to_vec()).await.unwrap();
    let names = || {
        let cluster = member.cluster();
        let records = cluster.machine_records().iter();
        records
            .map(|record| record.name.clone())
            .collect::<Vec<_>>()
    };
    assert!(member.cluster().own().is_some());
    assert_eq!(names(), ["m1", "m8", "m9"]);
    let mut changes = member.changes();
    let deleted = async { while names() != ["m1", "m9"] && changes.next().await {} };
    let deleted = tokio::time::timeout(Duration::from_secs(60), deleted).await;
    member.stop().await;
    deleted.expect("the record is deleted");
}

#[test]
fn number_fits_a_name_of_full_length() {
    let long = "a".repeat(uc_api::name::MAX_LABEL);
    let (name, _) = replaced_by([machine(1, &long, 2)], machine(5, &long, 1)).unwrap();
    assert_eq!(
        name,
        format!("{}-2", "a".repeat(uc_api::name::MAX_LABEL - 2))
    );
}
