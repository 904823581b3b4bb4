//! Why a spec cannot become a container.

use thiserror::Error;
use uc_api::{Code, Failure};

/// Why a spec cannot become a container.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpecError {
    /// Invalid project or service name.
    #[error(transparent)]
    Name(#[from] uc_api::name::NameError),
    /// The spec has no image.
    #[error("service `{service}` has no image")]
    NoImage { service: String },
    /// The image reference is malformed.
    #[error("service `{service}`: invalid image reference `{image}`")]
    Image {
        service: String,
        /// The reference as given.
        image: String,
    },
    /// A port is outside 1..=65535, or a host address is not an IP address.
    #[error("service `{service}`: port {port}: {reason}")]
    Port {
        service: String,
        /// The port as `published:container`.
        port: String,
        /// The rule that is broken.
        reason: &'static str,
    },
    /// A mount has no absolute target, or no valid type.
    #[error("service `{service}`: mount at `{target}`: {reason}")]
    Mount {
        service: String,
        /// The mount's path in the container.
        target: String,
        /// The rule that is broken.
        reason: &'static str,
    },
    /// A key has an invalid value, or one that conflicts with another key.
    #[error("service `{service}`: {key}: {reason}")]
    Key {
        service: String,
        /// The key as in the compose file.
        key: &'static str,
        /// The rule that is broken.
        reason: String,
    },
    /// A key requires a newer engine.
    #[error("service `{service}`: {key} requires Docker {needs} or newer on the machine")]
    TooOld {
        service: String,
        /// The key as in the compose file.
        key: &'static str,
        /// The required version for display, for example `28`.
        needs: &'static str,
    },
    /// The service shares a namespace with a service that has no running replica on this machine.
    #[error("service `{service}`: {key}: no replica of `{other}` runs on this machine")]
    NoReplica {
        service: String,
        /// The key as in the compose file.
        key: &'static str,
        /// The service whose namespace is shared.
        other: String,
    },
    /// A content that should have come with the deployment is not on this machine.
    #[error("service `{service}`: {name} is not on this machine")]
    Content {
        service: String,
        /// The content's name, as shown to the user.
        name: String,
    },
    /// The command is empty, and the image has no entrypoint.
    #[error(
        "service `{service}`: nothing to run: the command is empty and `{image}` has no entrypoint"
    )]
    NothingToRun { service: String, image: String },
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        let message = error.to_string();
        match &error {
            SpecError::TooOld { needs, .. } => Self::new(Code::Refused, message)
                .hint(format!("upgrade Docker on this machine to {needs} or newer, or remove the key")),
            SpecError::NoReplica { service, other, .. } => Self::new(Code::Refused, message)
                .hint(format!("run `{other}` on each machine of `{service}`, or pin both to one machine with `x-machines`")),
            SpecError::Content { .. } => {
                Self::new(Code::Refused, message).hint("deploy again from the computer that has the compose file")
            }
            _ => Self::new(Code::Invalid, message),
        }
    }
}
