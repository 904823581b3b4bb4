use proptest::prelude::*;
use uc_mesh::PrivateKey;

use super::*;

fn key(seed: u8) -> PublicKey {
    PrivateKey::from_bytes([seed; 32]).public()
}

/// A machine id whose first byte is the first letter.
fn id(text: &str) -> MachineId {
    let mut bytes = [0; 16];
    for (byte, letter) in bytes.iter_mut().zip(text.bytes()) {
        *byte = letter;
    }
    MachineId::from_bytes(bytes)
}

fn own() -> Own {
    Own {
        id: id("own"),
        key: key(1),
        network: "10.210.0.0/16".parse().unwrap(),
        prefix_length: 24,
    }
}

fn machine(name: &str, seed: u8, subnet: &str, created_at_ms: i64) -> MachineRecord {
    MachineRecord {
        id: id(name).to_string(),
        name: name.into(),
        public_key: key(seed).to_string(),
        subnet: subnet.into(),
        created_at_ms,
        ..MachineRecord::default()
    }
}

fn subnets(machines: &Machines) -> Vec<(&str, Option<String>)> {
    let usable = machines.usable.iter();
    usable
        .map(|machine| {
            (
                machine.name.as_str(),
                machine.subnet.map(|net| net.to_string()),
            )
        })
        .collect()
}

#[test]
fn older_record_holds_a_subnet_whatever_the_names() {
    let machines = [
        machine("aaa", 2, "10.210.1.0/24", 200),
        machine("own", 1, "10.210.0.0/24", 1),
        machine("c", 3, "10.210.1.0/24", 100),
    ];
    let machines = Machines::of(machines, &own());
    assert_eq!(
        subnets(&machines),
        [
            ("aaa", None),
            ("c", Some("10.210.1.0/24".to_owned())),
            ("own", Some("10.210.0.0/24".to_owned())),
        ]
    );
    assert_eq!(machines.problems.len(), 1);
    assert_eq!(machines.problems[0].record, "machine aaa");
    assert!(machines.problems[0].reason.contains("which c had first"));
}

#[test]
fn older_record_holds_a_name() {
    let younger = MachineRecord {
        id: id("b").to_string(),
        ..machine("web", 3, "10.210.2.0/24", 200)
    };
    let machines = [
        machine("own", 1, "10.210.0.0/24", 1),
        younger,
        machine("web", 2, "10.210.1.0/24", 100),
    ];
    let machines = Machines::of(machines, &own());
    let holders: Vec<_> = machines
        .usable
        .iter()
        .map(|machine| (machine.id, machine.holds_name, machine.subnet.is_some()))
        .collect();
    assert_eq!(
        holders,
        [
            (id("own"), true, true),
            (id("b"), false, true),
            (id("web"), true, true),
        ]
    );
    assert_eq!(machines.problems.len(), 1);
}

#[test]
fn bad_records_are_left_out_and_named() {
    let machines = [
        machine("own", 1, "10.210.0.0/24", 1),
        machine("thief", 1, "10.210.9.0/24", 0),
        machine("good", 2, "10.210.1.0/24", 3),
        machine("replaced", 2, "10.210.2.0/24", 2),
        MachineRecord {
            public_key: "x".into(),
            ..machine("keyless", 3, "10.210.3.0/24", 5)
        },
        MachineRecord {
            name: "A b".into(),
            ..machine("nameless", 8, "10.210.5.0/24", 5)
        },
        MachineRecord {
            id: "1".into(),
            ..machine("idless", 9, "10.210.6.0/24", 5)
        },
        machine("wide", 4, "10.0.0.0/8", 6),
        machine("outside", 5, "192.168.1.0/24", 7),
        machine("host-bits", 6, "10.210.4.7/24", 8),
        machine("no-subnet", 7, "", 9),
    ];
    let machines = Machines::of(machines, &own());
    let usable: Vec<_> = subnets(&machines)
        .into_iter()
        .map(|(name, subnet)| (name, subnet.is_some()))
        .collect();
    let expected = [
        ("good", true),
        ("host-bits", false),
        ("no-subnet", false),
        ("outside", false),
        ("own", true),
        ("wide", false),
    ];
    assert_eq!(usable, expected);
    assert_eq!(machines.records.len(), 11);
    assert_eq!(machines.problems.len(), 9, "{:#?}", machines.problems);
}

#[test]
fn newer_record_that_cannot_be_used_does_not_replace_a_good_one() {
    let machines = [
        machine("own", 1, "10.210.0.0/24", 1),
        machine("good", 2, "10.210.1.0/24", 3),
        MachineRecord {
            name: "A b".into(),
            ..machine("nameless", 2, "10.210.2.0/24", 4)
        },
        MachineRecord {
            id: id("odd").to_string().to_uppercase(),
            ..machine("odd", 2, "10.210.3.0/24", 5)
        },
    ];
    let machines = Machines::of(machines, &own());
    let names: Vec<_> = subnets(&machines)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["good", "own"]);
}

#[test]
fn one_key_in_two_spellings_is_one_machine() {
    let spelled = MachineRecord {
        public_key: format!(" {}\n", key(2)),
        ..machine("spelled", 2, "10.210.2.0/24", 4)
    };
    let machines = [machine("plain", 2, "10.210.1.0/24", 3), spelled];
    let machines = Machines::of(machines, &own());
    let names: Vec<_> = subnets(&machines)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["spelled"]);
    assert_eq!(machines.problems.len(), 1, "{:#?}", machines.problems);
}

#[test]
fn own_record_is_usable_whatever_others_have() {
    let others = [
        machine("ghost", 1, "10.210.9.0/24", 9),
        MachineRecord {
            public_key: format!("{}\n", key(1)),
            ..machine("ghost2", 1, "10.210.8.0/24", 9)
        },
        machine("other", 2, "10.210.1.0/24", 1),
    ];
    let seen = |own_record: MachineRecord| {
        let machines = Machines::of(others.iter().cloned().chain([own_record]), &own());
        let names: Vec<_> = subnets(&machines)
            .into_iter()
            .map(|(name, _)| name.to_owned())
            .collect();
        (names, machines.problems.len())
    };
    let both = ["other".to_owned(), "own".to_owned()];
    let (names, problems) = seen(machine("own", 1, "10.210.0.0/24", 2));
    assert_eq!((names.as_slice(), problems), (both.as_slice(), 2));
    // Its record has the key of another machine, which it does not take away here.
    let (names, problems) = seen(machine("own", 2, "10.210.0.0/24", 2));
    assert_eq!((names.as_slice(), problems), (both.as_slice(), 3));
}

#[test]
fn free_subnet_is_the_first_gap_or_one_by_the_id() {
    let network: Ipv4Net = "10.210.0.0/22".parse().unwrap();
    let of = |number: u8| machine("m", number, &format!("10.210.{number}.0/24"), 0);
    let free = |taken: &[u8], loser: Option<u8>| {
        let records: Vec<_> = taken.iter().map(|number| of(*number)).collect();
        let loser = loser.map(|last| MachineId::from_bytes(u128::from(last).to_be_bytes()));
        free_subnet(network, &records, loser).map(|subnet| subnet.to_string())
    };
    assert_eq!(free(&[0, 2], None).unwrap(), "10.210.1.0/24");
    assert_eq!(free(&[0], Some(6)).unwrap(), "10.210.2.0/24");
    assert_eq!(free(&[2, 3], Some(6)).unwrap(), "10.210.0.0/24");
    let full = free(&[0, 1, 2, 3], Some(6)).unwrap_err();
    assert_eq!(full.code, Code::Exhausted);
}

proptest! {
    /// Whatever the records are, no key, no name and no subnet is used twice, and a good record
    /// that no other record contradicts is usable.
    #[test]
    fn no_key_name_or_subnet_is_used_twice(
        records in proptest::collection::vec((0u8..6, 0u8..6, 0u8..6, 0i64..4, any::<bool>()), 0..12),
    ) {
        let mut machines = vec![machine("own", 200, "10.210.200.0/24", 0)];
        for (number, (seed, name, third, created, valid)) in records.into_iter().enumerate() {
            let subnet = if valid { format!("10.210.{third}.0/24") } else { "0.0.0.0/1".into() };
            machines.push(MachineRecord {
                id: id(&format!("m{number}")).to_string(),
                ..machine(&format!("n{name}"), seed + 2, &subnet, created)
            });
        }
        machines.push(machine("good", 100, "10.210.100.0/24", 9));
        let machines = Machines::of(machines, &Own { key: key(200), ..own() });
        let usable = || machines.usable.iter();
        let keys: BTreeSet<_> = usable().map(|machine| machine.key).collect();
        prop_assert_eq!(keys.len(), usable().count());
        let named = || usable().filter(|machine| machine.holds_name);
        let names: BTreeSet<_> = named().map(|machine| &machine.name).collect();
        prop_assert_eq!(names.len(), named().count());
        let all = || usable().filter_map(|machine| machine.subnet);
        prop_assert_eq!(all().collect::<BTreeSet<_>>().len(), all().count());
        let good = usable().find(|machine| machine.name.as_str() == "good");
        prop_assert!(good.is_some_and(|machine| machine.subnet.is_some() && machine.holds_name));
    }
}
