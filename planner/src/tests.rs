//! The planner's tests: a small language for clusters and services, and a simulator that carries
//! plans out.

mod constraints;
mod data;
mod drain;
mod images;
mod orders;
mod placement;
mod project;
mod sharing;
mod simulation;
mod volumes;

use uc_api::revision::revision;
use uc_api::v1::{
    Dependency, DependencyCondition, DesiredServices, Health, MountKind, MountSpec, PortSpec,
    ReplicaAction, ReplicaState, ServiceChange, ServiceMode, ServicePlan, UpdateOrder,
};

use super::*;

/// The plan alone.
fn plan(change: &Change, observed: &Observed) -> Result<v1::Plan, PlanError> {
    make(change, observed).map(|(plan, _)| plan)
}

/// The specs alone.
fn specs(change: &Change, observed: &Observed) -> Vec<ServiceSpec> {
    let (_, specs) = make(change, observed).unwrap();
    specs.into_values().collect()
}

/// The plan changes nothing.
fn is_empty(plan: &v1::Plan) -> bool {
    let unchanged =
        |service: &ServicePlan| service.change() == ServiceChange::None && service.steps.is_empty();
    plan.volumes.is_empty() && plan.retirements.is_empty() && plan.services.iter().all(unchanged)
}

/// A machine id that ends in the number of the machine's name.
fn machine_id(name: &str) -> MachineId {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    MachineId::from_bytes(bytes)
}

/// Machines by name; `!` before it: down.
fn cluster(names: &[&str]) -> Observed {
    let machines = names
        .iter()
        .map(|name| {
            let plain = name.trim_start_matches('!');
            Machine {
                id: machine_id(plain),
                name: plain.parse().unwrap(),
                up: !name.starts_with('!'),
                holds_name: true,
                dns_server: None,
                arch: "x86_64".into(),
                labels: BTreeMap::new(),
                cordoned: false,
                cpus: 0,
                memory: 0,
                replicas: Vec::new(),
                volumes: Vec::new(),
                volume_homes: BTreeMap::new(),
            }
        })
        .collect();
    Observed {
        machines,
        services: BTreeMap::new(),
    }
}

impl Observed {
    fn machine(&mut self, name: &str) -> &mut Machine {
        self.machines
            .iter_mut()
            .find(|machine| machine.name.as_str() == name)
            .unwrap()
    }

    fn with_volume(mut self, name: &str, machines: &[&str]) -> Self {
        for machine in machines {
            let record = VolumeRecord {
                name: name.into(),
                driver: "local".into(),
                project: "shop".into(),
            };
            self.machine(machine).volumes.push(record);
        }
        self
    }

    /// One running replica of the spec per name.
    fn with_replicas(mut self, spec: &ServiceSpec, machines: &[&str]) -> Self {
        for machine in machines {
            let number = self
                .machines
                .iter()
                .map(|machine| machine.replicas.len())
                .sum::<usize>()
                + 1;
            let record = replica(spec, &format!("{}-{number:02}", spec.name), number as i64);
            self.machine(machine).replicas.push(record);
        }
        self
    }

    fn with_service(mut self, spec: &ServiceSpec) -> Self {
        let record = ServiceRecord {
            spec: Some(spec.clone()),
            revision: revision(spec),
            ..Default::default()
        };
        let key = format!("{}/{}", spec.project, spec.name).parse().unwrap();
        self.services.insert(key, record);
        self
    }

    fn labelled(mut self, machine: &str, key: &str, value: &str) -> Self {
        self.machine(machine)
            .labels
            .insert(key.into(), value.into());
        self
    }

    fn with_capacity(mut self, machine: &str, cpus: u32, memory: u64) -> Self {
        let machine = self.machine(machine);
        (machine.cpus, machine.memory) = (cpus, memory);
        self
    }

    fn down(mut self, name: &str) -> Self {
        self.machine(name).up = false;
        self
    }
}

fn replica(spec: &ServiceSpec, id: &str, created_at_ms: i64) -> ReplicaRecord {
    ReplicaRecord {
        container_id: id.into(),
        container_name: id.into(),
        project: spec.project.clone(),
        service: spec.name.clone(),
        revision: revision(spec),
        image: spec.image.clone(),
        state: ReplicaState::Running.into(),
        health: Health::None.into(),
        created_at_ms,
        ports: spec.ports.clone(),
        mounts: spec.mounts.clone(),
        reserved_nano_cpus: spec
            .resources
            .as_ref()
            .and_then(|all| all.reserved_nano_cpus)
            .unwrap_or(0),
        reserved_memory: spec
            .resources
            .as_ref()
            .and_then(|all| all.reserved_memory)
            .unwrap_or(0),
        ..Default::default()
    }
}

/// A replicated service of the project `shop`.
fn service(name: &str, replicas: u32) -> ServiceSpec {
    ServiceSpec {
        project: "shop".into(),
        name: name.into(),
        image: format!("{name}:1"),
        mode: ServiceMode::Replicated.into(),
        replicas,
        ..Default::default()
    }
}

fn global(name: &str) -> ServiceSpec {
    ServiceSpec {
        mode: ServiceMode::Global.into(),
        ..service(name, 0)
    }
}

/// Builders for specs, so that a table's row is one line.
trait SpecExt: Sized {
    fn port(self, port: u32) -> Self;
    fn mount(self, volume: &str) -> Self;
    fn bind(self, path: &str) -> Self;
    fn on(self, machines: &[&str]) -> Self;
    fn image(self, image: &str) -> Self;
    fn after(self, service: &str) -> Self;
    fn constraint(self, text: &str) -> Self;
    fn spread(self, over: &str) -> Self;
    fn reserve(self, nano_cpus: u64, memory: u64) -> Self;
    fn shares(self, service: &str) -> Self;
}

impl SpecExt for ServiceSpec {
    fn port(mut self, port: u32) -> Self {
        self.ports.push(PortSpec {
            container_port: 80,
            published_port: port,
            ..Default::default()
        });
        self
    }

    fn mount(mut self, volume: &str) -> Self {
        let target = format!("/{volume}");
        self.mounts.push(MountSpec {
            kind: MountKind::Volume.into(),
            source: volume.into(),
            target,
            ..Default::default()
        });
        self
    }

    fn bind(mut self, path: &str) -> Self {
        self.mounts.push(MountSpec {
            kind: MountKind::Bind.into(),
            source: path.into(),
            target: "/data".into(),
            ..Default::default()
        });
        self
    }

    fn on(mut self, machines: &[&str]) -> Self {
        self.machines = machines.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    fn constraint(mut self, text: &str) -> Self {
        self.placement
            .get_or_insert_default()
            .constraints
            .push(text.into());
        self
    }

    fn spread(mut self, over: &str) -> Self {
        self.placement
            .get_or_insert_default()
            .spread
            .push(over.into());
        self
    }

    /// 0: not said.
    fn reserve(mut self, nano_cpus: u64, memory: u64) -> Self {
        let resources = self.resources.get_or_insert_default();
        resources.reserved_nano_cpus = Some(nano_cpus).filter(|amount| *amount > 0);
        resources.reserved_memory = Some(memory).filter(|amount| *amount > 0);
        self
    }

    fn shares(self, service: &str) -> Self {
        Self {
            network_mode: format!("service:{service}"),
            ..self
        }
    }

    fn image(self, image: &str) -> Self {
        Self {
            image: image.into(),
            ..self
        }
    }

    fn after(mut self, service: &str) -> Self {
        let condition = DependencyCondition::Started.into();
        self.depends_on.push(Dependency {
            service: service.into(),
            condition,
            ..Default::default()
        });
        self
    }
}

fn deploy(services: &[ServiceSpec]) -> Change {
    Change::Deploy(DesiredServices {
        project: "shop".into(),
        services: services.to_vec(),
        ..Default::default()
    })
}

/// One line a step and a warning: what a test wants to see of a plan.
fn lines(plan: &v1::Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for step in &plan.volumes {
        let volume = step.volume.as_ref().unwrap();
        lines.push(format!("volume {} on {}", volume.name, step.machine_name));
    }
    for service in &plan.services {
        for step in &service.steps {
            let verb = match step.action() {
                ReplicaAction::Create => "create",
                ReplicaAction::Replace => "replace",
                ReplicaAction::Remove => "remove",
                ReplicaAction::Unspecified => "?",
            };
            let old = if step.container_id.is_empty() {
                String::new()
            } else {
                format!(" {}", step.container_id)
            };
            lines.push(format!(
                "{verb} {}{old} on {}",
                service.service, step.machine_name
            ));
        }
    }
    for Retirement {
        machine_name,
        container_id,
        service,
        reason,
        ..
    } in &plan.retirements
    {
        lines.push(format!(
            "{machine_name} later removes {service} {container_id}: {reason}"
        ));
    }
    lines.extend(
        plan.warnings
            .iter()
            .map(|warning| format!("warning: {warning}")),
    );
    lines
}

/// The plan as one text: its lines, or the error.
fn run(desired: &Change, observed: &Observed) -> String {
    match plan(desired, observed) {
        Ok(plan) => lines(&plan).join("\n"),
        Err(error) => format!("error: {error}"),
    }
}
