//! What a failed deployment goes back to.

use std::collections::BTreeMap;

use uc_api::ServiceKey;
use uc_api::v1::{Plan, PreviousService, ServiceRecord};

/// The touched services as they were before the deployment.
pub(super) fn previous_of(
    plan: &Plan,
    services: &BTreeMap<ServiceKey, ServiceRecord>,
) -> Vec<PreviousService> {
    let touched = plan
        .services
        .iter()
        .filter(|service| !service.steps.is_empty() || !service.fields.is_empty());
    touched
        .map(|service| {
            let key = service_key(&service.project, &service.service);
            PreviousService {
                project: service.project.clone(),
                service: service.service.clone(),
                record: services.get(&key).cloned(),
            }
        })
        .collect()
}

/// The records of these services; none for a new one.
pub(super) fn previous_records(
    previous: Vec<PreviousService>,
) -> BTreeMap<ServiceKey, Option<ServiceRecord>> {
    let key = |of: &PreviousService| service_key(&of.project, &of.service);
    previous
        .into_iter()
        .map(|service| (key(&service), service.record))
        .collect()
}

/// The key of a service in a plan.
pub(super) fn service_key(project: &str, service: &str) -> ServiceKey {
    let key = format!("{project}/{service}").parse();
    key.expect("the planner makes plans of services with valid names")
}

/// Whether the services that a deployment touches existed before. Decides the words of a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Previous {
    /// All are new.
    Nothing,
    /// Some are new.
    Some,
    /// All existed.
    All,
}

impl Previous {
    pub(super) fn of(previous: &BTreeMap<ServiceKey, Option<ServiceRecord>>) -> Self {
        let existed = previous.values().filter(|record| record.is_some()).count();
        match existed {
            0 => Self::Nothing,
            count if count == previous.len() => Self::All,
            _ => Self::Some,
        }
    }

    /// What begins.
    pub(super) fn rolling_back(self) -> &'static str {
        match self {
            Self::Nothing => "rolling back: removing the new services",
            Self::Some => "rolling back to the previous revision, and removing the new services",
            Self::All => "rolling back to the previous revision",
        }
    }

    /// What was done.
    pub(super) fn rolled_back(self) -> &'static str {
        match self {
            Self::Nothing => "the new services were removed",
            Self::Some => "the previous revision serves again, and the new services were removed",
            Self::All => "the previous revision serves again",
        }
    }
}
