//! Published ports: the requested bindings, with the ports that the engine chose.

use bollard::models as engine;
use uc_api::v1;

use super::or_empty;
use crate::engine::spec::port_key;

/// A requested binding: one port, a range, or any free port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestedPort {
    Any,
    One(u32),
    Range(u32, u32),
}

impl RequestedPort {
    fn parse(binding: &engine::PortBinding) -> Self {
        let text = binding.host_port.as_deref().unwrap_or("");
        let number = |text: &str| text.parse::<u32>().ok().filter(|port| *port != 0);
        match text
            .split_once('-')
            .map(|(first, last)| (number(first), number(last)))
        {
            Some((Some(first), Some(last))) => Self::Range(first, last),
            _ => number(text).map_or(Self::Any, Self::One),
        }
    }

    fn allows(self, port: u32) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => one == port,
            Self::Range(first, last) => (first..=last).contains(&port),
        }
    }
}

/// Returns the requested ports with the engine's choices. The order is fixed, so that equal
/// observations have equal records.
pub(super) fn ports(asked: engine::PortMap, published: &engine::PortMap) -> Vec<v1::PortSpec> {
    let mut ports = Vec::new();
    for (key, bindings) in asked {
        let (port, protocol) = key.split_once('/').unwrap_or((&key, "tcp"));
        let Ok(container_port) = port.parse() else {
            continue;
        };
        let protocol = match protocol {
            "udp" => v1::Protocol::Udp,
            "sctp" => v1::Protocol::Sctp,
            _ => v1::Protocol::Tcp,
        };
        let bindings = or_empty(bindings);
        let published = published
            .get(&port_key(container_port, protocol))
            .and_then(Option::as_deref);
        // Each host port belongs to one binding. A binding with a fixed number takes precedence
        // over one that lets the engine choose.
        let mut taken: Vec<(String, u32)> = bindings
            .iter()
            .filter_map(|binding| match RequestedPort::parse(binding) {
                RequestedPort::One(port) => Some((or_empty(binding.host_ip.clone()), port)),
                RequestedPort::Any | RequestedPort::Range(..) => None,
            })
            .collect();
        for binding in bindings {
            let asked = RequestedPort::parse(&binding);
            let host_ip = or_empty(binding.host_ip);
            let chosen = published.into_iter().flatten().find_map(|published| {
                let port = published.host_port.as_deref()?.parse().ok()?;
                let ours = host_ip.is_empty() || published.host_ip.as_deref() == Some(&host_ip);
                let free = !taken.contains(&(host_ip.clone(), port));
                (port != 0 && ours && free && asked.allows(port)).then_some(port)
            });
            let (published_port, published_last) = match (asked, chosen) {
                (RequestedPort::One(port), _) => (port, 0),
                (_, Some(port)) => (port, 0),
                (RequestedPort::Range(first, last), None) => (first, last),
                (RequestedPort::Any, None) => (0, 0),
            };
            taken.extend(chosen.map(|port| (host_ip.clone(), port)));
            ports.push(v1::PortSpec {
                container_port,
                published_port,
                host_ip,
                protocol: protocol.into(),
                published_last,
            });
        }
    }
    ports.sort_by(|a, b| {
        let key = |port: &v1::PortSpec| (port.container_port, port.protocol, port.published_port);
        key(a).cmp(&key(b)).then_with(|| a.host_ip.cmp(&b.host_ip))
    });
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(bindings: &[(&str, &str)]) -> engine::PortMap {
        let binding = |(ip, port): &(&str, &str)| engine::PortBinding {
            host_ip: Some((*ip).to_owned()),
            host_port: Some((*port).to_owned()),
        };
        [(
            "80/tcp".to_owned(),
            Some(bindings.iter().map(binding).collect()),
        )]
        .into()
    }

    fn shown(asked: &[(&str, &str)], published: &[(&str, &str)]) -> Vec<(String, u32, u32)> {
        let ports = ports(map(asked), &map(published));
        ports
            .into_iter()
            .map(|port| (port.host_ip, port.published_port, port.published_last))
            .collect()
    }

    #[test]
    fn ports_contain_the_engines_choice() {
        let both = |port| [("0.0.0.0", port), ("::", port)];
        let one = |port, last| vec![(String::new(), port, last)];
        assert_eq!(shown(&[("", "8000-8010")], &both("8003")), one(8003, 0));
        assert_eq!(shown(&[("", "8000-8010")], &[]), one(8000, 8010));
        assert_eq!(shown(&[("", "")], &both("32768")), one(32768, 0));
        assert_eq!(shown(&[("", "0")], &[]), one(0, 0));
        assert_eq!(shown(&[("", "9000")], &[]), one(9000, 0));
    }

    #[test]
    fn ports_assign_each_binding_its_own_port() {
        let published = [
            ("0.0.0.0", "8000"),
            ("0.0.0.0", "8001"),
            ("0.0.0.0", "40000"),
        ];
        assert_eq!(
            shown(&[("", "8000-8001"), ("", "8000"), ("", "")], &published),
            [
                (String::new(), 8000, 0),
                (String::new(), 8001, 0),
                (String::new(), 40000, 0)
            ]
        );
        assert_eq!(
            shown(
                &[("127.0.0.1", ""), ("127.0.0.2", "")],
                &[("127.0.0.2", "7"), ("127.0.0.1", "7")]
            ),
            [
                ("127.0.0.1".to_owned(), 7, 0),
                ("127.0.0.2".to_owned(), 7, 0)
            ]
        );
    }
}
