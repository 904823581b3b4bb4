use std::collections::BTreeMap;
use std::sync::Arc;

use uc_api::v1::MachineRecord;
use uc_cluster_state::membership::Liveness;
use uc_mesh::PrivateKey;

use super::*;
use crate::cluster::machines::Own;

fn id(number: u32) -> MachineId {
    MachineId::from_bytes(u128::from(number).to_be_bytes())
}

/// Machines 1 to `count`, as the first one sees them; those in `down` are down.
fn cluster(count: u32, down: std::ops::Range<u32>) -> Cluster {
    let key = |number: u32| {
        let mut bytes = [1; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        PrivateKey::from_bytes(bytes).public()
    };
    let own = Own {
        id: id(1),
        key: key(1),
        network: "10.0.0.0/8".parse().unwrap(),
        prefix_length: 24,
    };
    let machines = (1..=count).map(|number| MachineRecord {
        id: id(number).to_string(),
        name: format!("m{number}"),
        public_key: key(number).to_string(),
        ..MachineRecord::default()
    });
    let down = down.map(|number| (id(number), Liveness::Down));
    let alive: BTreeMap<_, _> = down.collect();
    Cluster::of_machines(own, machines).with_alive(Arc::new(alive))
}

#[test]
fn neighbours_are_all_of_few_machines_and_some_of_many() {
    let three = cluster(3, 0..0);
    let found: Vec<_> = neighbours(id(1), &three).into_iter().collect();
    assert_eq!(found, [id(2), id(3)]);
    let many = cluster(300, 0..0);
    let some = neighbours(id(8), &many);
    assert!((2..=8).contains(&some.len()), "{}", some.len());
    assert!(
        some.iter()
            .all(|other| neighbours(*other, &many).contains(&id(8))),
        "both ends agree"
    );
    assert!(
        neighbours(id(999), &three).is_empty(),
        "before its own record is there"
    );
}

#[test]
fn neighbours_that_are_down_are_replaced_in_large_clusters() {
    let half = neighbours(id(8), &cluster(300, 151..301));
    assert_eq!(
        half,
        neighbours(id(8), &cluster(150, 0..0)),
        "as if the others were not there"
    );
    assert_eq!(neighbours(id(1), &cluster(3, 2..4)).len(), 2);
}
