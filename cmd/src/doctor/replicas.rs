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

/// A machine that is up removes what it has to within seconds; a container that ignores its stop
/// signal may take minutes.
const REMOVAL_LIMIT_MS: i64 = 5 * 60_000;

/// All services and replicas at one moment.
#[derive(Debug, Default)]
pub(crate) struct Deployed {
    /// That moment, in Unix milliseconds.
    pub(crate) at_ms: i64,
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
    let stay = look
        .replicas
        .iter()
        .filter(|(_, status)| status.retirement.is_none());
    for replica in stay {
        let (record, _) = replica;
        let service = format!("{}/{}", record.project, record.service);
        of_service.entry(service).or_default().push(replica);
    }
    let mut found = Vec::from_iter(late_removals(look));
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
        // Machines with an earlier version do not report that a replica is finished.
        let done = stays_ended && record.exit_code == Some(0);
        is_known(status) && record.state() == ReplicaState::Exited && (record.finished || done)
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
                if status.machine_liveness() == Liveness::Down {
                    format!("one is on {machine}, which is down")
                } else if status.engine_away_since_ms > 0 {
                    format!("one is on {machine}, whose Docker does not answer")
                } else {
                    format!("one on {machine} is {}", condition(record).0)
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
        // DNS gives them if there is nothing better.
        let is_healthy = |replica: Replica<'_>| {
            !matches!(replica.0.health(), Health::Unhealthy | Health::Starting)
        };
        let traffic = match (self.running().any(is_healthy), count) {
            (true, 1) => "gets no traffic",
            (true, _) => "get no traffic",
            (false, 1) => "gets traffic only because no other one is healthy",
            (false, _) => "get traffic only because no other one is healthy",
        };
        let message = format!("{count} {replicas} of {service} {are} unhealthy and {traffic}");
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

/// Replicas that their machines should have removed by now.
fn late_removals(look: &Deployed) -> Found {
    let late = look.replicas.iter().filter(|(_, status)| {
        let since = status
            .retirement
            .as_ref()
            .map(|record| record.created_at_ms);
        let due = since.is_some_and(|since| since + REMOVAL_LIMIT_MS < look.at_ms);
        due && status.machine_liveness() == Liveness::Up
    });
    let names: Vec<String> = late
        .clone()
        .map(|(record, status)| format!("{} on {}", record.container_name, status.machine_name))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let machines = sorted(late.map(|(_, status)| status.machine_name.as_str()));
    let first = machines.first()?;
    let message = format!(
        "{} {} removed when the machine came back, and {} still there",
        list(&names),
        if names.len() == 1 {
            "was to be"
        } else {
            "were to be"
        },
        if names.len() == 1 { "is" } else { "are" }
    );
    let hint = format!("ucd keeps trying; on {first}, run `journalctl -u ucd`");
    let found = finding(Warning, "late-removal", machines.clone(), message, hint);
    Some((String::new(), found))
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
    is_known(status) && record.state() == ReplicaState::Running && !record.draining
}

/// Its state is not from before its machine or its Docker engine was last heard of.
fn is_known(status: &ReplicaStatus) -> bool {
    status.machine_liveness() != Liveness::Down && status.engine_away_since_ms == 0
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use uc_api::v1::RetireRecord;

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
            at_ms: 1_000_000,
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
        let mut unknown = replica("web", "m2");
        unknown.1.engine_away_since_ms = 1;
        assert_eq!(
            said(&[service("web", 2)], &[replica("web", "m1"), unknown]),
            [
                "warning missing-replicas: 1 of 2 replicas of shop/web run: one is on m2, whose Docker does not answer"
            ]
        );
    }

    #[test]
    fn other_replicas_than_were_deployed() {
        let mut sick = replica("sick", "m1");
        sick.0.health = Health::Unhealthy.into();
        let mut old = replica("late", "m2");
        old.1.current = false;
        let mut alone = replica("alone", "m1");
        alone.0.health = Health::Unhealthy.into();
        let services = vec![
            service("web", 1),
            service("sick", 2),
            service("late", 1),
            service("alone", 1),
        ];
        let replicas = vec![
            replica("web", "m1"),
            replica("web", "m2"),
            sick,
            replica("sick", "m2"),
            old,
            alone,
            replica("gone", "m3"),
        ];
        assert_eq!(
            said(&services, &replicas),
            [
                "warning outdated-replicas: 1 replica of shop/late is of an earlier revision: the last deployment did not reach it",
                "warning removed-service: 1 replica of shop/gone still runs on m3, but the service was removed",
                "warning surplus-replicas: 2 replicas of shop/web run; 1 should",
                "warning unhealthy-replicas: 1 replica of shop/alone is unhealthy and gets traffic only because no other one is healthy",
                "warning unhealthy-replicas: 1 replica of shop/sick is unhealthy and gets no traffic",
            ]
        );
    }

    #[test]
    fn replica_to_be_removed_counts_only_when_it_is_late() {
        let mut old = replica("web", "m3");
        old.0.container_name = "shop-web-abcd".into();
        old.1.retirement = Some(RetireRecord {
            created_at_ms: 900_000,
            ..RetireRecord::default()
        });
        let services = [service("web", 1)];
        assert!(said(&services, &[replica("web", "m1"), old.clone()]).is_empty());
        old.1.retirement.as_mut().unwrap().created_at_ms = 1;
        assert_eq!(
            said(&services, &[replica("web", "m1"), old.clone()]),
            [
                "warning late-removal: shop-web-abcd on m3 was to be removed when the machine came back, and is still there"
            ]
        );
        old.1.machine_liveness = Liveness::Down.into();
        assert!(said(&services, &[replica("web", "m1"), old]).is_empty());
    }

    #[test]
    fn what_a_deployment_causes_for_a_moment_is_not_said() {
        let missing = || Deployed {
            services: vec![service("web", 1)],
            ..Deployed::default()
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
