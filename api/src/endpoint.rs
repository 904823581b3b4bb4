//! Where other machines can reach a machine's WireGuard port: an address or a host name, with or
//! without a port. The CLI and the daemon read it with this one parser, and a machine's record
//! keeps its text form. A name is kept as a name: each machine resolves it when it needs it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

use crate::{Code, Failure};

/// Longest host name in text form (RFC 1035, section 2.3.4, without the root's dot).
const MAX_NAME: usize = 253;

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid endpoint `{text}`: {rule}")]
pub struct EndpointError {
    text: String,
    rule: &'static str,
}

const FORM: &str = "write HOST or HOST:PORT, and put an IPv6 address in brackets before a port";
const PORT: &str = "the port must be between 1 and 65535";
const ADDRESS: &str = "other machines cannot reach this address";
const NUMBER: &str = "it is not an IPv4 address, and the last part of a name cannot be a number";
const NAME: &str = "a name consists of parts of letters, digits and `-`, separated by dots";
const LENGTH: &str = "a name has at most 253 characters, and each part between dots from 1 to 63";

impl EndpointError {
    /// An example, for people.
    pub fn hint(&self) -> &'static str {
        "for example `203.0.113.7`, `home.example.org:51820` or `[2001:db8::7]:51820`"
    }
}

impl From<EndpointError> for Failure {
    fn from(error: EndpointError) -> Self {
        Self::new(Code::Invalid, error.to_string()).hint(error.hint())
    }
}

/// A host name, in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostName(String);

impl HostName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an endpoint names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EndpointHost {
    /// An address that another machine can send to.
    Address(IpAddr),
    /// A name that each machine resolves for itself.
    Name(HostName),
}

/// A host and, if one was given, a UDP port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Endpoint {
    host: EndpointHost,
    port: Option<u16>,
}

impl Endpoint {
    /// An address, without a port.
    pub fn from_address(address: IpAddr) -> Self {
        Self {
            host: EndpointHost::Address(address),
            port: None,
        }
    }

    /// The address or name.
    pub fn host(&self) -> &EndpointHost {
        &self.host
    }

    /// The port; `None` if none was given.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The same endpoint with `port` where none was given.
    #[must_use]
    pub fn or_port(self, port: u16) -> Self {
        Self {
            port: self.port.or(Some(port)),
            ..self
        }
    }

    /// The same host with this port.
    #[must_use]
    pub fn with_port(self, port: u16) -> Self {
        Self {
            port: Some(port),
            ..self
        }
    }
}

/// Whether another machine could send to this address: not the unspecified address, loopback,
/// multicast, broadcast, or an IPv6 link-local address, which means nothing without an interface.
pub fn is_reachable_elsewhere(address: IpAddr) -> bool {
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        return false;
    }
    match address {
        IpAddr::V4(v4) => !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (EndpointHost::Address(address), Some(port)) => SocketAddr::new(*address, port).fmt(f),
            (EndpointHost::Address(address), None) => address.fmt(f),
            (EndpointHost::Name(name), Some(port)) => write!(f, "{name}:{port}"),
            (EndpointHost::Name(name), None) => name.fmt(f),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        parse(text).map_err(|rule| EndpointError {
            text: text.to_owned(),
            rule,
        })
    }
}

fn parse(text: &str) -> Result<Endpoint, &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or(FORM)?;
        let address: IpAddr = inside.parse().map_err(|_| FORM)?;
        let port = match after.strip_prefix(':') {
            Some(port) => Some(parse_port(port)?),
            None if after.is_empty() => None,
            None => return Err(FORM),
        };
        return Ok(Endpoint {
            host: usable(address)?,
            port,
        });
    }
    if let Ok(address) = text.parse() {
        return Ok(Endpoint {
            host: usable(address)?,
            port: None,
        });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    if host.is_empty() || host.contains(':') {
        return Err(FORM);
    }
    Ok(Endpoint {
        host: match host.parse() {
            Ok(address) => usable(address)?,
            Err(_) => EndpointHost::Name(parse_name(host)?),
        },
        port: port.map(parse_port).transpose()?,
    })
}

fn usable(address: IpAddr) -> Result<EndpointHost, &'static str> {
    if is_reachable_elsewhere(address) {
        Ok(EndpointHost::Address(address))
    } else {
        Err(ADDRESS)
    }
}

fn parse_port(text: &str) -> Result<u16, &'static str> {
    // `u16::from_str` accepts a leading `+`.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PORT);
    }
    text.parse().ok().filter(|port| *port > 0).ok_or(PORT)
}

fn parse_name(text: &str) -> Result<HostName, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    // A trailing dot only says that the name is complete.
    let name = text.strip_suffix('.').unwrap_or(text);
    for part in name.split('.') {
        if !part.bytes().all(allowed) || part.starts_with('-') || part.ends_with('-') {
            return Err(NAME);
        }
        if part.is_empty() || part.len() > crate::name::MAX_LABEL {
            return Err(LENGTH);
        }
    }
    if name.len() > MAX_NAME {
        return Err(LENGTH);
    }
    let last = name.rsplit_once('.').map_or(name, |(_, last)| last);
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NUMBER);
    }
    Ok(HostName(text.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_with_or_without_port_is_parsed() {
        for (text, printed) in [
            ("203.0.113.7", "203.0.113.7:5"),
            ("203.0.113.7:7", "203.0.113.7:7"),
            ("2001:db8::1", "[2001:db8::1]:5"),
            ("[2001:db8::1]", "[2001:db8::1]:5"),
            ("[2001:db8::1]:7", "[2001:db8::1]:7"),
            ("h", "h:5"),
            ("Home.Example.org:7", "home.example.org:7"),
            ("home.example.org.", "home.example.org.:5"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example:5"),
            ("3com.example", "3com.example:5"),
            ("10.0.0.1:65535", "10.0.0.1:65535"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            let endpoint = endpoint.or_port(5);
            assert_eq!(endpoint.to_string(), printed, "{text}");
            assert_eq!(printed.parse(), Ok(endpoint), "the text form is read back");
        }
        let bare: Endpoint = "2001:db8::1".parse().unwrap();
        assert_eq!(bare.to_string(), "2001:db8::1");
        assert_eq!(bare.with_port(9).to_string(), "[2001:db8::1]:9");
    }

    #[test]
    fn invalid_endpoint_is_refused_with_its_rule() {
        let long_part = format!("{}.example", "a".repeat(64));
        let long_name = vec!["abcdefg"; 40].join(".");
        for (text, rule) in [
            ("", FORM),
            (":51820", FORM),
            ("a:b:c", FORM),
            ("[h]:5", FORM),
            ("[2001:db8::1]5", FORM),
            ("[2001:db8::1", FORM),
            ("fe80::1%eth0", FORM),
            ("h:", PORT),
            ("h:0", PORT),
            ("h:x", PORT),
            ("h:+5", PORT),
            ("h:65536", PORT),
            ("203.0.113.7:99999", PORT),
            ("udp://h", PORT),
            ("0.0.0.0", ADDRESS),
            ("127.0.0.1:51820", ADDRESS),
            ("[::1]:51820", ADDRESS),
            ("[fe80::1]", ADDRESS),
            ("224.0.0.1", ADDRESS),
            ("10.0.0.300", NUMBER),
            ("1.2.3", NUMBER),
            ("a b", NAME),
            ("a/b", NAME),
            ("-a.example", NAME),
            ("my_host", NAME),
            ("a..b", LENGTH),
            (&long_part, LENGTH),
            (&long_name, LENGTH),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert_eq!(error.rule, rule, "{text}");
            assert_eq!(
                Failure::from(error).message,
                format!("invalid endpoint `{text}`: {rule}")
            );
        }
    }
}
