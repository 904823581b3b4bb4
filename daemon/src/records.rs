//! The kinds of records that `ucd` keeps in the replicated store, and a typed view of them. A
//! record that cannot be decoded is left out and logged: one bad record must not stop a machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use uc_api::nearest::nearest;
use uc_api::v1::{
    ClusterRecord, LockRecord, MachineFacts, MachineRecord, ReplicaRecord, ServiceRecord,
    TokenRecord, VolumeRecord,
};
use uc_api::{Code, Failure, MachineId, ServiceKey};
use uc_cluster_state::{Class, Kind, Snapshot, Write};

use crate::machine_labels;

/// [`ClusterRecord`], one, key [`CLUSTER_KEY`].
pub const CLUSTER: u16 = 1;
/// [`MachineRecord`], key = machine id.
pub const MACHINE: u16 = 2;
/// [`TokenRecord`], key = token id.
pub const TOKEN: u16 = 3;
/// [`ServiceRecord`], key = `project/service`.
pub const SERVICE: u16 = 4;
/// [`LockRecord`], key = project.
pub const LOCK: u16 = 5;
/// [`ReplicaRecord`], key = container id.
pub const REPLICA: u16 = 16;
/// [`VolumeRecord`], key = volume name.
pub const VOLUME: u16 = 17;
/// [`MachineFacts`], key [`FACTS_KEY`].
pub const FACTS: u16 = 18;

/// Key of the one cluster record.
pub const CLUSTER_KEY: &str = "cluster";
/// Key of each machine's one record of facts.
pub const FACTS_KEY: &str = "facts";

/// Every kind, declared only here. A number is never used again.
pub static KINDS: &[Kind] = &[
    Kind {
        id: CLUSTER,
        name: "cluster",
        class: Class::Intent,
    },
    Kind {
        id: MACHINE,
        name: "machine",
        class: Class::Intent,
    },
    Kind {
        id: TOKEN,
        name: "token",
        class: Class::Intent,
    },
    Kind {
        id: SERVICE,
        name: "service",
        class: Class::Intent,
    },
    Kind {
        id: LOCK,
        name: "lock",
        class: Class::Intent,
    },
    Kind {
        id: REPLICA,
        name: "replica",
        class: Class::Observation,
    },
    Kind {
        id: VOLUME,
        name: "volume",
        class: Class::Observation,
    },
    Kind {
        id: FACTS,
        name: "facts",
        class: Class::Observation,
    },
];

/// A write of an encoded record.
pub fn put(kind: u16, key: impl Into<String>, record: &impl Message) -> Write {
    Write::Put {
        kind,
        key: key.into(),
        value: record.encode_to_vec(),
    }
}

/// A removal.
pub fn delete(kind: u16, key: impl Into<String>) -> Write {
    Write::Delete {
        kind,
        key: key.into(),
    }
}

fn decode<M: Message + Default>(kind: &str, key: &str, bytes: &[u8]) -> Option<M> {
    M::decode(bytes)
        .inspect_err(
            |error| tracing::warn!(kind, key, %error, "ignoring a record that cannot be decoded"),
        )
        .ok()
}

/// The records of one moment, decoded on demand.
#[derive(Debug, Clone)]
pub struct View {
    snapshot: Arc<Snapshot>,
}

/// A replica and its machine.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnedReplica {
    /// The machine it runs on.
    pub machine: MachineRecord,
    /// The replica as that machine last reported it.
    pub replica: ReplicaRecord,
}

impl View {
    /// A view of this snapshot.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot }
    }

    fn all<M: Message + Default>(&self, kind: u16, name: &'static str) -> Vec<(String, M)> {
        self.snapshot
            .intents(kind)
            .filter_map(|(key, bytes)| Some((key.to_owned(), decode(name, key, bytes)?)))
            .collect()
    }

    /// The cluster's own record; `None` on a joining machine before its first exchange.
    pub fn cluster(&self) -> Option<ClusterRecord> {
        self.snapshot
            .get(CLUSTER, CLUSTER_KEY)
            .and_then(|bytes| decode("cluster", CLUSTER_KEY, bytes))
    }

    /// Members by name.
    pub fn machines(&self) -> Vec<MachineRecord> {
        let mut machines: Vec<MachineRecord> = self
            .all(MACHINE, "machine")
            .into_iter()
            .map(|(key, record)| MachineRecord {
                labels: self.labels_of(&key),
                ..record
            })
            .collect();
        machines.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        machines
    }

    fn labels_of(&self, machine_id: &str) -> BTreeMap<String, String> {
        let bytes = self
            .snapshot
            .get_group(MACHINE, machine_id, machine_labels::GROUP);
        let labels: Option<MachineRecord> =
            bytes.and_then(|bytes| decode("machine", machine_id, bytes));
        labels.unwrap_or_default().labels
    }

    /// A member by name, id or unique beginning of an id.
    pub fn machine(&self, wanted: &str) -> Result<MachineRecord, Failure> {
        let machines = self.machines();
        if let Some(exact) = machines.iter().find(|m| m.name == wanted || m.id == wanted) {
            return Ok(exact.clone());
        }
        let by_prefix: Vec<_> = machines
            .iter()
            .filter(|m| wanted.len() >= 4 && m.id.starts_with(wanted))
            .collect();
        if let [one] = by_prefix.as_slice() {
            return Ok((*one).clone());
        }
        let names: Vec<&str> = machines.iter().map(|m| m.name.as_str()).collect();
        let failure = Failure::new(Code::NotFound, format!("machine `{wanted}` not found"));
        Err(failure.hint(match nearest(wanted, names.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("available: {}", names.join(", ")),
        }))
    }

    /// All join tokens, also those that were used or have expired.
    pub fn tokens(&self) -> Vec<TokenRecord> {
        self.all(TOKEN, "token")
            .into_iter()
            .map(|(_, record)| record)
            .collect()
    }

    /// The locks of running deployments that this machine knows, including expired ones.
    pub fn locks(&self) -> Vec<LockRecord> {
        self.all(LOCK, "lock")
            .into_iter()
            .map(|(_, record)| record)
            .collect()
    }

    /// The desired services.
    pub fn services(&self) -> BTreeMap<ServiceKey, ServiceRecord> {
        self.all::<ServiceRecord>(SERVICE, "service")
            .into_iter()
            .filter_map(|(key, record)| Some((key.parse().ok()?, record)))
            .collect()
    }

    /// A service by `project/service`, or by `service` where only one project has it.
    pub fn service(&self, wanted: &str) -> Result<(ServiceKey, ServiceRecord), Failure> {
        let services = self.services();
        let matching: Vec<&ServiceKey> = services
            .keys()
            .filter(|key| key.to_string() == wanted || key.service.as_str() == wanted)
            .collect();
        match matching.as_slice() {
            [one] => {
                let key = (*one).clone();
                let record = services.get(&key).cloned().unwrap_or_default();
                Ok((key, record))
            }
            [] => {
                let names: Vec<String> = services
                    .keys()
                    .flat_map(|key| [key.service.to_string(), key.to_string()])
                    .collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let failure = Failure::new(Code::NotFound, format!("service `{wanted}` not found"));
                Err(failure.hint(match nearest(wanted, names.iter().copied()) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => "`uc ls` lists the services".to_owned(),
                }))
            }
            several => {
                let names: Vec<String> = several.iter().map(ToString::to_string).collect();
                Err(Failure::new(
                    Code::Invalid,
                    format!("service `{wanted}` exists in several projects"),
                )
                .hint(format!("name the project as well: {}", names.join(" or "))))
            }
        }
    }

    /// Replicas of all members, as their machines last reported them. A removed machine has none.
    pub fn replicas(&self) -> Vec<OwnedReplica> {
        let mut found = Vec::new();
        for machine in self.machines() {
            for replica in self.owned::<ReplicaRecord>(&machine.id, REPLICA, "replica") {
                found.push(OwnedReplica {
                    machine: machine.clone(),
                    replica,
                });
            }
        }
        found
    }

    /// The replicas that one machine last reported.
    pub fn replicas_of(&self, machine_id: &str) -> Vec<ReplicaRecord> {
        self.owned(machine_id, REPLICA, "replica")
    }

    /// The volumes that one machine last reported.
    pub fn volumes_of(&self, machine_id: &str) -> Vec<VolumeRecord> {
        self.owned(machine_id, VOLUME, "volume")
    }

    /// The facts that one machine last reported about itself.
    pub fn facts_of(&self, machine_id: &str) -> Option<MachineFacts> {
        self.owned(machine_id, FACTS, "facts").into_iter().next()
    }

    fn owned<M: Message + Default>(
        &self,
        machine_id: &str,
        kind: u16,
        name: &'static str,
    ) -> Vec<M> {
        let Ok(id) = machine_id.parse::<MachineId>() else {
            return Vec::new();
        };
        self.snapshot
            .observations_of(kind, uc_cluster_state::MachineId(*id.as_bytes()))
            .filter_map(|(key, bytes)| decode(name, key, bytes))
            .collect()
    }
}
