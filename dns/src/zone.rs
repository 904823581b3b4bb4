//! The zone: which names there are and what each means. Built whole from a snapshot, never changed,
//! so that readers need no lock.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use rand::Rng;
use rand::seq::SliceRandom as _;
use uc_api::layout::DOMAIN;
use uc_api::{MachineId, MachineName, ProjectName, ServiceKey, ServiceName};

/// How long an answer may be kept, seconds. Whoever takes a replica out of service waits this long,
/// too.
pub const ANSWER_TTL_S: u32 = 1;
/// Addresses in one answer at most; of more, a random choice is given. As many fit a UDP message
/// with EDNS.
pub const MAX_ANSWERS: usize = 64;

/// What a machine knows of the cluster, as far as names go.
#[derive(Debug, Clone, Default)]
pub struct ZoneInput {
    /// The machine that answers; `nearest.` means it. None before it belongs to a cluster.
    pub local_machine: Option<MachineId>,
    /// Members, the down ones included.
    pub machines: Vec<ZoneMachine>,
    /// Services that are meant to exist. With it a service without any replica is a name without
    /// addresses; left out, it is no name, and the search list may lead a client on to the service
    /// of that name in another project.
    pub services: Vec<ServiceKey>,
    /// Further names of services, each known in the service's project. A service's own name wins
    /// over an alias; services that share an alias are answered together.
    pub aliases: Vec<ZoneAlias>,
    /// Addresses of replicas that have resolvers of their own: for them nothing is forwarded.
    pub elsewhere: Vec<Ipv4Addr>,
    /// Every replica known, whatever its state.
    pub replicas: Vec<ZoneReplica>,
}

/// A machine as DNS sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneMachine {
    /// Its id.
    pub id: MachineId,
    /// Its name.
    pub name: MachineName,
    /// Its address on the cluster network.
    pub ipv4: Ipv4Addr,
    /// Not down.
    pub up: bool,
}

/// A further name of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ZoneAlias {
    /// The service that is meant.
    pub service: ServiceKey,
    /// One label or several with dots between, in any case; what is no such name is left out.
    pub name: String,
}

/// A replica as DNS sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneReplica {
    /// Its project.
    pub project: ProjectName,
    /// Its service, without the project.
    pub service: ServiceName,
    /// Where it is.
    pub machine_id: MachineId,
    /// Its address on the cluster network.
    pub ip: Ipv4Addr,
    /// It runs.
    pub running: bool,
    /// Its health check fails.
    pub unhealthy: bool,
    /// Being replaced: alive, but no longer given to new clients.
    pub draining: bool,
}

/// What is asked about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// The name of an address.
    Ptr,
    /// Whatever there is.
    Any,
    /// Something we never have.
    Other,
}

/// The meaning of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// At least one address, in the order to be given.
    Addresses(Vec<Ipv4Addr>),
    /// The name of an address, whole, without the last dot.
    Pointer(String),
    /// The name exists and has nothing of that kind.
    NoData,
    /// There is no such name, and we would know.
    NxDomain,
    /// Somebody else's name.
    NotOurs,
}

/// Names and their meaning. Immutable.
#[derive(Debug, Default)]
pub struct Zone {
    local: Option<MachineId>,
    /// By name without `.internal`, lower case: `web.shop`, and `web` if it is of one project
    /// only.
    services: HashMap<String, Vec<Address>>,
    /// Short names of services that several projects have.
    ambiguous: HashSet<String>,
    /// Names that exist only because there is something below them.
    parents: HashSet<String>,
    /// By name and by id.
    machines: HashMap<String, (MachineId, Ipv4Addr)>,
    pointers: HashMap<Ipv4Addr, String>,
    elsewhere: HashSet<Ipv4Addr>,
    /// The /24 networks of the machines: an address in them that is not known is known not to be.
    networks: HashSet<[u8; 3]>,
}

/// A replica that may be answered.
#[derive(Debug, Clone, Copy)]
struct Address {
    ip: Ipv4Addr,
    machine: MachineId,
    /// Its machine is not down.
    up: bool,
}

impl Zone {
    /// The zone that the snapshot describes.
    pub fn build(input: &ZoneInput) -> Self {
        let elsewhere = input.elsewhere.iter().copied().collect();
        let mut zone = Self {
            local: input.local_machine,
            elsewhere,
            ..Self::default()
        };
        let up: HashMap<MachineId, bool> = input
            .machines
            .iter()
            .map(|machine| (machine.id, machine.up))
            .collect();
        zone.add_services(input, &up);
        zone.add_aliases(&input.aliases);
        for machine in &input.machines {
            let entry = (machine.id, machine.ipv4);
            zone.machines.insert(machine.id.to_string(), entry);
            zone.machines.insert(machine.name.to_string(), entry);
            zone.pointers
                .insert(machine.ipv4, format!("{}.machine.{DOMAIN}", machine.name));
            zone.networks.insert(network(machine.ipv4));
        }
        zone
    }

    /// Whether who asks from there has resolvers of its own for names that are not ours. It is told
    /// so by REFUSED, on which Docker's resolver and glibc's ask the next one.
    pub fn asks_elsewhere(&self, client: IpAddr) -> bool {
        match client.to_canonical() {
            IpAddr::V4(client) => self.elsewhere.contains(&client),
            IpAddr::V6(_) => false,
        }
    }

    fn add_services(&mut self, input: &ZoneInput, up: &HashMap<MachineId, bool>) {
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
            if !replica.unhealthy && !replica.draining {
                // A machine that nobody lists is not known to be down.
                let up = up.get(&replica.machine_id).copied().unwrap_or(true);
                addresses.push(Address {
                    ip: replica.ip,
                    machine: replica.machine_id,
                    up,
                });
            }
        }
        for (service, projects) in by_service {
            match projects.len() {
                1 => {
                    let addresses = projects.values().next().cloned().unwrap_or_default();
                    self.services.insert(service.clone(), addresses);
                }
                _ => {
                    self.ambiguous.insert(service.clone());
                }
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

    /// What a name means. Upper and lower case are the same; a last dot may be there or not. The
    /// order of addresses, and which of too many are given, comes from `rng`.
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
            // Stable, so the rest stays shuffled.
            found
                .addresses
                .sort_by_key(|address| address.machine != local);
        }
        found.addresses.truncate(MAX_ANSWERS);
        Lookup::Addresses(
            found
                .addresses
                .into_iter()
                .map(|address| address.ip)
                .collect(),
        )
    }

    /// `None`: there is no such name. An exact name goes before what a prefix would make of it: a
    /// service may be called `nearest.db`.
    fn find(&self, name: &str) -> Option<Found> {
        if let Some(machine) = name.strip_suffix(".machine")
            && let Some((id, ip)) = self.machines.get(machine)
        {
            return Some(Found::just(vec![Address {
                ip: *ip,
                machine: *id,
                up: true,
            }]));
        }
        if let Some(addresses) = self.services.get(name) {
            return Some(Found::just(serving(addresses)));
        }
        for (prefix, nearest) in [("rr.", false), ("nearest.", true)] {
            // One prefix, not a chain of them.
            if let Some(rest) = name.strip_prefix(prefix).filter(|rest| !is_prefixed(rest)) {
                return self.find(rest).map(|found| Found { nearest, ..found });
            }
        }
        if let Some((machine, service)) = name.split_once(".m.")
            && let (Some((id, _)), Some(addresses)) =
                (self.machines.get(machine), self.services.get(service))
        {
            let there: Vec<Address> = addresses
                .iter()
                .filter(|address| address.machine == *id)
                .copied()
                .collect();
            return Some(Found::just(serving(&there)));
        }
        let below_m = name
            .strip_prefix("m.")
            .is_some_and(|service| self.services.contains_key(service));
        let exists = name == "machine"
            || below_m
            || self.ambiguous.contains(name)
            || self.parents.contains(name);
        exists.then(|| Found::just(Vec::new()))
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

struct Found {
    addresses: Vec<Address>,
    nearest: bool,
}

impl Found {
    fn just(addresses: Vec<Address>) -> Self {
        Self {
            addresses,
            nearest: false,
        }
    }
}

/// What can stand in a query: labels of at most 63 bytes without dots, controls or spaces.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_graphic())
    };
    name.len() <= 180 && name.split('.').all(label)
}

fn is_prefixed(name: &str) -> bool {
    name.starts_with("rr.") || name.starts_with("nearest.")
}

/// Those on machines that are up; if there are none, the others: an address that may work is better
/// than none.
fn serving(addresses: &[Address]) -> Vec<Address> {
    let up: Vec<Address> = addresses
        .iter()
        .filter(|address| address.up)
        .copied()
        .collect();
    if up.is_empty() {
        addresses.to_vec()
    } else {
        up
    }
}

fn network(ip: Ipv4Addr) -> [u8; 3] {
    let [a, b, c, _] = ip.octets();
    [a, b, c]
}

#[cfg(test)]
mod tests;
