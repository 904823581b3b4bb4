//! Services whose replicas are not what was deployed: too few, too many, unhealthy, of an earlier
//! revision, or of a service that was removed while their machine was away.

use std::collections::BTreeMap;

use uc_api::v1::{
    Health, Liveness, ReplicaRecord, ReplicaState, ReplicaStatus, RestartPolicy, ServiceMode,
    ServiceSpec, ServiceStatus,
};

use super::Severity::{Note, Problem, Warning};
use super::{Finding, finding, list};
use crate::words::{condition, counted};

/// All services and replicas at one moment.
#[derive(Debug, Default)]
pub(crate) struct Deployed {
    pub(crate) services: Vec<(ServiceSpec, ServiceStatus)>,
    pub(crate) replicas: Vec<(ReplicaRecord, ReplicaStatus)>,
}

type Replica<'a> = &'a (ReplicaRecord, ReplicaStatus);

/// The findings. `looks` are some seconds apart, the latest last. A running deployment causes most
/// of them for a moment, so with one look alone they are notes.
pub(crate) fn findings(looks: &[Deployed]) -> Vec<Finding> {
    let Some((now, before)) = looks.split_last() else {
        return Vec::new();
    };
    let before: Vec<_> = before.iter().map(find).collect();
    let lasting = find(now)
        .into_iter()
        .filter(|(key, _)| before.iter().all(|look| look.contains_key(key)));
    lasting
        .map(|(_, found)| Finding {
            severity: if before.is_empty() {
                Note
            } else {
                found.severity
            },
            ..found
        })
        .collect()
}

/// By kind and service.
fn find(look: &Deployed) -> BTreeMap<(&'static str, String), Finding> {
    let mut of_service: BTreeMap<String, Vec<Replica<'_>>> = BTreeMap::new();
    for replica in &look.replicas {
        let (record, _) = replica;
        let service = format!("{}/{}", record.project, record.service);
        of_service.entry(service).or_default().push(replica);
    }
    let mut found = Vec::new();
    for (spec, status) in &look.services {
        let service = format!("{}/{}", spec.project, spec.name);
        let replicas = of_service.remove(&service);
        let replicas = replicas.as_deref().unwrap_or(&[]);
        let of_service = Service {
            name: &service,
            spec,
            desired: status.desired as usize,
            replicas,
        };
        found.extend(of_service.too_few());
        found.extend(of_service.too_many());
        found.extend(of_service.unhealthy());
        found.extend(of_service.outdated());
    }
    found.extend(
        of_service
            .iter()
            .filter_map(|(service, replicas)| removed(service, replicas)),
    );
    found
        .into_iter()
        .map(|(service, finding)| ((finding.kind, service), finding))
        .collect()
}

type Found = Option<(String, Finding)>;

/// A service of the store, and what there is of it.
#[derive(Debug)]
struct Service<'a> {
    /// `project/service`
    name: &'a str,
    spec: &'a ServiceSpec,
    desired: usize,
    replicas: &'a [Replica<'a>],
}

impl<'a> Service<'a> {
    fn running(&self) -> impl Iterator<Item = Replica<'a>> {
        self.replicas
            .iter()
            .copied()
            .filter(|replica| runs(replica))
    }

    /// A program that was not to be started again and has done its work.
    fn finished(&self, (record, status): Replica<'_>) -> bool {
        let stays_ended = matches!(
            self.spec.restart(),
            RestartPolicy::No | RestartPolicy::OnFailure
        );
        stays_ended
            && is_up(status)
            && record.state() == ReplicaState::Exited
            && record.exit_code == Some(0)
    }

    fn too_few(&self) -> Found {
        let ended = self
            .replicas
            .iter()
            .filter(|replica| self.finished(replica));
        let there = self.running().count() + ended.count();
        if there >= self.desired {
            return None;
        }
        let others = self
            .replicas
            .iter()
            .filter(|replica| !runs(replica) && !self.finished(replica));
        let others: Vec<String> = others
            .map(|(record, status)| {
                let machine = &status.machine_name;
                if is_up(status) {
                    format!("one on {machine} is {}", condition(record).0)
                } else {
                    format!("one is on {machine}, which is down")
                }
            })
            .collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        let missing = self.desired.saturating_sub(there + others.len());
        let missing = match missing {
            0 => None,
            1 => Some("1 is missing".to_owned()),
            several => Some(format!("{several} are missing")),
        };
        let why: Vec<&str> = others.into_iter().chain(missing.as_deref()).collect();
        let (service, desired) = (self.name, self.desired);
        let why = why.join("; ");
        let message = format!("{there} of {desired} replicas of {service} run: {why}");
        let start = if self.spec.mode() == ServiceMode::Global {
            "`uc deploy` with its compose file".to_owned()
        } else {
            format!("`uc scale {service}={desired}`")
        };
        let hint = format!(
            "{start} replaces what does not run and creates what is missing; `uc logs {service}` may show why it does not run"
        );
        let severity = if there == 0 { Problem } else { Warning };
        let machines = self.machines(|replica| !runs(replica) && !self.finished(replica));
        let found = finding(severity, "missing-replicas", machines, message, hint);
        Some((service.to_owned(), found))
    }

    fn too_many(&self) -> Found {
        let count = self.running().count();
        if count <= self.desired {
            return None;
        }
        let (service, desired) = (self.name, self.desired);
        let message = format!("{count} replicas of {service} run; {desired} should");
        let hint = if self.spec.mode() == ServiceMode::Global {
            "`uc deploy` with its compose file removes those that are too many".to_owned()
        } else {
            format!("`uc scale {service}={desired}` removes those that are too many")
        };
        let machines = self.machines(runs);
        let found = finding(Warning, "surplus-replicas", machines, message, hint);
        Some((service.to_owned(), found))
    }

    fn unhealthy(&self) -> Found {
        let is_bad =
            |replica: Replica<'_>| runs(replica) && replica.0.health() == Health::Unhealthy;
        let count = self
            .replicas
            .iter()
            .filter(|replica| is_bad(replica))
            .count();
        if count == 0 {
            return None;
        }
        let service = self.name;
        let (replicas, are) = match count {
            1 => ("replica", "is"),
            _ => ("replicas", "are"),
        };
        let message = format!(
            "{count} {replicas} of {service} {are} unhealthy and {}",
            if count == 1 {
                "gets no traffic"
            } else {
                "get no traffic"
            }
        );
        let hint = format!("`uc logs {service}` may show why the healthcheck fails");
        let machines = self.machines(is_bad);
        let found = finding(Warning, "unhealthy-replicas", machines, message, hint);
        Some((service.to_owned(), found))
    }

    fn outdated(&self) -> Found {
        let is_old = |replica: Replica<'_>| runs(replica) && !replica.1.current;
        let count = self
            .replicas
            .iter()
            .filter(|replica| is_old(replica))
            .count();
        if count == 0 {
            return None;
        }
        let service = self.name;
        let message = format!(
            "{} of {service} {} of an earlier revision: the last deployment did not reach {}",
            counted(count as u64, "replica", "replicas"),
            if count == 1 { "is" } else { "are" },
            if count == 1 { "it" } else { "them" }
        );
        let hint = "`uc deploy` with its compose file replaces what is of an earlier revision";
        let machines = self.machines(is_old);
        let found = finding(Warning, "outdated-replicas", machines, message, hint);
        Some((service.to_owned(), found))
    }

    /// The machines of the replicas that are so.
    fn machines(&self, is_so: impl Fn(Replica<'_>) -> bool) -> Vec<&'a str> {
        let machines = self.replicas.iter().filter(|replica| is_so(replica));
        sorted(machines.map(|(_, status)| status.machine_name.as_str()))
    }
}

/// Replicas of a service that the store does not have.
fn removed(service: &str, replicas: &[Replica<'_>]) -> Found {
    let alive = replicas.iter().filter(|replica| runs(replica));
    let machines = sorted(
        alive
            .clone()
            .map(|(_, status)| status.machine_name.as_str()),
    );
    let count = alive.count();
    if count == 0 {
        return None;
    }
    let message = format!(
        "{} of {service} still {} on {}, but the service was removed",
        counted(count as u64, "replica", "replicas"),
        if count == 1 { "runs" } else { "run" },
        list(&machines)
    );
    let hint = format!("`uc rm {service}` removes what is left of it");
    let found = finding(Warning, "removed-service", machines, message, hint);
    Some((service.to_owned(), found))
}

fn runs((record, status): Replica<'_>) -> bool {
    is_up(status) && record.state() == ReplicaState::Running && !record.draining
}

fn is_up(status: &ReplicaStatus) -> bool {
    status.machine_liveness() != Liveness::Down
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, desired: u32) -> (ServiceSpec, ServiceStatus) {
        let spec = ServiceSpec {
            project: "shop".into(),
            name: name.into(),
            ..ServiceSpec::default()
        };
        let status = ServiceStatus {
            desired,
            ..ServiceStatus::default()
        };
        (spec, status)
    }

    fn replica(service: &str, machine: &str) -> (ReplicaRecord, ReplicaStatus) {
        let record = ReplicaRecord {
            project: "shop".into(),
            service: service.into(),
            state: ReplicaState::Running.into(),
            ..ReplicaRecord::default()
        };
        let status = ReplicaStatus {
            machine_name: machine.into(),
            machine_liveness: Liveness::Up.into(),
            current: true,
            ..ReplicaStatus::default()
        };
        (record, status)
    }

    fn exited(service: &str, machine: &str, code: i32) -> (ReplicaRecord, ReplicaStatus) {
        let (mut record, status) = replica(service, machine);
        record.state = ReplicaState::Exited.into();
        record.exit_code = Some(code);
        (record, status)
    }

    /// Kind, severity and message of what lasts.
    fn said(
        services: &[(ServiceSpec, ServiceStatus)],
        replicas: &[(ReplicaRecord, ReplicaStatus)],
    ) -> Vec<String> {
        let look = || Deployed {
            services: services.to_vec(),
            replicas: replicas.to_vec(),
        };
        let found = findings(&[look(), look()]);
        let line = |finding: &Finding| {
            let Finding {
                severity,
                kind,
                message,
                ..
            } = finding;
            format!("{} {kind}: {message}", severity.word())
        };
        found.iter().map(line).collect()
    }

    #[test]
    fn nothing_is_said_of_what_is_as_it_should_be() {
        let mut job = service("migrate", 1);
        job.0.restart = RestartPolicy::No.into();
        let mut draining = replica("web", "m2");
        draining.0.draining = true;
        let replicas = vec![
            replica("web", "m1"),
            draining,
            exited("migrate", "m1", 0),
            exited("old", "m1", 0),
        ];
        let services = vec![service("web", 1), job, service("off", 0)];
        assert!(said(&services, &replicas).is_empty());
    }

    #[test]
    fn missing_replicas_are_told_with_what_is_known_of_them() {
        assert_eq!(
            said(&[service("web", 1)], &[exited("web", "m1", 137)]),
            [
                "problem missing-replicas: 0 of 1 replicas of shop/web run: one on m1 is exited (137)"
            ]
        );
        let mut away = replica("web", "m2");
        away.1.machine_liveness = Liveness::Down.into();
        assert_eq!(
            said(&[service("web", 3)], &[replica("web", "m1"), away]),
            [
                "warning missing-replicas: 1 of 3 replicas of shop/web run: one is on m2, which is down; 1 is missing"
            ]
        );
    }

    #[test]
    fn other_replicas_than_were_deployed() {
        let mut sick = replica("sick", "m1");
        sick.0.health = Health::Unhealthy.into();
        let mut old = replica("late", "m2");
        old.1.current = false;
        let services = vec![service("web", 1), service("sick", 1), service("late", 1)];
        let replicas = vec![
            replica("web", "m1"),
            replica("web", "m2"),
            sick,
            old,
            replica("gone", "m3"),
        ];
        assert_eq!(
            said(&services, &replicas),
            [
                "warning outdated-replicas: 1 replica of shop/late is of an earlier revision: the last deployment did not reach it",
                "warning removed-service: 1 replica of shop/gone still runs on m3, but the service was removed",
                "warning surplus-replicas: 2 replicas of shop/web run; 1 should",
                "warning unhealthy-replicas: 1 replica of shop/sick is unhealthy and gets no traffic",
            ]
        );
    }

    #[test]
    fn what_a_deployment_causes_for_a_moment_is_not_said() {
        let missing = || Deployed {
            services: vec![service("web", 1)],
            replicas: Vec::new(),
        };
        let well = || Deployed {
            replicas: vec![replica("web", "m1")],
            ..missing()
        };
        assert!(findings(&[missing(), well()]).is_empty());
        assert!(findings(&[well(), missing()]).is_empty());
        let once = findings(&[missing()]);
        assert_eq!(once[0].severity, Note);
    }
}
