//! Published ports: `[[ip:]host:]container[/protocol]` with ranges, and the long form's defaults.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::Context;
use crate::node::{Map, Node, Span, Value, insert_default, map};

const HINT: &str = "write `\"8080:80\"`, `\"127.0.0.1:8080:80/udp\"` or `\"8000-8005:8000-8005\"`";

/// The ports that a short form stands for.
pub(super) fn short(text: &str, span: Span, cx: &mut Context<'_>) -> Vec<Node> {
    match parse(text) {
        Ok(ports) => ports.into_iter().map(|port| port.into_node(span)).collect(),
        Err(problem) => {
            cx.report
                .invalid(span, format!("`{text}` is not a port: {problem}"), HINT);
            Vec::new()
        }
    }
}

/// The long form's defaults and checks.
pub(super) fn complete(entries: &mut Map, span: Span, cx: &mut Context<'_>) {
    insert_default(entries, "mode", Value::Text("ingress".into()), span);
    insert_default(entries, "protocol", Value::Text("tcp".into()), span);
    let target = entries.get("target").map(|entry| &entry.node);
    match target {
        None => {
            cx.report.invalid(
                span,
                "a port needs `target`",
                "add `target:`, the container's port",
            );
        }
        Some(node) => {
            if node
                .as_int()
                .is_some_and(|port| !(1..=65_535).contains(&port))
            {
                cx.report.invalid(
                    node.span,
                    "a port is a number from 1 to 65535",
                    "correct `target`",
                );
            }
        }
    }
    if let Some(node) = entries.get("published").map(|entry| &entry.node)
        && let Some(text) = node.as_text()
        && !text.is_empty()
        && let Err(problem) = range(text)
    {
        cx.report.invalid(
            node.span,
            format!("`{text}` is not a port: {problem}"),
            "correct `published`",
        );
    }
    if let Some(node) = entries.get("host_ip").map(|entry| &entry.node)
        && let Some(text) = node.as_text()
        && !text.is_empty()
        && text.parse::<IpAddr>().is_err()
    {
        cx.report.invalid(
            node.span,
            format!("`{text}` is not an IP address"),
            "correct `host_ip`",
        );
    }
    if let Some(node) = entries.get("protocol").map(|entry| &entry.node)
        && let Some(text) = node.as_text()
        && !matches!(text.to_ascii_lowercase().as_str(), "tcp" | "udp" | "sctp")
    {
        cx.report.invalid(
            node.span,
            format!("`{text}` is not a protocol of a port"),
            "write `tcp` or `udp`",
        );
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Port {
    host_ip: Option<String>,
    published: Option<String>,
    target: u16,
    protocol: String,
}

impl Port {
    fn into_node(self, span: Span) -> Node {
        let mut entries = vec![("mode", Value::Text("ingress".into()))];
        if let Some(ip) = self.host_ip {
            entries.push(("host_ip", Value::Text(ip)));
        }
        entries.push(("target", Value::Int(self.target.into())));
        if let Some(published) = self.published {
            entries.push(("published", Value::Text(published)));
        }
        entries.push(("protocol", Value::Text(self.protocol)));
        map(span, entries)
    }
}

fn parse(text: &str) -> Result<Vec<Port>, String> {
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, protocol.to_ascii_lowercase()),
        None => (text, "tcp".to_owned()),
    };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("unknown protocol `{protocol}`"));
    }
    let (rest, container) = ports
        .rsplit_once(':')
        .map_or((None, ports), |(rest, last)| (Some(rest), last));
    let (ip, host) = match rest {
        None => (None, ""),
        Some(rest) => rest
            .rsplit_once(':')
            .map_or((None, rest), |(ip, host)| (Some(ip), host)),
    };
    if container.is_empty() {
        return Err("the container's port is missing".into());
    }
    let containers = range(container)?;
    if *containers.start() == 0 {
        return Err("a container's port is a number from 1 to 65535".into());
    }
    let host_ip = match ip {
        None | Some("") => None,
        Some(ip) => {
            let bare = ip
                .strip_prefix('[')
                .and_then(|ip| ip.strip_suffix(']'))
                .unwrap_or(ip);
            if bare.parse::<IpAddr>().is_err() {
                return Err(format!("`{ip}` is not an IP address"));
            }
            Some(bare.to_owned())
        }
    };
    let published: Vec<Option<String>> = if host.is_empty() {
        containers.clone().map(|_| None).collect()
    } else {
        let hosts = range(host)?;
        if hosts.len() == containers.len() {
            hosts.map(|port| Some(port.to_string())).collect()
        } else if containers.len() == 1 {
            vec![Some(host.to_owned())]
        } else {
            return Err(format!(
                "{} host ports for {} container ports",
                hosts.len(),
                containers.len()
            ));
        }
    };
    Ok(containers
        .zip(published)
        .map(|(target, published)| Port {
            host_ip: host_ip.clone(),
            published,
            target,
            protocol: protocol.clone(),
        })
        .collect())
}

/// `80` or `8000-8005`.
pub(crate) fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let number = |text: &str| {
        let number = text
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| text.parse::<u16>().ok())
            .flatten();
        number.ok_or_else(|| format!("`{text}` is not a number from 0 to 65535"))
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last {
        return Err(format!("the range `{text}` ends before it begins"));
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        match parse(text) {
            Ok(ports) => {
                let shown: Vec<_> = ports
                    .iter()
                    .map(|port| {
                        format!(
                            "{}|{}|{}/{}",
                            port.host_ip.as_deref().unwrap_or("-"),
                            port.published.as_deref().unwrap_or("-"),
                            port.target,
                            port.protocol
                        )
                    })
                    .collect();
                shown.join(" ")
            }
            Err(problem) => format!("!{problem}"),
        }
    }

    #[test]
    fn short_forms() {
        let table = [
            ("80", "-|-|80/tcp"),
            ("8080:80", "-|8080|80/tcp"),
            ("8080:80/udp", "-|8080|80/udp"),
            ("1:2/TCP", "-|1|2/tcp"),
            ("80/sctp", "-|-|80/sctp"),
            ("127.0.0.1:9000:90", "127.0.0.1|9000|90/tcp"),
            ("[::1]:9001:90", "::1|9001|90/tcp"),
            ("0.0.0.0::77", "0.0.0.0|-|77/tcp"),
            ("3000-3001", "-|-|3000/tcp -|-|3001/tcp"),
            (
                "1000-1002:2000-2002/udp",
                "-|1000|2000/udp -|1001|2001/udp -|1002|2002/udp",
            ),
            ("9100-9105:91", "-|9100-9105|91/tcp"),
            ("::80", "-|-|80/tcp"),
            (":80", "-|-|80/tcp"),
        ];
        for (text, expected) in table {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_port_says_why() {
        let table = [
            ("", "!the container's port is missing"),
            ("80:", "!the container's port is missing"),
            ("a:b", "!`b` is not a number from 0 to 65535"),
            ("99999", "!`99999` is not a number from 0 to 65535"),
            ("+80", "!`+80` is not a number from 0 to 65535"),
            ("80/foo", "!unknown protocol `foo`"),
            ("1-3:1-2", "!3 host ports for 2 container ports"),
            ("3-1", "!the range `3-1` ends before it begins"),
            ("80:0", "!a container's port is a number from 1 to 65535"),
            ("host:1:2", "!`host` is not an IP address"),
        ];
        for (text, expected) in table {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r"[0-9:./\[\]a-f-]{0,30}") {
            let _ = parse(&text);
        }

        #[test]
        fn ranges_of_one_length_go_side_by_side(host in 1_u16..60_000, container in 1_u16..60_000, more in 0_u16..20) {
            let ports = parse(&format!("{host}-{}:{container}-{}", host + more, container + more)).unwrap();
            prop_assert_eq!(ports.len(), usize::from(more) + 1);
            let last = ports.last().unwrap();
            prop_assert_eq!(last.target, container + more);
            prop_assert_eq!(last.published.clone(), Some((host + more).to_string()));
        }
    }
}
