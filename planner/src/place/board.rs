//! What each machine holds once the plan is carried out, as far as it is decided: replicas, their
//! published ports, and what is reserved for them.

use uc_api::ServiceKey;
use uc_api::v1::{PortSpec, ReplicaRecord, ServiceSpec};

use super::super::desired::{Target, Wanted};
use super::super::error::PlanError;
use super::super::{Cluster, is_of, ports};
use super::is_alive;

const NANOS: u64 = 1_000_000_000;

/// Who holds a place on a machine.
#[derive(Clone, PartialEq, Eq)]
enum Holder<'t> {
    Ours(&'t ServiceKey),
    Stranger { project: String, service: String },
}

impl Holder<'_> {
    fn is(&self, key: &ServiceKey) -> bool {
        match self {
            Self::Ours(ours) => *ours == key,
            Self::Stranger { project, service } => {
                project == key.project.as_str() && service == key.service.as_str()
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Ours(key) => key.to_string(),
            Self::Stranger { project, service } => format!("{project}/{service}"),
        }
    }
}

/// CPU and memory: billionths of a CPU, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Amount {
    nano_cpus: u64,
    memory: u64,
}

impl Amount {
    fn of_spec(spec: &ServiceSpec) -> Self {
        let resources = spec.resources.as_ref();
        Self {
            nano_cpus: resources
                .and_then(|resources| resources.reserved_nano_cpus)
                .unwrap_or(0),
            memory: resources
                .and_then(|resources| resources.reserved_memory)
                .unwrap_or(0),
        }
    }

    fn of_replica(replica: &ReplicaRecord) -> Self {
        Self {
            nano_cpus: replica.reserved_nano_cpus,
            memory: replica.reserved_memory,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            nano_cpus: self.nano_cpus.saturating_add(other.nano_cpus),
            memory: self.memory.saturating_add(other.memory),
        }
    }
}

struct Held<'t> {
    holder: Holder<'t>,
    ports: Vec<PortSpec>,
    reserved: Amount,
}

struct Place<'t> {
    name: String,
    /// 0: unknown.
    capacity: Amount,
    reserved: Amount,
    held: Vec<Held<'t>>,
}

pub(super) struct Board<'t> {
    places: Vec<Place<'t>>,
}

impl<'t> Board<'t> {
    /// A board with the replicas of services that the plan does not touch. Those of services that
    /// it removes leave their ports and resources to others.
    pub(super) fn new(wanted: &'t Wanted, cluster: &Cluster<'_>) -> Self {
        let touched: Vec<&ServiceKey> = wanted
            .targets
            .iter()
            .map(|target| &target.key)
            .chain(wanted.removals.iter().map(|removal| &removal.key))
            .collect();
        let place = |machine: &&super::super::Machine| {
            let strangers = machine.replicas.iter().filter(|replica| {
                is_alive(replica) && !touched.iter().any(|key| is_of(replica, key))
            });
            let held: Vec<Held<'t>> = strangers
                .map(|replica| Held {
                    holder: Holder::Stranger {
                        project: replica.project.clone(),
                        service: replica.service.clone(),
                    },
                    ports: replica.ports.clone(),
                    reserved: Amount::of_replica(replica),
                })
                .collect();
            Place {
                name: machine.name.to_string(),
                capacity: Amount {
                    nano_cpus: u64::from(machine.cpus).saturating_mul(NANOS),
                    memory: machine.memory,
                },
                reserved: held
                    .iter()
                    .fold(Amount::default(), |sum, held| sum.and(held.reserved)),
                held,
            }
        };
        Self {
            places: cluster.machines.iter().map(place).collect(),
        }
    }

    pub(super) fn machines(&self) -> usize {
        self.places.len()
    }

    pub(super) fn name(&self, machine: usize) -> &str {
        &self.places[machine].name
    }

    pub(super) fn add(&mut self, machine: usize, target: &'t Target) {
        let reserved = Amount::of_spec(&target.spec);
        let place = &mut self.places[machine];
        place.reserved = place.reserved.and(reserved);
        place.held.push(Held {
            holder: Holder::Ours(&target.key),
            ports: target.spec.ports.clone(),
            reserved,
        });
    }

    /// Takes a service off all machines.
    pub(super) fn clear(&mut self, key: &ServiceKey) {
        for place in &mut self.places {
            place.held.retain(|held| !held.holder.is(key));
            place.reserved = place
                .held
                .iter()
                .fold(Amount::default(), |sum, held| sum.and(held.reserved));
        }
    }

    /// How many replicas of a service a machine has, of one that the plan does not touch too.
    pub(super) fn own(&self, machine: usize, key: &ServiceKey) -> usize {
        self.places[machine]
            .held
            .iter()
            .filter(|held| held.holder.is(key))
            .count()
    }

    pub(super) fn total(&self, machine: usize) -> usize {
        self.places[machine].held.len()
    }

    /// The port that keeps a replica of the target off the machine, and whose it is.
    fn blocked(&self, machine: usize, target: &Target) -> Option<(&PortSpec, &Holder<'t>)> {
        self.places[machine].held.iter().find_map(|held| {
            let port = held.ports.iter().find(|held| {
                target
                    .spec
                    .ports
                    .iter()
                    .any(|port| ports::clash(port, held))
            })?;
            Some((port, &held.holder))
        })
    }

    /// Whether one more replica of the target can be there: its ports are free, and what it
    /// reserves is left.
    pub(super) fn fits(&self, machine: usize, target: &Target) -> bool {
        self.lack(machine, target).is_none() && self.blocked(machine, target).is_none()
    }

    pub(super) fn taken(&self, machine: usize, target: &Target) -> Option<PlanError> {
        let (port, holder) = self.blocked(machine, target)?;
        Some(PlanError::PortTaken {
            service: target.key.to_string(),
            port: ports::show(port),
            machine: self.name(machine).to_owned(),
            holder: holder.name(),
        })
    }

    /// What a replica of the target lacks on the machine, for people: `wants 1 CPU, 0.5 are free`.
    pub(super) fn lack(&self, machine: usize, target: &Target) -> Option<String> {
        let wanted = Amount::of_spec(&target.spec);
        let Place {
            capacity, reserved, ..
        } = &self.places[machine];
        let lack = |wanted: u64, capacity: u64, reserved: u64, show: fn(u64) -> String| {
            let free = capacity.saturating_sub(reserved);
            (wanted > 0 && capacity > 0 && wanted > free).then(|| {
                format!(
                    "needs {}, but {} of {} is free",
                    show(wanted),
                    show(free),
                    show(capacity)
                )
            })
        };
        let cpus = lack(
            wanted.nano_cpus,
            capacity.nano_cpus,
            reserved.nano_cpus,
            cpus,
        );
        let memory = lack(wanted.memory, capacity.memory, reserved.memory, bytes);
        let lacks: Vec<String> = cpus.into_iter().chain(memory).collect();
        (!lacks.is_empty()).then(|| lacks.join("; "))
    }

    /// Why no more replicas of the target can be there, for people.
    pub(super) fn why_not(&self, machine: usize, target: &Target) -> Option<String> {
        self.lack(machine, target).or_else(|| {
            let (port, holder) = self.blocked(machine, target)?;
            Some(format!(
                "port {} is used by `{}`",
                ports::show(port),
                holder.name()
            ))
        })
    }
}

/// `1.5 CPUs`
fn cpus(nanos: u64) -> String {
    let text = decimal(nanos, NANOS);
    if nanos == NANOS {
        format!("{text} CPU")
    } else {
        format!("{text} CPUs")
    }
}

/// `512 MiB`
fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS.into_iter().find(|(size, _)| bytes >= *size);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(size, name)| format!("{} {name}", decimal(bytes, size)),
    )
}

/// At most two digits behind the point, cut and not rounded: what is wanted and what is free are
/// compared by eye.
fn decimal(value: u64, unit: u64) -> String {
    let (whole, rest) = (
        value / unit,
        u128::from(value % unit) * 100 / u128::from(unit),
    );
    match (rest, rest % 10) {
        (0, _) => whole.to_string(),
        (_, 0) => format!("{whole}.{}", rest / 10),
        _ => format!("{whole}.{rest:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_as_people_write_them() {
        for (nanos, text) in [
            (NANOS, "1 CPU"),
            (NANOS / 2, "0.5 CPUs"),
            (NANOS / 4 * 5, "1.25 CPUs"),
            (0, "0 CPUs"),
            (16 * NANOS, "16 CPUs"),
        ] {
            assert_eq!(cpus(nanos), text);
        }
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (512 << 20, "512 MiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "17179869183.99 GiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
