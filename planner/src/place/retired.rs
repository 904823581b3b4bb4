//! Replicas on machines that are not up which the machines have to remove when they are back.

use uc_api::v1::{ReplicaAction, ReplicaRecord};

use super::Retired;
use super::work::Work;

impl<'a> Work<'a, '_> {
    /// Of the replicas out of reach, those that have no place any more. If not all replicas could
    /// be placed, one of the present revision counts again when it is back, and if none could be
    /// placed, one of an earlier revision is better than nothing.
    pub(super) fn retired(&self) -> Vec<Retired<'a>> {
        let new = self
            .steps
            .iter()
            .filter(|draft| draft.action != ReplicaAction::Remove);
        let placed = self.kept.len() + new.count();
        let reason = |machine: usize, replica: &ReplicaRecord| {
            let outdated = replica.revision != self.target.revision;
            let may_run_there = self.eligible.down.contains(&machine);
            let complete = self.need == 0 && !self.target.global();
            if self.target.global() || !complete && placed > 0 {
                match (may_run_there, outdated) {
                    (false, _) => Some("no longer on this machine"),
                    (true, true) => Some("replaced"),
                    (true, false) => None,
                }
            } else if complete {
                Some(if outdated && placed > 0 {
                    "replaced"
                } else {
                    "surplus"
                })
            } else {
                None
            }
        };
        let lost = self.lost.iter();
        lost.filter_map(|(machine, replica)| {
            Some(Retired {
                machine: *machine,
                replica,
                reason: reason(*machine, replica)?,
            })
        })
        .collect()
    }
}
