//! The JSON of conflicts: where each version was written, and its unmasked values.

use std::collections::BTreeMap;

use serde::Serialize;
use uc_api::v1;
use uc_api::v1::conflict_side::Value as Wire;

use super::shape::{Show as _, shape};
use super::{Spec, Volume};
use crate::times::rfc3339_ms;

shape! {
    /// A conflict, in `uc conflicts ls` and `show`.
    pub(crate) struct Conflict of v1::Conflict {
        id: String,
        name: String,
        kind: String,
        key: String,
        /// Null unless the record has groups of fields.
        group: Option<u32>,
        sides: Vec<Side> = |conflict| (1..).zip(&conflict.sides).map(Side::new).collect(),
    }
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

impl Side {
    fn new((number, side): (usize, &v1::ConflictSide)) -> Self {
        let differing = side.fields.iter().filter(|field| field.differs);
        Self {
            number,
            active: number == 1,
            machine: Writer {
                id: side.machine_id.clone(),
                name: side.machine_name.show(),
            },
            written_at: rfc3339_ms(side.written_at_ms),
            deleted: side.deleted,
            differs: differing.map(|field| field.name.clone()).collect(),
            value: side.value.as_ref().map(Value::from),
        }
    }
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
    Service(Box<Service>),
    Machine(Machine),
    Cluster(Cluster),
    Token(Token),
    Opaque(Opaque),
}

impl From<&Wire> for Value {
    fn from(value: &Wire) -> Self {
        match value {
            Wire::Service(record) => Self::Service(Box::new(record.show())),
            Wire::Machine(record) => Self::Machine(record.show()),
            Wire::Cluster(record) => Self::Cluster(record.show()),
            Wire::Token(record) => Self::Token(record.show()),
            Wire::Opaque(record) => Self::Opaque(record.show()),
        }
    }
}

shape! {
    struct Service of v1::ServiceRecord {
        spec: Option<Spec>,
        volumes: Vec<Volume>,
        revision: String,
        updated_at: Option<String> = |record| rfc3339_ms(record.updated_at_ms),
    }
}

shape! {
    struct Machine of v1::MachineRecord {
        id: String,
        name: String,
        public_key: String,
        subnet: String,
        endpoints: Vec<String>,
        created_at: Option<String> = |record| rfc3339_ms(record.created_at_ms),
        labels: BTreeMap<String, String>,
        cordoned_at: Option<String> = |record| rfc3339_ms(record.cordoned_at_ms),
    }
}

shape! {
    struct Cluster of v1::ClusterRecord {
        id: String,
        network: String,
        created_at: Option<String> = |record| rfc3339_ms(record.created_at_ms),
    }
}

shape! {
    struct Token of v1::TokenRecord {
        id: String,
        expires_at: Option<String> = |record| rfc3339_ms(record.expires_at_ms),
        used_by: Option<String>,
        used_at: Option<String> = |record| rfc3339_ms(record.used_at_ms),
    }
}

shape! {
    struct Opaque of v1::OpaqueValue {
        bytes: u64,
        blake3: String = |record| record.digest.clone(),
    }
}
