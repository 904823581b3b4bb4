//! What the commands that change machines print with `-o json`.

use std::collections::BTreeMap;

use serde::Serialize;
use uc_api::v1;

use super::some;
use crate::times::rfc3339_ms;

/// The record of a machine, without its state.
#[derive(Debug, Serialize)]
pub(crate) struct MachineEntry {
    id: String,
    name: String,
    subnet: Option<String>,
    public_key: String,
    endpoints: Vec<String>,
    created_at: Option<String>,
    labels: BTreeMap<String, String>,
}

impl From<&v1::MachineRecord> for MachineEntry {
    fn from(record: &v1::MachineRecord) -> Self {
        Self {
            id: record.id.clone(),
            name: record.name.clone(),
            subnet: some(&record.subnet),
            public_key: record.public_key.clone(),
            endpoints: record.endpoints.clone(),
            created_at: rfc3339_ms(record.created_at_ms),
            labels: record.labels.clone(),
        }
    }
}

/// `uc machine init`.
#[derive(Debug, Serialize)]
pub(crate) struct NewCluster {
    pub(crate) cluster_id: String,
    pub(crate) context: String,
    pub(crate) machine: MachineEntry,
}

/// `uc machine add`.
#[derive(Debug, Serialize)]
pub(crate) struct AddedMachine {
    /// `None`: the machine was not saved to a context, because none was in use.
    pub(crate) context: Option<String>,
    pub(crate) machine: MachineEntry,
}

/// `uc machine join`.
#[derive(Debug, Serialize)]
pub(crate) struct JoinedCluster {
    pub(crate) cluster_id: String,
    pub(crate) machine: MachineEntry,
}

/// `uc machine rename`.
#[derive(Debug, Serialize)]
pub(crate) struct RenamedMachine {
    pub(crate) old_name: String,
    pub(crate) machine: MachineEntry,
}

/// `uc machine rm`.
#[derive(Debug, Serialize)]
pub(crate) struct RemovedMachine {
    pub(crate) machine: MachineEntry,
    pub(crate) reset: bool,
    /// Why the machine was not reset; `None`: it was, or `--no-reset` was given.
    pub(crate) reset_error: Option<String>,
    /// It was the last machine.
    pub(crate) cluster_ended: bool,
}

/// `uc machine token`.
#[derive(Debug, Serialize)]
pub(crate) struct Token {
    pub(crate) token: String,
    pub(crate) expires_at: Option<String>,
}
