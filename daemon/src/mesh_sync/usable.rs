//! Which machines' records the mesh and the names can use.
//!
//! Records come from any machine, so one of them can be damaged, forged, or made on the other side
//! of a partition. Such a record affects only its own machine, and `uc doctor` reports it.
//!
//! Of two records with the same subnet, the older one holds it: that is the same one on every
//! machine, and renaming a machine does not change it. Of two records with the same key, the newer
//! one is used: the machine has joined again ([`crate::register::is_replaced`]).

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use uc_api::v1::MachineRecord;
use uc_mesh::PublicKey;

/// This machine, and what its cluster gives out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cluster<'a> {
    pub(crate) own_id: &'a str,
    pub(crate) own_key: PublicKey,
    /// The network of the cluster, which contains every machine's subnet.
    pub(crate) network: Ipv4Net,
    /// The prefix length of a machine's subnet.
    pub(crate) prefix_length: u8,
}

/// A machine whose record can be used.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Usable<'a> {
    pub(crate) record: &'a MachineRecord,
    pub(crate) key: PublicKey,
    /// `None`: its containers cannot be reached, but its daemon can.
    pub(crate) subnet: Option<Ipv4Net>,
}

/// Why a record cannot be used, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The machine's name.
    pub(crate) machine: String,
    pub(crate) reason: String,
}

/// Total order of records by their age.
type Age<'a> = (i64, &'a str);

fn age(machine: &MachineRecord) -> Age<'_> {
    (machine.created_at_ms, &machine.id)
}

/// The usable ones of these records, in their order, and what is wrong with the others.
pub(crate) fn usable<'a>(
    machines: &'a [MachineRecord],
    cluster: Cluster<'_>,
) -> (Vec<Usable<'a>>, Vec<Problem>) {
    let mut oldest_first: Vec<(usize, &MachineRecord)> = machines.iter().enumerate().collect();
    oldest_first.sort_by_key(|(_, machine)| age(machine));
    let mut newest: BTreeMap<&String, Age<'_>> = BTreeMap::new();
    for (_, machine) in &oldest_first {
        newest.insert(&machine.public_key, age(machine));
    }
    let mut subnets: BTreeMap<Ipv4Net, &str> = BTreeMap::new();
    let mut usable = Vec::new();
    let mut problems = Vec::new();
    for (position, record) in oldest_first {
        let mut problem = |reason: String| {
            problems.push(Problem {
                machine: record.name.clone(),
                reason,
            });
        };
        let Ok(key) = record.public_key.parse::<PublicKey>() else {
            problem("its WireGuard key is invalid".to_owned());
            continue;
        };
        if key == cluster.own_key && record.id != cluster.own_id {
            problem("it has the WireGuard key of this machine".to_owned());
            continue;
        }
        if newest.get(&record.public_key) != Some(&age(record)) {
            problem("a newer record has its WireGuard key".to_owned());
            continue;
        }
        let subnet = match subnet_of(record, cluster) {
            Ok(subnet) => match subnets.get(&subnet) {
                Some(holder) => {
                    problem(format!(
                        "it has the subnet {subnet}, which {holder} had first, so its containers cannot be reached"
                    ));
                    None
                }
                None => {
                    subnets.insert(subnet, &record.name);
                    Some(subnet)
                }
            },
            Err(reason) => {
                problem(reason);
                None
            }
        };
        usable.push((
            position,
            Usable {
                record,
                key,
                subnet,
            },
        ));
    }
    usable.sort_by_key(|(position, _)| *position);
    let usable = usable.into_iter().map(|(_, machine)| machine).collect();
    (usable, problems)
}

fn subnet_of(record: &MachineRecord, cluster: Cluster<'_>) -> Result<Ipv4Net, String> {
    let text = &record.subnet;
    let subnet: Ipv4Net = text
        .parse()
        .map_err(|_| format!("its subnet `{text}` is invalid"))?;
    let Cluster {
        network,
        prefix_length,
        ..
    } = cluster;
    if subnet.prefix_len() != prefix_length
        || subnet != subnet.trunc()
        || !network.contains(&subnet)
    {
        return Err(format!(
            "its subnet {subnet} is not a /{prefix_length} of the cluster's network {network}"
        ));
    }
    Ok(subnet)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uc_mesh::PrivateKey;

    use super::*;

    fn key(seed: u8) -> PublicKey {
        PrivateKey::from_bytes([seed; 32]).public()
    }

    fn cluster() -> Cluster<'static> {
        Cluster {
            own_id: "own",
            own_key: key(1),
            network: "10.210.0.0/16".parse().unwrap(),
            prefix_length: 24,
        }
    }

    fn machine(id: &str, seed: u8, subnet: &str, created_at_ms: i64) -> MachineRecord {
        MachineRecord {
            id: id.into(),
            name: format!("name-{id}"),
            public_key: key(seed).to_string(),
            subnet: subnet.into(),
            created_at_ms,
            ..MachineRecord::default()
        }
    }

    #[test]
    fn older_record_holds_a_subnet_whatever_the_names() {
        let mut machines = vec![
            machine("b", 2, "10.210.1.0/24", 200),
            machine("own", 1, "10.210.0.0/24", 1),
            machine("c", 3, "10.210.1.0/24", 100),
        ];
        machines[0].name = "aaa".into();
        let (usable, problems) = usable(&machines, cluster());
        let subnets: Vec<_> = usable.iter().map(|machine| machine.subnet).collect();
        let subnet = |text: &str| Some(text.parse().unwrap());
        assert_eq!(
            subnets,
            [None, subnet("10.210.0.0/24"), subnet("10.210.1.0/24")]
        );
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].machine, "aaa");
        assert!(problems[0].reason.contains("which name-c had first"));
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
            machine("wide", 4, "10.0.0.0/8", 6),
            machine("outside", 5, "192.168.1.0/24", 7),
            machine("host-bits", 6, "10.210.4.7/24", 8),
            machine("no-subnet", 7, "", 9),
        ];
        let (usable, problems) = usable(&machines, cluster());
        let names: Vec<_> = usable
            .iter()
            .map(|machine| (machine.record.id.as_str(), machine.subnet.is_some()))
            .collect();
        let expected = [
            ("own", true),
            ("good", true),
            ("wide", false),
            ("outside", false),
            ("host-bits", false),
            ("no-subnet", false),
        ];
        assert_eq!(names, expected);
        assert_eq!(problems.len(), 7, "{problems:#?}");
    }

    proptest! {
        /// Whatever the records are, no key and no subnet is used twice, and a good record that
        /// no other record contradicts is usable.
        #[test]
        fn no_key_and_no_subnet_is_used_twice(
            records in proptest::collection::vec((0u8..6, 0u8..6, 0i64..4, any::<bool>()), 0..12),
        ) {
            let mut machines = vec![machine("own", 200, "10.210.200.0/24", 0)];
            for (number, (seed, third, created, valid)) in records.into_iter().enumerate() {
                let subnet = if valid { format!("10.210.{third}.0/24") } else { "0.0.0.0/1".into() };
                machines.push(machine(&format!("m{number}"), seed + 2, &subnet, created));
            }
            machines.push(machine("good", 100, "10.210.100.0/24", 9));
            let cluster = Cluster { own_key: key(200), ..cluster() };
            let (usable, _) = usable(&machines, cluster);
            let mut keys: Vec<_> = usable.iter().map(|machine| machine.key).collect();
            let mut subnets: Vec<_> = usable.iter().filter_map(|machine| machine.subnet).collect();
            let (all_keys, all_subnets) = (keys.len(), subnets.len());
            keys.sort_unstable();
            keys.dedup();
            subnets.sort_unstable();
            subnets.dedup();
            prop_assert_eq!((keys.len(), subnets.len()), (all_keys, all_subnets));
            let good = usable.iter().find(|machine| machine.record.id == "good");
            prop_assert!(good.is_some_and(|machine| machine.subnet.is_some()));
        }
    }
}
