//! Failures as data: what went wrong, on which machine, and what to do about it, the same in the
//! daemon, on the wire and in the CLI.

use std::fmt;

use prost::Message as _;
use tonic::Status;

use crate::v1::FailureDetail;

/// What kind of failure it is; decides the gRPC status and the CLI's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request makes no sense as it stands.
    Invalid,
    /// What it names does not exist.
    NotFound,
    /// What it would make exists already.
    Exists,
    /// It makes sense, but not in the present state (not in a cluster, container exited, port
    /// taken, …).
    Refused,
    /// The plan that was agreed to is no longer the plan.
    PlanChanged,
    /// A machine or engine could not be reached.
    Unreachable,
    /// It took longer than it may.
    TimedOut,
    /// No disk, no memory.
    Exhausted,
    /// Client and daemon do not speak the same version.
    Version,
    /// The call is meant for another cluster than the one this machine is in.
    WrongCluster,
    /// A fault of ours.
    Internal,
}

/// `(code, name on the wire, status)`, in one place so that no two disagree.
const CODES: [(Code, &str, tonic::Code); 11] = [
    (Code::Invalid, "invalid", tonic::Code::InvalidArgument),
    (Code::NotFound, "not-found", tonic::Code::NotFound),
    (Code::Exists, "exists", tonic::Code::AlreadyExists),
    (Code::Refused, "refused", tonic::Code::FailedPrecondition),
    (Code::PlanChanged, "plan-changed", tonic::Code::Aborted),
    (Code::Unreachable, "unreachable", tonic::Code::Unavailable),
    (Code::TimedOut, "timed-out", tonic::Code::DeadlineExceeded),
    (Code::Exhausted, "exhausted", tonic::Code::ResourceExhausted),
    (Code::Version, "version", tonic::Code::FailedPrecondition),
    (
        Code::WrongCluster,
        "wrong-cluster",
        tonic::Code::FailedPrecondition,
    ),
    (Code::Internal, "internal", tonic::Code::Internal),
];

/// One failure. `Display` gives the message alone; hint and log lines are for the caller to lay
/// out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Kind.
    pub code: Code,
    /// Lower case, no full stop; says what, where and why.
    pub message: String,
    /// What to do about it; a command where there is one.
    pub hint: Option<String>,
    /// The machine it happened on, if one is meant.
    pub machine: Option<String>,
    /// The container's last lines, oldest first.
    pub log_tail: Vec<String>,
}

impl Failure {
    /// A failure without hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            machine: None,
            log_tail: Vec::new(),
        }
    }

    /// With what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the machine it happened on. The first one named stays: it is nearest to the cause.
    pub fn on(mut self, machine: impl Into<String>) -> Self {
        self.machine.get_or_insert_with(|| machine.into());
        self
    }

    /// With the container's last lines.
    pub fn log_tail(mut self, lines: Vec<String>) -> Self {
        self.log_tail = lines;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.machine {
            Some(machine) => write!(f, "{machine}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let (_, name, status) = CODES
            .iter()
            .find(|(code, ..)| *code == failure.code)
            .copied()
            .unwrap_or(CODES[10]);
        let detail = FailureDetail {
            code: name.to_owned(),
            hint: failure.hint.unwrap_or_default(),
            machine: failure.machine.unwrap_or_default(),
            log_tail: failure.log_tail,
        };
        Status::with_details(status, failure.message, detail.encode_to_vec().into())
    }
}

impl From<Status> for Failure {
    /// Statuses of other origin (transport, tonic itself) get the nearest code.
    fn from(status: Status) -> Self {
        let detail = FailureDetail::decode(status.details()).unwrap_or_default();
        let by_name = CODES.iter().find(|(_, name, _)| *name == detail.code);
        let by_status = || CODES.iter().find(|(_, _, code)| *code == status.code());
        let code = by_name
            .or_else(by_status)
            .map_or(Code::Internal, |(code, ..)| *code);
        let code = if status.code() == tonic::Code::Unimplemented {
            Code::Version
        } else {
            code
        };
        Self {
            code,
            message: status.message().to_owned(),
            hint: Some(detail.hint).filter(|hint| !hint.is_empty()),
            machine: Some(detail.machine).filter(|machine| !machine.is_empty()),
            log_tail: detail.log_tail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for (code, ..) in CODES {
            let failure = Failure::new(code, "disk full")
                .hint("free some")
                .on("m1")
                .log_tail(vec!["a".into()]);
            assert_eq!(Failure::from(Status::from(failure.clone())), failure);
        }
    }

    #[test]
    fn a_status_of_the_transport_gets_the_nearest_code() {
        assert_eq!(
            Failure::from(Status::unavailable("gone")).code,
            Code::Unreachable
        );
        assert_eq!(
            Failure::from(Status::unimplemented("what")).code,
            Code::Version
        );
        assert_eq!(Failure::from(Status::unknown("?")).code, Code::Internal);
    }
}
