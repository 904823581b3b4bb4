//! Starts replicas on other machines when theirs has been down for as long as their service says
//! (`x-reschedule`), and their service keeps no data there.
//!
//! The machine with the lowest id of those that are up does it, and only while it sees more than
//! half of all machines up. So of the parts of a network that was cut, at most one starts replicas
//! elsewhere, and two machines do not do the same work. What ran on the machine that is down is
//! retired: the machine removes it when it is back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uc_api::v1::{Kept, Plan, ServiceChange, ServiceMode, ServiceSpec};
use uc_api::{MachineId, ServiceKey};
use uc_cluster_state::membership::Liveness;

use super::automatic;
use crate::backoff::Backoff;
use crate::cluster::member::Member;
use crate::cluster::view::Cluster;

/// Waits after an attempt that has not helped: there is no room, or a new replica failed.
const FIRST_RETRY: Duration = Duration::from_secs(30);
const LAST_RETRY: Duration = Duration::from_mins(30);

/// Since when each machine has been down without interruption, as far as this process has seen it.
#[derive(Debug, Default)]
struct DownSince(BTreeMap<MachineId, Instant>);

impl DownSince {
    fn look(&mut self, cluster: &Cluster, now: Instant) {
        let machines = cluster.machines().iter();
        let down: BTreeSet<MachineId> = machines
            .map(|machine| machine.id)
            .filter(|id| cluster.is_down(*id))
            .collect();
        self.0.retain(|machine, _| down.contains(machine));
        for machine in down {
            self.0.entry(machine).or_insert(now);
        }
    }

    /// The machines that have been down for so long.
    fn for_at_least(&self, time: Duration, now: Instant) -> BTreeSet<MachineId> {
        let down = self.0.iter();
        down.filter(|(_, since)| now.saturating_duration_since(**since) >= time)
            .map(|(machine, _)| *machine)
            .collect()
    }
}

/// A service with replicas on machines that have been down for long enough.
#[derive(Debug, Clone, PartialEq)]
struct Due {
    service: ServiceKey,
    machines: BTreeSet<MachineId>,
}

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    if !super::ready(&member, |readiness| &readiness.dns).await {
        return;
    }
    let mut down = DownSince::default();
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    let mut changes = member.changes();
    let mut tried: Vec<Due> = Vec::new();
    let mut retry_at = Instant::now();
    loop {
        let now = Instant::now();
        down.look(&member.cluster(), now);
        let due = due_now(&member, &down);
        if due.is_empty() || due != tried {
            backoff.reset();
            retry_at = now;
        }
        tried = due;
        if !tried.is_empty() && now >= retry_at {
            for due in &tried {
                reschedule(&member, due).await;
            }
            // With what has become due in the meantime.
            retry_at = Instant::now() + backoff.wait(rand::random());
            down.look(&member.cluster(), Instant::now());
            tried = due_now(&member, &down);
        }
        let waits = if tried.is_empty() {
            next_due(&member.cluster(), &down)
        } else {
            Some(retry_at)
        };
        let runs = match waits {
            Some(until) => {
                let limit = until.saturating_duration_since(Instant::now());
                changes.next_within(limit).await
            }
            None => changes.next().await,
        };
        if !runs {
            return;
        }
    }
}

async fn reschedule(member: &Arc<Member>, due: &Due) {
    let Due { service, machines } = due;
    match automatic::deploy(member, service, |plan| only_moves(plan, machines)).await {
        Ok(Some(outcome)) => {
            tracing::info!(%service, outcome = outcome.as_str_name(), "started replicas of a machine that is down on others");
        }
        Ok(None) => {
            tracing::debug!(%service, "no other machine can take the replicas of one that is down");
        }
        Err(failure) => {
            tracing::warn!(%service, %failure, "cannot start replicas of a machine that is down on others");
        }
    }
}

fn due_now(member: &Member, down: &DownSince) -> Vec<Due> {
    let cluster = member.cluster();
    if member.store.snapshot().is_rejoining() || !decides(&cluster, member.id) {
        return Vec::new();
    }
    let mut due = due(&cluster, down, Instant::now());
    if !due.is_empty() {
        // A deployment of a machine that is down is not waited for: it is superseded.
        let deployed = automatic::deployed_projects(member, |machine| !cluster.is_down(machine));
        due.retain(|due| !deployed.contains(due.service.project.as_str()));
    }
    due
}

/// Whether this machine decides: more than half of all machines are up, and its id is the lowest of
/// theirs.
fn decides(cluster: &Cluster, own: MachineId) -> bool {
    let machines = cluster.machines().iter().map(|machine| machine.id);
    let is_up = |id: &MachineId| cluster.liveness(*id) == Some(Liveness::Up);
    first_of_majority(&machines.clone().filter(is_up).collect(), machines.len()) == Some(own)
}

/// The machine with the lowest id, if more than half of all machines are up.
fn first_of_majority(up: &BTreeSet<MachineId>, all: usize) -> Option<MachineId> {
    up.first().copied().filter(|_| up.len() * 2 > all)
}

/// How long a machine has to be down for a service that can run elsewhere.
fn reschedule_after(spec: &ServiceSpec, cluster: &Cluster, key: &ServiceKey) -> Option<Duration> {
    let after = Duration::from_millis(spec.reschedule_after_ms?);
    let record = cluster.services().get(key)?;
    let stays = uc_planner::kept_on_machine(spec, &record.volumes).is_some();
    (spec.mode() != ServiceMode::Global && !stays).then_some(after)
}

/// The services that can run elsewhere, with the time after which they do.
fn movable(cluster: &Cluster) -> impl Iterator<Item = (&ServiceKey, Duration)> {
    cluster.services().iter().filter_map(|(key, record)| {
        let after = reschedule_after(record.spec.as_ref()?, cluster, key)?;
        Some((key, after))
    })
}

/// The machines with replicas of the service. A job that has ended is none, nor is what is only
/// kept, or what the machine removes when it is back.
fn machines_of(cluster: &Cluster, service: &ServiceKey) -> BTreeSet<MachineId> {
    let replicas = cluster.replicas().filter(|(machine, replica)| {
        let record = &replica.record;
        let is_retired = || {
            let retirement = cluster.retirement(machine.id, &record.container_id);
            retirement.is_some()
        };
        replica.service == *service
            && record.kept() == Kept::Unspecified
            && !record.finished
            && !is_retired()
    });
    replicas.map(|(machine, _)| machine.id).collect()
}

fn due(cluster: &Cluster, down: &DownSince, now: Instant) -> Vec<Due> {
    if down.0.is_empty() {
        return Vec::new();
    }
    let due = movable(cluster).filter_map(|(service, after)| {
        let long_down = down.for_at_least(after, now);
        let machines: BTreeSet<MachineId> = machines_of(cluster, service)
            .intersection(&long_down)
            .copied()
            .collect();
        (!machines.is_empty()).then(|| Due {
            service: service.clone(),
            machines,
        })
    });
    due.collect()
}

/// When a machine that is down will have been so for long enough for a service.
fn next_due(cluster: &Cluster, down: &DownSince) -> Option<Instant> {
    if down.0.is_empty() {
        return None;
    }
    let now = Instant::now();
    let times = movable(cluster).flat_map(|(service, after)| {
        let machines = machines_of(cluster, service);
        let down = down.0.iter();
        down.filter(move |(machine, _)| machines.contains(machine))
            .map(move |(_, since)| *since + after)
    });
    times.filter(|time| *time > now).min()
}

/// The plan changes no spec, and only creates replicas for those of these machines that it retires.
fn only_moves(plan: &Plan, machines: &BTreeSet<MachineId>) -> bool {
    let mut steps = plan.services.iter().flat_map(|service| &service.steps);
    let of_these = |id: &str| id.parse().is_ok_and(|id: MachineId| machines.contains(&id));
    steps.clone().next().is_some()
        && steps.all(|step| step.container_id.is_empty())
        && plan
            .services
            .iter()
            .all(|of| of.fields.is_empty() && of.change() != ServiceChange::Remove)
        && plan.retirements.iter().all(|of| of_these(&of.machine_id))
}

#[cfg(test)]
mod tests {
    use uc_api::v1::{
        FieldChange, MachineRecord, MountKind, MountSpec, ReplicaRecord, ReplicaStep, Retirement,
        ServicePlan, ServiceRecord,
    };
    use uc_mesh::PrivateKey;

    use super::*;
    use crate::cluster::machines::Own;
    use crate::cluster::records::Replica;

    const AFTER: Duration = Duration::from_secs(60);

    fn id(number: u8) -> MachineId {
        MachineId::from_bytes([number; 16])
    }

    fn key() -> ServiceKey {
        "shop/web".parse().unwrap()
    }

    fn spec() -> ServiceSpec {
        ServiceSpec {
            project: "shop".into(),
            name: "web".into(),
            reschedule_after_ms: Some(60_000),
            ..ServiceSpec::default()
        }
    }

    /// Three machines, of which these are up, and a replica of the service on the third.
    fn cluster(spec: ServiceSpec, up: &[u8]) -> Cluster {
        let public = |number| PrivateKey::from_bytes([number; 32]).public();
        let own = Own {
            id: id(1),
            key: public(1),
            network: "10.210.0.0/16".parse().unwrap(),
            prefix_length: 24,
        };
        let machines = [1, 2, 3].map(|number| MachineRecord {
            id: id(number).to_string(),
            name: format!("m{number}"),
            public_key: public(number).to_string(),
            subnet: format!("10.210.{number}.0/24"),
            ..MachineRecord::default()
        });
        let state = |number: u8| {
            if up.contains(&number) {
                Liveness::Up
            } else {
                Liveness::Down
            }
        };
        let alive: BTreeMap<_, _> = [1, 2, 3].map(|number| (id(number), state(number))).into();
        let replica = Replica {
            service: key(),
            ip: None,
            record: ReplicaRecord {
                container_id: "c3".into(),
                ..ReplicaRecord::default()
            },
        };
        let record = ServiceRecord {
            spec: Some(spec),
            ..ServiceRecord::default()
        };
        Cluster::of_machines(own, machines)
            .with_alive(Arc::new(alive))
            .with_service(key(), record)
            .with_replica(id(3), replica)
    }

    #[test]
    fn replicas_are_due_when_their_machine_has_been_down_for_so_long() {
        let start = Instant::now();
        let cluster = cluster(spec(), &[1, 2]);
        let mut down = DownSince::default();
        down.look(&cluster, start);
        assert_eq!(due(&cluster, &down, start + AFTER / 2), []);
        let expected = Due {
            service: key(),
            machines: BTreeSet::from([id(3)]),
        };
        assert_eq!(due(&cluster, &down, start + AFTER), [expected]);
        // It was up for a moment.
        down.look(&self::cluster(spec(), &[1, 2, 3]), start + AFTER / 2);
        down.look(&cluster, start + AFTER / 2);
        assert_eq!(due(&cluster, &down, start + AFTER), []);
        let retired = cluster.with_retirement(id(3), "c3");
        assert_eq!(due(&retired, &down, start + AFTER * 2), []);
    }

    #[test]
    fn services_that_do_not_ask_for_it_or_have_data_there_stay() {
        let start = Instant::now();
        let volume = MountSpec {
            kind: MountKind::Volume.into(),
            source: "shop_data".into(),
            target: "/data".into(),
            ..MountSpec::default()
        };
        for spec in [
            ServiceSpec {
                reschedule_after_ms: None,
                ..spec()
            },
            ServiceSpec {
                mounts: vec![volume],
                ..spec()
            },
            ServiceSpec {
                mode: ServiceMode::Global.into(),
                ..spec()
            },
        ] {
            let cluster = cluster(spec, &[1, 2]);
            let mut down = DownSince::default();
            down.look(&cluster, start);
            assert_eq!(due(&cluster, &down, start + AFTER), []);
            assert_eq!(next_due(&cluster, &down), None);
        }
    }

    #[test]
    fn lowest_machine_that_is_up_decides_while_more_than_half_are() {
        for (up, deciding) in [
            (&[1, 2, 3][..], Some(1)),
            (&[2, 3], Some(2)),
            (&[1, 3], Some(1)),
            (&[1], None),
            (&[], None),
        ] {
            let up = up.iter().map(|number| id(*number)).collect();
            assert_eq!(first_of_majority(&up, 3), deciding.map(id), "{up:?}");
        }
        let two = BTreeSet::from([id(1)]);
        assert_eq!(first_of_majority(&two, 2), None, "half is not enough");
        assert!(decides(&cluster(spec(), &[1, 2]), id(1)));
        assert!(!decides(&cluster(spec(), &[1]), id(1)));
    }

    #[test]
    fn plan_that_does_more_than_move_is_for_a_user() {
        let machines = BTreeSet::from([id(3)]);
        let plan = |steps: Vec<ReplicaStep>, of: u8| Plan {
            services: vec![ServicePlan {
                steps,
                ..ServicePlan::default()
            }],
            retirements: vec![Retirement {
                machine_id: id(of).to_string(),
                ..Retirement::default()
            }],
            ..Plan::default()
        };
        let create = ReplicaStep::default;
        assert!(only_moves(&plan(vec![create()], 3), &machines));
        assert!(!only_moves(&plan(vec![], 3), &machines), "no room");
        assert!(!only_moves(&plan(vec![create()], 2), &machines));
        let replace = ReplicaStep {
            container_id: "c1".into(),
            ..create()
        };
        assert!(!only_moves(&plan(vec![create(), replace], 3), &machines));
        let mut changes = plan(vec![create()], 3);
        changes.services[0].fields.push(FieldChange::default());
        assert!(!only_moves(&changes, &machines));
    }
}
