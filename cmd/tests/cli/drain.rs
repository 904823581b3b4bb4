//! `uc machine cordon`, `uncordon` and `drain`.

use uc_api::v1::{self, Liveness};
use uc_api::{Code, Failure};

use crate::daemon::{Daemon, member, status};
use crate::deploy::{daemon, finished, good, plan};
use crate::world::World;

/// Two machines; the second one has replicas of these services of the project `shop`.
fn cluster(services: &[&str], daemon: Daemon) -> World {
    let machine = |index: usize| {
        let member = member(
            &format!("id-{index}"),
            &format!("m{index}"),
            &format!("10.210.{index}.0/24"),
        );
        status(&member, Liveness::Up, index == 1)
    };
    let replica = |(index, service): (usize, &&str)| v1::ReplicaStatus {
        replica: Some(v1::ReplicaRecord {
            container_id: format!("c{index}"),
            project: "shop".into(),
            service: (*service).into(),
            ..Default::default()
        }),
        machine_id: "id-2".into(),
        machine_name: "m2".into(),
        ..Default::default()
    };
    World::with(Daemon {
        machines: vec![machine(1), machine(2)].into(),
        replicas: services.iter().enumerate().map(replica).collect(),
        ..daemon
    })
}

#[test]
fn cordon_and_uncordon_are_shown_in_listings() {
    let world = cluster(&[], Daemon::default());
    assert_eq!(
        world.connected(&["machine", "cordon", "m2"]).text(),
        "exit 0\n--- stdout\n--- stderr\nm2 is cordoned\n"
    );
    let listed = world.connected(&["machine", "ls"]);
    assert!(listed.stdout.contains("up, cordoned"), "{}", listed.text());
    let listed = world.connected(&["machine", "ls", "-o", "json"]).json();
    assert_eq!(listed[0]["cordoned_at"], serde_json::Value::Null);
    assert_eq!(listed[1]["cordoned_at"], "2023-11-14T22:13:20Z");
    let again = world.connected(&["machine", "cordon", "m2"]);
    assert_eq!(again.stderr, "m2 is already cordoned\n");
    let ran = world.connected(&["machine", "uncordon", "m2", "-o", "json"]);
    assert_eq!(ran.stderr, "m2 is not cordoned\n");
    assert_eq!(ran.json()["cordoned_at"], serde_json::Value::Null);
    let asked = world.daemon.asked();
    let changes: Vec<_> = asked
        .iter()
        .filter(|call| call.starts_with("Cordon"))
        .collect();
    assert_eq!(
        changes,
        ["CordonMachine id-2 true", "CordonMachine id-2 false"]
    );
}

#[test]
fn drain_shows_the_plan_cordons_and_deploys() {
    let world = cluster(
        &["web"],
        daemon(vec![plan("d1", &["m1"])], vec![(good(&["m1"]), None)]),
    );
    insta::assert_snapshot!(world.connected(&["machine", "drain", "m2", "-y"]).text());
    assert_eq!(
        world.daemon.asked(),
        [
            "ListMachines",
            "Ps",
            "Plan",
            "CordonMachine id-2 true",
            "Plan",
            "Execute d1"
        ]
    );
    let wishes = world.daemon.wishes.lock().unwrap();
    assert_eq!(
        wishes[0].change,
        Some(v1::plan_request::Change::Drain(v1::DrainMachine {
            machine: "id-2".into(),
            project: "shop".into(),
        }))
    );
}

#[test]
fn drain_asks_before_it_changes_anything() {
    let world = cluster(&["web"], daemon(vec![plan("d1", &["m1"])], Vec::new()));
    let ran = world.connected(&["machine", "drain", "m2"]);
    assert_eq!(ran.code, Some(2), "{}", ran.text());
    assert_eq!(world.daemon.asked(), ["ListMachines", "Ps", "Plan"]);
}

#[test]
fn drain_dry_run_prints_the_plan_only() {
    let world = cluster(&["web"], daemon(vec![plan("d1", &["m1"])], Vec::new()));
    let ran = world.connected(&["machine", "drain", "m2", "--dry-run"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(
        ran.stdout.contains("1 container to create"),
        "{}",
        ran.text()
    );
    let ran = world.connected(&["machine", "drain", "m2", "--dry-run", "-o", "json"]);
    let document = ran.json();
    assert_eq!(document["deployments"][0]["outcome"], "planned");
    assert_eq!(document["deployments"][0]["plan"]["digest"], "d1");
    assert!(
        !world
            .daemon
            .asked()
            .iter()
            .any(|call| call.starts_with("Cordon"))
    );
}

#[test]
fn drain_with_services_that_stay_exits_with_4_and_names_them() {
    let world = cluster(
        &["db", "web"],
        daemon(vec![plan("d1", &["m1"])], vec![(good(&["m1"]), None)]),
    );
    let ran = world.connected(&["machine", "drain", "m2", "-y", "-o", "json"]);
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    assert!(
        ran.stderr.contains("1 service stays on m2: shop/db") && ran.stderr.contains("hint: "),
        "{}",
        ran.text()
    );
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["staying"], serde_json::json!(["shop/db"]));
    assert_eq!(document["deployments"][0]["outcome"], "done");
    assert_eq!(document["machine"]["cordoned_at"], "2023-11-14T22:13:20Z");
    assert_eq!(document["error"]["kind"], "partial");
}

#[test]
fn drain_that_cannot_be_planned_changes_nothing() {
    let failure = Failure::new(
        Code::Refused,
        "no machine is allowed to run service `shop/web`: m2 (drained)",
    );
    let world = cluster(
        &["web"],
        Daemon {
            refuse_call: Some(("Plan", failure)),
            ..Daemon::default()
        },
    );
    let ran = world.connected(&["machine", "drain", "m2", "-y"]);
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.stderr.contains("nothing was changed"), "{}", ran.text());
    assert_eq!(world.daemon.asked(), ["ListMachines", "Ps", "Plan"]);
}

#[test]
fn drain_that_is_rolled_back_leaves_the_machine_cordoned() {
    let rolled_back = vec![finished(
        v1::DeployOutcome::RolledBack,
        "web on m1: exited with code 1",
        "",
    )];
    let world = cluster(
        &["web"],
        daemon(vec![plan("d1", &["m1"])], vec![(rolled_back, None)]),
    );
    let ran = world.connected(&["machine", "drain", "m2", "-y"]);
    assert_eq!(ran.code, Some(3), "{}", ran.text());
    assert!(
        ran.stderr.contains("m2 stays cordoned") && ran.stderr.contains("uc machine uncordon m2"),
        "{}",
        ran.text()
    );
}

#[test]
fn drain_of_an_empty_machine_cordons_it_without_a_question() {
    let world = cluster(&[], Daemon::default());
    assert_eq!(
        world.connected(&["machine", "drain", "m2"]).text(),
        "exit 0\n--- stdout\n--- stderr\nm2 is cordoned and runs no replicas\n"
    );
}
