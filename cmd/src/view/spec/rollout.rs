//! The parts of a spec that describe how it is deployed.

use std::collections::BTreeMap;

use uc_api::v1;

use super::word_or;
use crate::view::shape::shape;

shape! {
    pub(super) struct PreDeploy of v1::PreDeploy {
        command: Vec<String>,
        environment: BTreeMap<String, String>,
        privileged: Option<bool>,
        /// Null: five minutes.
        timeout_ms: Option<u64>,
        user: Option<String>,
    }
}

shape! {
    pub(super) struct Update of v1::UpdatePolicy {
        /// 0: all; null: one.
        parallelism: Option<u32>,
        delay_ms: u64,
        monitor_ms: Option<u64>,
        failure_action: String = |update| {
            word_or(update.failure_action().as_str_name(), "FAILURE_ACTION_", "rollback")
        },
        max_failure_ratio: f64,
    }
}

shape! {
    pub(super) struct Placement of v1::Placement {
        constraints: Vec<String>,
        spread: Vec<String>,
        /// Null: no limit.
        max_replicas_per_machine: Option<u32>,
    }
}
