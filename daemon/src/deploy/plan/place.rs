//! Which replica goes where: keep what is right, replace in place what is not, create what is missing, remove what is too much.
//!
//! Decided in an order in which what has the least choice comes first: everything that stays, then global services, then replicas replaced
//! where they are, then new replicas (first of the services that may run on the fewest machines), each on the machine with the fewest replicas of its service, then the fewest at all, then by name.

use uc_api::ServiceKey;
use uc_api::v1::{Health, PortSpec, ReplicaAction, ReplicaRecord, ReplicaState, RestartPolicy};

use super::desired::Target;
use super::eligible::Eligible;
use super::error::PlanError;
use super::{Cluster, and, ports};

/// Why a step is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// It runs another revision; the differing fields say more.
    Outdated,
    Other(String),
}

/// A step without its texts and ids.
#[derive(Debug, Clone)]
pub(super) struct Draft<'a> {
    pub(super) action: ReplicaAction,
    pub(super) machine: usize,
    /// The container that goes, and its machine.
    pub(super) old: Option<(usize, &'a ReplicaRecord)>,
    pub(super) reason: Reason,
}

/// What is to be done for one service.
#[derive(Debug, Clone, Default)]
pub(super) struct Placement<'a> {
    pub(super) steps: Vec<Draft<'a>>,
    pub(super) kept: u32,
    pub(super) desired: u32,
}

/// It runs, or will again by itself.
pub(super) fn is_alive(replica: &ReplicaRecord) -> bool {
    matches!(replica.state(), ReplicaState::Running | ReplicaState::Restarting | ReplicaState::Paused)
}

/// Its published ports are taken on its machine.
pub(super) fn holds_ports(replica: &ReplicaRecord) -> bool {
    is_alive(replica)
}

/// The placements of all targets, in their order.
pub(super) fn place<'a>(
    targets: &[Target],
    eligible: &[Eligible],
    cluster: &Cluster<'a>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Placement<'a>>, PlanError> {
    let mut board = Board::new(targets, cluster);
    let mut works: Vec<Work<'a, '_>> =
        targets.iter().zip(eligible).map(|(target, eligible)| Work::new(target, eligible, cluster)).collect();
    for work in &mut works {
        work.keep(&mut board);
    }
    for work in works.iter_mut().filter(|work| work.target.global()) {
        work.fill_globally(&mut board)?;
    }
    for work in works.iter_mut().filter(|work| !work.target.global()) {
        work.replace_in_place(&mut board);
    }
    let mut creating: Vec<&mut Work<'_, '_>> =
        works.iter_mut().filter(|work| !work.target.global()).collect();
    // Stable: of equal choice, the order of the targets.
    creating.sort_by_key(|work| work.eligible.up.len());
    for work in creating {
        work.create(&mut board, warnings)?;
    }
    works.into_iter().map(|work| Ok(work.finish(cluster, warnings))).collect()
}

/// What each machine holds once the plan is carried out, as far as it is decided.
struct Board<'t> {
    machines: Vec<Vec<(Holder<'t>, Vec<PortSpec>)>>,
    names: Vec<String>,
}

#[derive(Clone, PartialEq, Eq)]
enum Holder<'t> {
    Ours(&'t ServiceKey),
    Stranger(String),
}

impl<'t> Board<'t> {
    /// With the replicas of services that the plan does not touch.
    fn new(targets: &'t [Target], cluster: &Cluster<'_>) -> Self {
        let machines = cluster
            .machines
            .iter()
            .map(|machine| {
                let strangers = machine.replicas.iter().filter(|replica| {
                    is_alive(replica) && !targets.iter().any(|target| super::is_of(replica, &target.key))
                });
                strangers
                    .map(|replica| {
                        let name = format!("{}/{}", replica.project, replica.service);
                        (Holder::Stranger(name), replica.ports.clone())
                    })
                    .collect()
            })
            .collect();
        let names = cluster.machines.iter().map(|machine| machine.name.to_string()).collect();
        Self { machines, names }
    }

    fn add(&mut self, machine: usize, target: &'t Target) {
        self.machines[machine].push((Holder::Ours(&target.key), target.spec.ports.clone()));
    }

    fn own(&self, machine: usize, key: &ServiceKey) -> usize {
        self.machines[machine].iter().filter(|(holder, _)| *holder == Holder::Ours(key)).count()
    }

    fn total(&self, machine: usize) -> usize {
        self.machines[machine].len()
    }

    /// The port that keeps a replica of the target off the machine, and whose it is.
    fn blocked(&self, machine: usize, target: &Target) -> Option<(&PortSpec, &Holder<'t>)> {
        self.machines[machine].iter().find_map(|(holder, held)| {
            let port =
                held.iter().find(|held| target.spec.ports.iter().any(|port| ports::clash(port, held)))?;
            Some((port, holder))
        })
    }

    fn taken(&self, machine: usize, target: &Target) -> Option<PlanError> {
        let (port, holder) = self.blocked(machine, target)?;
        let holder = match holder {
            Holder::Ours(key) => key.to_string(),
            Holder::Stranger(name) => name.clone(),
        };
        Some(PlanError::PortTaken {
            service: target.key.to_string(),
            port: ports::show(port),
            machine: self.names[machine].clone(),
            holder,
        })
    }
}

/// A replica that exists, and why it cannot stay.
#[derive(Debug, Clone)]
struct Existing<'a> {
    machine: usize,
    replica: &'a ReplicaRecord,
    fault: Option<Reason>,
}

struct Work<'a, 't> {
    target: &'t Target,
    eligible: &'t Eligible,
    /// On machines that may run the service and are up, not yet decided.
    here: Vec<Existing<'a>>,
    /// On machines that are up and must not run it.
    misplaced: Vec<Existing<'a>>,
    /// Machines out of reach that have one, once for each.
    lost: Vec<usize>,
    steps: Vec<Draft<'a>>,
    kept: u32,
    need: usize,
    /// Not all could be placed, which has been said.
    short: bool,
}

impl<'a, 't> Work<'a, 't> {
    fn new(target: &'t Target, eligible: &'t Eligible, cluster: &Cluster<'a>) -> Self {
        let mut here = Vec::new();
        let mut misplaced = Vec::new();
        let mut lost: Vec<usize> = Vec::new();
        for (machine, replica) in cluster.replicas_of(&target.key) {
            let existing = Existing { machine, replica, fault: fault(target, replica) };
            if !cluster.machines[machine].up {
                lost.push(machine);
            } else if eligible.up.contains(&machine) {
                here.push(existing);
            } else {
                misplaced.push(existing);
            }
        }
        let need = if target.global() { eligible.up.len() } else { target.spec.replicas as usize };
        Self { target, eligible, here, misplaced, lost, steps: Vec::new(), kept: 0, need, short: false }
    }

    /// What is right stays; of too many, those on the fullest machines go.
    fn keep(&mut self, board: &mut Board<'t>) {
        let (mut good, bad): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.here).into_iter().partition(|existing| existing.fault.is_none());
        self.here = bad;
        let limit = if self.target.global() { 1 } else { usize::MAX };
        let mut on = vec![0_usize; board.machines.len()];
        for existing in &good {
            on[existing.machine] += 1;
        }
        while good.len() > self.need || on.iter().any(|count| *count > limit) {
            let worst = good.iter().enumerate().max_by_key(|(_, existing)| {
                let unhealthy = existing.replica.health() == Health::Unhealthy;
                let (own, total) = (on[existing.machine], board.total(existing.machine));
                let age = (existing.replica.created_at_ms, &existing.replica.container_id);
                (own > limit, unhealthy, own, total, existing.machine, age)
            });
            let Some((index, _)) = worst else { break };
            let existing = good.remove(index);
            on[existing.machine] -= 1;
            self.remove(&existing, "surplus");
        }
        for existing in &good {
            board.add(existing.machine, self.target);
        }
        self.kept = good.len() as u32;
        self.need -= good.len();
    }

    /// One on each machine that has none; there is no choice, so a taken port is an error.
    fn fill_globally(&mut self, board: &mut Board<'t>) -> Result<(), PlanError> {
        for machine in self.eligible.up.clone() {
            if board.own(machine, &self.target.key) > 0 {
                continue;
            }
            if let Some(error) = board.taken(machine, self.target) {
                return Err(error);
            }
            let (there, rest): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.here).into_iter().partition(|existing| existing.machine == machine);
            self.here = rest;
            let (alive, dead): (Vec<_>, Vec<_>) =
                there.into_iter().partition(|existing| is_alive(existing.replica));
            let mut old = alive.into_iter().chain(dead);
            match old.next() {
                Some(existing) => self.replace(&existing, machine),
                None => self.new_replica(machine),
            }
            self.here.extend(old);
            board.add(machine, self.target);
            self.need -= 1;
        }
        Ok(())
    }

    fn replace_in_place(&mut self, board: &mut Board<'t>) {
        while self.need > 0 {
            let best = self
                .here
                .iter()
                .enumerate()
                .filter(|(_, existing)| board.blocked(existing.machine, self.target).is_none())
                .min_by_key(|(_, existing)| {
                    let own = board.own(existing.machine, &self.target.key);
                    let age = (existing.replica.created_at_ms, &existing.replica.container_id);
                    (own, !is_alive(existing.replica), board.total(existing.machine), existing.machine, age)
                })
                .map(|(index, _)| index);
            let Some(index) = best else { return };
            let existing = self.here.remove(index);
            self.replace(&existing, existing.machine);
            board.add(existing.machine, self.target);
            self.need -= 1;
        }
    }

    /// New replicas, and those that have to move.
    fn create(&mut self, board: &mut Board<'t>, warnings: &mut Vec<String>) -> Result<(), PlanError> {
        while self.need > 0 {
            let best = self
                .eligible
                .up
                .iter()
                .copied()
                .filter(|machine| board.blocked(*machine, self.target).is_none())
                .min_by_key(|machine| {
                    (board.own(*machine, &self.target.key), board.total(*machine), *machine)
                });
            let Some(machine) = best else { return self.short(board, warnings) };
            // One that runs goes only when its successor is there; one that does not run can go at any time.
            let movable = self.misplaced.iter().position(|existing| is_alive(existing.replica));
            let stuck = self.here.iter().position(|existing| is_alive(existing.replica));
            if let Some(index) = movable {
                let existing = self.misplaced.remove(index);
                self.replace(&existing, machine);
            } else if let Some(index) = stuck {
                let existing = self.here.remove(index);
                self.replace(&existing, machine);
            } else {
                self.new_replica(machine);
            }
            board.add(machine, self.target);
            self.need -= 1;
        }
        Ok(())
    }

    /// No machine for what is still needed: a warning if a machine that is down may be why, otherwise an error.
    fn short(&mut self, board: &Board<'t>, warnings: &mut Vec<String>) -> Result<(), PlanError> {
        let want = self.target.spec.replicas;
        if !self.eligible.down.is_empty() {
            self.short = true;
            if self.eligible.stranded {
                return Ok(());
            }
            let down: Vec<String> =
                self.eligible.down.iter().map(|machine| board.names[*machine].clone()).collect();
            warnings.push(format!(
                "{}: {} of {want} replicas placed: {} cannot be reached now",
                self.target.key,
                want as usize - self.need,
                and(&down),
            ));
            return Ok(());
        }
        let foreign = self.eligible.up.iter().copied().find(|machine| {
            board.own(*machine, &self.target.key) == 0 && board.blocked(*machine, self.target).is_some()
        });
        if let Some(error) = foreign.and_then(|machine| board.taken(machine, self.target)) {
            return Err(error);
        }
        let port = self.target.spec.ports.iter().find(|port| port.published_port != 0);
        Err(PlanError::TooFewMachines {
            service: self.target.key.to_string(),
            port: port.map(ports::show).unwrap_or_default(),
            replicas: want,
            machines: self.eligible.up.iter().map(|machine| board.names[*machine].clone()).collect(),
        })
    }

    fn finish(mut self, cluster: &Cluster<'a>, warnings: &mut Vec<String>) -> Placement<'a> {
        for existing in std::mem::take(&mut self.here) {
            self.remove(&existing, "surplus");
        }
        for existing in std::mem::take(&mut self.misplaced) {
            self.remove(&existing, "no longer on this machine");
        }
        if self.target.global() && !self.eligible.down.is_empty() {
            warnings.push(format!(
                "{}: placed on {} of {} machines: {} cannot be reached now",
                self.target.key,
                self.eligible.up.len(),
                self.eligible.count(),
                and(&cluster.names(&self.eligible.down)),
            ));
        }
        if !self.short && !self.lost.is_empty() && !self.target.global() {
            let count = self.lost.len();
            self.lost.sort_unstable();
            self.lost.dedup();
            warnings.push(format!(
                "{}: {} on {}, which cannot be reached now, {} not counted; deploy again when it is back",
                self.target.key,
                if count == 1 { "1 replica".to_owned() } else { format!("{count} replicas") },
                and(&cluster.names(&self.lost)),
                if count == 1 { "is" } else { "are" },
            ));
        }
        let desired =
            if self.target.global() { self.eligible.count() as u32 } else { self.target.spec.replicas };
        let mut ranked: Vec<_> = self.steps.iter().map(|draft| (self.rank(draft), draft.clone())).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        let steps = ranked.into_iter().map(|(_, draft)| draft).collect();
        Placement { steps, kept: self.kept, desired }
    }

    /// Capacity is added before it is taken away; only what holds a port that another step of the service needs on
    /// that machine goes first.
    fn rank(&self, draft: &Draft<'_>) -> (u8, usize) {
        let in_the_way = || {
            let held = draft.old.filter(|(_, old)| holds_ports(old)).map(|(_, old)| old.ports.as_slice());
            self.steps
                .iter()
                .any(|other| other.action != ReplicaAction::Remove && other.machine == draft.machine)
                && held.is_some_and(|held| {
                    held.iter().any(|held| self.target.spec.ports.iter().any(|port| ports::clash(port, held)))
                })
        };
        let rank = match draft.action {
            ReplicaAction::Remove if in_the_way() => 0,
            ReplicaAction::Create => 1,
            ReplicaAction::Replace => 2,
            ReplicaAction::Remove | ReplicaAction::Unspecified => 3,
        };
        (rank, draft.machine)
    }

    fn new_replica(&mut self, machine: usize) {
        let reason = Reason::Other("new replica".into());
        self.steps.push(Draft { action: ReplicaAction::Create, machine, old: None, reason });
    }

    fn replace(&mut self, existing: &Existing<'a>, machine: usize) {
        let reason = match &existing.fault {
            Some(reason) if existing.machine == machine => reason.clone(),
            _ => Reason::Other("moves to another machine".into()),
        };
        let old = Some((existing.machine, existing.replica));
        self.steps.push(Draft { action: ReplicaAction::Replace, machine, old, reason });
    }

    fn remove(&mut self, existing: &Existing<'a>, reason: &str) {
        self.steps.push(Draft {
            action: ReplicaAction::Remove,
            machine: existing.machine,
            old: Some((existing.machine, existing.replica)),
            reason: Reason::Other(reason.to_owned()),
        });
    }
}

/// Why a replica cannot stay as it is; none if it can.
fn fault(target: &Target, replica: &ReplicaRecord) -> Option<Reason> {
    let other = |text: &str| Some(Reason::Other(text.to_owned()));
    if replica.revision != target.revision {
        return Some(Reason::Outdated);
    }
    if target.recreate {
        return other("recreation was asked for");
    }
    if replica.draining {
        return other("left over from an earlier deployment");
    }
    match replica.state() {
        ReplicaState::Running => None,
        ReplicaState::Exited if is_finished_job(target, replica) => None,
        ReplicaState::Exited => {
            Some(Reason::Other(format!("exited with code {}", replica.exit_code.unwrap_or_default())))
        }
        ReplicaState::Created => other("never started"),
        ReplicaState::Restarting => other("keeps restarting"),
        ReplicaState::Paused => other("paused"),
        ReplicaState::Dead => other("dead"),
        ReplicaState::Unspecified => other("not running"),
    }
}

/// A program that was not to be started again has done its work: an unchanged file does not run it once more.
fn is_finished_job(target: &Target, replica: &ReplicaRecord) -> bool {
    matches!(target.spec.restart(), RestartPolicy::No | RestartPolicy::OnFailure)
        && replica.exit_code == Some(0)
}
