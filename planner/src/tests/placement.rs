//! Spread, allow lists, ports, machines that are down, global services: as tables.

use super::*;

#[track_caller]
fn check(what: &str, observed: &Observed, services: &[ServiceSpec], expected: &str) {
    assert_eq!(run(&deploy(services), observed), expected, "{what}");
}

#[test]
fn replicated() {
    let web = |replicas| service("web", replicas);
    let old = service("web", 1).image("web:0");
    let other = ServiceSpec {
        project: "blog".into(),
        ..service("x", 1)
    };
    let three = || cluster(&["m3", "m1", "m2"]);
    check(
        "spread by name",
        &three(),
        &[web(2)],
        "create web on m1\ncreate web on m2",
    );
    check(
        "more replicas than machines",
        &three(),
        &[web(4)],
        "create web on m1\ncreate web on m1\ncreate web on m2\ncreate web on m3",
    );
    check(
        "the emptiest first",
        &three().with_replicas(&other, &["m1", "m2"]),
        &[web(1)],
        "create web on m3",
    );
    check(
        "its own count more than the total",
        &three()
            .with_replicas(&web(2), &["m1"])
            .with_replicas(&other, &["m2", "m2"])
            .with_replicas(&other, &["m3"]),
        &[web(3)],
        "create web on m2\ncreate web on m3",
    );
    check(
        "up to date",
        &three().with_replicas(&web(1), &["m2"]),
        &[web(1)],
        "",
    );
    check(
        "replaced where it is",
        &three().with_replicas(&old, &["m2"]),
        &[web(1)],
        "replace web web-01 on m2",
    );
    check(
        "scaled down: from the fullest machine, the youngest",
        &three().with_replicas(&web(3), &["m1", "m2", "m1"]),
        &[web(2)],
        "remove web web-03 on m1",
    );
    check(
        "scaled down: out of date ones before good ones",
        &three()
            .with_replicas(&old, &["m1"])
            .with_replicas(&web(1), &["m2"]),
        &[web(1)],
        "remove web web-01 on m1",
    );
    check(
        "to nothing",
        &three().with_replicas(&web(1), &["m1"]),
        &[web(0)],
        "remove web web-01 on m1",
    );
    check(
        "all at once: added, replaced, none removed",
        &three()
            .with_replicas(&old, &["m1"])
            .with_replicas(&web(1), &["m2"]),
        &[web(3)],
        "create web on m3\nreplace web web-01 on m1",
    );
}

#[test]
fn allow_lists() {
    let three = || cluster(&["m1", "m2", "m3"]);
    let web = |replicas| service("web", replicas);
    check(
        "by name",
        &three(),
        &[web(2).on(&["m2", "m3"])],
        "create web on m2\ncreate web on m3",
    );
    check(
        "by id",
        &three(),
        &[web(1).on(&[&machine_id("m3").to_string()])],
        "create web on m3",
    );
    check(
        "named twice",
        &three(),
        &[web(2).on(&["m2", "m2"])],
        "create web on m2\ncreate web on m2",
    );
    check(
        "unknown",
        &three(),
        &[web(1).on(&["m33"])],
        "error: service `shop/web` is placed on machine `m33`, which does not exist",
    );
    check(
        "narrowed: what is elsewhere moves",
        &three().with_replicas(&web(2), &["m1", "m2"]),
        &[web(2).on(&["m2", "m3"])],
        "replace web web-01 on m3",
    );
    check(
        "narrowed: what is too much goes",
        &three().with_replicas(&web(2), &["m1", "m2"]),
        &[web(1).on(&["m2"])],
        "remove web web-01 on m1",
    );
    check(
        "the only machine is down",
        &three().down("m2"),
        &[web(1).on(&["m2"])],
        "warning: shop/web: 0 of 1 replicas placed: m2 cannot be reached",
    );
}

#[test]
fn the_near_machine_is_proposed() {
    let error = plan(
        &deploy(&[service("web", 1).on(&["wrker-1"])]),
        &cluster(&["db", "worker-1"]),
    )
    .unwrap_err();
    let failure = uc_api::Failure::from(error);
    assert_eq!(failure.code, uc_api::Code::NotFound);
    assert!(failure.hint.unwrap().contains("did you mean `worker-1`?"));
}

#[test]
fn machines_that_are_down() {
    let web = |replicas| service("web", replicas);
    let lost = "m3 later removes web web-03: surplus";
    check(
        "its replica is made up for",
        &cluster(&["m1", "m2", "m3"])
            .with_replicas(&web(3), &["m1", "m2", "m3"])
            .down("m3"),
        &[web(3)],
        &format!("create web on m1\n{lost}"),
    );
    check(
        "one port each: two of three",
        &cluster(&["m1", "m2", "m3"])
            .with_replicas(&web(3).port(80), &["m1", "m2", "m3"])
            .down("m3"),
        &[web(3).port(80)],
        "warning: shop/web: 2 of 3 replicas placed: m3 cannot be reached",
    );
    check(
        "the same with another revision: m3 does not bring the past back",
        &cluster(&["m1", "m2", "m3"])
            .with_replicas(&web(3).port(80), &["m1", "m2", "m3"])
            .down("m3"),
        &[web(3).port(80).image("web:2")],
        "replace web web-01 on m1\nreplace web web-02 on m2\n\
         m3 later removes web web-03: replaced\n\
         warning: shop/web: 2 of 3 replicas placed: m3 cannot be reached",
    );
    check(
        "another revision for which there is no place: the past is better than nothing",
        &cluster(&["m1", "m2", "m3"])
            .with_replicas(&web(1), &["m3"])
            .down("m3"),
        &[web(1).on(&["m3"]).image("web:2")],
        "warning: shop/web: 0 of 1 replicas placed: m3 cannot be reached",
    );
    check(
        "another revision: its replica is made up for",
        &cluster(&["m1", "m2", "m3"])
            .with_replicas(&web(2), &["m1", "m3"])
            .down("m3"),
        &[web(2).image("web:2")],
        "create web on m2\nreplace web web-01 on m1\nm3 later removes web web-02: replaced",
    );
    check(
        "scaled down",
        &cluster(&["m1", "m2", "m3"])
            .with_replicas(&web(3), &["m1", "m2", "m3"])
            .down("m3"),
        &[web(2)],
        lost,
    );
    check(
        "scaled to nothing",
        &cluster(&["m3"]).with_replicas(&web(1), &["m3"]).down("m3"),
        &[web(0)],
        "m3 later removes web web-01: surplus",
    );
    check(
        "global: the present revision stays, an earlier one goes",
        &cluster(&["m1", "m2", "m3"])
            .with_replicas(&global("web"), &["m1", "m2"])
            .with_replicas(&global("web").image("web:0"), &["m3"])
            .down("m2")
            .down("m3"),
        &[global("web")],
        "m3 later removes web web-03: replaced\n\
         warning: shop/web: placed on 1 of 3 machines: m2 and m3 cannot be reached",
    );
    check(
        "global: a machine that must no longer run it",
        &cluster(&["m1", "m3"])
            .with_replicas(&global("web"), &["m1", "m3"])
            .down("m3"),
        &[global("web").on(&["m1"])],
        "m3 later removes web web-02: no longer on this machine",
    );
    check(
        "back again: one too many goes",
        &cluster(&["m1", "m2", "m3"]).with_replicas(&web(3), &["m1", "m1", "m2", "m3"]),
        &[web(3)],
        "remove web web-02 on m1",
    );
    check(
        "none is up",
        &cluster(&["!m1"]),
        &[web(1)],
        "warning: shop/web: 0 of 1 replicas placed: m1 cannot be reached",
    );
    check(
        "no machines at all",
        &cluster(&[]),
        &[web(1)],
        "error: the cluster has no machines",
    );
}

#[test]
fn fixed_ports() {
    let web = |replicas| service("web", replicas).port(80);
    let other = ServiceSpec {
        project: "blog".into(),
        ..service("front", 1).port(80)
    };
    let two = || cluster(&["m1", "m2"]);
    check(
        "one each",
        &two(),
        &[web(2)],
        "create web on m1\ncreate web on m2",
    );
    check(
        "more than machines",
        &two(),
        &[web(3)],
        "error: 3 replicas of service `shop/web` publish port 80/tcp, but only m1 and m2 can run it, and each machine has a port only once",
    );
    check(
        "taken on one: the other",
        &two().with_replicas(&other, &["m1"]),
        &[web(1)],
        "create web on m2",
    );
    check(
        "taken on one, two wanted",
        &two().with_replicas(&other, &["m1"]),
        &[web(2)],
        "error: service `shop/web` publishes port 80/tcp, which `blog/front` already publishes on m1",
    );
    check(
        "a container that has stopped holds no port",
        &{
            let mut observed = two().with_replicas(&other, &["m1"]);
            observed.machine("m1").replicas[0].set_state(ReplicaState::Exited);
            observed
        },
        &[web(2)],
        "create web on m1\ncreate web on m2",
    );
    check(
        "two services of one file",
        &cluster(&["m1"]),
        &[service("api", 1).port(80), web(1)],
        "error: service `shop/web` publishes port 80/tcp, which `shop/api` already publishes on m1",
    );
    check(
        "two services of one file, two machines",
        &two(),
        &[service("api", 1).port(80), web(1)],
        "create api on m1\ncreate web on m2",
    );
    check(
        "the same port twice",
        &two(),
        &[web(1).port(80)],
        "error: service `web` publishes port 80/tcp twice",
    );
    check(
        "a new port that is taken here: the replica moves",
        &two()
            .with_replicas(&service("web", 1), &["m1"])
            .with_replicas(&other, &["m1"]),
        &[web(1)],
        "replace web web-01 on m2",
    );
    check(
        "a port of the machine's choice",
        &cluster(&["m1"]),
        &[service("web", 2).port(0)],
        "create web on m1\ncreate web on m1",
    );
}

#[test]
fn global_services() {
    let three = || cluster(&["m1", "m2", "m3"]);
    let agent = || global("agent");
    let old = global("agent").image("agent:0");
    let other = ServiceSpec {
        project: "blog".into(),
        ..service("front", 1).port(80)
    };
    check(
        "one on each",
        &three(),
        &[agent()],
        "create agent on m1\ncreate agent on m2\ncreate agent on m3",
    );
    check(
        "nothing to do",
        &three().with_replicas(&agent(), &["m1", "m2", "m3"]),
        &[agent()],
        "",
    );
    check(
        "a machine was added",
        &three().with_replicas(&agent(), &["m1", "m2"]),
        &[agent()],
        "create agent on m3",
    );
    check(
        "replaced on each",
        &three().with_replicas(&old, &["m1", "m2", "m3"]),
        &[agent()],
        "replace agent agent-01 on m1\nreplace agent agent-02 on m2\nreplace agent agent-03 on m3",
    );
    check(
        "two on one machine: one goes",
        &three().with_replicas(&agent(), &["m1", "m2", "m3", "m2"]),
        &[agent()],
        "remove agent agent-04 on m2",
    );
    check(
        "narrowed",
        &three().with_replicas(&agent(), &["m1", "m2", "m3"]),
        &[agent().on(&["m1"])],
        "remove agent agent-02 on m2\nremove agent agent-03 on m3",
    );
    check(
        "a taken port is an error",
        &three().with_replicas(&other, &["m2"]),
        &[agent().port(80)],
        "error: service `shop/agent` publishes port 80/tcp, which `blog/front` already publishes on m2",
    );
    check(
        "from replicated: what is there stays",
        &three().with_replicas(
            &ServiceSpec {
                replicas: 1,
                ..service("agent", 1)
            },
            &["m2"],
        ),
        &[agent()],
        "create agent on m1\ncreate agent on m3",
    );
    check(
        "to replicated: one stays",
        &three().with_replicas(&agent(), &["m1", "m2", "m3"]),
        &[service("agent", 1)],
        "remove agent agent-02 on m2\nremove agent agent-03 on m3",
    );
    check(
        "goes before replicated ones that have a choice",
        &three(),
        &[agent().port(80).on(&["m1"]), service("a", 2).port(80)],
        "create a on m2\ncreate a on m3\ncreate agent on m1",
    );
}

#[test]
fn replica_that_asks_a_former_dns_server_is_replaced() {
    let web = service("web", 1);
    let step = |replica: &str, machine: Option<&str>| {
        let mut observed = cluster(&["m1"])
            .with_replicas(&web, &["m1"])
            .with_service(&web);
        let m1 = observed.machine("m1");
        m1.dns_server = machine.map(|address| address.parse().unwrap());
        m1.replicas[0].dns_server = replica.to_owned();
        let plan = plan(&deploy(std::slice::from_ref(&web)), &observed).unwrap();
        let steps = plan.services[0].steps.iter();
        steps.map(|step| step.reason.clone()).collect::<Vec<_>>()
    };
    let (old, new) = ("10.210.1.1", "10.210.7.1");
    assert_eq!(step(old, Some(new)), ["its machine has another subnet now"]);
    assert!(step(new, Some(new)).is_empty());
    assert!(step("", Some(new)).is_empty(), "it uses none");
    assert!(step(old, None).is_empty(), "the machine has none");
}

#[test]
fn finished_job_does_not_run_again_because_its_machine_has_another_subnet() {
    let job = ServiceSpec {
        restart: v1::RestartPolicy::No.into(),
        ..service("migrate", 1)
    };
    let mut observed = cluster(&["m1"])
        .with_replicas(&job, &["m1"])
        .with_service(&job);
    let m1 = observed.machine("m1");
    m1.dns_server = Some("10.210.7.1".parse().unwrap());
    m1.replicas[0].dns_server = "10.210.1.1".into();
    m1.replicas[0].state = ReplicaState::Exited.into();
    m1.replicas[0].exit_code = Some(0);
    let plan = plan(&deploy(&[job]), &observed).unwrap();
    assert!(plan.services[0].steps.is_empty(), "{plan:?}");
}

#[test]
fn name_of_two_machines_means_the_one_that_holds_it() {
    let by_list = service("web", 1).on(&["m1"]);
    let by_constraint = ServiceSpec {
        placement: Some(v1::Placement {
            constraints: vec!["node.hostname==m1".into()],
            ..v1::Placement::default()
        }),
        ..service("web", 1)
    };
    for web in [by_list, by_constraint] {
        // The first in the list is the younger one, the replica is on the other.
        let mut observed = cluster(&["m0", "m1"])
            .with_replicas(&web, &["m1"])
            .with_service(&web);
        let younger = observed.machine("m0");
        younger.name = "m1".parse().unwrap();
        younger.holds_name = false;
        let plan = plan(&deploy(&[web]), &observed).unwrap();
        assert!(plan.services[0].steps.is_empty(), "{plan:?}");
    }
}

#[test]
fn finished_job_without_restart_policy_is_kept() {
    let spec = service("job", 1);
    let mut observed = cluster(&["m1"])
        .with_replicas(&spec, &["m1"])
        .with_service(&spec);
    let replica = &mut observed.machine("m1").replicas[0];
    replica.set_state(ReplicaState::Exited);
    replica.exit_code = Some(0);
    replica.finished = true;
    assert!(is_empty(&plan(&deploy(&[spec]), &observed).unwrap()));
}

#[test]
fn finished_job_does_not_run_again_when_its_machine_is_down_or_drained() {
    let spec = service("job", 2);
    let mut observed = cluster(&["m1", "m2"])
        .with_replicas(&spec, &["m1", "m2"])
        .with_service(&spec);
    for machine in ["m1", "m2"] {
        let replica = &mut observed.machine(machine).replicas[0];
        replica.set_state(ReplicaState::Exited);
        replica.exit_code = Some(0);
        replica.finished = true;
    }
    let drain = Change::Drain(v1::DrainMachine {
        machine: machine_id("m1").to_string(),
        project: "shop".into(),
    });
    assert_eq!(run(&drain, &observed), "");
    let down = observed.clone().down("m1");
    assert_eq!(run(&deploy(std::slice::from_ref(&spec)), &down), "");
    // Another revision does run, and what has failed as well.
    let other = service("job", 2).image("job:2");
    assert_eq!(
        run(&deploy(&[other]), &down),
        "create job on m2\nreplace job job-02 on m2\n\
         m1 later removes job job-01: replaced"
    );
    observed.machine("m1").replicas[0].finished = false;
    observed.machine("m1").replicas[0].exit_code = Some(1);
    let down = observed.down("m1");
    assert_eq!(
        run(&deploy(&[spec]), &down),
        "create job on m2\nm1 later removes job job-01: surplus"
    );
}

#[test]
fn replicas_that_do_not_run() {
    let job = ServiceSpec {
        restart: v1::RestartPolicy::No.into(),
        ..service("web", 1)
    };
    for (state, exit_code, spec, reason) in vec![
        (ReplicaState::Running, None, service("web", 1), None),
        (
            ReplicaState::Exited,
            Some(1),
            service("web", 1),
            Some("exited with code 1"),
        ),
        (
            ReplicaState::Exited,
            Some(0),
            service("web", 1),
            Some("exited with code 0"),
        ),
        (ReplicaState::Exited, Some(0), job.clone(), None),
        (
            ReplicaState::Exited,
            Some(2),
            job,
            Some("exited with code 2"),
        ),
        (
            ReplicaState::Created,
            None,
            service("web", 1),
            Some("never started"),
        ),
        (
            ReplicaState::Restarting,
            None,
            service("web", 1),
            Some("keeps restarting"),
        ),
        (
            ReplicaState::Paused,
            None,
            service("web", 1),
            Some("paused"),
        ),
        (ReplicaState::Dead, None, service("web", 1), Some("dead")),
        (
            ReplicaState::Unspecified,
            None,
            service("web", 1),
            Some("not running"),
        ),
    ] {
        let mut observed = cluster(&["m1", "m2"])
            .with_replicas(&spec, &["m2"])
            .with_service(&spec);
        observed.machine("m2").replicas[0].set_state(state);
        observed.machine("m2").replicas[0].exit_code = exit_code;
        let plan = plan(&deploy(&[spec]), &observed).unwrap();
        let reasons: Vec<&str> = plan.services[0]
            .steps
            .iter()
            .map(|step| step.reason.as_str())
            .collect();
        assert_eq!(
            reasons,
            reason.into_iter().collect::<Vec<_>>(),
            "{state:?} {exit_code:?}"
        );
        assert_eq!(is_empty(&plan), reason.is_none());
    }
}

#[test]
fn what_an_earlier_deployment_left_behind_goes() {
    let web = service("web", 1);
    let mut observed = cluster(&["m1", "m2"]).with_replicas(&web, &["m1", "m2"]);
    observed.machine("m1").replicas[0].draining = true;
    check(
        "draining, and a good one",
        &observed,
        std::slice::from_ref(&web),
        "remove web web-01 on m1",
    );
    observed.machine("m2").replicas.clear();
    check(
        "draining, and no other",
        &observed,
        &[web],
        "replace web web-01 on m1",
    );
}

#[test]
fn recreated_because_somebody_says_so() {
    let web = service("web", 2);
    let observed = cluster(&["m1", "m2"])
        .with_replicas(&web, &["m1", "m2"])
        .with_service(&web);
    let desired = Change::Deploy(DesiredServices {
        project: "shop".into(),
        services: vec![web],
        volumes: vec![],
        recreate: true,
        ..Default::default()
    });
    let plan = plan(&desired, &observed).unwrap();
    assert_eq!(
        lines(&plan),
        ["replace web web-01 on m1", "replace web web-02 on m2"]
    );
    assert_eq!(plan.services[0].change(), ServiceChange::Update);
    assert_eq!(plan.services[0].steps[0].reason, "--recreate");
}

#[test]
fn a_port_is_handed_over_one_after_the_other() {
    let [a, b] = [service("a", 1), service("b", 1)];
    let observed = cluster(&["m1"])
        .with_replicas(&b.clone().port(80), &["m1"])
        .with_replicas(&a.clone().port(81), &["m1"]);
    let layers = |services: &[ServiceSpec]| {
        plan(&deploy(services), &observed)
            .map(|plan| {
                let layers = plan
                    .services
                    .iter()
                    .map(|service| format!("{}{}", service.service, service.layer));
                layers.collect::<Vec<_>>().join(" ")
            })
            .map_err(|error| error.to_string())
    };
    assert_eq!(
        layers(&[a.clone().port(82), b.clone().port(83)]),
        Ok("a0 b0".into())
    );
    assert_eq!(layers(&[a.clone().port(80), b.clone()]), Ok("b0 a1".into()));
    assert_eq!(
        layers(&[
            a.clone().port(80),
            b.clone().port(83),
            service("c", 1).after("a")
        ]),
        Ok("b0 a1 c1".into())
    );
    assert_eq!(
        layers(&[a.clone().port(80), b.clone().port(81)]),
        Err("services exchange ports in a circle: a -> b -> a".into())
    );
    assert_eq!(
        layers(&[a.port(80), b.after("a")]),
        Err("services exchange ports in a circle: a -> b -> a".into())
    );
}

#[test]
fn mistyped_number_of_replicas_is_refused_before_anything_is_planned() {
    let observed = cluster(&["m1"]);
    for replicas in [uc_api::layout::MAX_REPLICAS + 1, u32::MAX] {
        let refused = plan(&deploy(&[service("web", replicas)]), &observed).unwrap_err();
        assert!(
            matches!(&refused, PlanError::TooManyReplicas { .. }),
            "{refused}"
        );
    }
}
