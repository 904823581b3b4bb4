//! Why a spec cannot become a container, and how that is told.

use thiserror::Error;
use uc_api::{Code, Failure};

/// Why a spec cannot become a container.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpecError {
    /// Project or service name.
    #[error(transparent)]
    Name(#[from] uc_api::name::NameError),
    /// No image at all.
    #[error("service `{service}` has no image")]
    NoImage {
        /// Its name.
        service: String,
    },
    /// A reference that no registry could serve.
    #[error("service `{service}`: `{image}` is not an image reference")]
    Image {
        /// Its name.
        service: String,
        /// What was given.
        image: String,
    },
    /// A port outside 1..=65535, or a host address that is none.
    #[error("service `{service}`: port {port}: {reason}")]
    Port {
        /// Its name.
        service: String,
        /// As `published:container`.
        port: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A mount without an absolute target, or of no kind.
    #[error("service `{service}`: mount at `{target}`: {reason}")]
    Mount {
        /// Its name.
        service: String,
        /// Where.
        target: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A value that the key cannot have, or not beside another.
    #[error("service `{service}`: {key}: {reason}")]
    Key {
        /// Its name.
        service: String,
        /// As in the compose file.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Something that only newer engines can do.
    #[error("service `{service}`: {key} needs Docker {needs} on the machine")]
    TooOld {
        /// Its name.
        service: String,
        /// As in the compose file.
        key: &'static str,
        /// For people, for example `28`.
        needs: &'static str,
    },
    /// A namespace of a service that does not run on this machine.
    #[error("service `{service}`: {key}: no replica of `{other}` runs on this machine")]
    NoReplica {
        /// Its name.
        service: String,
        /// As in the compose file.
        key: &'static str,
        /// The service whose namespace it wants.
        other: String,
    },
    /// Content that was to travel with the deployment and is not on this machine.
    #[error("service `{service}`: {name} is not on this machine")]
    Content {
        /// Its name.
        service: String,
        /// The content's name for people.
        name: String,
    },
    /// Command set to nothing, and the image runs nothing by itself.
    #[error(
        "service `{service}`: nothing to run: its command is empty and `{image}` has no entrypoint"
    )]
    NothingToRun {
        /// Its name.
        service: String,
        /// Its image.
        image: String,
    },
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        let message = error.to_string();
        match &error {
            SpecError::TooOld { needs, .. } => Self::new(Code::Refused, message)
                .hint(format!("upgrade Docker on this machine to {needs} or newer, or leave the key out")),
            SpecError::NoReplica { other, .. } => Self::new(Code::Refused, message)
                .hint(format!("deploy `{other}` to every machine that may run it, or bind both to one machine with x-machines")),
            SpecError::Content { .. } => {
                Self::new(Code::Refused, message).hint("deploy again: contents travel with a deployment")
            }
            _ => Self::new(Code::Invalid, message),
        }
    }
}
