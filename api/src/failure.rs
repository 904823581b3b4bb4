//! Failures as data: what went wrong, on which machine, and what to do about it. The daemon, the
//! wire and the CLI use the same type.

use std::fmt;

use prost::Message as _;
use tonic::Status;

use crate::v1::{ChangeFailure, FailureDetail};

/// The kind of a failure. It decides the gRPC status and the CLI's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is invalid in any state of the cluster.
    Invalid,
    /// The object that the request names does not exist.
    NotFound,
    /// The object to create already exists.
    Exists,
    /// The request is valid but not in the present state. Examples: not in a cluster, the container
    /// exited, the port is taken.
    Refused,
    /// The plan changed after the user confirmed it.
    PlanChanged,
    /// A machine or an engine could not be reached.
    Unreachable,
    /// A time limit was exceeded.
    TimedOut,
    /// No disk space or memory left.
    Exhausted,
    /// Client and daemon do not support the same protocol.
    Version,
    /// The call is meant for another cluster than the one this machine is in.
    WrongCluster,
    /// A bug in uc.
    Internal,
}

/// Each code with its name on the wire and its gRPC status, in one table so that both directions
/// agree.
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

/// One failure. `Display` prints the machine and the message; the caller lays out hint and log
/// lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    /// What failed, where and why: lower case, no full stop.
    pub message: String,
    /// What to do about it: a command where there is one.
    pub hint: Option<String>,
    /// The machine where it happened. `None` if the failure concerns no particular machine.
    pub machine: Option<String>,
    /// The container's last log lines, oldest first.
    pub log_tail: Vec<String>,
}

impl Failure {
    /// Makes a failure without a hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            machine: None,
            log_tail: Vec::new(),
        }
    }

    /// Adds a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the machine. An earlier name is kept, because it is nearer to the cause.
    pub fn on(mut self, machine: impl Into<String>) -> Self {
        self.machine.get_or_insert_with(|| machine.into());
        self
    }

    /// Adds the container's last log lines.
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

/// The longest text of a failure on the wire, in bytes. A status travels in HTTP/2 headers, which
/// common implementations limit to 16 KiB together; a larger one ends the call without a reason, or
/// the whole connection. With all texts at their limits, percent-encoded and in base64, a status
/// has less than 14 KiB.
const MAX_TEXT: usize = 2048;
const MAX_HINT: usize = 1024;
const MAX_NAME: usize = 128;
/// All log lines of a failure together, and one of them, in bytes.
const MAX_LOG: usize = 4096;
const MAX_LOG_LINE: usize = 512;

/// The text, cut with `…` if it has more than `limit` bytes.
fn cut(mut text: String, limit: usize) -> String {
    const MARK: &str = "…";
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit - MARK.len()));
        text.push_str(MARK);
    }
    text
}

/// The last lines that fit, oldest first.
fn cut_log(lines: Vec<String>) -> Vec<String> {
    // Protobuf adds two or three bytes to each line.
    const OVERHEAD: usize = 3;
    let mut left = MAX_LOG;
    let mut kept: Vec<String> = Vec::new();
    for line in lines.into_iter().rev() {
        let line = cut(line, MAX_LOG_LINE);
        let Some(rest) = left.checked_sub(line.len() + OVERHEAD) else {
            break;
        };
        left = rest;
        kept.push(line);
    }
    kept.reverse();
    kept
}

/// The message and the details of a failure, within their limits, and its gRPC status.
fn parts(failure: Failure) -> (String, FailureDetail, tonic::Code) {
    let (_, name, status) = CODES
        .iter()
        .find(|(code, ..)| *code == failure.code)
        .copied()
        .unwrap_or(CODES[10]);
    let detail = FailureDetail {
        code: name.to_owned(),
        hint: failure
            .hint
            .map_or_else(String::new, |hint| cut(hint, MAX_HINT)),
        machine: failure
            .machine
            .map_or_else(String::new, |name| cut(name, MAX_NAME)),
        log_tail: cut_log(failure.log_tail),
    };
    (cut(failure.message, MAX_TEXT), detail, status)
}

/// The failure with these parts. A code that this version does not know counts as `otherwise`.
fn from_parts(message: String, detail: FailureDetail, otherwise: Code) -> Failure {
    let by_name = CODES.iter().find(|(_, name, _)| *name == detail.code);
    Failure {
        code: by_name.map_or(otherwise, |(code, ..)| *code),
        message,
        hint: Some(detail.hint).filter(|hint| !hint.is_empty()),
        machine: Some(detail.machine).filter(|machine| !machine.is_empty()),
        log_tail: detail.log_tail,
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let (message, detail, status) = parts(failure);
        Status::with_details(status, message, detail.encode_to_vec().into())
    }
}

impl From<Failure> for ChangeFailure {
    fn from(failure: Failure) -> Self {
        let (message, detail, _) = parts(failure);
        Self {
            message,
            detail: Some(detail),
        }
    }
}

impl From<ChangeFailure> for Failure {
    fn from(failure: ChangeFailure) -> Self {
        let detail = failure.detail.unwrap_or_default();
        from_parts(failure.message, detail, Code::Internal)
    }
}

impl From<Status> for Failure {
    /// A status from elsewhere (the transport or tonic itself) gets the nearest code.
    fn from(status: Status) -> Self {
        // The details of another program's status may be anything; the status itself counts then.
        let detail = FailureDetail::decode(status.details()).unwrap_or_default();
        let by_status = CODES.iter().find(|(_, _, code)| *code == status.code());
        let by_status = by_status.map_or(Code::Internal, |(code, ..)| *code);
        let mut failure = from_parts(status.message().to_owned(), detail, by_status);
        if status.code() == tonic::Code::Unimplemented {
            failure.code = Code::Version;
        }
        failure
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
    fn status_keeps_the_last_log_lines_within_the_header_limit() {
        let lines: Vec<String> = (0..10)
            .map(|n| format!("{n}{}", "ä".repeat(5_000)))
            .collect();
        let failure = Failure::new(Code::Refused, "ü".repeat(10_000))
            .hint("x".repeat(10_000))
            .on("m".repeat(10_000))
            .log_tail(lines);
        let status = Status::from(failure);
        let headers = status.message().len() * 3 + status.details().len() * 4 / 3;
        assert!(headers < 15 * 1024, "{headers}");
        let received = Failure::from(status);
        assert_eq!(received.code, Code::Refused);
        let last = received.log_tail.last().unwrap();
        assert!(last.starts_with('9') && last.ends_with('…'), "{last}");
        assert!(received.log_tail.len() >= 7, "{}", received.log_tail.len());
    }

    #[test]
    fn status_keeps_short_log_lines_unchanged() {
        let lines: Vec<String> = (0..10).map(|n| format!("line {n}")).collect();
        let failure = Failure::new(Code::Refused, "it exited").log_tail(lines.clone());
        assert_eq!(Failure::from(Status::from(failure)).log_tail, lines);
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
