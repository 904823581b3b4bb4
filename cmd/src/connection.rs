//! How a daemon is reached: `ssh://USER@HOST[:PORT]` or `unix:///path`, as text and as data.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// How one daemon is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Connection {
    /// Through the system's `ssh`.
    Ssh(SshTarget),
    /// A Unix socket of this computer.
    Unix(PathBuf),
}

/// The machine that `ssh` connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshTarget {
    /// `None`: ssh decides (its config, or the own user name).
    pub(crate) user: Option<String>,
    /// Name, alias of the ssh config, or address without brackets.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    /// A key file for `ssh -i`. Not part of the text form.
    pub(crate) key: Option<PathBuf>,
}

/// A text is not a connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ConnectionError {
    #[error(
        "invalid connection `{text}`: `{scheme}://` is not supported; write ssh://USER@HOST[:PORT] or unix:///path"
    )]
    Scheme { text: String, scheme: String },
    #[error("invalid connection `{text}`: {reason}; write ssh://USER@HOST[:PORT] or unix:///path")]
    Form { text: String, reason: &'static str },
}

impl FromStr for Connection {
    type Err = ConnectionError;

    fn from_str(text: &str) -> Result<Self, ConnectionError> {
        match text.split_once("://") {
            None => text.parse().map(Self::Ssh),
            Some(("ssh", _)) => text.parse().map(Self::Ssh),
            Some(("unix", path)) if path.starts_with('/') && path.len() > 1 => {
                Ok(Self::Unix(path.into()))
            }
            Some(("unix", _)) => Err(ConnectionError::Form {
                text: text.into(),
                reason: "the path of the socket must be absolute",
            }),
            Some((scheme, _)) => Err(ConnectionError::Scheme {
                text: text.into(),
                scheme: scheme.into(),
            }),
        }
    }
}

impl FromStr for SshTarget {
    type Err = ConnectionError;

    /// `[ssh://][USER@]HOST[:PORT]`, an IPv6 address in brackets. A user or host that begins with
    /// `-` is refused: ssh would take it for an option.
    fn from_str(text: &str) -> Result<Self, ConnectionError> {
        let wrong = |reason| ConnectionError::Form {
            text: text.to_owned(),
            reason,
        };
        let rest = text.strip_prefix("ssh://").unwrap_or(text);
        let (user, address) = match rest.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, rest),
        };
        let (host, port) = if let Some(inner) = address.strip_prefix('[') {
            let (host, after) = inner
                .split_once(']')
                .ok_or_else(|| wrong("the bracket `[` is not closed"))?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(wrong("only a port can follow the bracket `]`")),
            }
        } else if address.matches(':').count() > 1 {
            // An IPv6 address without brackets cannot have a port.
            (address, None)
        } else {
            match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            }
        };
        let port = match port {
            None => None,
            Some(port) => match port.parse::<u16>() {
                Ok(number) if number > 0 => Some(number),
                _ => return Err(wrong("the port must be a number from 1 to 65535")),
            },
        };
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        if user == Some("") {
            return Err(wrong("the user is missing before `@`"));
        }
        for part in [Some(host), user].into_iter().flatten() {
            let odd =
                |c: char| c.is_whitespace() || c.is_control() || "'\"`$\\;&|<>()/".contains(c);
            if part.starts_with('-') || part.chars().any(odd) {
                return Err(wrong(
                    "user or host contains a character that is not allowed",
                ));
            }
        }
        Ok(Self {
            user: user.map(Into::into),
            host: host.into(),
            port,
            key: None,
        })
    }
}

impl fmt::Display for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match (self.host.contains(':'), self.port) {
            (false, None) => f.write_str(&self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (true, None) => write!(f, "[{}]", self.host),
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
        }
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ssh(target) => write!(f, "ssh://{target}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_prints_what_it_was_parsed_from() {
        for text in [
            "ssh://root@10.0.0.1",
            "ssh://web-1:2222",
            "ssh://u@[fd00::1]:22",
            "ssh://[fd00::1]",
            "unix:///run/uc/uc.sock",
        ] {
            assert_eq!(text.parse::<Connection>().unwrap().to_string(), text);
        }
        assert_eq!(
            "root@a:22".parse::<Connection>().unwrap().to_string(),
            "ssh://root@a:22"
        );
        assert_eq!("fd00::1".parse::<SshTarget>().unwrap().host, "fd00::1");
    }

    #[test]
    fn invalid_connection_is_refused() {
        for text in [
            "",
            "ssh://",
            "@host",
            "root@",
            "root@h:0",
            "root@h:x",
            "root@h:70000",
            "tcp://h:1",
            "unix://relative",
            "unix:///",
            "-oProxyCommand=x@h",
            "root@-oProxyCommand=x",
            "root@h h",
            "ssh://[fd00::1",
            "ssh://[fd00::1]22",
            "u@h/path",
            "u@$(x)",
        ] {
            assert!(text.parse::<Connection>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn unsupported_scheme_lists_the_supported_ones() {
        insta::assert_snapshot!("tcp://h:1".parse::<Connection>().unwrap_err(), @"invalid connection `tcp://h:1`: `tcp://` is not supported; write ssh://USER@HOST[:PORT] or unix:///path");
    }
}
