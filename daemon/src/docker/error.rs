//! What can go wrong with the engine, as kinds a caller can match on, and how it is told to a
//! person.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error as Bollard;
use thiserror::Error;
use uc_api::layout::DOCKER_NETWORK;
use uc_api::{Code, Failure};

/// Why a pull failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullProblem {
    /// The registry has no such image, or hides it.
    Unknown,
    /// The registry wants a login.
    Denied,
    /// No answer from the registry.
    Unreachable,
    /// Anything else; the reason says what.
    Other,
}

/// A request to the engine that failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EngineError {
    /// Docker is not installed, or listens elsewhere.
    #[error("there is no Docker socket at {}", socket.display())]
    SocketMissing {
        /// Where it was looked for.
        socket: PathBuf,
    },
    /// The socket is there, nobody listens.
    #[error("docker does not answer at {}", socket.display())]
    NotRunning {
        /// Its socket.
        socket: PathBuf,
    },
    /// The socket may not be opened.
    #[error("no permission to use the Docker socket {}", socket.display())]
    Permission {
        /// Its socket.
        socket: PathBuf,
    },
    /// Older than what we can work with.
    #[error("docker {version} is too old: 20.10 or newer is needed")]
    TooOld {
        /// Its version.
        version: String,
    },
    /// It took longer than it may.
    #[error("docker took longer than {} s to {what}", limit.as_secs())]
    TimedOut {
        /// What was asked.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// Container, volume or exec that does not exist.
    #[error("{message}")]
    NotFound {
        /// In the engine's words.
        message: String,
    },
    /// Another container has that name.
    #[error("{message}")]
    NameTaken {
        /// In the engine's words.
        message: String,
    },
    /// A port of the machine is taken.
    #[error("{message}")]
    PortTaken {
        /// In the engine's words.
        message: String,
    },
    /// The cluster network is not there.
    #[error("the Docker network `{DOCKER_NETWORK}` does not exist on this machine")]
    NetworkMissing,
    /// The image is not on this machine.
    #[error("image `{image}` is not on this machine")]
    ImageMissing {
        /// The reference.
        image: String,
    },
    /// The image is here, for another platform than the wanted one.
    #[error("{message}")]
    OtherPlatform {
        /// In the engine's words.
        message: String,
    },
    /// A pull failed.
    #[error("cannot pull `{image}`: {reason}")]
    Pull {
        /// The reference.
        image: String,
        /// Kind.
        problem: PullProblem,
        /// In the engine's words.
        reason: String,
    },
    /// What was asked makes no sense to the engine.
    #[error("{message}")]
    Invalid {
        /// In the engine's words.
        message: String,
    },
    /// It makes sense, but not now.
    #[error("{message}")]
    Refused {
        /// In the engine's words.
        message: String,
    },
    /// The disk of the machine is full.
    #[error("no space left on this machine: {message}")]
    NoSpace {
        /// In the engine's words.
        message: String,
    },
    /// The engine failed.
    #[error("docker failed: {message}")]
    Engine {
        /// In the engine's words.
        message: String,
    },
    /// The connection broke, or the engine said something that is not its API.
    #[error("the connection to Docker broke: {message}")]
    Broken {
        /// How.
        message: String,
    },
}

impl EngineError {
    /// From the client library, with the socket that was used.
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

    /// From opening or using the socket.
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

    /// The engine cannot be reached at all; worth trying again later.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::SocketMissing { .. }
                | Self::NotRunning { .. }
                | Self::Permission { .. }
                | Self::Broken { .. }
        )
    }

    /// What it means when it happened while pulling `image`.
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

/// What the engine says with any status when it is the request that cannot be done.
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

/// What an answer of the engine means. Its messages are no API, but the only place that says
/// *which* conflict a 409 or 500 is.
pub(crate) fn classify(status: u16, message: &str) -> EngineError {
    let message = message.trim().to_owned();
    let lower = message.to_ascii_lowercase();
    let has = |part: &str| lower.contains(part);
    // The last of a range: "all ports are allocated".
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
    // "denied" first: registries answer so for images that do not exist, and say so in the same
    // breath.
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

/// The kind of the I/O error at the bottom, if there is one.
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
                Some("install Docker 20.10 or newer, or start it: systemctl start docker".into()),
            ),
            E::NotRunning { .. } => (
                Code::Unreachable,
                Some("start it: systemctl start docker; its log: journalctl -u docker".into()),
            ),
            E::Permission { .. } => (
                Code::Unreachable,
                Some("ucd must run as root or belong to the group docker".into()),
            ),
            E::TooOld { .. } => (Code::Refused, Some("upgrade Docker on this machine".into())),
            E::TimedOut { .. } => (
                Code::TimedOut,
                Some("look at the machine's load and at journalctl -u docker".into()),
            ),
            E::NotFound { .. } => (Code::NotFound, None),
            E::NameTaken { .. } => (Code::Exists, None),
            E::PortTaken { .. } => (
                Code::Refused,
                Some("see who has it: ss -lntup; free it, or publish another port".into()),
            ),
            E::NetworkMissing => (
                Code::Refused,
                Some("restart the daemon, which makes it: systemctl restart ucd".into()),
            ),
            E::ImageMissing { .. } => (Code::Refused, None),
            E::Pull { image, problem, .. } => match problem {
                PullProblem::Unknown => (
                    Code::Refused,
                    Some(format!(
                        "check the name and tag of `{image}`; does it need a login?"
                    )),
                ),
                PullProblem::Denied => (
                    Code::Refused,
                    Some("log in on the machine: docker login".to_owned()),
                ),
                PullProblem::Unreachable => (
                    Code::Unreachable,
                    Some(
                        "check that this machine reaches the registry (network, DNS, proxy)"
                            .to_owned(),
                    ),
                ),
                PullProblem::Other => (Code::Refused, None),
            },
            E::OtherPlatform { .. } => (
                Code::Refused,
                Some(
                    "take `platform` out, or build or pull the image for that platform".to_owned(),
                ),
            ),
            E::Invalid { .. } => (Code::Invalid, None),
            E::Refused { .. } => (Code::Refused, None),
            E::NoSpace { .. } => (
                Code::Exhausted,
                Some("free some: docker system prune, df -h".into()),
            ),
            E::Engine { .. } => (Code::Internal, Some("its log: journalctl -u docker".into())),
            E::Broken { .. } => (
                Code::Unreachable,
                Some("see systemctl status docker".into()),
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
    fn the_engines_words_become_kinds() {
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
    fn pulls_fail_for_three_reasons() {
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
    fn every_kind_reaches_a_person_with_what_to_do() {
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
            // And across the wire.
            assert_eq!(Failure::from(tonic::Status::from(failure.clone())), failure);
        }
    }
}
