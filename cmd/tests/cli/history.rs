//! `uc history` and `uc rollback`.

use uc_api::v1::plan_request::Change;
use uc_api::{Code, Failure, v1};

use crate::daemon::Daemon;
use crate::deploy::{daemon, good, plan};
use crate::listings::recently;
use crate::world::World;

fn history(deployed_at_ms: i64) -> Daemon {
    let field = |field: &str, old: &str, new: &str| v1::FieldChange {
        field: field.into(),
        old: old.into(),
        new: new.into(),
    };
    let revision = |revision: &str, image: &str, changes| v1::ServiceRevision {
        revision: revision.into(),
        deployment_id: revision.repeat(2),
        deployed_at_ms,
        current: false,
        image: image.into(),
        changes,
    };
    let newest = revision(
        "33445566778899aa",
        "nginx:2",
        vec![
            field("image", "nginx:1", "nginx:2"),
            field("environment.MODE", "", "fast"),
            field("user", "www", ""),
        ],
    );
    let oldest = revision("0011223344556677", "nginx:1", Vec::new());
    Daemon {
        history: v1::HistoryResponse {
            project: "shop".into(),
            service: "web".into(),
            revisions: vec![
                v1::ServiceRevision {
                    current: true,
                    ..newest
                },
                oldest,
            ],
        },
        ..Daemon::default()
    }
}

#[test]
fn history_lists_revisions_with_their_changes() {
    let world = World::with(history(recently()));
    insta::assert_snapshot!(world.connected(&["history", "web"]).text());
    assert_eq!(world.daemon.asked(), ["History web"]);
}

#[test]
fn history_as_json() {
    let world = World::with(history(1_700_000_000_000));
    let document = world.connected(&["history", "web", "-o", "json"]).json();
    insta::assert_snapshot!(serde_json::to_string_pretty(&document).unwrap());
}

#[test]
fn service_without_recorded_revisions_is_not_an_error() {
    let ran = World::new().connected(&["history", "web"]);
    assert_eq!(
        ran.text(),
        "exit 0\n--- stdout\n--- stderr\nno revisions are recorded\n"
    );
}

#[test]
fn rollback_plans_asks_and_executes() {
    let world = World::with(daemon(
        vec![plan("d1", &["m1"])],
        vec![(good(&["m1"]), None)],
    ));
    let ran = world.on_terminal("rollback shop/web --to 0011", "y\n");
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(
        ran.stdout.contains("Roll back on the cluster of m1"),
        "{}",
        ran.text()
    );
    assert_eq!(world.daemon.asked(), ["Plan", "Execute d1"]);
    let wishes = world.daemon.wishes.lock().unwrap();
    assert_eq!(
        wishes[0].change,
        Some(Change::RollBack(v1::RollBackServices {
            service: "shop/web".into(),
            revision: "0011".into(),
        }))
    );
}

#[test]
fn rollback_dry_run_shows_the_plan_only() {
    let world = World::with(daemon(vec![plan("d1", &["m1"])], Vec::new()));
    let ran = world.connected(&["rollback", "web", "--dry-run", "-o", "json"]);
    assert_eq!(ran.json()["outcome"], "planned");
    assert_eq!(ran.json()["plan"]["digest"], "d1");
    assert_eq!(world.daemon.asked(), ["Plan"]);
    let wishes = world.daemon.wishes.lock().unwrap();
    assert_eq!(
        wishes[0].change,
        Some(Change::RollBack(v1::RollBackServices {
            service: "web".into(),
            revision: String::new(),
        }))
    );
}

#[test]
fn rollback_to_an_unknown_revision_is_a_usage_error() {
    let failure = Failure::new(Code::NotFound, "revision `99` of shop/web not found")
        .hint("`uc history shop/web` lists the revisions");
    let world = World::with(Daemon {
        refuse_call: Some(("Plan", failure)),
        ..Daemon::default()
    });
    let ran = world.connected(&["rollback", "-y", "web", "--to", "99"]);
    assert_eq!(
        ran.text(),
        "exit 2\n--- stdout\n--- stderr\nerror: revision `99` of shop/web not found\n\
         hint: `uc history shop/web` lists the revisions\n"
    );
}
