//! The cluster as this machine knows it, in parsed types. Each record is decoded once, when the
//! store reports that it changed. A record that cannot be parsed is left out, logged once, and
//! listed by `uc doctor`; it affects nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::Ipv4Net;
use uc_api::nearest::nearest;
use uc_api::v1::{ClusterRecord, MachineRecord, RetireRecord, ServiceRecord, VolumeHomeRecord};
use uc_api::{Code, Failure, MachineId, ServiceKey};
use uc_cluster_state::membership::Liveness;
use uc_cluster_state::{Changed, MemberStatus, RecordId, Snapshot, Store, Watch};

use super::machines::{Machine, Machines, Own, Problem};
use super::records::{OnMachine, Records, Replica, Reported, SERVICE, Token, VolumeHome};
use crate::network::gateway;

/// Fewest digits of an id that name its machine.
pub(crate) const ID_START: usize = 4;

/// Liveness of the other machines.
pub(crate) type Alive = BTreeMap<MachineId, Liveness>;

/// The cluster at one moment. Cloning shares all parts.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    own: Arc<Own>,
    records: Records,
    machines: Arc<Machines>,
    alive: Arc<Alive>,
}

impl Cluster {
    /// The network that contains every machine's subnet.
    pub(crate) fn network(&self) -> Ipv4Net {
        self.own.network
    }

    /// The machines whose records can be used, by name.
    pub(crate) fn machines(&self) -> &[Arc<Machine>] {
        &self.machines.usable
    }

    /// The usable machines without this one, by name.
    pub(crate) fn others(&self) -> impl Iterator<Item = &Arc<Machine>> {
        let own = self.own.id;
        self.machines()
            .iter()
            .filter(move |machine| machine.id != own)
    }

    /// Every machine's record, also those that cannot be used, by name.
    pub(crate) fn machine_records(&self) -> &[MachineRecord] {
        &self.machines.records
    }

    /// This machine. `None` until its record has arrived.
    pub(crate) fn own(&self) -> Option<&Arc<Machine>> {
        self.machine_by_id(self.own.id)
    }

    pub(crate) fn machine_by_id(&self, id: MachineId) -> Option<&Arc<Machine>> {
        self.machines().iter().find(|machine| machine.id == id)
    }

    /// A machine by unique name, id or unique beginning of an id.
    pub(crate) fn machine(&self, wanted: &str) -> Result<&Arc<Machine>, Failure> {
        let record = self.machine_record(wanted)?;
        self.machines()
            .iter()
            .find(|machine| machine.record.id == record.id)
            .ok_or_else(|| {
                let message = format!("the record of machine {} is faulty", record.name);
                Failure::new(Code::Refused, message).hint("`uc doctor` shows what is wrong with it")
            })
    }

    /// The record of a machine, by unique name, id or unique beginning of an id, also if the record
    /// cannot be used. A name that several have is refused: the caller could change the wrong one.
    pub(crate) fn machine_record(&self, wanted: &str) -> Result<&MachineRecord, Failure> {
        let records = self.machine_records();
        if let Some(by_id) = records.iter().find(|record| record.id == wanted) {
            return Ok(by_id);
        }
        let named: Vec<&MachineRecord> = records
            .iter()
            .filter(|record| record.name == wanted)
            .collect();
        match named.as_slice() {
            [] => {}
            [one] => return Ok(one),
            several => {
                let ids: Vec<&str> = several.iter().map(|record| record.id.as_str()).collect();
                let message = format!("{} machines are named `{wanted}`", several.len());
                return Err(Failure::new(Code::Invalid, message).hint(format!(
                    "use an id: {}; the machine that joined later takes another name by itself",
                    ids.join(" or ")
                )));
            }
        }
        let mut by_prefix = records
            .iter()
            .filter(|record| wanted.len() >= ID_START && record.id.starts_with(wanted));
        if let (Some(one), None) = (by_prefix.next(), by_prefix.next()) {
            return Ok(one);
        }
        let names = records.iter().map(|record| record.name.as_str());
        let failure = Failure::new(Code::NotFound, format!("machine `{wanted}` not found"));
        Err(failure.hint(match nearest(wanted, names.clone()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("available: {}", names.collect::<Vec<_>>().join(", ")),
        }))
    }

    /// Whether this machine's own record is in the store. It is not on a machine that joins, before
    /// its first exchange, nor on one that was removed.
    pub(crate) fn has_own_record(&self) -> bool {
        let id = self.own.id.to_string();
        self.records.machines.contains_key(id.as_str())
    }

    /// The cluster's own record; `None` on a joining machine before its first exchange.
    pub(crate) fn record(&self) -> Option<&ClusterRecord> {
        self.records.cluster.as_deref()
    }

    /// The desired services.
    pub(crate) fn services(&self) -> &BTreeMap<ServiceKey, Arc<ServiceRecord>> {
        &self.records.services
    }

    /// A service by `project/service`, or by `service` where only one project has it.
    pub(crate) fn service(
        &self,
        wanted: &str,
    ) -> Result<(&ServiceKey, &Arc<ServiceRecord>), Failure> {
        let matching: Vec<_> = self
            .services()
            .iter()
            .filter(|(key, _)| key.to_string() == wanted || key.service.as_str() == wanted)
            .collect();
        match matching.as_slice() {
            [one] => Ok(*one),
            [] => {
                let names: Vec<String> = self
                    .services()
                    .keys()
                    .flat_map(|key| [key.service.to_string(), key.to_string()])
                    .collect();
                let failure = Failure::new(Code::NotFound, format!("service `{wanted}` not found"));
                Err(
                    failure.hint(match nearest(wanted, names.iter().map(String::as_str)) {
                        Some(name) => format!("did you mean `{name}`?"),
                        None => "`uc ls` lists the services".to_owned(),
                    }),
                )
            }
            several => {
                let names: Vec<String> = several.iter().map(|(key, _)| key.to_string()).collect();
                Err(Failure::new(
                    Code::Invalid,
                    format!("service `{wanted}` exists in several projects"),
                )
                .hint(format!("name the project as well: {}", names.join(" or "))))
            }
        }
    }

    /// All join tokens, also those that were used or have expired.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = &Arc<Token>> {
        self.records.tokens.values()
    }

    pub(crate) fn token(&self, id: &str) -> Option<&Arc<Token>> {
        self.records.tokens.get(id)
    }

    /// Whether the record of a service exists and cannot be read.
    pub(crate) fn has_faulty_service(&self, service: &ServiceKey) -> bool {
        let id = RecordId {
            kind: SERVICE,
            owner: None,
            key: service.to_string().into(),
        };
        !self.records.faulty.is_empty() && self.records.faulty.contains_key(&id)
    }

    /// The containers that machines have to remove.
    pub(crate) fn retirements(&self) -> impl Iterator<Item = (&OnMachine, &Arc<RetireRecord>)> {
        self.records.retirements.iter()
    }

    /// The volumes that a machine has, also one of which nothing else is shown, in the order of
    /// their names.
    pub(crate) fn volume_homes(
        &self,
        machine: MachineId,
    ) -> impl Iterator<Item = (&VolumeHome, &Arc<VolumeHomeRecord>)> {
        let first = VolumeHome {
            machine,
            volume: String::new(),
        };
        let homes = self.records.volume_homes.range(first..);
        homes.take_while(move |(home, _)| home.machine == machine)
    }

    /// Why a machine has to remove a container; `None` if it does not.
    pub(crate) fn retirement(
        &self,
        machine: MachineId,
        container: &str,
    ) -> Option<&Arc<RetireRecord>> {
        if self.records.retirements.is_empty() {
            return None;
        }
        let container = container.to_owned();
        let key = OnMachine { machine, container };
        self.records.retirements.get(&key)
    }

    /// What a machine last reported about itself. Empty if nothing of it has arrived.
    pub(crate) fn reported(&self, machine: MachineId) -> &Reported {
        const NOTHING: &Reported = &Reported::NOTHING;
        self.records
            .reported
            .get(&machine)
            .map_or(NOTHING, |reported| &**reported)
    }

    /// Since when the Docker engine of a machine has not answered. `None`: it answers, or nothing
    /// else is known.
    pub(crate) fn engine_away_since_ms(&self, machine: MachineId) -> Option<i64> {
        let facts = self.reported(machine).facts.as_ref()?;
        Some(facts.engine_away_since_ms).filter(|since| *since > 0)
    }

    /// The replicas of all usable machines, as their machines last reported them.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = (&Arc<Machine>, &Arc<Replica>)> {
        self.machines().iter().flat_map(|machine| {
            let replicas = self.reported(machine.id).replicas.values();
            replicas.map(move |replica| (machine, replica))
        })
    }

    /// This machine counts as up. `None` for a machine that membership does not know.
    pub(crate) fn liveness(&self, machine: MachineId) -> Option<Liveness> {
        if machine == self.own.id {
            return Some(Liveness::Up);
        }
        self.alive.get(&machine).copied()
    }

    pub(crate) fn is_down(&self, machine: MachineId) -> bool {
        self.liveness(machine) == Some(Liveness::Down)
    }

    /// A machine as the planner sees it, without what runs on it.
    pub(crate) fn planner_machine(&self, machine: &Machine, up: bool) -> uc_planner::Machine {
        // Empty and 0 are unknown: the facts have not arrived.
        let facts = self.reported(machine.id).facts.as_deref();
        uc_planner::Machine {
            id: machine.id,
            name: machine.name.clone(),
            holds_name: machine.holds_name,
            up,
            dns_server: machine.subnet.map(gateway),
            arch: facts.map_or_else(String::new, |facts| facts.arch.clone()),
            labels: machine.record.labels.clone(),
            cordoned: machine.record.cordoned_at_ms != 0,
            cpus: facts.map_or(0, |facts| facts.cpus),
            memory: facts.map_or(0, |facts| facts.memory),
            replicas: Vec::new(),
            volumes: Vec::new(),
            volume_homes: BTreeMap::new(),
        }
    }

    /// The records that cannot be used, or not completely.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.machines
            .problems
            .iter()
            .chain(self.records.faulty.values())
    }
}

/// Makes the [`Cluster`] of the present from the store.
#[derive(Debug)]
pub(crate) struct View {
    /// The members known when this machine joined. They count until the cluster's own record has
    /// arrived with the first exchange.
    bootstrap: Vec<MachineRecord>,
    cached: Mutex<Cached>,
}

#[derive(Debug)]
struct Cached {
    watch: Watch,
    cluster: Arc<Cluster>,
}

impl View {
    pub(crate) fn new(store: &Store, own: Own, bootstrap: Vec<MachineRecord>) -> Self {
        let watch = store.watch();
        let mut cluster = Cluster {
            own: Arc::new(own),
            records: Records::default(),
            machines: Arc::default(),
            alive: Arc::default(),
        };
        cluster.update(&Changed::Everything, &store.snapshot(), &bootstrap);
        Self {
            bootstrap,
            cached: Mutex::new(Cached {
                watch,
                cluster: Arc::new(cluster),
            }),
        }
    }

    /// The cluster with all that the store holds at this moment, so that a caller sees its own
    /// writes.
    pub(crate) fn now(&self, alive: &Arc<Alive>) -> Arc<Cluster> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((changed, snapshot)) = cached.watch.take() {
            Arc::make_mut(&mut cached.cluster).update(&changed, &snapshot, &self.bootstrap);
        }
        if !Arc::ptr_eq(&cached.cluster.alive, alive) {
            Arc::make_mut(&mut cached.cluster).alive = Arc::clone(alive);
        }
        Arc::clone(&cached.cluster)
    }
}

impl Cluster {
    /// The records of the members. Until this machine's own has arrived, those of its join count as
    /// well: the records arrive in several parts, and without a way to the others the rest of them
    /// would never come.
    fn members(&self, snapshot: &Snapshot, bootstrap: &[MachineRecord]) -> Vec<MachineRecord> {
        let arrived = self.records.machines.values().cloned();
        if self.has_own_record() {
            return arrived.collect();
        }
        let left = snapshot.members().into_iter();
        let left: BTreeSet<String> = left
            .filter(|(_, status)| *status == MemberStatus::Left)
            .map(|(machine, _)| machine.to_string())
            .collect();
        if left.contains(&self.own.id.to_string()) {
            return arrived.collect();
        }
        let of_join = bootstrap
            .iter()
            .filter(|record| !left.contains(&record.id))
            .cloned();
        let by_id: BTreeMap<String, MachineRecord> = of_join
            .chain(arrived)
            .map(|record| (record.id.clone(), record))
            .collect();
        by_id.into_values().collect()
    }

    fn update(&mut self, changed: &Changed, snapshot: &Snapshot, bootstrap: &[MachineRecord]) {
        if !self.records.update(changed, snapshot) {
            return;
        }
        let machines = self.members(snapshot, bootstrap);
        let before = std::mem::take(&mut self.machines);
        let machines = Machines::of(machines, &self.own);
        for problem in &machines.problems {
            if !before.problems.contains(problem) {
                tracing::warn!(
                    record = problem.record,
                    reason = problem.reason,
                    "a record is faulty"
                );
            }
        }
        self.machines = Arc::new(machines);
    }
}

#[cfg(test)]
use uc_api::v1::MachineFacts;

#[cfg(test)]
impl Cluster {
    /// A cluster of these machines, as the machine `own` sees it.
    pub(crate) fn of_machines(own: Own, machines: impl IntoIterator<Item = MachineRecord>) -> Self {
        Self {
            machines: Arc::new(Machines::of(machines, &own)),
            own: Arc::new(own),
            records: Records::default(),
            alive: Arc::default(),
        }
    }

    pub(crate) fn with_replica(mut self, machine: MachineId, replica: Replica) -> Self {
        let all = Arc::make_mut(&mut self.records.reported);
        let reported = Arc::make_mut(all.entry(machine).or_default());
        let key = replica.record.container_id.clone();
        reported.replicas.insert(key, Arc::new(replica));
        self
    }

    pub(crate) fn with_facts(mut self, machine: MachineId, facts: MachineFacts) -> Self {
        let all = Arc::make_mut(&mut self.records.reported);
        let reported = Arc::make_mut(all.entry(machine).or_default());
        reported.facts = Some(Arc::new(facts));
        self
    }

    pub(crate) fn with_retirement(mut self, machine: MachineId, container: &str) -> Self {
        let container = container.to_owned();
        let retirements = Arc::make_mut(&mut self.records.retirements);
        retirements.insert(OnMachine { machine, container }, Arc::default());
        self
    }

    pub(crate) fn with_service(mut self, service: ServiceKey, record: ServiceRecord) -> Self {
        let services = Arc::make_mut(&mut self.records.services);
        services.insert(service, Arc::new(record));
        self
    }

    pub(crate) fn with_alive(self, alive: Arc<Alive>) -> Self {
        Self { alive, ..self }
    }

    pub(crate) fn with_token(mut self, token: Token) -> Self {
        let tokens = Arc::make_mut(&mut self.records.tokens);
        tokens.insert(token.record.id.clone(), Arc::new(token));
        self
    }
}

#[cfg(test)]
mod tests;
