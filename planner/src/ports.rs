//! When two published ports cannot be on one machine at the same time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use uc_api::v1::{PortSpec, Protocol};

/// Both ask for the same fixed port of the same address. A port of the machine's choice (0) never
/// clashes, and a range not with one other: the machine takes another port of it.
pub(super) fn clash(a: &PortSpec, b: &PortSpec) -> bool {
    a.published_port != 0
        && !is_range(a)
        && !is_range(b)
        && a.published_port == b.published_port
        && protocol(a) == protocol(b)
        && overlap(&a.host_ip, &b.host_ip)
}

fn is_range(port: &PortSpec) -> bool {
    port.published_last > port.published_port
}

/// As people write it: `8080/tcp`, `127.0.0.1:53/udp`, `8000-8010/tcp`.
pub(super) fn show(port: &PortSpec) -> String {
    let protocol = match protocol(port) {
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
        _ => "tcp",
    };
    let published = if is_range(port) {
        format!("{}-{}", port.published_port, port.published_last)
    } else {
        port.published_port.to_string()
    };
    match port.host_ip.as_str() {
        "" => format!("{published}/{protocol}"),
        ip if ip.contains(':') && !ip.starts_with('[') => format!("[{ip}]:{published}/{protocol}"),
        ip => format!("{ip}:{published}/{protocol}"),
    }
}

fn protocol(port: &PortSpec) -> Protocol {
    match port.protocol() {
        Protocol::Udp => Protocol::Udp,
        Protocol::Sctp => Protocol::Sctp,
        Protocol::Tcp | Protocol::Unspecified => Protocol::Tcp,
    }
}

/// Empty means every address; `0.0.0.0` and `::` every address of their family. A text that is no
/// address is taken as every address: rather one refusal too many than a deployment that fails half
/// way.
fn overlap(a: &str, b: &str) -> bool {
    let parse = |text: &str| {
        text.trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .ok()
    };
    match (parse(a), parse(b)) {
        (None, _) | (_, None) => true,
        (Some(IpAddr::V4(a)), Some(IpAddr::V4(b))) => {
            a == b || a == Ipv4Addr::UNSPECIFIED || b == Ipv4Addr::UNSPECIFIED
        }
        (Some(IpAddr::V6(a)), Some(IpAddr::V6(b))) => {
            a == b || a == Ipv6Addr::UNSPECIFIED || b == Ipv6Addr::UNSPECIFIED
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ip:port/protocol`, each part optional as on the command line.
    fn port(text: &str) -> PortSpec {
        let (rest, protocol) = match text.split_once('/') {
            Some((rest, "udp")) => (rest, Protocol::Udp),
            Some((rest, "tcp")) => (rest, Protocol::Tcp),
            Some((rest, "sctp")) => (rest, Protocol::Sctp),
            Some((_, other)) => panic!("{other}"),
            None => (text, Protocol::Unspecified),
        };
        let (ip, number) = rest.rsplit_once(':').unwrap_or(("", rest));
        let (first, last) = number.split_once('-').unwrap_or((number, "0"));
        PortSpec {
            container_port: 80,
            published_port: first.parse().unwrap(),
            published_last: last.parse().unwrap(),
            host_ip: ip.to_owned(),
            protocol: protocol.into(),
        }
    }

    #[test]
    fn table() {
        for (a, b, expected) in [
            ("80", "80", true),
            ("80", "81", false),
            ("0", "0", false),
            ("80", "0", false),
            ("80/tcp", "80", true),
            ("80/tcp", "80/udp", false),
            ("53/udp", "53/udp", true),
            ("127.0.0.1:80", "80", true),
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.2:80", true),
            ("0.0.0.0:80", "80", true),
            ("0.0.0.0:80", ":::80", false),
            (":::80", "::1:80", true),
            ("::1:80", "::2:80", false),
            ("[::1]:80", "::1:80", true),
            ("::1:80", "127.0.0.1:80", false),
            ("0:0:0:0:0:0:0:1:80", "::1:80", true),
            ("127.0.0.1:80/udp", "127.0.0.1:80/tcp", false),
            ("what:80", "10.0.0.1:80", true),
            ("80/sctp", "80/sctp", true),
            ("80/sctp", "80/tcp", false),
            ("80-81", "80", false),
            ("80-81", "80-81", false),
            ("80-80", "80", true),
        ] {
            assert_eq!(clash(&port(a), &port(b)), expected, "{a} and {b}");
            assert_eq!(clash(&port(b), &port(a)), expected, "{b} and {a}");
        }
    }

    #[test]
    fn shown_as_written() {
        for (text, shown) in [
            ("80", "80/tcp"),
            ("53/udp", "53/udp"),
            ("127.0.0.1:80", "127.0.0.1:80/tcp"),
            ("::1:80", "[::1]:80/tcp"),
            ("127.0.0.1:8000-8010/sctp", "127.0.0.1:8000-8010/sctp"),
        ] {
            assert_eq!(show(&port(text)), shown);
        }
    }
}
