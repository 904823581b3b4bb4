//! The rules of the firewall: a pure function from a description to command lines.
//!
//! | chain | jumped to from | what it does |
//! |---|---|---|
//! | `UC-INPUT` | `INPUT` | accepts WireGuard, DNS from our containers, and the peer API and gossip from the mesh |
//! | `UC-FORWARD` | `DOCKER-USER`, or `FORWARD` without Docker's rules | accepts traffic between mesh and containers |
//! | `UC-POSTROUTING` | `POSTROUTING` (nat) | masquerades what containers send out of the cluster |
//! | `UC-PREROUTING` | `PREROUTING` (raw), Docker 28.0 and 28.1 only | keeps Docker from dropping what comes from the mesh |
//!
//! `UC-INPUT` has one rule that drops: packets for the management address that did not come through
//! the mesh. Linux accepts packets for any of its addresses on any interface, so without that rule
//! any host on the machine's LAN could talk to the peer API.

use std::fmt::Write as _;
use std::net::Ipv6Addr;

use ipnet::Ipv4Net;
use uc_api::layout::{GOSSIP_PORT, MESH_INTERFACE, PEER_API_PORT};
use uc_mesh::firewall::{Command, Family, Jump};

use super::docker_network::{BRIDGE, DockerVersion, gateway};

const INPUT: &str = "UC-INPUT";
const FORWARD: &str = "UC-FORWARD";
const POSTROUTING: &str = "UC-POSTROUTING";
const PREROUTING: &str = "UC-PREROUTING";
const DOCKER_USER: &str = "DOCKER-USER";

/// What the rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallSpec {
    /// The subnet of this machine's containers.
    pub subnet: Ipv4Net,
    /// This machine's management address.
    pub management: Ipv6Addr,
    /// UDP.
    pub wireguard_port: u16,
    /// The engine, if it is known.
    pub docker: Option<DockerVersion>,
}

/// Makes our chains, or replaces what is in them, each table in one step.
pub(super) fn chains(spec: &FirewallSpec, family: Family) -> Command {
    let input = match family {
        Family::V4 => chains_v4(spec),
        Family::V6 => chains_v6(spec),
    };
    Command::restore(family, input)
}

fn chains_v4(spec: &FirewallSpec) -> String {
    let FirewallSpec {
        subnet,
        wireguard_port,
        ..
    } = spec;
    let (mesh, dns) = (MESH_INTERFACE, gateway(*subnet));
    let mut text = format!(
        "*filter\n\
         :{INPUT} - [0:0]\n\
         :{FORWARD} - [0:0]\n\
         -A {INPUT} -p udp -m udp --dport {wireguard_port} -j ACCEPT\n\
         -A {INPUT} -i {BRIDGE} -d {dns}/32 -p udp -m udp --dport 53 -j ACCEPT\n\
         -A {INPUT} -i {BRIDGE} -d {dns}/32 -p tcp -m tcp --dport 53 -j ACCEPT\n\
         -A {FORWARD} -i {mesh} -o {BRIDGE} -d {subnet} -j ACCEPT\n\
         -A {FORWARD} -i {BRIDGE} -o {mesh} -s {subnet} -j ACCEPT\n\
         COMMIT\n\
         *nat\n\
         :{POSTROUTING} - [0:0]\n\
         -A {POSTROUTING} -s {subnet} -o {mesh} -j ACCEPT\n\
         -A {POSTROUTING} -s {subnet} ! -o {BRIDGE} -j MASQUERADE\n\
         COMMIT\n"
    );
    if needs_raw(spec) {
        let _ = write!(
            text,
            "*raw\n:{PREROUTING} - [0:0]\n-A {PREROUTING} -i {mesh} -d {subnet} -j ACCEPT\nCOMMIT\n"
        );
    }
    text
}

fn chains_v6(spec: &FirewallSpec) -> String {
    let FirewallSpec {
        management,
        wireguard_port,
        ..
    } = spec;
    let mesh = MESH_INTERFACE;
    format!(
        "*filter\n\
         :{INPUT} - [0:0]\n\
         -A {INPUT} -p udp -m udp --dport {wireguard_port} -j ACCEPT\n\
         -A {INPUT} -i {mesh} -d {management}/128 -p tcp -m tcp --dport {PEER_API_PORT} -j ACCEPT\n\
         -A {INPUT} -i {mesh} -d {management}/128 -p udp -m udp --dport {GOSSIP_PORT} -j ACCEPT\n\
         -A {INPUT} -i lo -d {management}/128 -j ACCEPT\n\
         -A {INPUT} ! -i {mesh} -d {management}/128 -j DROP\n\
         COMMIT\n"
    )
}

/// Succeeds if Docker has made the chain that is meant for the rules of others.
pub(super) fn has_docker_user(family: Family) -> Command {
    Command::iptables(family, &format!("-t filter -S {DOCKER_USER}"))
}

/// The jumps that have to be there.
pub(super) fn jumps(spec: &FirewallSpec, family: Family, docker_user: bool) -> Vec<Jump> {
    let parent = if docker_user { DOCKER_USER } else { "FORWARD" };
    let wanted = |jump: &Jump| match jump.chain {
        FORWARD => jump.parent == parent,
        PREROUTING => needs_raw(spec),
        _ => true,
    };
    all_jumps(family).into_iter().filter(wanted).collect()
}

/// All jumps that may have been made.
pub(super) fn all_jumps(family: Family) -> Vec<Jump> {
    let jump = |table, parent, chain| Jump {
        family,
        table,
        parent,
        chain,
    };
    match family {
        Family::V4 => vec![
            jump("filter", "INPUT", INPUT),
            jump("filter", DOCKER_USER, FORWARD),
            jump("filter", "FORWARD", FORWARD),
            jump("nat", "POSTROUTING", POSTROUTING),
            jump("raw", "PREROUTING", PREROUTING),
        ],
        Family::V6 => vec![jump("filter", "INPUT", INPUT)],
    }
}

/// Docker 28.0 began to drop, in the raw table, what comes to containers directly from other hosts;
/// 28.2 got an option for trusted interfaces, which the Docker network of this module has.
fn needs_raw(spec: &FirewallSpec) -> bool {
    spec.docker
        .is_some_and(|version| version.drops_direct_access() && !version.has_trusted_interfaces())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> FirewallSpec {
        FirewallSpec {
            subnet: "10.210.7.0/24".parse().unwrap(),
            management: "fdcc:1::2".parse().unwrap(),
            wireguard_port: 51820,
            docker: Some("20.10.24+dfsg1".parse().unwrap()),
        }
    }

    #[test]
    fn the_ipv4_chains() {
        let command = chains(&spec(), Family::V4);
        assert_eq!(command.to_string(), "iptables-restore --noflush -w 5");
        insta::assert_snapshot!(command.input, @r"
        *filter
        :UC-INPUT - [0:0]
        :UC-FORWARD - [0:0]
        -A UC-INPUT -p udp -m udp --dport 51820 -j ACCEPT
        -A UC-INPUT -i br-uc -d 10.210.7.1/32 -p udp -m udp --dport 53 -j ACCEPT
        -A UC-INPUT -i br-uc -d 10.210.7.1/32 -p tcp -m tcp --dport 53 -j ACCEPT
        -A UC-FORWARD -i uc0 -o br-uc -d 10.210.7.0/24 -j ACCEPT
        -A UC-FORWARD -i br-uc -o uc0 -s 10.210.7.0/24 -j ACCEPT
        COMMIT
        *nat
        :UC-POSTROUTING - [0:0]
        -A UC-POSTROUTING -s 10.210.7.0/24 -o uc0 -j ACCEPT
        -A UC-POSTROUTING -s 10.210.7.0/24 ! -o br-uc -j MASQUERADE
        COMMIT
        ");
    }

    #[test]
    fn the_ipv6_chains() {
        insta::assert_snapshot!(chains(&spec(), Family::V6).input, @r"
        *filter
        :UC-INPUT - [0:0]
        -A UC-INPUT -p udp -m udp --dport 51820 -j ACCEPT
        -A UC-INPUT -i uc0 -d fdcc:1::2/128 -p tcp -m tcp --dport 51000 -j ACCEPT
        -A UC-INPUT -i uc0 -d fdcc:1::2/128 -p udp -m udp --dport 51001 -j ACCEPT
        -A UC-INPUT -i lo -d fdcc:1::2/128 -j ACCEPT
        -A UC-INPUT ! -i uc0 -d fdcc:1::2/128 -j DROP
        COMMIT
        ");
    }

    #[test]
    fn only_the_two_versions_of_docker_that_need_it_get_the_raw_chain() {
        for (version, expected) in [
            ("20.10.24", false),
            ("27.5.1", false),
            ("28.0.4", true),
            ("28.1.1", true),
            ("28.2.0", false),
            ("29.0.1", false),
        ] {
            let spec = FirewallSpec {
                docker: Some(version.parse().unwrap()),
                ..spec()
            };
            assert_eq!(
                chains(&spec, Family::V4).input.contains("*raw"),
                expected,
                "{version}"
            );
            let jumps = jumps(&spec, Family::V4, true);
            assert_eq!(
                jumps.iter().any(|jump| jump.table == "raw"),
                expected,
                "{version}"
            );
        }
    }

    #[test]
    fn jumps_go_first_and_into_dockers_own_chain_if_there_is_one() {
        let lines = |docker_user| {
            let jumps = jumps(&spec(), Family::V4, docker_user);
            jumps
                .iter()
                .map(|jump| jump.insert().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            lines(true),
            [
                "iptables -w 5 -t filter -I INPUT 1 -j UC-INPUT",
                "iptables -w 5 -t filter -I DOCKER-USER 1 -j UC-FORWARD",
                "iptables -w 5 -t nat -I POSTROUTING 1 -j UC-POSTROUTING",
            ]
        );
        assert_eq!(
            lines(false)[1],
            "iptables -w 5 -t filter -I FORWARD 1 -j UC-FORWARD"
        );
    }
}
