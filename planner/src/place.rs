//! Which replica goes where: keep what is right, replace in place what is not, create what is
//! missing, remove what is too much.
//!
//! Decided in an order in which what has the least choice comes first: everything that stays, then
//! global services, then replicas replaced where they are, then new replicas (first of the services
//! that may run on the fewest machines). A new one goes to a machine that its ports and what it
//! reserves leave room on; of those to the one with the fewest replicas of its service for each
//! replica of what it shares, then the fewest with the same values of what it is spread over, then
//! the fewest of its service, then the fewest at all, then by name. Services that go with others
//! (`together`) are placed after those, in the same order among themselves.

mod board;
mod existing;
mod retired;
mod shortage;
mod spread;
mod work;

use uc_api::v1::{ReplicaAction, ReplicaRecord, ReplicaState};

use self::board::Board;
use self::work::Work;
use super::desired::{Target, Wanted};
use super::eligible::Eligible;
use super::error::PlanError;
use super::{Cluster, and, together};

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
    /// Replicas on machines that are not up which go when their machines are back.
    pub(super) retired: Vec<Retired<'a>>,
}

/// A replica that its machine removes when it is back.
#[derive(Debug, Clone)]
pub(super) struct Retired<'a> {
    pub(super) machine: usize,
    pub(super) replica: &'a ReplicaRecord,
    pub(super) reason: &'static str,
}

impl Placement<'_> {
    /// A replica that was there goes.
    pub(super) fn takes_away(&self) -> bool {
        self.steps.iter().any(|draft| draft.old.is_some())
    }
}

/// It runs, or will again by itself.
pub(super) fn is_alive(replica: &ReplicaRecord) -> bool {
    matches!(
        replica.state(),
        ReplicaState::Running | ReplicaState::Restarting | ReplicaState::Paused
    )
}

/// Its published ports are taken on its machine.
pub(super) fn holds_ports(replica: &ReplicaRecord) -> bool {
    is_alive(replica)
}

/// The reason of a replica that is replaced with others.
pub(super) fn was_replaced(names: &[String]) -> String {
    format!(
        "{} {} replaced",
        and(names),
        if names.len() == 1 { "was" } else { "were" }
    )
}

/// What the placement of other services means for one that goes with them.
#[derive(Debug, Clone, Default)]
struct Following {
    /// The services whose namespaces it shares.
    shared: Vec<String>,
    /// By machine: how many replicas of each of them it will find there, the fewest counts. None:
    /// it shares nothing.
    partners: Option<Vec<usize>>,
    /// By machine: those of the shared services that are not the same there as before.
    disturbed: Vec<Vec<String>>,
    /// Services that it is to be replaced with, and that are.
    replaced: Vec<String>,
}

impl Following {
    fn of(target: &Target, works: &[Work<'_, '_>], board: &Board<'_>) -> Self {
        let shared: Vec<String> = together::shared(&target.spec)
            .into_iter()
            .map(str::to_owned)
            .collect();
        let work = |name: &str| {
            works
                .iter()
                .find(|work| work.target.key.service.as_str() == name)
        };
        let machines = board.machines();
        let mut disturbed = vec![Vec::new(); machines];
        let mut partners = (!shared.is_empty()).then(|| vec![usize::MAX; machines]);
        for name in &shared {
            let Ok(service) = name.parse() else { continue };
            let key = uc_api::ServiceKey {
                project: target.key.project.clone(),
                service,
            };
            for (machine, count) in partners.iter_mut().flatten().enumerate() {
                *count = (*count).min(board.own(machine, &key));
            }
            // One that the plan does not touch stays as it is.
            let Some(work) = work(name) else { continue };
            for (machine, disturbed) in disturbed.iter_mut().enumerate() {
                if work.leaves(machine) || !work.stays(machine) {
                    disturbed.push(name.clone());
                }
            }
        }
        let replaced = together::restarts_with(&target.spec)
            .filter(|name| work(name).is_some_and(Work::replaces))
            .map(str::to_owned)
            .collect();
        Self {
            shared,
            partners,
            disturbed,
            replaced,
        }
    }

    /// Why a replica that is right by itself cannot stay on this machine.
    fn fault(&self, machine: usize) -> Option<String> {
        let mut names = self.replaced.clone();
        names.extend(self.disturbed.get(machine).into_iter().flatten().cloned());
        names.sort();
        names.dedup();
        (!names.is_empty()).then(|| was_replaced(&names))
    }
}

/// The placements of all targets, in their order.
pub(super) fn place<'a>(
    wanted: &Wanted,
    eligible: &[Eligible],
    cluster: &Cluster<'a>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Placement<'a>>, PlanError> {
    let targets = &wanted.targets;
    let mut board = Board::new(wanted, cluster);
    let mut works: Vec<Work<'a, '_>> = targets
        .iter()
        .zip(eligible)
        .map(|(target, eligible)| Work::new(target, eligible, cluster))
        .collect();
    let ranks = together::ranks(targets);
    for (work, _) in works.iter().zip(&ranks).filter(|(_, rank)| **rank > 0) {
        work.reserve(&mut board);
    }
    for rank in 0..=ranks.iter().copied().max().unwrap_or(0) {
        let of_rank: Vec<usize> = (0..works.len())
            .filter(|index| ranks[*index] == rank)
            .collect();
        if rank > 0 {
            for index in &of_rank {
                board.clear(&works[*index].target.key);
            }
            for index in &of_rank {
                let following = Following::of(works[*index].target, &works, &board);
                works[*index].follow(following)?;
            }
        }
        place_rank(&mut works, &of_rank, &mut board, warnings)?;
    }
    works
        .into_iter()
        .map(|work| Ok(work.finish(cluster, warnings)))
        .collect()
}

/// Places these services, which do not look at each other.
fn place_rank<'a, 't>(
    works: &mut [Work<'a, 't>],
    of_rank: &[usize],
    board: &mut Board<'t>,
    warnings: &mut Vec<String>,
) -> Result<(), PlanError> {
    let mut of_rank: Vec<&mut Work<'a, 't>> = works
        .iter_mut()
        .enumerate()
        .filter(|(index, _)| of_rank.contains(index))
        .map(|(_, work)| work)
        .collect();
    for work in &mut of_rank {
        work.keep(board);
    }
    for work in of_rank.iter_mut().filter(|work| work.target.global()) {
        work.fill_globally(board)?;
    }
    of_rank.retain(|work| !work.target.global());
    for work in &mut of_rank {
        work.replace_in_place(board);
    }
    // Stable: of equal choice, the order of the targets.
    of_rank.sort_by_key(|work| work.eligible.up.len());
    for work in of_rank {
        work.create(board, warnings)?;
    }
    Ok(())
}
