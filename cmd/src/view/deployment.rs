//! The JSON of deployments: what they changed, and how they ended.

use serde::Serialize;
use uc_api::v1;

use super::shape::{Show as _, shape};
use crate::times::rfc3339_ms;
use crate::words::{deployment_state_word, liveness, service_change};

/// A deployment, in `uc deployments ls` and `show`.
#[derive(Debug, Serialize)]
pub(crate) struct Deployment {
    id: String,
    state: String,
    machine: Machine,
    began_at: Option<String>,
    ended_at: Option<String>,
    services: Vec<Service>,
    /// How it ended, in words.
    message: Option<String>,
    /// The last lines of a container that failed.
    log: Vec<String>,
    hint: Option<String>,
}

#[derive(Debug, Serialize)]
struct Machine {
    id: String,
    name: String,
    state: String,
}

shape! {
    struct Service of v1::DeployedService {
        project: String,
        service: String,
        change: String = |service| service_change(service.change(), service.steps > 0),
        revision: Option<String>,
        steps: u32,
    }
}

impl From<&v1::DeploymentStatus> for Deployment {
    fn from(status: &v1::DeploymentStatus) -> Self {
        let end = status.finished.as_ref();
        Self {
            id: status.deployment_id.clone(),
            state: deployment_state_word(status),
            machine: Machine {
                id: status.machine_id.clone(),
                name: status.machine_name.clone(),
                state: liveness(status.machine_liveness()),
            },
            began_at: rfc3339_ms(status.began_at_ms),
            ended_at: rfc3339_ms(status.ended_at_ms),
            services: status.services.show(),
            message: end.and_then(|end| end.message.show()),
            log: end.map_or_else(Vec::new, |end| end.log_tail.clone()),
            hint: end.and_then(|end| end.hint.show()),
        }
    }
}
