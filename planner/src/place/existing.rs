//! Replicas that are there, and whether they can stay.

use std::net::Ipv4Addr;

use uc_api::v1::{ReplicaRecord, ReplicaState, RestartPolicy};

use super::super::Machine;
use super::super::desired::Target;
use super::Reason;

/// A replica that exists, and why it cannot stay.
#[derive(Debug, Clone)]
pub(super) struct Existing<'a> {
    pub(super) machine: usize,
    pub(super) replica: &'a ReplicaRecord,
    pub(super) fault: Option<Reason>,
}

impl<'a> Existing<'a> {
    /// `machine` is the index of the replica's machine, which is `of`.
    pub(super) fn new(
        target: &Target,
        machine: usize,
        of: &Machine,
        replica: &'a ReplicaRecord,
    ) -> Self {
        Self {
            machine,
            replica,
            fault: fault(target, of, replica),
        }
    }

    /// It is a job of the present revision that has done its work.
    pub(super) fn is_done(&self) -> bool {
        self.fault.is_none() && self.replica.state() == ReplicaState::Exited
    }
}

/// Why a replica cannot stay as it is; none if it can.
fn fault(target: &Target, machine: &Machine, replica: &ReplicaRecord) -> Option<Reason> {
    let other = |text: &str| Some(Reason::Other(text.to_owned()));
    if replica.revision != target.revision {
        return Some(Reason::Outdated);
    }
    if target.recreate {
        return other("--recreate");
    }
    if replica.draining {
        return other("left over from an earlier deployment");
    }
    // Such a container looks names up where another machine is now.
    let asks_elsewhere = |server: Ipv4Addr| {
        !replica.dns_server.is_empty() && replica.dns_server != server.to_string()
    };
    match replica.state() {
        ReplicaState::Running if machine.dns_server.is_some_and(asks_elsewhere) => {
            other("its machine has another subnet now")
        }
        ReplicaState::Running => None,
        ReplicaState::Exited if is_finished_job(target, replica) => None,
        ReplicaState::Exited => match replica.exit_code {
            Some(code) => Some(Reason::Other(format!("exited with code {code}"))),
            None => other("exited"),
        },
        ReplicaState::Created => other("never started"),
        ReplicaState::Restarting => other("keeps restarting"),
        ReplicaState::Paused => other("paused"),
        ReplicaState::Dead => other("dead"),
        ReplicaState::Unspecified => other("not running"),
    }
}

/// A job that has done its work: an unchanged file does not run it once more. Machines with an
/// earlier version do not report that a replica is finished.
fn is_finished_job(target: &Target, replica: &ReplicaRecord) -> bool {
    let stays_ended = matches!(
        target.spec.restart(),
        RestartPolicy::No | RestartPolicy::OnFailure
    );
    replica.finished || (stays_ended && replica.exit_code == Some(0))
}
