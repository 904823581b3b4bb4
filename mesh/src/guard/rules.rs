//! The rules as text.
//!
//! | chain | jumped to from | what it does |
//! |---|---|---|
//! | `UC-MESH-INPUT` | `INPUT` | accepts WireGuard, and what the mesh sends to the peer ports; drops packets for the management address that did not come through the mesh; limits guests to the API |
//! | `UC-MESH-OUTPUT` (IPv6) | `OUTPUT` | only root sends to the peer ports |
//! | `UC-MESH-FORWARD` (IPv6) | `FORWARD` | nothing is forwarded into or out of the mesh |
//!
//! Linux accepts packets for any of its addresses on any interface. Without the drop in
//! `UC-MESH-INPUT`, any host on the machine's LAN could talk to the peer ports. What comes from the
//! machine itself through `lo` has passed `UC-MESH-OUTPUT`.
//!
//! The rule for TCP in `UC-MESH-OUTPUT` looks at the first packet of a connection only. Later
//! packets can belong to no process: the kernel sends the last ones after the process has closed
//! the socket, and they have no owner that a rule could compare.

use std::fmt::Write as _;

use super::{GuardSpec, PeerPorts};
use crate::firewall::{Command, Family, Jump};
use crate::key::MANAGEMENT_NETWORK;

const INPUT: &str = "UC-MESH-INPUT";
const OUTPUT: &str = "UC-MESH-OUTPUT";
const FORWARD: &str = "UC-MESH-FORWARD";

/// Creates our chains, or replaces what is in them, in one step.
pub(super) fn chains(spec: &GuardSpec, ports: PeerPorts, family: Family) -> Command {
    let text = match family {
        Family::V4 => chains_v4(spec),
        Family::V6 => chains_v6(spec, ports),
    };
    Command::restore(family, text)
}

/// IPv4 has no management address: only WireGuard itself.
fn chains_v4(spec: &GuardSpec) -> String {
    let port = spec.listen_port;
    format!(
        "*filter\n\
         :{INPUT} - [0:0]\n\
         -A {INPUT} -p udp -m udp --dport {port} -j ACCEPT\n\
         COMMIT\n"
    )
}

fn chains_v6(spec: &GuardSpec, ports: PeerPorts) -> String {
    let GuardSpec {
        interface: mesh,
        listen_port,
        addresses,
        guests,
    } = spec;
    let PeerPorts { api, membership } = ports;
    let mut text = format!(
        "*filter\n\
         :{INPUT} - [0:0]\n\
         :{OUTPUT} - [0:0]\n\
         :{FORWARD} - [0:0]\n"
    );
    // The rules for guests are first: every later rule accepts more.
    for guest in guests {
        for address in addresses {
            let _ = writeln!(
                text,
                "-A {INPUT} -i {mesh} -s {guest} -d {address}/128 -p tcp -m tcp --dport {api} -j ACCEPT"
            );
        }
        let _ = writeln!(text, "-A {INPUT} -i {mesh} -s {guest} -j DROP");
    }
    let _ = writeln!(
        text,
        "-A {INPUT} -p udp -m udp --dport {listen_port} -j ACCEPT"
    );
    for address in addresses {
        let _ = write!(
            text,
            "-A {INPUT} -i {mesh} -d {address}/128 -p tcp -m tcp --dport {api} -j ACCEPT\n\
             -A {INPUT} -i {mesh} -d {address}/128 -p udp -m udp --dport {membership} -j ACCEPT\n\
             -A {INPUT} -i lo -d {address}/128 -j ACCEPT\n\
             -A {INPUT} ! -i {mesh} -d {address}/128 -j DROP\n"
        );
    }
    let _ = write!(
        text,
        "-A {OUTPUT} -d {MANAGEMENT_NETWORK} -p tcp -m tcp --dport {api} --syn -m owner ! --uid-owner 0 -j REJECT --reject-with tcp-reset\n\
         -A {OUTPUT} -d {MANAGEMENT_NETWORK} -p udp -m udp --dport {membership} -m owner ! --uid-owner 0 -j REJECT --reject-with icmp6-adm-prohibited\n\
         -A {FORWARD} -i {mesh} -j DROP\n\
         -A {FORWARD} -o {mesh} -j REJECT --reject-with icmp6-adm-prohibited\n\
         COMMIT\n"
    );
    text
}

/// The jumps to our chains.
pub(super) fn jumps(family: Family) -> Vec<Jump> {
    let jump = |parent, chain| Jump {
        family,
        table: "filter",
        parent,
        chain,
    };
    match family {
        Family::V4 => vec![jump("INPUT", INPUT)],
        Family::V6 => vec![
            jump("INPUT", INPUT),
            jump("OUTPUT", OUTPUT),
            jump("FORWARD", FORWARD),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: PeerPorts = PeerPorts {
        api: 51000,
        membership: 51001,
    };

    fn spec(guests: &[&str]) -> GuardSpec {
        GuardSpec {
            interface: "uc0".to_owned(),
            listen_port: 51820,
            addresses: ["fdcc:1::2".parse().unwrap()].into(),
            guests: guests.iter().map(|net| net.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn ipv4_chain_accepts_wireguard() {
        let command = chains(&spec(&[]), PORTS, Family::V4);
        assert_eq!(command.to_string(), "iptables-restore --noflush -w 5");
        insta::assert_snapshot!(command.input, @r"
        *filter
        :UC-MESH-INPUT - [0:0]
        -A UC-MESH-INPUT -p udp -m udp --dport 51820 -j ACCEPT
        COMMIT
        ");
    }

    #[test]
    fn ipv6_chains_guard_the_peer_ports() {
        let command = chains(&spec(&[]), PORTS, Family::V6);
        assert_eq!(command.to_string(), "ip6tables-restore --noflush -w 5");
        insta::assert_snapshot!(command.input, @r"
        *filter
        :UC-MESH-INPUT - [0:0]
        :UC-MESH-OUTPUT - [0:0]
        :UC-MESH-FORWARD - [0:0]
        -A UC-MESH-INPUT -p udp -m udp --dport 51820 -j ACCEPT
        -A UC-MESH-INPUT -i uc0 -d fdcc:1::2/128 -p tcp -m tcp --dport 51000 -j ACCEPT
        -A UC-MESH-INPUT -i uc0 -d fdcc:1::2/128 -p udp -m udp --dport 51001 -j ACCEPT
        -A UC-MESH-INPUT -i lo -d fdcc:1::2/128 -j ACCEPT
        -A UC-MESH-INPUT ! -i uc0 -d fdcc:1::2/128 -j DROP
        -A UC-MESH-OUTPUT -d fdcc::/16 -p tcp -m tcp --dport 51000 --syn -m owner ! --uid-owner 0 -j REJECT --reject-with tcp-reset
        -A UC-MESH-OUTPUT -d fdcc::/16 -p udp -m udp --dport 51001 -m owner ! --uid-owner 0 -j REJECT --reject-with icmp6-adm-prohibited
        -A UC-MESH-FORWARD -i uc0 -j DROP
        -A UC-MESH-FORWARD -o uc0 -j REJECT --reject-with icmp6-adm-prohibited
        COMMIT
        ");
    }

    #[test]
    fn guests_reach_the_api_and_nothing_else() {
        let text = chains(&spec(&["fdcc:9::1/128"]), PORTS, Family::V6).input;
        let input: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("-A UC-MESH-INPUT"))
            .take(3)
            .collect();
        insta::assert_snapshot!(input.join("\n"), @r"
        -A UC-MESH-INPUT -i uc0 -s fdcc:9::1/128 -d fdcc:1::2/128 -p tcp -m tcp --dport 51000 -j ACCEPT
        -A UC-MESH-INPUT -i uc0 -s fdcc:9::1/128 -j DROP
        -A UC-MESH-INPUT -p udp -m udp --dport 51820 -j ACCEPT
        ");
    }

    #[test]
    fn every_chain_has_a_jump() {
        for family in Family::ALL {
            let text = chains(&spec(&[]), PORTS, family).input;
            let made: Vec<_> = text
                .lines()
                .filter_map(|line| line.strip_prefix(':')?.split(' ').next())
                .collect();
            let jumps: Vec<_> = jumps(family).iter().map(|jump| jump.chain).collect();
            assert_eq!(made, jumps);
        }
    }
}
