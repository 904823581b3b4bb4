//! What is said where not all replicas of a service have a place.

use super::super::error::PlanError;
use super::super::{and, ports};
use super::board::Board;
use super::work::Work;

impl<'t> Work<'_, 't> {
    /// No machine for what is still needed: a warning if a machine that is down may be why,
    /// otherwise an error.
    pub(super) fn come_short(
        &mut self,
        board: &Board<'t>,
        warnings: &mut Vec<String>,
    ) -> Result<(), PlanError> {
        let want = self.target.spec.replicas;
        if !self.eligible.down.is_empty() {
            self.short = true;
            if self.eligible.stranded {
                return Ok(());
            }
            let down: Vec<String> = self
                .eligible
                .down
                .iter()
                .map(|machine| board.name(*machine).to_owned())
                .collect();
            warnings.push(format!(
                "{}: {} of {want} replicas placed: {} cannot be reached",
                self.target.key,
                want as usize - self.need,
                and(&down),
            ));
            return Ok(());
        }
        if self.open.is_empty() && !self.eligible.up.is_empty() {
            let machines = self.eligible.up.iter();
            return Err(PlanError::NoMachineFits {
                service: self.target.key.to_string(),
                machines: machines
                    .map(|machine| format!("{} (cordoned)", board.name(*machine)))
                    .collect(),
            });
        }
        let up = &self.open;
        let beside_ports = up.iter().any(|machine| {
            board.lack(*machine, self.target).is_some()
                || board.own(*machine, &self.target.key) >= self.limit
        });
        if beside_ports {
            return Err(self.no_room(board, up));
        }
        let foreign = up
            .iter()
            .copied()
            .find(|machine| board.own(*machine, &self.target.key) == 0);
        if let Some(error) = foreign.and_then(|machine| board.taken(machine, self.target)) {
            return Err(error);
        }
        let port = self
            .target
            .spec
            .ports
            .iter()
            .find(|port| port.published_port != 0);
        Err(PlanError::TooFewMachines {
            service: self.target.key.to_string(),
            port: port.map_or_else(String::new, ports::show),
            replicas: want,
            machines: up
                .iter()
                .map(|machine| board.name(*machine).to_owned())
                .collect(),
        })
    }

    pub(super) fn no_room(&self, board: &Board<'t>, machines: &[usize]) -> PlanError {
        let why = |machine: &usize| {
            let own = board.own(*machine, &self.target.key);
            let full = (own >= self.limit)
                .then(|| format!("{own} of at most {} replicas are there", self.limit));
            let why = full
                .or_else(|| board.why_not(*machine, self.target))
                .unwrap_or_default();
            format!("{}: {why}", board.name(*machine))
        };
        PlanError::NoRoom {
            service: self.target.key.to_string(),
            machines: machines.iter().map(why).collect(),
        }
    }
}
