//! The decisions for one service, in the order in which they are taken.

use std::collections::BTreeMap;

use uc_api::v1::{Health, ReplicaAction, ReplicaRecord};

use super::super::desired::Target;
use super::super::eligible::Eligible;
use super::super::error::PlanError;
use super::super::{Cluster, and, ports};
use super::board::Board;
use super::existing::Existing;
use super::spread::Spread;
use super::{Draft, Following, Placement, Reason, holds_ports, is_alive};

pub(super) struct Work<'a, 't> {
    pub(super) target: &'t Target,
    pub(super) eligible: Eligible,
    /// The eligible machines that take new replicas. The others keep what they have.
    pub(super) open: Vec<usize>,
    /// The machine that the plan takes all replicas from.
    drained: Option<usize>,
    /// On machines that may run the service and are up, not yet decided.
    here: Vec<Existing<'a>>,
    /// On machines that are up and must not run it.
    misplaced: Vec<Existing<'a>>,
    /// On machines out of reach.
    pub(super) lost: Vec<(usize, &'a ReplicaRecord)>,
    pub(super) steps: Vec<Draft<'a>>,
    /// Machines of the replicas that stay as they are, once for each. Jobs that have ended on
    /// machines that do not take part are among them.
    pub(super) kept: Vec<usize>,
    pub(super) need: usize,
    /// Not all could be placed, which has been said.
    pub(super) short: bool,
    /// At most so many on one machine.
    pub(super) limit: usize,
    spread: Spread,
    /// By machine: with how many replicas of what it shares it can be there; none: it shares
    /// nothing.
    partners: Option<Vec<usize>>,
}

impl<'a, 't> Work<'a, 't> {
    pub(super) fn new(target: &'t Target, eligible: &Eligible, cluster: &Cluster<'a>) -> Self {
        let mut here = Vec::new();
        let mut misplaced = Vec::new();
        let mut lost = Vec::new();
        let mut done = Vec::new();
        for (machine, replica) in cluster.replicas_of(&target.key) {
            let existing = Existing::new(target, machine, cluster.machines[machine], replica);
            // What a job did is done, also if its machine is down or drained.
            let is_done = !target.global() && existing.is_done();
            let is_up = cluster.machines[machine].up;
            if is_up && eligible.up.contains(&machine) {
                here.push(existing);
            } else if is_done && done.len() < target.spec.replicas as usize {
                done.push(machine);
            } else if !is_up {
                lost.push((machine, replica));
            } else {
                misplaced.push(existing);
            }
        }
        let need = if target.global() {
            eligible.up.len()
        } else {
            target.spec.replicas as usize - done.len()
        };
        let most = target
            .spec
            .placement
            .as_ref()
            .map_or(0, |placement| placement.max_replicas_per_machine);
        let limit = match (target.global(), most) {
            (true, _) => 1,
            (false, 0) => usize::MAX,
            (false, most) => most as usize,
        };
        Self {
            target,
            eligible: eligible.clone(),
            open: eligible
                .up
                .iter()
                .copied()
                .filter(|machine| cluster.closed(*machine).is_none())
                .collect(),
            drained: cluster.drained,
            here,
            misplaced,
            lost,
            steps: Vec::new(),
            kept: done,
            need,
            short: false,
            limit,
            spread: Spread::new(&target.rules, cluster),
            partners: None,
        }
    }

    /// Holds the places it will most likely have until it is its turn, so that services before it
    /// leave them to it.
    pub(super) fn reserve(&self, board: &mut Board<'t>) {
        if self.target.global() {
            for machine in &self.eligible.up {
                board.add(*machine, self.target);
            }
            return;
        }
        // Which of too many go is decided later, so all of them hold theirs.
        for existing in self.here.iter().filter(|existing| existing.fault.is_none()) {
            board.add(existing.machine, self.target);
        }
    }

    /// Takes over what the placement of others means for it.
    pub(super) fn follow(&mut self, following: Following) -> Result<(), PlanError> {
        for existing in self
            .here
            .iter_mut()
            .filter(|existing| existing.fault.is_none())
        {
            existing.fault = following.fault(existing.machine).map(Reason::Other);
        }
        let Some(partners) = following.partners else {
            return Ok(());
        };
        self.eligible.up.retain(|machine| partners[*machine] > 0);
        self.open.retain(|machine| partners[*machine] > 0);
        let (here, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.here)
            .into_iter()
            .partition(|one| partners[one.machine] > 0);
        self.here = here;
        self.misplaced.extend(gone);
        self.partners = Some(partners);
        if self.target.global() {
            self.need = self.eligible.up.len();
        }
        if self.need > 0 && self.eligible.up.is_empty() && self.eligible.down.is_empty() {
            return Err(PlanError::SharedNowhere {
                service: self.target.key.to_string(),
                shared: following.shared.join("`, `"),
            });
        }
        Ok(())
    }

    /// Machines where a running replica goes.
    pub(super) fn leaves(&self, machine: usize) -> bool {
        let by_step = self.steps.iter().filter_map(|draft| draft.old);
        let by_end = self
            .here
            .iter()
            .chain(&self.misplaced)
            .map(|existing| (existing.machine, existing.replica));
        by_step
            .chain(by_end)
            .any(|(on, old)| on == machine && is_alive(old))
    }

    /// A replica stays on this machine as it is.
    pub(super) fn stays(&self, machine: usize) -> bool {
        self.kept.contains(&machine)
    }

    /// One of its replicas makes place for a new one.
    pub(super) fn replaces(&self) -> bool {
        self.steps
            .iter()
            .any(|draft| draft.action == ReplicaAction::Replace)
    }

    /// How often each replica of what it shares on the machine has one of this service already; 0
    /// where it shares nothing.
    fn round(&self, own: usize, machine: usize) -> usize {
        self.partners
            .as_ref()
            .map_or(0, |partners| own / partners[machine].max(1))
    }

    fn put(&mut self, board: &mut Board<'t>, machine: usize) {
        board.add(machine, self.target);
        self.spread.add(machine);
    }

    /// What is right stays; of too many, those on the fullest machines go.
    pub(super) fn keep(&mut self, board: &mut Board<'t>) {
        let (mut good, bad): (Vec<_>, Vec<_>) = std::mem::take(&mut self.here)
            .into_iter()
            .partition(|existing| existing.fault.is_none());
        self.here = bad;
        let limit = self.limit;
        let mut on = vec![0_usize; board.machines()];
        for existing in &good {
            on[existing.machine] += 1;
            self.spread.add(existing.machine);
        }
        while good.len() > self.need || on.iter().any(|count| *count > limit) {
            let worst = good.iter().enumerate().max_by_key(|(_, existing)| {
                let unhealthy = existing.replica.health() == Health::Unhealthy;
                let (own, total) = (on[existing.machine], board.total(existing.machine));
                let age = (
                    existing.replica.created_at_ms,
                    &existing.replica.container_id,
                );
                let crowded = (
                    self.round(own - 1, existing.machine),
                    self.spread.load(existing.machine),
                );
                (
                    own > limit,
                    unhealthy,
                    crowded,
                    own,
                    total,
                    existing.machine,
                    age,
                )
            });
            let Some((index, _)) = worst else { break };
            let existing = good.remove(index);
            on[existing.machine] -= 1;
            self.spread.remove(existing.machine);
            self.remove(&existing, "surplus");
        }
        for existing in &good {
            board.add(existing.machine, self.target);
        }
        self.need -= good.len();
        self.kept
            .extend(good.into_iter().map(|existing| existing.machine));
    }

    /// One on each machine that has none; there is no choice, so a taken port is an error, and so
    /// is too little room.
    pub(super) fn fill_globally(&mut self, board: &mut Board<'t>) -> Result<(), PlanError> {
        for machine in self.eligible.up.clone() {
            if board.own(machine, &self.target.key) > 0 {
                continue;
            }
            if board.lack(machine, self.target).is_some() {
                return Err(self.no_room(board, &[machine]));
            }
            if let Some(error) = board.taken(machine, self.target) {
                return Err(error);
            }
            let (there, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.here)
                .into_iter()
                .partition(|existing| existing.machine == machine);
            self.here = rest;
            let (alive, dead): (Vec<_>, Vec<_>) = there
                .into_iter()
                .partition(|existing| is_alive(existing.replica));
            let mut old = alive.into_iter().chain(dead);
            match old.next() {
                Some(existing) => self.replace(&existing, machine),
                None => self.new_replica(machine),
            }
            self.here.extend(old);
            self.put(board, machine);
            self.need -= 1;
        }
        Ok(())
    }

    pub(super) fn replace_in_place(&mut self, board: &mut Board<'t>) {
        while self.need > 0 {
            let best = self
                .here
                .iter()
                .enumerate()
                .filter(|(_, existing)| self.has_place(board, existing.machine))
                // One without a partner of its own where it is may find one elsewhere.
                .filter(|(_, existing)| {
                    self.round(
                        board.own(existing.machine, &self.target.key),
                        existing.machine,
                    ) == 0
                })
                .min_by_key(|(_, existing)| {
                    let own = board.own(existing.machine, &self.target.key);
                    let age = (
                        existing.replica.created_at_ms,
                        &existing.replica.container_id,
                    );
                    let dead = !is_alive(existing.replica);
                    let total = board.total(existing.machine);
                    (
                        self.spread.load(existing.machine),
                        own,
                        dead,
                        total,
                        existing.machine,
                        age,
                    )
                })
                .map(|(index, _)| index);
            let Some(index) = best else { return };
            let existing = self.here.remove(index);
            self.replace(&existing, existing.machine);
            self.put(board, existing.machine);
            self.need -= 1;
        }
    }

    fn has_place(&self, board: &Board<'t>, machine: usize) -> bool {
        board.fits(machine, self.target)
            && (self.limit == usize::MAX || board.own(machine, &self.target.key) < self.limit)
    }

    /// New replicas, and those that have to move.
    pub(super) fn create(
        &mut self,
        board: &mut Board<'t>,
        warnings: &mut Vec<String>,
    ) -> Result<(), PlanError> {
        while self.need > 0 {
            let best = self
                .open
                .iter()
                .copied()
                .filter(|machine| self.has_place(board, *machine))
                .min_by_key(|machine| {
                    let own = board.own(*machine, &self.target.key);
                    let round = self.round(own, *machine);
                    (
                        round,
                        self.spread.load(*machine),
                        own,
                        board.total(*machine),
                        *machine,
                    )
                });
            let Some(machine) = best else {
                return self.come_short(board, warnings);
            };
            // One that runs goes only when its successor is there; one that does not run can go at
            // any time.
            let movable = self
                .misplaced
                .iter()
                .position(|existing| is_alive(existing.replica));
            let there =
                |existing: &Existing<'_>| is_alive(existing.replica) && existing.machine == machine;
            let stuck = self.here.iter().position(there).or_else(|| {
                self.here
                    .iter()
                    .position(|existing| is_alive(existing.replica))
            });
            if let Some(index) = movable {
                let existing = self.misplaced.remove(index);
                self.replace(&existing, machine);
            } else if let Some(index) = stuck {
                let existing = self.here.remove(index);
                self.replace(&existing, machine);
            } else {
                self.new_replica(machine);
            }
            self.put(board, machine);
            self.need -= 1;
        }
        Ok(())
    }

    pub(super) fn finish(
        mut self,
        cluster: &Cluster<'a>,
        warnings: &mut Vec<String>,
    ) -> Placement<'a> {
        for existing in std::mem::take(&mut self.here) {
            self.remove(&existing, "surplus");
        }
        for existing in std::mem::take(&mut self.misplaced) {
            let reason = if self.drained == Some(existing.machine) {
                "the machine is drained"
            } else {
                "no longer on this machine"
            };
            self.remove(&existing, reason);
        }
        if self.target.global() && !self.eligible.down.is_empty() {
            warnings.push(format!(
                "{}: placed on {} of {} machines: {} cannot be reached",
                self.target.key,
                self.eligible.up.len(),
                self.eligible.count(),
                and(&cluster.names(&self.eligible.down)),
            ));
        }
        let retired = self.retired();
        let desired = if self.target.global() {
            self.eligible.count() as u32
        } else {
            self.target.spec.replicas
        };
        let mut replaced_there = BTreeMap::new();
        let mut ranked: Vec<_> = self
            .steps
            .iter()
            .map(|draft| {
                let turn = match draft.action {
                    ReplicaAction::Replace => {
                        let turn = replaced_there.entry(draft.machine).or_insert(0);
                        *turn += 1;
                        *turn
                    }
                    _ => 0,
                };
                ((self.rank(draft), turn, draft.machine), draft.clone())
            })
            .collect();
        ranked.sort_by_key(|(order, _)| *order);
        let steps = ranked.into_iter().map(|(_, draft)| draft).collect();
        Placement {
            steps,
            kept: self.kept.len() as u32,
            desired,
            retired,
        }
    }

    /// Capacity is added before it is taken away; only what holds a port that another step of the
    /// service needs on that machine goes first. Machines take turns with what they replace, so
    /// that a group of replacements is the work of all of them, and empties none.
    fn rank(&self, draft: &Draft<'_>) -> u8 {
        let in_the_way = || {
            let held = draft
                .old
                .filter(|(_, old)| holds_ports(old))
                .map(|(_, old)| old.ports.as_slice());
            self.steps.iter().any(|other| {
                other.action != ReplicaAction::Remove && other.machine == draft.machine
            }) && held.is_some_and(|held| {
                held.iter().any(|held| {
                    self.target
                        .spec
                        .ports
                        .iter()
                        .any(|port| ports::clash(port, held))
                })
            })
        };
        match draft.action {
            ReplicaAction::Remove if in_the_way() => 0,
            ReplicaAction::Create => 1,
            ReplicaAction::Replace => 2,
            ReplicaAction::Remove | ReplicaAction::Unspecified => 3,
        }
    }

    fn new_replica(&mut self, machine: usize) {
        let reason = Reason::Other("new replica".into());
        self.steps.push(Draft {
            action: ReplicaAction::Create,
            machine,
            old: None,
            reason,
        });
    }

    fn replace(&mut self, existing: &Existing<'a>, machine: usize) {
        let reason = match &existing.fault {
            Some(reason) if existing.machine == machine => reason.clone(),
            _ => Reason::Other("moved to another machine".into()),
        };
        let old = Some((existing.machine, existing.replica));
        self.steps.push(Draft {
            action: ReplicaAction::Replace,
            machine,
            old,
            reason,
        });
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
