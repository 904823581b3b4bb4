//! The ids of machines and clusters, which the store, the API and the daemon share. The bytes are
//! random; the store's wire format has them as they are, everything else as hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
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
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_prints_what_it_parses() {
        let text = "00112233445566778899aabbccddeeff";
        let id: MachineId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.as_bytes()[1], 0x11);
    }

    #[test]
    fn text_that_is_not_an_id_is_refused() {
        for text in [
            "",
            "00",
            "+0112233445566778899aabbccddeeff",
            "0011223344556677 899aabbccddeeff",
        ] {
            assert!(text.parse::<MachineId>().is_err(), "{text:?}");
        }
    }
}
