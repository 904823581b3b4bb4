//! The kinds of records that `ucd` keeps in the replicated store, and their decoded content.

mod keys;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use prost::Message;
use uc_api::v1::{
    ClusterRecord, MachineFacts, MachineRecord, ReplicaRecord, RetireRecord, ServiceRecord,
    TokenRecord, VolumeHomeRecord, VolumeRecord,
};
use uc_api::{MachineId, ServiceKey};
use uc_cluster_state::{Changed, Class, Kind, RecordId, Snapshot, Write};
use uc_mesh::PublicKey;

pub(crate) use self::keys::{OnMachine, VolumeHome};
use super::machines::Problem;
use super::{cordon, labels};

/// [`ClusterRecord`], one, key [`CLUSTER_KEY`].
pub(crate) const CLUSTER: u16 = 1;
/// [`MachineRecord`], key = machine id.
pub(crate) const MACHINE: u16 = 2;
/// [`TokenRecord`], key = token id.
pub(crate) const TOKEN: u16 = 3;
/// [`ServiceRecord`], key = `project/service`.
pub(crate) const SERVICE: u16 = 4;
// 5 was the lock of a deployment. Such records are ignored: locks are leases now
// ([`crate::node::Leases`]).
/// [`RetireRecord`], key = `machine/container`, both ids.
pub(crate) const RETIRE: u16 = 7;
/// [`VolumeHomeRecord`], key = `volume/machine`, the name of the one and the id of the other.
pub(crate) const VOLUME_HOME: u16 = 8;
/// [`ReplicaRecord`], key = container id.
pub(crate) const REPLICA: u16 = 16;
/// [`VolumeRecord`], key = volume name.
pub(crate) const VOLUME: u16 = 17;
/// [`MachineFacts`], key [`FACTS_KEY`].
pub(crate) const FACTS: u16 = 18;
/// [`uc_api::v1::RevisionRecord`], key = `project/service@deployment`.
pub(crate) const REVISION: u16 = 6;
/// [`uc_api::v1::DeploymentEntry`], a log.
pub(crate) const DEPLOYMENT: u16 = 19;

/// Key of the one cluster record.
pub(crate) const CLUSTER_KEY: &str = "cluster";
/// Key of each machine's one record of facts.
pub(crate) const FACTS_KEY: &str = "facts";

/// Every kind, declared only here. A number is never used again.
pub(crate) static KINDS: &[Kind] = &[
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
        id: REVISION,
        name: "revision",
        class: Class::Intent,
    },
    Kind {
        id: RETIRE,
        name: "retire",
        class: Class::Intent,
    },
    Kind {
        id: VOLUME_HOME,
        name: "volume home",
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
    Kind {
        id: DEPLOYMENT,
        name: "deployment",
        class: Class::Log,
    },
];

/// A write of an encoded record.
pub(crate) fn put(kind: u16, key: impl Into<String>, record: &impl Message) -> Write {
    Write::Put {
        kind,
        key: key.into(),
        value: record.encode_to_vec(),
    }
}

/// A removal.
pub(crate) fn delete(kind: u16, key: impl Into<String>) -> Write {
    Write::Delete {
        kind,
        key: key.into(),
    }
}

/// A replica as its machine last reported it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Replica {
    pub(crate) service: ServiceKey,
    /// `None` while it has no address of its own.
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) record: ReplicaRecord,
}

/// What one machine last reported about itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Reported {
    /// By container.
    pub(crate) replicas: BTreeMap<String, Arc<Replica>>,
    /// By name.
    pub(crate) volumes: BTreeMap<String, Arc<VolumeRecord>>,
    /// `None`: nothing of this machine has arrived yet. Facts are published last.
    pub(crate) facts: Option<Arc<MachineFacts>>,
}

impl Reported {
    pub(crate) const NOTHING: Self = Self {
        replicas: BTreeMap::new(),
        volumes: BTreeMap::new(),
        facts: None,
    };
}

/// A join token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) key: PublicKey,
    pub(crate) record: TokenRecord,
}

/// How long the key of a used token remains a peer. The machine that joins still has to receive its
/// answer and change to its own key. If its join fails later, which takes up to two minutes, it can
/// be repeated with the same token.
const REPEAT_MS: i64 = 15 * 60_000;

impl Token {
    /// Whether the token's key may still talk to members.
    pub(crate) fn opens_mesh(&self, now_ms: i64) -> bool {
        let TokenRecord {
            expires_at_ms,
            used_at_ms,
            used_by,
            ..
        } = &self.record;
        *expires_at_ms > now_ms && (used_by.is_empty() || now_ms < used_at_ms + REPEAT_MS)
    }
}

/// All records of one moment, decoded. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records {
    /// The last readable one.
    pub(crate) cluster: Option<Arc<ClusterRecord>>,
    /// With all groups of their fields, by key.
    pub(crate) machines: Arc<BTreeMap<Arc<str>, MachineRecord>>,
    pub(crate) services: Arc<BTreeMap<ServiceKey, Arc<ServiceRecord>>>,
    pub(crate) tokens: Arc<BTreeMap<String, Arc<Token>>>,
    pub(crate) retirements: Arc<BTreeMap<OnMachine, Arc<RetireRecord>>>,
    pub(crate) volume_homes: Arc<BTreeMap<VolumeHome, Arc<VolumeHomeRecord>>>,
    pub(crate) reported: Arc<BTreeMap<MachineId, Arc<Reported>>>,
    /// What cannot be decoded.
    pub(crate) faulty: Arc<BTreeMap<RecordId, Problem>>,
}

/// A record as it is now; `Ok(None)` if it was removed.
type Decoded<V> = Result<Option<V>, String>;

/// Takes a record into a map. One that cannot be decoded counts as absent.
fn put_into<K: Ord, V>(
    map: &mut BTreeMap<K, V>,
    key: K,
    decoded: Decoded<V>,
) -> Result<(), String> {
    match decoded {
        Ok(Some(value)) => {
            map.insert(key, value);
            Ok(())
        }
        removed_or_faulty => {
            map.remove(&key);
            removed_or_faulty.map(drop)
        }
    }
}

/// Refuses a second record of a kind that has only one. It counts for nothing.
fn only(the_key: &str, key: &str, bytes: Option<&[u8]>) -> Result<(), String> {
    if bytes.is_none() {
        return Ok(());
    }
    Err(format!("its key is `{key}`, and only `{the_key}` counts"))
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, String> {
    M::decode(bytes).map_err(|error| error.to_string())
}

impl Records {
    /// Decodes what has changed. Returns whether machines could be affected.
    pub(crate) fn update(&mut self, changed: &Changed, snapshot: &Snapshot) -> bool {
        match changed {
            Changed::Everything => {
                // A cluster record that has become unreadable does not replace the last good one.
                let cluster = snapshot.get(CLUSTER, CLUSTER_KEY).and(self.cluster.take());
                *self = Self {
                    cluster,
                    ..Self::default()
                };
                for id in ids(snapshot) {
                    self.update_one(&id, snapshot);
                }
                true
            }
            Changed::Records(ids) => {
                for id in ids {
                    self.update_one(id, snapshot);
                }
                ids.iter().any(|id| matches!(id.kind, CLUSTER | MACHINE))
            }
        }
    }

    fn update_one(&mut self, id: &RecordId, snapshot: &Snapshot) {
        let problem = self.take(id, snapshot).err().map(|reason| {
            let record = name(id);
            tracing::warn!(record, reason, "ignoring a record that cannot be decoded");
            Problem {
                record,
                machine: None,
                reason,
                changes_itself: false,
            }
        });
        match problem {
            Some(problem) => {
                Arc::make_mut(&mut self.faulty).insert(id.clone(), problem);
            }
            None if self.faulty.contains_key(id) => {
                Arc::make_mut(&mut self.faulty).remove(id);
            }
            None => {}
        }
    }

    /// Takes one record as it is now. One that cannot be decoded counts as absent, except that the
    /// last readable cluster record is kept.
    fn take(&mut self, id: &RecordId, snapshot: &Snapshot) -> Result<(), String> {
        let key = &*id.key;
        let bytes = match id.owner {
            None => snapshot.get(id.kind, key),
            Some(owner) => snapshot.observation(id.kind, owner, key),
        };
        match (id.kind, id.owner) {
            (CLUSTER, _) if key == CLUSTER_KEY => {
                self.cluster = decoded(bytes, decode)?;
                Ok(())
            }
            (CLUSTER, _) => only(CLUSTER_KEY, key, bytes),
            (MACHINE, _) => {
                let machines = Arc::make_mut(&mut self.machines);
                let machine = |bytes: &[u8]| machine(snapshot, key, bytes);
                put_into(
                    machines,
                    Arc::clone(&id.key),
                    bytes.map(machine).transpose(),
                )
            }
            (TOKEN, _) => {
                let tokens = Arc::make_mut(&mut self.tokens);
                put_into(tokens, key.to_owned(), decoded(bytes, token))
            }
            (SERVICE, _) => match key.parse() {
                Ok(service) => {
                    let services = Arc::make_mut(&mut self.services);
                    put_into(services, service, decoded(bytes, decode))
                }
                Err(_) if bytes.is_none() => Ok(()),
                Err(_) => Err("its key is not PROJECT/SERVICE".to_owned()),
            },
            (RETIRE, _) => match OnMachine::parse(key) {
                Some(container) => {
                    let retirements = Arc::make_mut(&mut self.retirements);
                    put_into(retirements, container, decoded(bytes, decode))
                }
                None if bytes.is_none() => Ok(()),
                None => Err("its key is not MACHINE/CONTAINER".to_owned()),
            },
            (VOLUME_HOME, _) => match VolumeHome::parse(key) {
                Some(home) => {
                    let homes = Arc::make_mut(&mut self.volume_homes);
                    put_into(homes, home, decoded(bytes, decode))
                }
                None if bytes.is_none() => Ok(()),
                None => Err("its key is not VOLUME/MACHINE".to_owned()),
            },
            (kind, Some(owner)) => self.take_reported(kind, owner, key, bytes),
            // A kind of a newer version.
            _ => Ok(()),
        }
    }

    fn take_reported(
        &mut self,
        kind: u16,
        owner: MachineId,
        key: &str,
        bytes: Option<&[u8]>,
    ) -> Result<(), String> {
        let all = Arc::make_mut(&mut self.reported);
        let reported = Arc::make_mut(all.entry(owner).or_default());
        let result = match kind {
            REPLICA => put_into(
                &mut reported.replicas,
                key.to_owned(),
                decoded(bytes, replica),
            ),
            VOLUME => put_into(
                &mut reported.volumes,
                key.to_owned(),
                decoded(bytes, decode),
            ),
            FACTS if key == FACTS_KEY => {
                let facts = decoded(bytes, decode);
                let result = facts.as_ref().map(drop).map_err(Clone::clone);
                reported.facts = facts.ok().flatten();
                result
            }
            FACTS => only(FACTS_KEY, key, bytes),
            _ => Ok(()),
        };
        if *reported == Reported::NOTHING {
            all.remove(&owner);
        }
        result
    }
}

/// The content of a record, if there is one.
fn decoded<V>(
    bytes: Option<&[u8]>,
    decode: impl FnOnce(&[u8]) -> Result<V, String>,
) -> Decoded<Arc<V>> {
    bytes
        .map(decode)
        .transpose()
        .map(|value| value.map(Arc::new))
}

fn machine(snapshot: &Snapshot, key: &str, bytes: &[u8]) -> Result<MachineRecord, String> {
    let record: MachineRecord = decode(bytes)?;
    if record.id != key {
        return Err(format!("it is of the machine {}", record.id));
    }
    let labels = match snapshot.get_group(MACHINE, key, labels::GROUP) {
        Some(bytes) => decode::<MachineRecord>(bytes)?.labels,
        None => BTreeMap::new(),
    };
    let cordoned_at_ms = match snapshot.get_group(MACHINE, key, cordon::GROUP) {
        Some(bytes) => decode::<MachineRecord>(bytes)?.cordoned_at_ms,
        None => 0,
    };
    Ok(MachineRecord {
        labels,
        cordoned_at_ms,
        ..record
    })
}

fn token(bytes: &[u8]) -> Result<Token, String> {
    let record: TokenRecord = decode(bytes)?;
    let key = record
        .public_key
        .parse()
        .map_err(|_| "its WireGuard key is invalid".to_owned())?;
    Ok(Token { key, record })
}

fn replica(bytes: &[u8]) -> Result<Replica, String> {
    let record: ReplicaRecord = decode(bytes)?;
    let service = format!("{}/{}", record.project, record.service)
        .parse()
        .map_err(|_| format!("{}/{} is not a service", record.project, record.service))?;
    let ip = match record.ip.as_str() {
        "" => None,
        ip => Some(
            ip.parse()
                .map_err(|_| format!("{ip} is not an IPv4 address"))?,
        ),
    };
    Ok(Replica {
        service,
        ip,
        record,
    })
}

/// The ids of all records of this program's kinds.
fn ids(snapshot: &Snapshot) -> Vec<RecordId> {
    let mut ids = Vec::new();
    for kind in KINDS {
        let id = |owner, key: &str| RecordId {
            kind: kind.id,
            owner,
            key: key.into(),
        };
        if kind.class == Class::Observation {
            let observations = snapshot.observations(kind.id);
            ids.extend(observations.map(|(owner, key, _)| id(Some(owner), key)));
        } else {
            ids.extend(snapshot.intents(kind.id).map(|(key, _)| id(None, key)));
        }
    }
    ids
}

/// What a record is called in messages, such as `service shop/web`.
fn name(id: &RecordId) -> String {
    let kind = KINDS.iter().find(|kind| kind.id == id.kind);
    let kind = kind.map_or("unknown", |kind| kind.name);
    match id.owner {
        None => format!("{kind} {}", id.key),
        Some(owner) => format!("{kind} {} of machine {owner}", uc_api::id::short(&id.key)),
    }
}

#[cfg(test)]
mod tests;
