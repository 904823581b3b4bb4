//! What the commands that change machines print with `-o json`.

use std::collections::BTreeMap;

use serde::Serialize;
use uc_api::v1;

use super::shape::{Show, shape};
use crate::times::rfc3339_ms;
use crate::words::token_state;

shape! {
    /// The record of a machine, without its state.
    pub(crate) struct MachineEntry of v1::MachineRecord {
        id: String,
        name: String,
        subnet: Option<String>,
        public_key: String,
        endpoints: Vec<String>,
        created_at: Option<String> = |record| rfc3339_ms(record.created_at_ms),
        labels: BTreeMap<String, String>,
        cordoned_at: Option<String> = |record| rfc3339_ms(record.cordoned_at_ms),
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
    /// Why the machine did not confirm that it was reset; `None`: it did, or `--no-reset` was
    /// given.
    pub(crate) reset_error: Option<String>,
    /// It was the last machine.
    pub(crate) cluster_ended: bool,
}

/// A join token without its secret.
#[derive(Debug, Serialize)]
pub(crate) struct TokenEntry {
    id: String,
    /// `unused`, `used` or `expired`.
    state: String,
    /// `None`: it was created by a daemon that did not record it.
    created_by: Option<MachineName>,
    created_at: Option<String>,
    expires_at: Option<String>,
    /// `None`: no machine joined with it.
    used_by: Option<MachineName>,
    used_at: Option<String>,
}

/// A machine, which may have left the cluster.
#[derive(Debug, Serialize)]
pub(crate) struct MachineName {
    id: String,
    /// `None`: it is no longer in the cluster.
    name: Option<String>,
}

impl From<&(v1::TokenRecord, v1::TokenStatus)> for TokenEntry {
    fn from((token, status): &(v1::TokenRecord, v1::TokenStatus)) -> Self {
        let machine = |id: &String, name: &String| {
            Show::<Option<String>>::show(id).map(|id| MachineName {
                id,
                name: name.show(),
            })
        };
        Self {
            state: token_state(status.state()),
            created_by: machine(&token.created_by, &status.created_by_name),
            created_at: rfc3339_ms(token.created_at_ms),
            expires_at: rfc3339_ms(token.expires_at_ms),
            used_by: machine(&token.used_by, &status.used_by_name),
            used_at: rfc3339_ms(token.used_at_ms),
            id: token.id.clone(),
        }
    }
}

/// `uc machine token`.
#[derive(Debug, Serialize)]
pub(crate) struct Token {
    pub(crate) token: String,
    pub(crate) expires_at: Option<String>,
}
