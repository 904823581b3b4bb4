//! A plan carried out on paper, and what must hold for any project on any cluster.

use proptest::prelude::*;

use super::*;

/// What the cluster looks like when every step has worked.
pub(super) fn carry_out(plan: &v1::Plan, specs: &[ServiceSpec], observed: &mut Observed) {
    for step in &plan.volumes {
        let name = step.volume.as_ref().unwrap().name.clone();
        let machine = observed.machine(&step.machine_name);
        assert!(
            machine.up && machine.volumes.iter().all(|volume| volume.name != name),
            "{step:?}"
        );
        machine.volumes.push(VolumeRecord {
            name,
            driver: "local".into(),
            project: "shop".into(),
        });
    }
    for retirement in &plan.retirements {
        let machine = observed.machine(&retirement.machine_name);
        assert!(!machine.up, "{retirement:?}");
        let before = machine.replicas.len();
        machine
            .replicas
            .retain(|replica| replica.container_id != retirement.container_id);
        assert_eq!(machine.replicas.len(), before - 1, "{retirement:?}");
    }
    let mut born = observed
        .machines
        .iter()
        .flat_map(|machine| &machine.replicas)
        .map(|replica| replica.created_at_ms)
        .max()
        .unwrap_or(0);
    for service in &plan.services {
        let spec = specs
            .iter()
            .find(|spec| spec.name == service.service)
            .unwrap();
        for step in &service.steps {
            if !step.container_id.is_empty() {
                let from = if step.old_machine_id.is_empty() {
                    &step.machine_id
                } else {
                    &step.old_machine_id
                };
                let machine = observed
                    .machines
                    .iter_mut()
                    .find(|machine| machine.id.to_string() == *from)
                    .unwrap();
                assert!(machine.up, "a step for a machine that is down: {step:?}");
                let before = machine.replicas.len();
                machine
                    .replicas
                    .retain(|replica| replica.container_id != step.container_id);
                assert_eq!(machine.replicas.len(), before - 1, "{step:?}");
            }
            if step.action() != ReplicaAction::Remove {
                born += 1;
                let machine = observed.machine(&step.machine_name);
                assert!(machine.up, "a step for a machine that is down: {step:?}");
                machine
                    .replicas
                    .push(replica(spec, &format!("{}-{born:02}", spec.name), born));
            }
        }
        let key = format!("{}/{}", spec.project, spec.name).parse().unwrap();
        let record = ServiceRecord {
            spec: Some(spec.clone()),
            revision: revision(spec),
            ..Default::default()
        };
        observed.services.insert(key, record);
    }
}

/// Bytes of memory of the machines that say how much they have.
const ROOM: u64 = 8;

prop_compose! {
    fn any_spec(name: &'static str)(
        replicas in 0_u32..5,
        is_global in proptest::bool::weighted(0.25),
        port in proptest::option::weighted(0.3, 80_u32..83),
        volume in proptest::option::weighted(0.3, prop_oneof![Just("x"), Just("y")]),
        machines in proptest::option::weighted(0.3, proptest::sample::subsequence(vec!["m1", "m2", "m3", "m4"], 1..4)),
        image in 1_u32..3,
        constraint in proptest::option::weighted(0.15, prop_oneof![
            Just("node.labels.zone==a"), Just("node.labels.zone != a"), Just("node.hostname!=m1"), Just("node.platform.arch==amd64")]),
        spread in proptest::bool::weighted(0.3),
        limit in prop_oneof![8 => Just(0_u32), 1 => Just(2_u32)],
        reserved in prop_oneof![6 => Just(0_u64), 1 => 1_u64..4],
    ) -> ServiceSpec {
        let mut spec = service(name, replicas).image(&format!("{name}:{image}"));
        if is_global {
            spec.set_mode(ServiceMode::Global);
        }
        if let Some(port) = port {
            spec = spec.port(port);
        }
        if let Some(volume) = volume {
            spec = spec.mount(volume);
        }
        if let Some(machines) = machines {
            spec = spec.on(&machines);
        }
        if let Some(constraint) = constraint {
            spec = spec.constraint(constraint);
        }
        if spread {
            spec = spec.spread("node.labels.zone");
        }
        spec.placement.get_or_insert_default().max_replicas_per_machine = limit;
        if reserved > 0 {
            spec = spec.reserve(0, reserved);
        }
        spec
    }
}

prop_compose! {
    /// Three services; some share a namespace of another, some are to be replaced with another.
    fn any_project()(
        specs in (any_spec("a"), any_spec("b"), any_spec("c")),
        share in proptest::option::weighted(0.2, prop_oneof![Just(("b", "a")), Just(("c", "a")), Just(("a", "c"))]),
        restart in proptest::option::weighted(0.3, prop_oneof![Just(("b", "a")), Just(("c", "b"))]),
    ) -> Vec<ServiceSpec> {
        let mut specs = vec![specs.0, specs.1, specs.2];
        for spec in &mut specs {
            if let Some((_, with)) = share.filter(|(name, _)| *name == spec.name) {
                spec.network_mode = format!("service:{with}");
            }
            if let Some((_, with)) = restart.filter(|(name, _)| *name == spec.name) {
                let condition = DependencyCondition::Started.into();
                spec.depends_on.push(Dependency { service: with.into(), condition, restart: true });
            }
        }
        specs
    }
}

prop_compose! {
    /// Containers as an interrupted deployment, a failed machine and hands may leave them.
    fn any_cluster()(
        up in proptest::collection::vec(proptest::bool::weighted(0.85), 4),
        replicas in proptest::collection::vec(
            (0_usize..4, prop_oneof![any_spec("a"), any_spec("b"), any_spec("z")], 1_i32..6, any::<bool>()), 0..8),
        volumes in proptest::collection::vec((0_usize..4, prop_oneof![Just("x"), Just("y")]), 0..3),
    ) -> Observed {
        let mut observed = cluster(&["m1", "m2", "m3", "m4"])
            .labelled("m1", "zone", "a")
            .labelled("m2", "zone", "a")
            .labelled("m3", "zone", "b")
            .with_capacity("m1", 1, ROOM)
            .with_capacity("m3", 1, ROOM);
        for (machine, up) in observed.machines.iter_mut().zip(up) {
            machine.up = up;
        }
        for (number, (machine, spec, state, draining)) in replicas.into_iter().enumerate() {
            // Two that hold one port cannot both run.
            let held = observed.machines[machine].replicas.iter().any(|other| {
                other.ports.iter().any(|held| spec.ports.iter().any(|port| ports::clash(port, held)))
            });
            if !held {
                let record = ReplicaRecord { state, draining, ..replica(&spec, &format!("old-{number}"), number as i64) };
                observed.machines[machine].replicas.push(record);
            }
        }
        let mounted: Vec<(usize, &str)> = observed.machines.iter().enumerate().flat_map(|(index, machine)| {
            let names = machine.replicas.iter().flat_map(|replica| &replica.mounts).map(|mount| mount.source.as_str());
            names.map(move |name| (index, if name == "x" { "x" } else { "y" })).collect::<Vec<_>>()
        }).collect();
        for (machine, name) in mounted.into_iter().chain(volumes) {
            let record = VolumeRecord { name: name.into(), driver: "local".into(), project: "shop".into() };
            if observed.machines[machine].volumes.iter().all(|volume| volume.name != name) {
                observed.machines[machine].volumes.push(record);
            }
        }
        observed
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, max_global_rejects: 1_500, ..ProptestConfig::default() })]

    /// A plan that was carried out leaves nothing to do, places what it says, and never puts two
    /// holders of a port on one machine.
    #[test]
    fn a_plan_carried_out_leaves_nothing_to_do(
        observed in any_cluster(),
        specs in any_project(),
    ) {
        let desired = deploy(&specs);
        let made = plan(&desired, &observed);
        // Assumed, not passed over: if most inputs had no plan, the test would fail.
        prop_assume!(made.is_ok());
        let made = made.unwrap();
        let specs = super::specs(&desired, &observed);
        let mut after = observed.clone();
        carry_out(&made, &specs, &mut after);

        let ids: BTreeSet<&str> = made.services.iter().flat_map(|service| &service.steps).map(|step| step.id.as_str()).collect();
        prop_assert_eq!(ids.len(), made.services.iter().map(|service| service.steps.len()).sum::<usize>());

        for (spec, service) in specs.iter().map(|spec| (spec, made.services.iter().find(|service| service.service == spec.name).unwrap())) {
            let running: Vec<(&Machine, &ReplicaRecord)> = after.machines.iter().filter(|machine| machine.up)
                .flat_map(|machine| machine.replicas.iter().map(move |replica| (machine, replica)))
                .filter(|(_, replica)| replica.service == spec.name)
                .collect();
            prop_assert!(running.iter().all(|(_, replica)| replica.revision == revision(spec) && replica.state() == ReplicaState::Running));
            prop_assert!(running.iter().all(|(machine, _)| spec.machines.is_empty() || spec.machines.contains(&machine.name.to_string())));
            for name in volume_names(spec) {
                prop_assert!(running.iter().all(|(machine, _)| machine.volumes.iter().any(|volume| volume.name == name)));
            }
            let rules = rules::Rules::of(spec).unwrap();
            prop_assert!(running.iter().all(|(machine, _)| rules.excludes(machine).is_none()));
            for shared in together::shared(spec) {
                for machine in after.machines.iter().filter(|machine| machine.up) {
                    let of = |machine: &Machine, name: &str| -> BTreeSet<String> {
                        let alive = machine.replicas.iter().filter(|replica| replica.service == name && place::is_alive(replica));
                        alive.map(|replica| replica.container_id.clone()).collect()
                    };
                    let before = observed.machines.iter().find(|one| one.id == machine.id).unwrap();
                    let (sharers, partners) = (of(machine, &spec.name), of(machine, shared));
                    prop_assert!(sharers.is_empty() || !partners.is_empty(), "{} without {shared} on {}", spec.name, machine.name);
                    if !of(before, shared).is_subset(&partners) {
                        prop_assert!(sharers.is_disjoint(&of(before, &spec.name)), "{} kept, {shared} not", spec.name);
                    }
                }
            }
            let key = format!("shop/{}", spec.name);
            let warned = made.warnings.iter().any(|warning| warning.starts_with(&key) && warning.contains("placed"));
            prop_assert!(warned || running.len() == service.desired as usize, "{} {:?}", running.len(), service);
            // Nothing of the past comes back with a machine, unless it is all that there is.
            let away = after.machines.iter().filter(|machine| !machine.up)
                .flat_map(|machine| &machine.replicas)
                .filter(|replica| replica.service == spec.name);
            for replica in away {
                let counts = warned && (replica.revision == revision(spec) || running.is_empty());
                prop_assert!(counts, "{replica:?} {:?}", lines(&made));
            }
            let per_machine = |machine: &Machine| running.iter().filter(|(on, _)| on.id == machine.id).count();
            if spec.mode() == ServiceMode::Global {
                prop_assert!(after.machines.iter().all(|machine| per_machine(machine) <= 1));
            }
            let limit = spec.placement.as_ref().unwrap().max_replicas_per_machine as usize;
            prop_assert!(limit == 0 || after.machines.iter().all(|machine| per_machine(machine) <= limit));
        }
        for machine in after.machines.iter().filter(|machine| machine.up && machine.memory > 0) {
            let alive = machine.replicas.iter().filter(|replica| place::is_alive(replica));
            let reserved: u64 = alive.map(|replica| replica.reserved_memory).sum();
            // Where a replica that reserves something was placed, there is room for all; what was
            // there before is left alone.
            let placed = made.services.iter().any(|service| {
                let reserves = specs.iter().any(|spec| spec.name == service.service && spec.resources.is_some());
                reserves && service.steps.iter().any(|step| step.action() != ReplicaAction::Remove && step.machine_name == machine.name.as_str())
            });
            prop_assert!(!placed || reserved <= machine.memory, "{reserved} on {}", machine.name);
        }
        for machine in after.machines.iter().filter(|machine| machine.up) {
            let holders: Vec<&ReplicaRecord> = machine.replicas.iter().filter(|replica| place::holds_ports(replica)).collect();
            for (index, one) in holders.iter().enumerate() {
                for other in &holders[index + 1..] {
                    prop_assert!(!one.ports.iter().any(|a| other.ports.iter().any(|b| ports::clash(a, b))), "{one:?} {other:?}");
                }
            }
        }

        let again = plan(&desired, &after);
        prop_assert!(again.as_ref().is_ok_and(is_empty), "{:?}\nafter {:?}", again.map(|plan| lines(&plan)), lines(&made));
    }

    /// A missing volume of replicated services is made at most once.
    #[test]
    fn a_missing_volume_is_made_once(
        observed in any_cluster(),
        specs in any_project(),
    ) {
        let Ok(made) = plan(&deploy(&specs), &observed) else { return Ok(()) };
        for name in ["x", "y"] {
            let steps = made.volumes.iter().filter(|step| step.volume.as_ref().is_some_and(|volume| volume.name == name)).count();
            let of_global = specs.iter().any(|spec| spec.mode() == ServiceMode::Global && volume_names(spec).contains(name));
            let exists = observed.machines.iter().any(|machine| machine.volumes.iter().any(|volume| volume.name == name));
            prop_assert!(of_global || steps <= usize::from(!exists), "{:?}", lines(&made));
        }
    }
}

#[test]
fn a_thousand_machines() {
    let names: Vec<String> = (0..1_000).map(|number| format!("m{number}")).collect();
    let mut observed = cluster(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let specs = [
        service("web", 2_000),
        global("agent").port(80),
        service("api", 300).port(81),
    ];
    let made = plan(&deploy(&specs), &observed).unwrap();
    assert_eq!(
        made.services
            .iter()
            .map(|service| service.steps.len())
            .sum::<usize>(),
        3_300
    );
    carry_out(&made, &specs, &mut observed);
    assert!(is_empty(&plan(&deploy(&specs), &observed).unwrap()));
    let loads: BTreeSet<usize> = observed
        .machines
        .iter()
        .map(|machine| machine.replicas.len())
        .collect();
    assert_eq!(loads.into_iter().collect::<Vec<_>>(), [3, 4]);
    let fewer = [service("web", 10), specs[1].clone(), specs[2].clone()];
    let made = plan(&deploy(&fewer), &observed).unwrap();
    assert_eq!(
        made.services
            .iter()
            .map(|service| service.steps.len())
            .sum::<usize>(),
        1_990
    );
}
