//! Identifiers that users never choose.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A text is not an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid {kind} `{text}`: expected {expected}")]
pub struct IdError {
    /// The text as given.
    pub text: String,
    /// The kind of identifier, as shown to the user.
    pub kind: &'static str,
    /// The form that was expected.
    pub expected: &'static str,
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Makes an id from 16 random bytes, which the caller supplies.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hex16(text).map(Self).ok_or_else(|| IdError {
                    text: text.to_owned(),
                    kind: $kind,
                    expected: "32 hexadecimal digits",
                })
            }
        }
    };
}

hex_id!(
    /// A machine, for as long as it belongs to its cluster. Printed as 32 hexadecimal digits.
    MachineId,
    "machine id"
);
hex_id!(
    /// A cluster. Machines of different clusters never exchange records.
    ClusterId,
    "cluster id"
);

fn parse_hex16(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

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
    fn ids_print_what_they_parse() {
        let text = "00112233445566778899aabbccddeeff";
        let id: MachineId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.as_bytes()[1], 0x11);
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in [
            "",
            "00",
            "+0112233445566778899aabbccddeeff",
            "0011223344556677 899aabbccddeeff",
        ] {
            assert!(text.parse::<MachineId>().is_err(), "{text:?}");
        }
        assert!("abc".parse::<ContainerId>().is_err());
    }
}
