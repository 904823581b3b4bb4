//! Machines that get no new replicas, and taking all replicas from a machine.

use uc_api::Failure;
use uc_api::v1::DrainMachine;

use super::simulation::carry_out;
use super::*;

fn cordoned(mut observed: Observed, machine: &str) -> Observed {
    observed.machine(machine).cordoned = true;
    observed
}

fn drain(machine: &str) -> Change {
    Change::Drain(DrainMachine {
        machine: machine_id(machine).to_string(),
        project: "shop".into(),
    })
}

fn three() -> Observed {
    cluster(&["m1", "m2", "m3"])
}

#[test]
fn cordoned_machine_gets_no_new_replica() {
    let web = service("web", 3);
    let observed = cordoned(three(), "m1");
    assert_eq!(
        run(&deploy(std::slice::from_ref(&web)), &observed),
        "create web on m2\ncreate web on m2\ncreate web on m3"
    );
    let observed = cordoned(three(), "m1").with_replicas(&web, &["m1", "m2"]);
    assert_eq!(
        run(&deploy(std::slice::from_ref(&web)), &observed),
        "create web on m3",
        "what runs there stays"
    );
    assert_eq!(
        run(&deploy(&[global("agent")]), &cordoned(three(), "m2")),
        "create agent on m1\ncreate agent on m3"
    );
}

#[test]
fn replicas_on_a_cordoned_machine_are_updated_there() {
    let old = [
        service("web", 2).image("web:0"),
        global("agent").image("agent:0"),
    ];
    let observed = cordoned(three(), "m1")
        .with_replicas(&old[0], &["m1", "m2"])
        .with_replicas(&old[1], &["m1"]);
    assert_eq!(
        run(&deploy(&[service("web", 3), global("agent")]), &observed),
        "create agent on m2\ncreate agent on m3\nreplace agent agent-03 on m1\n\
         create web on m3\nreplace web web-01 on m1\nreplace web web-02 on m2"
    );
}

#[test]
fn service_without_another_machine_than_a_cordoned_one_is_refused() {
    let observed = cordoned(cluster(&["m1"]), "m1");
    let error = plan(&deploy(&[service("web", 1)]), &observed).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no machine is allowed to run service `shop/web`: m1 (cordoned)"
    );
    let hint = Failure::from(error).hint.unwrap();
    assert!(hint.contains("uc machine uncordon"), "{hint}");
    // It has one there; another one has no place.
    let observed = observed.with_replicas(&service("web", 1), &["m1"]);
    assert_eq!(
        run(&deploy(&[service("web", 2)]), &observed),
        "error: no machine is allowed to run service `shop/web`: m1 (cordoned)"
    );
    let observed = cordoned(three().with_volume("data", &["m2"]), "m2");
    assert_eq!(
        run(&deploy(&[service("db", 1).mount("data")]), &observed),
        "error: no machine is allowed to run service `shop/db` and has its volumes: \
         volume `data` is on m2; m2 is cordoned"
    );
}

#[test]
fn drain_moves_replicas_and_removes_global_ones() {
    let (web, agent) = (service("web", 2), global("agent"));
    let mut observed = three()
        .with_service(&web)
        .with_service(&agent)
        .with_replicas(&web, &["m1", "m2"])
        .with_replicas(&agent, &["m1", "m2", "m3"]);
    assert_eq!(
        run(&drain("m1"), &observed),
        "remove agent agent-03 on m1\nreplace web web-01 on m3"
    );
    let planned = plan(&drain("m1"), &observed).unwrap();
    let cordoned_too = cordoned(observed.clone(), "m1");
    assert_eq!(
        plan(&drain("m1"), &cordoned_too).unwrap().digest,
        planned.digest,
        "the plan that was confirmed is the plan after the machine was cordoned"
    );
    carry_out(&planned, &[web.clone(), agent.clone()], &mut observed);
    assert!(observed.machine("m1").replicas.is_empty());
    assert_eq!(run(&drain("m1"), &observed), "");
    let observed = cordoned(observed, "m1");
    assert_eq!(
        run(&deploy(&[web, agent]), &observed),
        "",
        "a deployment brings nothing back"
    );
}

#[test]
fn drain_leaves_services_whose_volumes_are_there() {
    let db = service("db", 1).mount("data").mount("logs");
    let backup = service("backup", 1).shares("db");
    let shared = service("files", 1).mount("nfs");
    let mut observed = [&db, &backup, &shared]
        .into_iter()
        .fold(three(), Observed::with_service)
        // What is on m2 is of an earlier time.
        .with_volume("data", &["m1", "m2"])
        .with_volume("logs", &["m1"])
        .with_volume("nfs", &["m1", "m2"]);
    let files = "shop/files".parse().unwrap();
    let nfs = v1::VolumeSpec {
        name: "nfs".into(),
        driver_opts: [("type".to_owned(), "nfs".to_owned())].into(),
        ..v1::VolumeSpec::default()
    };
    observed.services.get_mut(&files).unwrap().volumes = vec![nfs];
    let observed = observed
        .with_replicas(&db, &["m1"])
        .with_replicas(&backup, &["m1"]);
    // A mount makes a volume known on its machine, so this one is added by hand.
    let observed = observed.with_replicas(&shared, &["m1"]);
    assert_eq!(
        run(&drain("m1"), &observed),
        "replace files files-03 on m2\n\
         warning: shop/backup stays on m1: it shares namespaces of db\n\
         warning: shop/db stays on m1: its volumes `data` and `logs` are there"
    );
}

#[test]
fn drain_is_refused_if_no_other_machine_can_take_a_service() {
    let web = service("web", 1).on(&["m1"]);
    let observed = three().with_service(&web).with_replicas(&web, &["m1"]);
    let error = plan(&drain("m1"), &observed).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no machine is allowed to run service `shop/web`: m1 (drained)"
    );
    let hint = Failure::from(error).hint.unwrap();
    assert!(hint.contains("add a machine"), "{hint}");
    // A global service that is allowed nowhere else has no replicas then.
    let agent = global("agent").on(&["m1"]);
    let observed = three().with_service(&agent).with_replicas(&agent, &["m1"]);
    assert_eq!(run(&drain("m1"), &observed), "remove agent agent-01 on m1");
    let error = plan(&drain("m9"), &observed).unwrap_err();
    assert!(error.to_string().contains("not found"), "{error}");
}

#[test]
fn drain_takes_only_the_project_and_names_left_over_containers() {
    let other = ServiceSpec {
        project: "blog".into(),
        ..service("web", 1)
    };
    let left = service("old", 1);
    let observed = three()
        .with_service(&other)
        .with_replicas(&other, &["m1"])
        .with_replicas(&left, &["m1"]);
    assert_eq!(
        run(&drain("m1"), &observed),
        "warning: shop/old: its containers on m1 are left over from a service that was removed; \
         remove them with `uc rm shop/old`"
    );
}

#[test]
fn drain_of_a_machine_that_is_down_replaces_what_it_had() {
    let web = service("web", 2);
    let observed = three()
        .with_service(&web)
        .with_replicas(&web, &["m1", "m2"])
        .down("m1");
    let text = run(&drain("m1"), &observed);
    assert!(text.starts_with("create web on m3\n"), "{text}");
}
