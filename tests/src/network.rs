//! The machines' network: a bridge on the host, a subnet that nothing else uses, and packet filter
//! tables for this testbed only. No packet of the machines leaves the host. A cut between two
//! machines drops every frame in both directions.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use crate::run::{capture, change, command, read};
use crate::state::{Lock, MachineRecord};

/// Testbeds that can be up at the same time. Machines use 10.213.0.0/24 and up, laptops
/// 10.213.128.0/24 and up.
const SUBNETS: u8 = 100;

/// The third byte of the addresses of one testbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Subnet(u8);

impl Subnet {
    #[cfg(test)]
    pub(crate) fn new(number: u8) -> Self {
        Self(number)
    }

    /// The first subnet that neither the host nor another testbed uses. The caller holds the lock
    /// of all testbeds.
    pub(crate) fn choose(taken: &[Self]) -> anyhow::Result<Self> {
        let addresses = read(&["ip", "-4", "-oneline", "address", "show"])?;
        let routes = read(&["ip", "-4", "route", "show", "table", "all"])?;
        (0..SUBNETS)
            .map(Self)
            .find(|subnet| {
                !taken.contains(subnet) && !subnet.occurs_in(&addresses) && !subnet.occurs_in(&routes)
            })
            .context(
                "no free subnet from 10.213.0.0 to 10.213.99.0\nhint: list the testbeds with `cargo xtask testbed ls`",
            )
    }

    fn occurs_in(self, text: &str) -> bool {
        let (machines, laptop) = (
            format!("10.213.{}.", self.0),
            format!("10.213.{}.", self.0 + 128),
        );
        text.split_whitespace()
            .any(|word| word.starts_with(&machines) || word.starts_with(&laptop))
    }

    pub(crate) fn cidr(self) -> String {
        format!("10.213.{}.0/24", self.0)
    }

    /// The host's address on the machines' network.
    pub(crate) fn gateway(self) -> String {
        format!("10.213.{}.1", self.0)
    }

    /// The machine of this number, from 1.
    pub(crate) fn machine(self, number: u8) -> MachineRecord {
        let host = 10 + number;
        MachineRecord {
            name: format!("m{number}"),
            address: format!("10.213.{}.{host}", self.0),
            mac: format!("02:42:0a:d5:{:02x}:{host:02x}", self.0),
        }
    }

    /// The bridge between the machines.
    pub(crate) fn bridge(self) -> String {
        format!("uctb{}", self.0)
    }

    /// The default bridge of the host's engine, for containers of the "laptop".
    pub(crate) fn laptop_bridge(self) -> String {
        format!("uctl{}", self.0)
    }

    fn laptop_address(self) -> String {
        format!("10.213.{}.1/24", self.0 + 128)
    }
}

/// Makes the laptop's bridge (the engine makes the machines') and the filter that keeps packets
/// inside.
pub(crate) fn create(lock: &Lock, layout: &Layout, subnet: Subnet) -> anyhow::Result<()> {
    let bridge = subnet.laptop_bridge();
    change(
        lock,
        &mut command(&["ip", "link", "add", &bridge, "type", "bridge"]),
    )?;
    change(
        lock,
        &mut command(&[
            "ip",
            "address",
            "add",
            &subnet.laptop_address(),
            "dev",
            &bridge,
        ]),
    )?;
    change(lock, &mut command(&["ip", "link", "set", &bridge, "up"]))?;
    nft(lock, layout, &fence(&layout.table(), subnet))?;
    allow_bridged(lock, subnet)
}

/// Some hosts filter bridged packets like routed ones and drop unknown packets (Docker sets both).
/// There, one rule accepts the packets between the machines. [`remove`] deletes it.
fn allow_bridged(lock: &Lock, subnet: Subnet) -> anyhow::Result<()> {
    let filters = fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables")
        .is_ok_and(|text| text.trim() == "1");
    if !filters || !read(&["iptables", "-w", "-S", "FORWARD"])?.contains("-P FORWARD DROP") {
        return Ok(());
    }
    let bridge = subnet.bridge();
    change(
        lock,
        &mut command(&[
            "iptables", "-w", "-I", "FORWARD", "-i", &bridge, "-o", &bridge, "-j", "ACCEPT",
        ]),
    )
}

/// Removes what [`create`], [`apply_cuts`] and the engine made, as far as it exists.
pub(crate) fn remove(layout: &Layout, subnet: Option<Subnet>) -> anyhow::Result<()> {
    let table = layout.table();
    for family in ["inet", "bridge"] {
        // Adding the table first lets the deletion succeed whether or not it existed.
        read(&[
            "nft",
            &format!("table {family} {table} {{}}; delete table {family} {table}"),
        ])?;
    }
    let Some(subnet) = subnet else { return Ok(()) };
    let bridge = subnet.bridge();
    while capture(&mut command(&[
        "iptables", "-w", "-D", "FORWARD", "-i", &bridge, "-o", &bridge, "-j", "ACCEPT",
    ]))?
    .success()
    {}
    for bridge in [bridge, subnet.laptop_bridge()] {
        // The other ends died with the machines, but the kernel can be late with these.
        for port in entries(&format!("/sys/class/net/{bridge}/brif")) {
            // The kernel can remove it in the meantime.
            let _ = capture(&mut command(&["ip", "link", "delete", &port]))?;
        }
        if fs::exists(format!("/sys/class/net/{bridge}"))? {
            read(&["ip", "link", "delete", &bridge])?;
        }
    }
    Ok(())
}

/// Replaces all cuts by `cuts`. `ports` returns the host's interface of a running machine.
pub(crate) fn apply_cuts(
    lock: &Lock,
    layout: &Layout,
    machines: &[MachineRecord],
    cuts: &[(String, String)],
    ports: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<()> {
    let mut rules = String::new();
    for (a, b) in cuts {
        for (from, to) in [(a, b), (b, a)] {
            let (Some(from), Some(to)) = (machine(machines, from), machine(machines, to)) else {
                bail!("machine '{from}' or '{to}' not found");
            };
            rules.push_str(&barrier(from, to, ports(&to.name).as_deref()));
        }
    }
    let table = layout.table();
    let rules = format!(
        "table bridge {table} {{}}\ndelete table bridge {table}\n\
         table bridge {table} {{\n  chain forward {{\n    type filter hook forward priority 0; policy accept;\n{rules}  }}\n}}\n"
    );
    nft(lock, layout, &rules)
}

fn machine<'a>(machines: &'a [MachineRecord], name: &str) -> Option<&'a MachineRecord> {
    machines.iter().find(|machine| machine.name == name)
}

/// Drops frames from one machine to another. The first rule matches frames addressed to it, also
/// while it boots and its port is unknown; the second also matches broadcasts.
fn barrier(from: &MachineRecord, to: &MachineRecord, port: Option<&str>) -> String {
    let mut rules = format!("    ether saddr {} ether daddr {} drop\n", from.mac, to.mac);
    if let Some(port) = port {
        let _ = writeln!(
            rules,
            "    ether saddr {} oifname \"{port}\" drop",
            from.mac
        );
    }
    rules
}

/// Drops packets between the testbed's bridges and all other interfaces.
fn fence(table: &str, subnet: Subnet) -> String {
    let mut rules = String::new();
    for bridge in [subnet.bridge(), subnet.laptop_bridge()] {
        let _ = write!(
            rules,
            "    iifname \"{bridge}\" oifname != \"{bridge}\" drop\n    iifname != \"{bridge}\" oifname \"{bridge}\" drop\n"
        );
    }
    format!(
        "table inet {table} {{\n  chain forward {{\n    type filter hook forward priority -10; policy accept;\n{rules}  }}\n}}\n"
    )
}

/// Applies the rules in one transaction.
fn nft(lock: &Lock, layout: &Layout, rules: &str) -> anyhow::Result<()> {
    let file = layout.state_dir().join("rules.nft");
    fs::write(&file, rules)?;
    change(lock, &mut command(&["nft", "-f", &file.to_string_lossy()]))
}

/// The host's interface with this index, which is connected to a machine's interface.
pub(crate) fn interface(index: &str) -> Option<String> {
    entries("/sys/class/net").into_iter().find(|name| {
        fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))
            .is_ok_and(|text| text.trim() == index.trim())
    })
}

fn entries(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnet_in_use_is_found_in_addresses_and_routes() {
        assert!(
            Subnet(1).occurs_in("2: eth0    inet 10.213.1.1/24 brd 10.213.1.255 scope global eth0")
        );
        assert!(Subnet(1).occurs_in("10.213.129.0/24 dev uctl1 scope link"));
        assert!(!Subnet(1).occurs_in("10.213.10.0/24 dev uctb10 scope link"));
        assert!(!Subnet(1).occurs_in("110.213.1.0/24 dev eth0 scope link"));
    }

    #[test]
    fn machine_number_gives_name_address_and_mac() {
        let machine = Subnet(2).machine(3);
        assert_eq!(machine.name, "m3");
        assert_eq!(machine.address, "10.213.2.13");
        assert_eq!(machine.mac, "02:42:0a:d5:02:0d");
    }

    #[test]
    fn barrier_drops_unicast_and_broadcast_frames() {
        let (a, b) = (Subnet(0).machine(1), Subnet(0).machine(2));
        let rules = barrier(&a, &b, Some("veth7"));
        let expected = "    ether saddr 02:42:0a:d5:00:0b ether daddr 02:42:0a:d5:00:0c drop\n    \
                        ether saddr 02:42:0a:d5:00:0b oifname \"veth7\" drop\n";
        assert_eq!(rules, expected);
        assert_eq!(barrier(&a, &b, None).lines().count(), 1);
    }
}
