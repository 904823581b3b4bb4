//! The zone: the cluster's names and their meaning. It is built as a whole from a snapshot and
//! never changed, so readers need no lock.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use rand::Rng;
use rand::seq::SliceRandom as _;
use uc_api::layout::DOMAIN;
use uc_api::{MachineId, MachineName, ProjectName, ServiceKey, ServiceName};

/// TTL of an answer in seconds. Code that takes a replica out of service must also wait this long.
pub const ANSWER_TTL_S: u32 = 1;
/// Maximum number of addresses in one answer, which fits a UDP message with EDNS. Of more
/// addresses, a random choice is returned.
pub const MAX_ANSWERS: usize = 64;

/// What a machine knows about the cluster's names.
#[derive(Debug, Clone, Default)]
pub struct ZoneInput {
    /// The machine that answers, which `nearest.` refers to. `None` before it belongs to a
    /// cluster.
    pub local_machine: Option<MachineId>,
    /// All members, including those that are down.
    pub machines: Vec<ZoneMachine>,
    /// Services that should exist. With this entry, a service without a replica is a name without
    /// addresses. Without it the name does not exist, and a client's search list could continue to
    /// the service of the same name in another project.
    pub services: Vec<ServiceKey>,
    /// Additional names of services, valid within the service's project. A service's own name
    /// takes precedence over an alias. Services that share an alias are answered together.
    pub aliases: Vec<ZoneAlias>,
    /// Addresses of replicas that have their own resolvers. Nothing is forwarded for them.
    pub elsewhere: Vec<Ipv4Addr>,
    /// All known replicas, whatever their state.
    pub replicas: Vec<ZoneReplica>,
}

/// A machine as DNS sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneMachine {
    pub id: MachineId,
    /// `None` while an older machine has the same name.
    pub name: Option<MachineName>,
    /// Its address on the cluster network.
    pub ipv4: Ipv4Addr,
    pub state: MachineState,
}

/// How much is known of a machine's replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineState {
    Up,
    /// It is up and its Docker engine does not answer: what is known of its replicas is from
    /// before. They can have ended, or run without the engine.
    EngineAway,
    /// As before, and packets to it are lost.
    Down,
}

/// An additional name of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ZoneAlias {
    /// The service that the name refers to.
    pub service: ServiceKey,
    /// One or several labels separated by dots, in any case. An invalid name is ignored.
    pub name: String,
}

/// A replica as DNS sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneReplica {
    pub project: ProjectName,
    /// The service's name without the project.
    pub service: ServiceName,
    /// The machine that it runs on.
    pub machine_id: MachineId,
    /// Its address on the cluster network.
    pub ip: Ipv4Addr,
    pub running: bool,
    pub health: ReplicaHealth,
    /// It is being replaced: alive, but given to new clients only if no other replica is healthy.
    pub draining: bool,
}

/// Whether a running replica serves, as its health check reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaHealth {
    /// Its health check passes, or it has none.
    Healthy,
    /// Its health check has not passed yet.
    Starting,
    /// Its health check fails.
    Unhealthy,
}

/// The type of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// The name of an address.
    Ptr,
    /// Any type.
    Any,
    /// A type that the zone never has.
    Other,
}

/// The result of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// At least one address, in the order of the answer.
    Addresses(Vec<Ipv4Addr>),
    /// The full name of an address, without the trailing dot.
    Pointer(String),
    /// The name exists but has no data of this type.
    NoData,
    /// The name is in our zone and does not exist.
    NxDomain,
    /// The name is outside our zone.
    NotOurs,
}

/// The cluster's names and their meaning. Immutable.
#[derive(Debug, Default)]
pub struct Zone {
    local: Option<MachineId>,
    /// Addresses by lower-case name without `.internal`: `web.shop`, and also `web` if only one
    /// project has such a service.
    services: HashMap<String, Vec<Address>>,
    /// Short names of services that several projects have.
    ambiguous: HashSet<String>,
    /// Names that exist only because other names are below them.
    parents: HashSet<String>,
    /// Machines by name and by id.
    machines: HashMap<String, (MachineId, Ipv4Addr)>,
    pointers: HashMap<Ipv4Addr, String>,
    elsewhere: HashSet<Ipv4Addr>,
    /// The /24 networks of the machines. An unknown address in one of them does not exist.
    networks: HashSet<[u8; 3]>,
}

/// A replica that can be part of an answer.
#[derive(Debug, Clone, Copy)]
struct Address {
    ip: Ipv4Addr,
    machine: MachineId,
    rank: Rank,
}

/// How likely it is that a client can use an address; the smallest is the best. A name is answered
/// with its addresses of the best rank that it has, so it always has an address while one of its
/// replicas runs. Cluster software that becomes healthy only when it has found its peers by name
/// can start, and a wrong health check does not make a service unreachable.
///
/// The fields are compared in their order. Packets to a machine that is down are lost, so any
/// replica elsewhere is better. A replica that does not serve is worse than one that served when
/// its engine was last heard of: containers usually outlive the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_down: bool,
    /// Starting or unhealthy. Which of them is nearer to serving is unknown.
    is_not_serving: bool,
    is_engine_away: bool,
    /// About to be stopped.
    is_draining: bool,
}

impl Rank {
    fn of(replica: &ZoneReplica, machine: MachineState) -> Self {
        Self {
            is_down: machine == MachineState::Down,
            is_not_serving: replica.health != ReplicaHealth::Healthy,
            is_engine_away: machine == MachineState::EngineAway,
            is_draining: replica.draining,
        }
    }
}

impl Zone {
    /// Builds the zone from a snapshot.
    pub fn build(input: &ZoneInput) -> Self {
        let elsewhere = input.elsewhere.iter().copied().collect();
        let mut zone = Self {
            local: input.local_machine,
            elsewhere,
            ..Self::default()
        };
        let machines: HashMap<MachineId, MachineState> = input
            .machines
            .iter()
            .map(|machine| (machine.id, machine.state))
            .collect();
        zone.add_services(input, &machines);
        zone.add_aliases(&input.aliases);
        for machine in &input.machines {
            let entry = (machine.id, machine.ipv4);
            zone.machines.insert(machine.id.to_string(), entry);
            let id = machine.id.to_string();
            let name = machine
                .name
                .as_ref()
                .map_or(id.clone(), ToString::to_string);
            let pointer = format!("{name}.machine.{DOMAIN}");
            zone.machines.insert(id, entry);
            zone.machines.insert(name, entry);
            zone.pointers.insert(machine.ipv4, pointer);
            zone.networks.insert(network(machine.ipv4));
        }
        zone
    }

    /// Reports whether the client has its own resolvers for names outside the zone. It gets REFUSED
    /// for these, and then Docker's resolver and glibc ask the next resolver.
    pub fn asks_elsewhere(&self, client: IpAddr) -> bool {
        match client.to_canonical() {
            IpAddr::V4(client) => self.elsewhere.contains(&client),
            IpAddr::V6(_) => false,
        }
    }

    fn add_services(&mut self, input: &ZoneInput, machines: &HashMap<MachineId, MachineState>) {
        let mut by_service: BTreeMap<String, BTreeMap<String, Vec<Address>>> = BTreeMap::new();
        let lower = |service: &ServiceName| service.as_str().to_ascii_lowercase();
        for key in &input.services {
            by_service
                .entry(lower(&key.service))
                .or_default()
                .entry(key.project.to_string())
                .or_default();
        }
        for replica in &input.replicas {
            let addresses = by_service
                .entry(lower(&replica.service))
                .or_default()
                .entry(replica.project.to_string())
                .or_default();
            if !replica.running {
                continue;
            }
            self.pointers.insert(
                replica.ip,
                format!("{}.{}.{DOMAIN}", lower(&replica.service), replica.project),
            );
            addresses.push(Address {
                ip: replica.ip,
                machine: replica.machine_id,
                // A machine that is not in the list is not known to be down.
                rank: Rank::of(
                    replica,
                    machines
                        .get(&replica.machine_id)
                        .copied()
                        .unwrap_or(MachineState::Up),
                ),
            });
        }
        for (service, projects) in by_service {
            let mut lists = projects.values();
            if let (Some(only), None) = (lists.next(), lists.next()) {
                self.services.insert(service.clone(), only.clone());
            } else {
                self.ambiguous.insert(service.clone());
            }
            for (project, addresses) in projects {
                let name = format!("{service}.{project}");
                self.add_parents(&name);
                self.services.insert(name, addresses);
            }
            self.add_parents(&service);
        }
    }

    fn add_aliases(&mut self, aliases: &[ZoneAlias]) {
        let pairs: BTreeSet<(String, String)> = aliases
            .iter()
            .filter(|alias| is_name(&alias.name))
            .map(
                |ZoneAlias {
                     service: ServiceKey { project, service },
                     name,
                 }| {
                    let of = |name: &str| format!("{name}.{project}").to_ascii_lowercase();
                    (of(name), of(service.as_str()))
                },
            )
            .collect();
        let mut named: BTreeMap<String, Vec<Address>> = BTreeMap::new();
        for (name, service) in pairs {
            if let Some(addresses) = self.services.get(&service) {
                named
                    .entry(name)
                    .or_default()
                    .extend(addresses.iter().copied());
            }
        }
        for (name, addresses) in named {
            if !self.services.contains_key(&name) {
                self.add_parents(&name);
                self.services.insert(name, addresses);
            }
        }
    }

    fn add_parents(&mut self, name: &str) {
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            self.parents.insert(parent.to_owned());
            rest = parent;
        }
    }

    /// Looks up a name, ignoring case and a trailing dot. `rng` decides the order of addresses, and
    /// the choice among too many.
    pub fn lookup(&self, name: &str, kind: Kind, rng: &mut impl Rng) -> Lookup {
        let lower = name.to_ascii_lowercase();
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        if name == DOMAIN {
            return Lookup::NoData;
        }
        if let Some(inner) = name
            .strip_suffix(DOMAIN)
            .and_then(|rest| rest.strip_suffix('.'))
        {
            return self.addresses(inner, kind, rng);
        }
        if let Some(reversed) = name.strip_suffix(".in-addr.arpa") {
            return self.pointer(reversed, kind);
        }
        Lookup::NotOurs
    }

    fn addresses(&self, name: &str, kind: Kind, rng: &mut impl Rng) -> Lookup {
        let Some(mut found) = self.find(name) else {
            return Lookup::NxDomain;
        };
        if found.addresses.is_empty() || !matches!(kind, Kind::A | Kind::Any) {
            return Lookup::NoData;
        }
        found.addresses.shuffle(rng);
        if let Some(local) = self.local.filter(|_| found.nearest) {
            // The sort is stable, so the others stay shuffled.
            found
                .addresses
                .sort_by_key(|(_, machine)| *machine != local);
        }
        found.addresses.truncate(MAX_ANSWERS);
        Lookup::Addresses(found.addresses.into_iter().map(|(ip, _)| ip).collect())
    }

    /// Returns `None` if the name does not exist. An exact name takes precedence over a prefix,
    /// because a service can be called `nearest.db`.
    fn find(&self, name: &str) -> Option<Match> {
        if let Some(machine) = name.strip_suffix(".machine")
            && let Some((id, ip)) = self.machines.get(machine)
        {
            return Some(Match::just(vec![(*ip, *id)]));
        }
        if let Some(addresses) = self.services.get(name) {
            return Some(Match::just(best(addresses.iter())));
        }
        for (prefix, nearest) in [("rr.", false), ("nearest.", true)] {
            // Only one prefix is allowed.
            if let Some(rest) = name.strip_prefix(prefix).filter(|rest| !is_prefixed(rest)) {
                return self.find(rest).map(|found| Match { nearest, ..found });
            }
        }
        if let Some((machine, service)) = name.split_once(".m.")
            && let (Some((id, _)), Some(addresses)) =
                (self.machines.get(machine), self.services.get(service))
        {
            let on_machine = addresses.iter().filter(|address| address.machine == *id);
            return Some(Match::just(best(on_machine)));
        }
        let below_m = name
            .strip_prefix("m.")
            .is_some_and(|service| self.services.contains_key(service));
        let exists = name == "machine"
            || below_m
            || self.ambiguous.contains(name)
            || self.parents.contains(name);
        exists.then(|| Match::just(Vec::new()))
    }

    fn pointer(&self, reversed: &str, kind: Kind) -> Lookup {
        let mut octets = [0_u8; 4];
        let mut parts = reversed.split('.');
        for octet in octets.iter_mut().rev() {
            match parts.next().and_then(|part| part.parse().ok()) {
                Some(value) => *octet = value,
                None => return Lookup::NotOurs,
            }
        }
        if parts.next().is_some() {
            return Lookup::NotOurs;
        }
        let ip = Ipv4Addr::from(octets);
        match self.pointers.get(&ip) {
            Some(name) if matches!(kind, Kind::Ptr | Kind::Any) => Lookup::Pointer(name.clone()),
            Some(_) => Lookup::NoData,
            None if self.networks.contains(&network(ip)) => Lookup::NxDomain,
            None => Lookup::NotOurs,
        }
    }
}

struct Match {
    /// Each with its machine.
    addresses: Vec<(Ipv4Addr, MachineId)>,
    nearest: bool,
}

impl Match {
    fn just(addresses: Vec<(Ipv4Addr, MachineId)>) -> Self {
        Self {
            addresses,
            nearest: false,
        }
    }
}

/// Reports whether a name can appear in a query: labels of at most 63 bytes without dots, control
/// characters or spaces.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_graphic())
    };
    name.len() <= 180 && name.split('.').all(label)
}

fn is_prefixed(name: &str) -> bool {
    name.starts_with("rr.") || name.starts_with("nearest.")
}

/// The addresses of the best rank, each with its machine.
fn best<'a>(addresses: impl Iterator<Item = &'a Address> + Clone) -> Vec<(Ipv4Addr, MachineId)> {
    let Some(rank) = addresses.clone().map(|address| address.rank).min() else {
        return Vec::new();
    };
    addresses
        .filter(|address| address.rank == rank)
        .map(|address| (address.ip, address.machine))
        .collect()
}

fn network(ip: Ipv4Addr) -> [u8; 3] {
    let [a, b, c, _] = ip.octets();
    [a, b, c]
}

#[cfg(test)]
mod tests;
