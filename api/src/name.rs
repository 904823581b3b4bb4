//! Names that users choose. Each is at most as long as a DNS label, because each can be looked up
//! in DNS.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Longest DNS label (RFC 1035, section 2.3.4).
pub const MAX_LABEL: usize = 63;

/// Why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a {kind} name cannot be empty")]
    Empty {
        /// The kind of name: machine, service or project.
        kind: &'static str,
    },
    /// Longer than a DNS label can be.
    #[error("{kind} name `{text}` has {} characters, but at most 63 are allowed", text.len())]
    TooLong {
        /// The kind of name: machine, service or project.
        kind: &'static str,
        /// The text as given.
        text: String,
    },
    /// It contains a character that this kind of name does not allow, or one in the wrong position.
    #[error("invalid {kind} name `{text}`: {rule}")]
    Character {
        /// The kind of name: machine, service or project.
        kind: &'static str,
        /// The text as given.
        text: String,
        /// The rule for this kind of name, as shown to the user.
        rule: &'static str,
    },
}

const STRICT: &str =
    "use lower-case letters, digits and `-`, starting and ending with a letter or digit";
const LOOSE: &str = "use letters, digits, `_`, `.` and `-`, starting with a letter or digit";
const PROJECT: &str =
    "use lower-case letters, digits, `_` and `-`, starting with a letter or digit";

fn check(
    kind: &'static str,
    text: &str,
    rule: &'static str,
    allowed: impl Fn(u8) -> bool,
    ends: bool,
) -> Result<(), NameError> {
    let wrong = || NameError::Character {
        kind,
        text: text.to_owned(),
        rule,
    };
    let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().last()) else {
        return Err(NameError::Empty { kind });
    };
    if text.len() > MAX_LABEL {
        return Err(NameError::TooLong {
            kind,
            text: text.to_owned(),
        });
    }
    if !text.bytes().all(&allowed) || !first.is_ascii_alphanumeric() || !allowed(first) {
        return Err(wrong());
    }
    if ends && !last.is_ascii_alphanumeric() {
        return Err(wrong());
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:expr, $allowed:expr, $ends:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check($kind, text, $rule, $allowed, $ends).map(|()| Self(text.to_owned()))
            }
        }
    };
}

name!(
    /// The name of a machine, unique in its cluster: a lower-case DNS label.
    MachineName,
    "machine",
    STRICT,
    |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-',
    true
);
name!(
    /// The name of a service within its project, with Compose's alphabet
    /// (`[a-zA-Z0-9][a-zA-Z0-9._-]*`).
    ServiceName,
    "service",
    LOOSE,
    |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'),
    false
);
name!(
    /// The name of a project, which is one compose file, with Compose's alphabet
    /// (`[a-z0-9][a-z0-9_-]*`).
    ProjectName,
    "project",
    PROJECT,
    |b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'),
    false
);

impl MachineName {
    /// Makes a name from a host name. Takes its first label, in lower case, and replaces other
    /// characters with `-`. Returns `None` if nothing remains.
    pub fn from_hostname(hostname: &str) -> Option<Self> {
        let mapped: String = hostname
            .to_ascii_lowercase()
            .chars()
            .take_while(|c| *c != '.')
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(MAX_LABEL)
            .collect();
        mapped.trim_matches('-').parse().ok()
    }
}

/// The name of a service in the whole cluster: `project/service`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServiceKey {
    /// Its project.
    pub project: ProjectName,
    pub service: ServiceName,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.service)
    }
}

impl FromStr for ServiceKey {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (project, service) = text.split_once('/').ok_or_else(|| NameError::Character {
            kind: "service",
            text: text.to_owned(),
            rule: "write `project/service`",
        })?;
        Ok(Self {
            project: project.parse()?,
            service: service.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_names_are_dns_labels() {
        for good in ["a", "web-1", "0"] {
            assert!(good.parse::<MachineName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<MachineName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hostnames_become_machine_names() {
        let name = |hostname| MachineName::from_hostname(hostname).map(|n| n.to_string());
        assert_eq!(name("Pi_4.local"), Some("pi-4".into()));
        assert_eq!(name("..."), None);
    }

    #[test]
    fn service_keys_have_two_parts() {
        let key: ServiceKey = "shop/web".parse().unwrap();
        assert_eq!(key.to_string(), "shop/web");
        assert!("web".parse::<ServiceKey>().is_err());
        assert!("Shop/web".parse::<ServiceKey>().is_err());
    }
}
