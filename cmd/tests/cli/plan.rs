//! `uc plan`.

use crate::daemon::Daemon;
use crate::deploy::{daemon, plan};
use crate::deploy_images::project;
use crate::world::World;

#[test]
fn plan_exits_with_10_if_there_are_changes_and_executes_nothing() {
    let world = project(daemon(vec![plan("d1", &["m1"])], Vec::new()));
    insta::assert_snapshot!(world.connected(&["plan", "web"]).text());
    assert_eq!(world.daemon.asked(), ["ListConflicts", "Plan"]);
}

#[test]
fn plan_exits_with_0_if_there_is_nothing_to_do() {
    let world = project(Daemon::default());
    let ran = world.connected(&["plan"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(
        ran.stderr.ends_with("services are up to date\n"),
        "{}",
        ran.text()
    );
    assert!(ran.stdout.is_empty(), "{}", ran.text());
}

#[test]
fn plan_prints_its_outcome_as_json() {
    let world = project(daemon(vec![plan("d1", &["m1"])], Vec::new()));
    let ran = world.connected(&["plan", "-o", "json"]);
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(ran.code, Some(10), "{}", ran.text());
    assert_eq!(document["outcome"], "planned");
    assert_eq!(document["plan"]["digest"], "d1");
}

#[test]
fn plan_of_a_file_with_errors_exits_with_2() {
    let world = World::new();
    world.write(
        "project/compose.yaml",
        "services:\n  web:\n    imagee: nginx\n",
    );
    assert_eq!(world.connected(&["plan"]).code, Some(2));
}
