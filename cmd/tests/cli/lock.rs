//! `uc lock`: listing the locks of running deployments, and releasing them.

use uc_api::v1;

use crate::daemon::Daemon;
use crate::world::World;

fn locked() -> World {
    let lock = |project: &str, machine: &str, confirmed, holders: &[&str]| v1::Lock {
        project: project.into(),
        deployment_id: "0123456789abcdef".into(),
        machine_id: format!("id-{machine}"),
        machine_name: machine.into(),
        age_ms: 72_400,
        holders: holders.iter().map(|&name| name.to_owned()).collect(),
        confirmed,
    };
    World::with(Daemon {
        locks: v1::ListLocksResponse {
            locks: vec![
                lock("blog", "m1", false, &["m1"]),
                lock("shop", "m2", true, &["m1", "m2"]),
            ],
            warnings: vec!["m3 does not answer: no answer within 2 s".into()],
        },
        ..Daemon::default()
    })
}

#[test]
fn lock_show_lists_projects_with_executor_and_holders() {
    insta::assert_snapshot!(locked().connected(&["lock", "show"]).text());
}

#[test]
fn lock_show_without_locks_says_so() {
    let ran = World::new().connected(&["lock", "show"]);
    assert_eq!(
        ran.text(),
        "exit 0\n--- stdout\n--- stderr\nno deployment is running\n"
    );
}

#[test]
fn lock_show_prints_json() {
    insta::assert_snapshot!(locked().connected(&["lock", "show", "-o", "json"]).stdout);
}

#[test]
fn lock_release_asks_and_reports_the_machines() {
    let world = locked();
    let ran = world.connected(&["lock", "release", "shop"]);
    assert_eq!(ran.code, Some(2), "{}", ran.text());
    assert_eq!(world.daemon.asked(), ["ListLocks"]);
    let world = locked();
    insta::assert_snapshot!(world.connected(&["lock", "release", "shop", "-y"]).text());
    assert_eq!(world.daemon.asked(), ["ListLocks", "ReleaseLock shop"]);
}

#[test]
fn lock_release_of_another_project_suggests_the_nearest() {
    let world = locked();
    let ran = world.connected(&["lock", "release", "shpo", "-y"]);
    assert_eq!(ran.code, Some(2), "{}", ran.text());
    assert!(
        ran.stderr.contains("did you mean `shop`?"),
        "{}",
        ran.text()
    );
    assert_eq!(world.daemon.asked(), ["ListLocks"]);
}
