//! The rules of the firewall: a pure function from a description to command lines.
//!
//! | chain | jumped to from | what it does |
//! |---|---|---|
//! | `UC-INPUT` | `INPUT` | accepts DNS from our containers |
//! | `UC-FORWARD` | `DOCKER-USER`, or `FORWARD` without Docker's rules | accepts traffic between mesh and containers |
//! | `UC-POSTROUTING` | `POSTROUTING` (nat) | masquerades what containers send out of the cluster |
//! | `UC-PREROUTING` | `PREROUTING` (raw), Docker 28.0 and 28.1 only | keeps Docker from dropping what comes from the mesh |
//!
//! All of them are for IPv4, since containers have no other addresses in the cluster. The rules
//! that protect the mesh itself are in [`uc_mesh::guard`].

use std::fmt::Write as _;

use ipnet::Ipv4Net;
use uc_api::layout::MESH_INTERFACE;
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
    /// The engine, if it is known.
    pub docker: Option<DockerVersion>,
}

/// Makes our chains, or replaces what is in them, each table in one step.
pub(super) fn chains(spec: &FirewallSpec) -> Command {
    let subnet = spec.subnet;
    let (mesh, dns) = (MESH_INTERFACE, gateway(subnet));
    let mut text = format!(
        "*filter\n\
         :{INPUT} - [0:0]\n\
         :{FORWARD} - [0:0]\n\
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
    Command::restore(Family::V4, text)
}

/// Succeeds if Docker has made the chain that is meant for the rules of others.
pub(super) fn has_docker_user() -> Command {
    Command::iptables(Family::V4, &format!("-t filter -S {DOCKER_USER}"))
}

/// The jumps that have to be there.
pub(super) fn jumps(spec: &FirewallSpec, docker_user: bool) -> Vec<Jump> {
    let parent = if docker_user { DOCKER_USER } else { "FORWARD" };
    let wanted = |jump: &Jump| match jump.chain {
        FORWARD => jump.parent == parent,
        PREROUTING => needs_raw(spec),
        _ => true,
    };
    all_jumps().into_iter().filter(wanted).collect()
}

/// All jumps that can exist.
pub(super) fn all_jumps() -> Vec<Jump> {
    let jump = |table, parent, chain| Jump {
        family: Family::V4,
        table,
        parent,
        chain,
    };
    vec![
        jump("filter", "INPUT", INPUT),
        jump("filter", DOCKER_USER, FORWARD),
        jump("filter", "FORWARD", FORWARD),
        jump("nat", "POSTROUTING", POSTROUTING),
        jump("raw", "PREROUTING", PREROUTING),
    ]
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
            docker: Some("20.10.24+dfsg1".parse().unwrap()),
        }
    }

    #[test]
    fn the_chains() {
        let command = chains(&spec());
        assert_eq!(command.to_string(), "iptables-restore --noflush -w 5");
        insta::assert_snapshot!(command.input, @r"
        *filter
        :UC-INPUT - [0:0]
        :UC-FORWARD - [0:0]
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
            assert_eq!(chains(&spec).input.contains("*raw"), expected, "{version}");
            let jumps = jumps(&spec, true);
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
            let jumps = jumps(&spec(), docker_user);
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
