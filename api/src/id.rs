//! Identifiers that users never choose.

use std::fmt;
use std::str::FromStr;

pub use uc_id::{ClusterId, IdError, MachineId};

/// Docker's id of a container: 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ContainerId(String);

impl ContainerId {
    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, as Docker prints them.
    pub fn short(&self) -> &str {
        short(&self.0)
    }
}

/// The first twelve characters of an id, or all of a shorter text.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContainerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(IdError {
                text: text.to_owned(),
                kind: "container id",
                expected: "64 hexadecimal digits",
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_id_has_64_digits() {
        assert!("abc".parse::<ContainerId>().is_err());
        assert!("AB".repeat(32).parse::<ContainerId>().is_ok());
    }
}
