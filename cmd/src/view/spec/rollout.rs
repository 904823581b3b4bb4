//! The parts of a spec that describe how it is deployed.

use std::collections::BTreeMap;

use serde::Serialize;
use uc_api::v1;

use crate::view::some;
use crate::words::word;

#[derive(Debug, Serialize)]
pub(super) struct PreDeploy {
    command: Vec<String>,
    environment: BTreeMap<String, String>,
    privileged: Option<bool>,
    /// Null: five minutes.
    timeout_ms: Option<u64>,
    user: Option<String>,
}

impl From<&v1::PreDeploy> for PreDeploy {
    fn from(run: &v1::PreDeploy) -> Self {
        Self {
            command: run.command.clone(),
            environment: run.environment.clone(),
            privileged: run.privileged,
            timeout_ms: (run.timeout_ms != 0).then_some(run.timeout_ms),
            user: some(&run.user),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Update {
    /// 0: all; null: one.
    parallelism: Option<u32>,
    delay_ms: u64,
    monitor_ms: Option<u64>,
    failure_action: String,
    max_failure_ratio: f64,
}

impl From<&v1::UpdatePolicy> for Update {
    fn from(update: &v1::UpdatePolicy) -> Self {
        let action = match update.failure_action() {
            v1::FailureAction::Unspecified => v1::FailureAction::Rollback,
            said => said,
        };
        Self {
            parallelism: update.parallelism,
            delay_ms: update.delay_ms,
            monitor_ms: update.monitor_ms,
            failure_action: word(action.as_str_name(), "FAILURE_ACTION_"),
            max_failure_ratio: update.max_failure_ratio,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Placement {
    constraints: Vec<String>,
    spread: Vec<String>,
    /// Null: no limit.
    max_replicas_per_machine: Option<u32>,
}

impl From<&v1::Placement> for Placement {
    fn from(placement: &v1::Placement) -> Self {
        let most = placement.max_replicas_per_machine;
        Self {
            constraints: placement.constraints.clone(),
            spread: placement.spread.clone(),
            max_replicas_per_machine: (most != 0).then_some(most),
        }
    }
}
