//! The machines of the cluster, made from their records.
//!
//! Records come from any machine, so one of them can be damaged, forged, or made on the other side
//! of a partition. Such a record affects only its own machine, and `uc doctor` reports it.
//!
//! Of two records with one subnet or one name, the older one holds it: that is the same one on
//! every machine, and no change of a record changes its age. The machine that lost it takes another
//! one ([`crate::reconcile::claims`]). Of two records with one key, the newer one is used: the
//! machine has joined again. The machine itself knows which one is its own, uses that one, and
//! deletes the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::Ipv4Net;
use uc_api::v1::MachineRecord;
use uc_api::{Code, Failure, MachineId, MachineName};
use uc_mesh::PublicKey;

/// This machine, and what its cluster gives out.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) id: MachineId,
    pub(crate) key: PublicKey,
    /// The network of the cluster, which contains every machine's subnet.
    pub(crate) network: Ipv4Net,
    /// The prefix length of a machine's subnet.
    pub(crate) prefix_length: u8,
}

/// A machine whose record can be used.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    pub(crate) id: MachineId,
    pub(crate) name: MachineName,
    /// Whether the name is this machine's. If not, an older machine has it.
    pub(crate) holds_name: bool,
    pub(crate) key: PublicKey,
    /// `None`: its containers cannot be reached, but its daemon can.
    pub(crate) subnet: Option<Ipv4Net>,
    /// As it is in the store, with the labels.
    pub(crate) record: MachineRecord,
}

/// A record that cannot be used, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// What the record is about, such as `machine m2`.
    pub(crate) record: String,
    /// Id and name of the machine, if the record is a machine's.
    pub(crate) machine: Option<(String, String)>,
    pub(crate) reason: String,
    /// The machine takes another name or subnet by itself when it is up.
    pub(crate) changes_itself: bool,
}

/// All machines of one moment.
#[derive(Debug, Default)]
pub(crate) struct Machines {
    /// Every record, also those that cannot be used, by name and id.
    pub(crate) records: Vec<MachineRecord>,
    /// The usable machines, by name and id.
    pub(crate) usable: Vec<Arc<Machine>>,
    pub(crate) problems: Vec<Problem>,
}

impl Machines {
    /// Decides which of these records are used, and who holds each name and subnet.
    pub(crate) fn of(records: impl IntoIterator<Item = MachineRecord>, own: &Own) -> Self {
        let mut records: Vec<MachineRecord> = records.into_iter().collect();
        records.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        let mut oldest_first: Vec<&MachineRecord> = records.iter().collect();
        oldest_first.sort_by_key(|machine| age(machine));
        let oldest_first: Vec<_> = oldest_first
            .into_iter()
            .map(|record| (record, identity(record, own)))
            .collect();
        // Of one key, the last one remains.
        let newest: BTreeMap<PublicKey, MachineId> = oldest_first
            .iter()
            .filter_map(|(_, identity)| identity.as_ref().ok())
            .map(|identity| (identity.key, identity.id))
            .collect();
        let mut holders = Holders::default();
        let mut usable = Vec::new();
        let mut problems = Vec::new();
        for (record, identity) in oldest_first {
            let mut problem = |reason: String, changes_itself: bool| {
                problems.push(Problem {
                    record: format!("machine {}", record.name),
                    machine: Some((record.id.clone(), record.name.clone())),
                    reason,
                    changes_itself,
                });
            };
            let Identity { id, name, key } = match identity {
                Ok(identity) => identity,
                Err(reason) => {
                    problem(reason, false);
                    continue;
                }
            };
            if newest.get(&key) != Some(&id) {
                problem("a newer record has its WireGuard key".to_owned(), false);
                continue;
            }
            if record.public_key.parse() != Ok(key) {
                problem(
                    "its WireGuard key is not the one of this machine".to_owned(),
                    false,
                );
            }
            let mut double = |reason| problem(reason, true);
            let holds_name = holders.take_name(&name, id).map_err(&mut double).is_ok();
            let subnet = subnet_of(record, own)
                .and_then(|subnet| holders.take_subnet(subnet, &record.name))
                .map_err(&mut double)
                .ok();
            usable.push(Arc::new(Machine {
                id,
                name,
                holds_name,
                key,
                subnet,
                record: record.clone(),
            }));
        }
        usable.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        Self {
            records,
            usable,
            problems,
        }
    }
}

/// Total order of records by their age.
type Age<'a> = (i64, &'a str);

fn age(machine: &MachineRecord) -> Age<'_> {
    (machine.created_at_ms, &machine.id)
}

/// The machines that hold names and subnets, of those looked at so far.
#[derive(Default)]
struct Holders {
    names: BTreeMap<MachineName, MachineId>,
    subnets: BTreeMap<Ipv4Net, String>,
}

impl Holders {
    fn take_name(&mut self, name: &MachineName, id: MachineId) -> Result<(), String> {
        if let Some(holder) = self.names.get(name) {
            return Err(format!(
                "the older machine {holder} has the name {name}, too"
            ));
        }
        self.names.insert(name.clone(), id);
        Ok(())
    }

    fn take_subnet(&mut self, subnet: Ipv4Net, name: &str) -> Result<Ipv4Net, String> {
        if let Some(holder) = self.subnets.get(&subnet) {
            return Err(format!(
                "it has the subnet {subnet}, which {holder} had first, so its containers cannot be reached"
            ));
        }
        self.subnets.insert(subnet, name.to_owned());
        Ok(subnet)
    }
}

struct Identity {
    id: MachineId,
    name: MachineName,
    key: PublicKey,
}

fn identity(record: &MachineRecord, own: &Own) -> Result<Identity, String> {
    let id = canonical_id(&record.id).ok_or("its id is invalid")?;
    let name = record.name.parse().map_err(|_| "its name is invalid")?;
    if id == own.id {
        // This machine knows its key, whatever its record says.
        let key = own.key;
        return Ok(Identity { id, name, key });
    }
    let key: PublicKey = record
        .public_key
        .parse()
        .map_err(|_| "its WireGuard key is invalid")?;
    if key == own.key {
        return Err("it has the WireGuard key of this machine".to_owned());
    }
    Ok(Identity { id, name, key })
}

/// The id of this text. Other spellings of an id are refused: a record under each of them would be
/// a machine of its own.
pub(crate) fn canonical_id(text: &str) -> Option<MachineId> {
    let id: MachineId = text.parse().ok()?;
    (id.to_string() == text).then_some(id)
}

fn subnet_of(record: &MachineRecord, own: &Own) -> Result<Ipv4Net, String> {
    let text = &record.subnet;
    let subnet: Ipv4Net = text
        .parse()
        .map_err(|_| format!("its subnet `{text}` is invalid"))?;
    let Own {
        network,
        prefix_length,
        ..
    } = own;
    if subnet.prefix_len() != *prefix_length
        || subnet != subnet.trunc()
        || !network.contains(&subnet)
    {
        return Err(format!(
            "its subnet {subnet} is not a /{prefix_length} of the cluster's network {network}"
        ));
    }
    Ok(subnet)
}

/// A /24 of the network that no record has: the first one, or for a machine that lost its subnet
/// one that depends on its id, so that two such machines hardly ever choose the same one.
pub(crate) fn free_subnet(
    network: Ipv4Net,
    records: &[MachineRecord],
    loser: Option<MachineId>,
) -> Result<Ipv4Net, Failure> {
    let taken: BTreeSet<&str> = records
        .iter()
        .map(|record| record.subnet.as_str())
        .collect();
    let subnets: Vec<Ipv4Net> = network.subnets(24).into_iter().flatten().collect();
    let first = loser.map_or(0, |id| {
        let number = u128::from_be_bytes(*id.as_bytes()) % (subnets.len().max(1) as u128);
        usize::try_from(number).expect("it is less than the number of subnets")
    });
    let mut in_order = subnets.iter().cycle().skip(first).take(subnets.len());
    in_order
        .find(|subnet| !taken.contains(subnet.to_string().as_str()))
        .copied()
        .ok_or_else(|| {
            Failure::new(
                Code::Exhausted,
                format!("every /24 of {network} is in use by a machine"),
            )
            .hint("remove machines that no longer exist with `uc machine rm`")
        })
}

#[cfg(test)]
mod tests;
