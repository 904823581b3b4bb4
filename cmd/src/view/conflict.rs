//! The JSON of conflicts: where each version was written, and its unmasked values.

use std::collections::BTreeMap;

use serde::Serialize;
use uc_api::v1;
use uc_api::v1::conflict_side::Value as Wire;

use super::{Spec, Volume, some};
use crate::times::rfc3339_ms;

/// A conflict, in `uc conflicts ls` and `show`.
#[derive(Debug, Serialize)]
pub(crate) struct Conflict {
    id: String,
    name: String,
    kind: String,
    key: String,
    /// Null unless the record has groups of fields.
    group: Option<u32>,
    sides: Vec<Side>,
}

/// `uc conflicts settle`.
#[derive(Debug, Serialize)]
pub(crate) struct Settled {
    pub(crate) conflict: Conflict,
    pub(crate) kept: usize,
}

#[derive(Debug, Serialize)]
struct Side {
    number: usize,
    active: bool,
    machine: Writer,
    written_at: Option<String>,
    deleted: bool,
    /// Names of the fields that differ from the active value.
    differs: Vec<String>,
    /// Null: deleted.
    value: Option<Value>,
}

#[derive(Debug, Serialize)]
struct Writer {
    id: String,
    /// Null: it has left the cluster.
    name: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Value {
    Service {
        spec: Option<Box<Spec>>,
        volumes: Vec<Volume>,
        revision: String,
        updated_at: Option<String>,
    },
    Machine {
        id: String,
        name: String,
        public_key: String,
        subnet: String,
        endpoints: Vec<String>,
        created_at: Option<String>,
        labels: BTreeMap<String, String>,
    },
    Cluster {
        id: String,
        network: String,
        created_at: Option<String>,
    },
    Token {
        id: String,
        expires_at: Option<String>,
        used_by: Option<String>,
        used_at: Option<String>,
    },
    Lock {
        project: String,
        machine_id: String,
        deployment_id: String,
        expires_at: Option<String>,
    },
    Opaque {
        bytes: u64,
        blake3: String,
    },
}

impl From<&v1::Conflict> for Conflict {
    fn from(conflict: &v1::Conflict) -> Self {
        Self {
            id: conflict.id.clone(),
            name: conflict.name.clone(),
            kind: conflict.kind.clone(),
            key: conflict.key.clone(),
            group: (conflict.group != 0).then_some(conflict.group),
            sides: conflict
                .sides
                .iter()
                .enumerate()
                .map(|(index, one)| side(index, one))
                .collect(),
        }
    }
}

fn side(index: usize, side: &v1::ConflictSide) -> Side {
    let differing = side.fields.iter().filter(|field| field.differs);
    Side {
        number: index + 1,
        active: index == 0,
        machine: Writer {
            id: side.machine_id.clone(),
            name: some(&side.machine_name),
        },
        written_at: rfc3339_ms(side.written_at_ms),
        deleted: side.deleted,
        differs: differing.map(|field| field.name.clone()).collect(),
        value: side.value.as_ref().map(value),
    }
}

fn value(value: &Wire) -> Value {
    match value {
        Wire::Service(record) => Value::Service {
            spec: record.spec.as_ref().map(|spec| Box::new(spec.into())),
            volumes: record.volumes.iter().map(Volume::from).collect(),
            revision: record.revision.clone(),
            updated_at: rfc3339_ms(record.updated_at_ms),
        },
        Wire::Machine(record) => Value::Machine {
            id: record.id.clone(),
            name: record.name.clone(),
            public_key: record.public_key.clone(),
            subnet: record.subnet.clone(),
            endpoints: record.endpoints.clone(),
            created_at: rfc3339_ms(record.created_at_ms),
            labels: record.labels.clone(),
        },
        Wire::Cluster(record) => Value::Cluster {
            id: record.id.clone(),
            network: record.network.clone(),
            created_at: rfc3339_ms(record.created_at_ms),
        },
        Wire::Token(record) => Value::Token {
            id: record.id.clone(),
            expires_at: rfc3339_ms(record.expires_at_ms),
            used_by: some(&record.used_by),
            used_at: rfc3339_ms(record.used_at_ms),
        },
        Wire::Lock(record) => Value::Lock {
            project: record.project.clone(),
            machine_id: record.machine_id.clone(),
            deployment_id: record.deployment_id.clone(),
            expires_at: rfc3339_ms(record.expires_at_ms),
        },
        Wire::Opaque(opaque) => Value::Opaque {
            bytes: opaque.bytes,
            blake3: opaque.digest.clone(),
        },
    }
}
