//! Failures of the engine as kinds that a caller can match on, and their messages and hints for
//! users.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error as Bollard;
use thiserror::Error;
use uc_api::layout::DOCKER_NETWORK;
use uc_api::{Code, Failure};

/// Why a pull failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullProblem {
    /// The registry does not have the image, or does not admit that it has.
    Unknown,
    /// The registry requires a login.
    Denied,
    /// The registry did not answer.
    Unreachable,
    /// Any other problem; the reason describes it.
    Other,
}

/// A failed request to the engine.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EngineError {
    /// Docker is not installed, or it listens on another socket.
    #[error("Docker socket {} not found", socket.display())]
    SocketMissing {
        /// The path where the socket was expected.
        socket: PathBuf,
    },
    /// The socket exists, but no process listens on it.
    #[error("docker is not running: nothing listens on {}", socket.display())]
    NotRunning { socket: PathBuf },
    /// The daemon is not allowed to open the socket.
    #[error("permission denied on the Docker socket {}", socket.display())]
    Permission { socket: PathBuf },
    /// The engine is older than the oldest supported version.
    #[error("docker {version} is too old: 20.10 or newer is required")]
    TooOld {
        /// The engine's version.
        version: String,
    },
    /// The engine did not answer in time.
    #[error("docker did not {what} within {} s", limit.as_secs())]
    TimedOut {
        /// The action, as a verb phrase.
        what: &'static str,
        /// The time limit.
        limit: Duration,
    },
    /// The container, volume or exec does not exist.
    #[error("{message}")]
    NotFound {
        /// The engine's message.
        message: String,
    },
    /// Another container has the same name.
    #[error("{message}")]
    NameTaken {
        /// The engine's message.
        message: String,
    },
    /// A host port is already in use.
    #[error("{message}")]
    PortTaken {
        /// The engine's message.
        message: String,
    },
    /// The cluster network does not exist.
    #[error("the Docker network `{DOCKER_NETWORK}` does not exist on this machine")]
    NetworkMissing,
    /// The image is not on this machine.
    #[error("image `{image}` is not on this machine")]
    ImageMissing {
        /// The image reference.
        image: String,
    },
    /// The image is on this machine, but for another platform.
    #[error("{message}")]
    OtherPlatform {
        /// The engine's message.
        message: String,
    },
    /// A pull failed.
    #[error("cannot pull `{image}`: {reason}")]
    Pull {
        /// The image reference.
        image: String,
        /// Why it failed.
        problem: PullProblem,
        /// The message of the engine or the registry.
        reason: String,
    },
    /// The registry did not report which digest an image has.
    #[error("cannot look up `{image}` in its registry: {reason}")]
    Registry {
        /// The image reference.
        image: String,
        /// The message of the engine or the registry.
        reason: String,
    },
    /// The engine rejected the request as malformed.
    #[error("{message}")]
    Invalid {
        /// The engine's message.
        message: String,
    },
    /// The request is valid, but the engine cannot do it in the present state.
    #[error("{message}")]
    Refused {
        /// The engine's message.
        message: String,
    },
    /// The machine's disk is full.
    #[error("no space left on this machine: {message}")]
    NoSpace {
        /// The engine's message.
        message: String,
    },
    /// The engine failed.
    #[error("docker failed: {message}")]
    Engine {
        /// The engine's message.
        message: String,
    },
    /// The connection broke, or the engine's answer does not follow its API.
    #[error("the connection to Docker broke: {message}")]
    Broken {
        /// The cause.
        message: String,
    },
}

impl EngineError {
    /// Converts an error of the client library. `socket` is the socket in use.
    pub(crate) fn from_bollard(error: &Bollard, socket: &Path) -> Self {
        match error {
            Bollard::DockerResponseServerError {
                status_code,
                message,
            } => classify(*status_code, message),
            Bollard::DockerStreamError { error } => classify(500, error),
            Bollard::SocketNotFoundError(_) => Self::SocketMissing {
                socket: socket.to_owned(),
            },
            Bollard::RequestTimeoutError => Self::TimedOut {
                what: "answer",
                limit: super::client::ANSWER_LIMIT,
            },
            other => match io_kind(other) {
                Some(kind) => Self::from_io(kind, &other.to_string(), socket),
                None => Self::Broken {
                    message: with_sources(other),
                },
            },
        }
    }

    /// Converts an error from opening or using the socket.
    pub(crate) fn from_io(kind: std::io::ErrorKind, message: &str, socket: &Path) -> Self {
        let socket = socket.to_owned();
        match kind {
            std::io::ErrorKind::NotFound => Self::SocketMissing { socket },
            std::io::ErrorKind::ConnectionRefused => Self::NotRunning { socket },
            std::io::ErrorKind::PermissionDenied => Self::Permission { socket },
            _ => Self::Broken {
                message: message.to_owned(),
            },
        }
    }

    /// Reports whether the engine cannot be reached, so that a later attempt can succeed.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::SocketMissing { .. }
                | Self::NotRunning { .. }
                | Self::Permission { .. }
                | Self::Broken { .. }
        )
    }

    /// Converts an error that occurred while pulling `image`.
    pub(crate) fn while_pulling(self, image: &str) -> Self {
        let reason = match self {
            Self::NotFound { message }
            | Self::Invalid { message }
            | Self::Refused { message }
            | Self::Engine { message } => message,
            Self::ImageMissing { .. } => "no such image".to_owned(),
            other => return other,
        };
        Self::Pull {
            image: image.to_owned(),
            problem: pull_problem(&reason),
            reason,
        }
    }
}

/// Parts of messages that mean the request itself cannot be done. The engine sends them with any
/// status.
const REFUSALS: [&str; 8] = [
    "executable file not found",
    "no such file or directory: unknown",
    "error gathering device information",
    "could not select device driver",
    "cannot join network of a non running container",
    "bind source path does not exist",
    "but it is not a shared or slave mount",
    "but it is not a shared mount",
];

/// Classifies an answer of the engine. Its messages are not a stable API, but nothing else tells
/// which conflict a 409 or a 500 is.
pub(crate) fn classify(status: u16, message: &str) -> EngineError {
    let message = message.trim().to_owned();
    let lower = message.to_ascii_lowercase();
    let has = |part: &str| lower.contains(part);
    // The engine's message for a range without a free port is "all ports are allocated".
    if has("port is already allocated")
        || has("ports are allocated")
        || has("address already in use")
    {
        EngineError::PortTaken { message }
    } else if has("no space left on device") {
        EngineError::NoSpace { message }
    } else if has("network ")
        && has("not found")
        && (status == 404 || has("could not find a network"))
    {
        EngineError::NetworkMissing
    } else if has("is already in use by container") {
        EngineError::NameTaken { message }
    } else if let Some(image) = lower
        .find("no such image: ")
        .and_then(|at| message.get(at + 15..))
    {
        EngineError::ImageMissing {
            image: image.to_owned(),
        }
    } else if has("does not match the specified platform")
        || has("does not provide the specified platform")
    {
        EngineError::OtherPlatform { message }
    } else if REFUSALS.iter().any(|part| has(part)) {
        EngineError::Refused { message }
    } else {
        match status {
            404 => EngineError::NotFound { message },
            400 => EngineError::Invalid { message },
            409 => EngineError::Refused { message },
            _ => EngineError::Engine { message },
        }
    }
}

fn pull_problem(reason: &str) -> PullProblem {
    let lower = reason.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    // "Not found" is tested before "denied": registries answer "denied" for images that do not
    // exist, and the same message says that they do not exist.
    if has(&[
        "manifest unknown",
        "not found",
        "does not exist",
        "no such image",
        "name unknown",
    ]) {
        PullProblem::Unknown
    } else if has(&[
        "denied",
        "unauthorized",
        "authentication required",
        "forbidden",
    ]) {
        PullProblem::Denied
    } else if has(&[
        "dial tcp",
        "no such host",
        "timeout",
        "timed out",
        "connection refused",
        "network is unreachable",
        "no route to host",
        "request canceled",
        "eof",
        "tls",
        "server gave http",
    ]) {
        PullProblem::Unreachable
    } else {
        PullProblem::Other
    }
}

/// Returns the kind of the underlying I/O error, if there is one.
fn io_kind(error: &Bollard) -> Option<std::io::ErrorKind> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        source = error.source();
    }
    None
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        use EngineError as E;
        let message = error.to_string();
        let (code, hint): (Code, Option<String>) = match &error {
            E::SocketMissing { .. } => (
                Code::Unreachable,
                Some("install Docker 20.10 or newer, or start it with `systemctl start docker`".into()),
            ),
            E::NotRunning { .. } => (
                Code::Unreachable,
                Some("start Docker with `systemctl start docker`; `journalctl -u docker` shows its log".into()),
            ),
            E::Permission { .. } => (
                Code::Unreachable,
                Some("run ucd as root, or add its user to the group docker".into()),
            ),
            E::TooOld { .. } => (Code::Refused, Some("upgrade Docker on this machine".into())),
            E::TimedOut { .. } => (
                Code::TimedOut,
                Some("check the machine's load, and Docker's log with `journalctl -u docker`".into()),
            ),
            E::NotFound { .. } => (Code::NotFound, None),
            E::NameTaken { .. } => (Code::Exists, None),
            E::PortTaken { .. } => (
                Code::Refused,
                Some("find the process with `ss -lntup` and stop it, or publish another port".into()),
            ),
            E::NetworkMissing => (
                Code::Refused,
                Some("restart the daemon, which creates it: `systemctl restart ucd`".into()),
            ),
            E::ImageMissing { .. } => (Code::Refused, None),
            E::Pull { image, problem, .. } => match problem {
                PullProblem::Unknown => (
                    Code::Refused,
                    Some(format!(
                        "check the name and tag of `{image}`, and whether the registry requires a login"
                    )),
                ),
                PullProblem::Denied => (
                    Code::Refused,
                    Some("run `docker login` on the machine".to_owned()),
                ),
                PullProblem::Unreachable => (
                    Code::Unreachable,
                    Some(
                        "check that this machine can reach the registry (network, DNS, proxy)"
                            .to_owned(),
                    ),
                ),
                PullProblem::Other => (Code::Refused, None),
            },
            E::Registry { reason, .. } => match pull_problem(reason) {
                PullProblem::Unknown => (Code::NotFound, None),
                PullProblem::Denied => (
                    Code::Refused,
                    Some("run `docker login` on the machine".into()),
                ),
                PullProblem::Unreachable | PullProblem::Other => (
                    Code::Unreachable,
                    Some("check that this machine can reach the registry (network, DNS, proxy)".into()),
                ),
            },
            E::OtherPlatform { .. } => (
                Code::Refused,
                Some(
                    "remove `platform`, or build or pull the image for that platform".to_owned(),
                ),
            ),
            E::Invalid { .. } => (Code::Invalid, None),
            E::Refused { .. } => (Code::Refused, None),
            E::NoSpace { .. } => (
                Code::Exhausted,
                Some("free some disk space: `df -h` shows it, `docker system prune` removes unused data".into()),
            ),
            E::Engine { .. } => (Code::Internal, Some("check Docker's log: `journalctl -u docker`".into())),
            E::Broken { .. } => (
                Code::Unreachable,
                Some("check the state of Docker: `systemctl status docker`".into()),
            ),
        };
        let failure = Failure::new(code, message);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classify_maps_engine_messages_to_kinds() {
        use EngineError as E;
        let is = |status, message: &str, test: fn(&E) -> bool| {
            let error = classify(status, message);
            assert!(test(&error), "{message}: {error:?}");
        };
        is(
            500,
            "driver failed programming external connectivity on endpoint x (abc): Bind for 0.0.0.0:80 failed: port is already allocated",
            |e| matches!(e, E::PortTaken { .. }),
        );
        is(
            500,
            "… listen tcp4 0.0.0.0:80: bind: address already in use",
            |e| matches!(e, E::PortTaken { .. }),
        );
        is(
            409,
            "Conflict. The container name \"/a\" is already in use by container \"b\".",
            |e| matches!(e, E::NameTaken { .. }),
        );
        is(
            500,
            "driver failed programming external connectivity on endpoint x (y): all ports are allocated",
            |e| matches!(e, E::PortTaken { .. }),
        );
        is(
            404,
            "image with reference x was found but does not match the specified platform: wanted linux/arm64",
            |e| matches!(e, E::OtherPlatform { .. }),
        );
        is(
            500,
            "error gathering device information while adding custom device \"/dev/x\"",
            |e| matches!(e, E::Refused { .. }),
        );
        is(404, "network uc not found", |e| *e == E::NetworkMissing);
        is(404, "No such image: shop/web:1", |e| {
            *e == E::ImageMissing {
                image: "shop/web:1".into(),
            }
        });
        is(404, "No such container: abc", |e| {
            matches!(e, E::NotFound { .. })
        });
        is(
            500,
            "write /var/lib/docker/x: no space left on device",
            |e| matches!(e, E::NoSpace { .. }),
        );
        is(409, "Container abc is not running", |e| {
            matches!(e, E::Refused { .. })
        });
        is(400, "invalid mount config", |e| {
            matches!(e, E::Invalid { .. })
        });
        is(500, "what", |e| matches!(e, E::Engine { .. }));
        is(
            400,
            "OCI runtime create failed: exec: \"nope\": executable file not found in $PATH: unknown",
            |e| matches!(e, E::Refused { .. }),
        );
    }

    #[test]
    fn pull_problem_tells_unknown_denied_and_unreachable() {
        let of = |reason: &str| pull_problem(reason);
        assert_eq!(
            of(
                "pull access denied for a/b, repository does not exist or may require 'docker login'"
            ),
            PullProblem::Unknown
        );
        assert_eq!(
            of("manifest for nginx:nope not found: manifest unknown"),
            PullProblem::Unknown
        );
        assert_eq!(
            of("unauthorized: authentication required"),
            PullProblem::Denied
        );
        assert_eq!(
            of(
                "Get \"https://registry.example/v2/\": dial tcp: lookup registry.example: no such host"
            ),
            PullProblem::Unreachable
        );
        assert_eq!(
            of("net/http: request canceled while waiting for connection"),
            PullProblem::Unreachable
        );
        assert_eq!(of("unsupported manifest"), PullProblem::Other);
        let error = EngineError::NotFound {
            message: "manifest unknown".into(),
        }
        .while_pulling("web:1");
        assert_eq!(error.to_string(), "cannot pull `web:1`: manifest unknown");
    }

    #[test]
    fn failure_of_every_kind_has_a_hint() {
        let socket = PathBuf::from("/run/docker.sock");
        let cases = [
            (
                EngineError::SocketMissing {
                    socket: socket.clone(),
                },
                Code::Unreachable,
                "install Docker",
            ),
            (
                EngineError::NotRunning {
                    socket: socket.clone(),
                },
                Code::Unreachable,
                "systemctl start docker",
            ),
            (
                EngineError::Permission { socket },
                Code::Unreachable,
                "root",
            ),
            (
                EngineError::TooOld {
                    version: "19.03.1".into(),
                },
                Code::Refused,
                "upgrade",
            ),
            (
                EngineError::PortTaken {
                    message: "port 80".into(),
                },
                Code::Refused,
                "ss -lntup",
            ),
            (
                EngineError::NoSpace {
                    message: "x".into(),
                },
                Code::Exhausted,
                "prune",
            ),
            (EngineError::NetworkMissing, Code::Refused, "ucd"),
        ];
        for (error, code, hint) in cases {
            let failure = Failure::from(error.clone());
            assert_eq!(failure.code, code, "{error:?}");
            assert_eq!(failure.message, error.to_string());
            assert!(
                failure.hint.as_deref().unwrap_or_default().contains(hint),
                "{failure:?}"
            );
            // The failure must also survive the wire.
            assert_eq!(Failure::from(tonic::Status::from(failure.clone())), failure);
        }
    }
}
