//! What a failed deployment goes back to.

use std::collections::BTreeMap;

use uc_api::ServiceKey;
use uc_api::v1::{DesiredServices, Plan, PlanRequest, RemoveServices, ServiceRecord, plan_request};

/// The records of the touched services before the deployment; none for a new one.
pub(super) fn previous_records(
    plan: &Plan,
    services: &BTreeMap<ServiceKey, ServiceRecord>,
) -> BTreeMap<ServiceKey, Option<ServiceRecord>> {
    plan.services
        .iter()
        .filter(|service| !service.steps.is_empty() || !service.fields.is_empty())
        .map(|service| service_key(&service.project, &service.service))
        .map(|key| {
            let record = services.get(&key).cloned();
            (key, record)
        })
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

/// What must be asked for to get there again: one removal of what is new, one deployment a project,
/// and then one of the services that share namespaces of others that were touched. The containers
/// they shared may have been stopped meanwhile, and a namespace does not come back with its
/// container, so these are made anew even where nothing of them differs.
pub(super) fn previous_requests(
    previous: &BTreeMap<ServiceKey, Option<ServiceRecord>>,
) -> Vec<PlanRequest> {
    let mut requests: BTreeMap<(bool, String), DesiredServices> = BTreeMap::new();
    let touched = |project: &str, service: &str| {
        previous
            .keys()
            .any(|key| key.project.as_str() == project && key.service.as_str() == service)
    };
    let mut new = Vec::new();
    for (key, record) in previous {
        let Some(ServiceRecord {
            spec: Some(spec),
            volumes,
            ..
        }) = record
        else {
            new.push(key.to_string());
            continue;
        };
        let shares = uc_planner::shared(spec)
            .into_iter()
            .any(|name| touched(key.project.as_str(), name));
        let desired = requests
            .entry((shares, key.project.to_string()))
            .or_default();
        desired.project = key.project.to_string();
        desired.recreate = shares;
        desired.services.push(spec.clone());
        for volume in volumes {
            if !desired.volumes.contains(volume) {
                desired.volumes.push(volume.clone());
            }
        }
    }
    let removal = (!new.is_empty()).then(|| {
        plan_request::Change::Remove(RemoveServices {
            services: new,
            project: String::new(),
        })
    });
    removal
        .into_iter()
        .chain(requests.into_values().map(plan_request::Change::Deploy))
        .map(|change| PlanRequest {
            change: Some(change),
        })
        .collect()
}
