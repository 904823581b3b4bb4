//! `uc deployments`: listed, shown, watched, cancelled.

use uc_api::v1::{self, DeployOutcome, Liveness, ServiceChange};

use crate::daemon::Daemon;
use crate::deploy::{daemon, finished, good};
use crate::deploy_follow::{ID, began, endless};
use crate::listings::recently;
use crate::world::World;

fn deployment(
    id: &str,
    machine: &str,
    liveness: Liveness,
    end: Option<v1::DeployFinished>,
) -> v1::DeploymentStatus {
    let service =
        |service: &str, change: ServiceChange, revision: &str, steps| v1::DeployedService {
            project: "shop".into(),
            service: service.into(),
            change: change.into(),
            revision: revision.into(),
            steps,
        };
    v1::DeploymentStatus {
        deployment_id: id.into(),
        machine_id: format!("id-{machine}"),
        machine_name: machine.into(),
        machine_liveness: liveness.into(),
        began_at_ms: recently(),
        services: vec![
            service("db", ServiceChange::None, "8899aabbccddeeff", 1),
            service("web", ServiceChange::Update, "0011223344556677", 3),
        ],
        ended_at_ms: if end.is_some() { recently() } else { 0 },
        finished: end,
    }
}

fn end(outcome: DeployOutcome) -> v1::DeployFinished {
    v1::DeployFinished {
        outcome: outcome.into(),
        message: "web on m2: exited with code 1".into(),
        log_tail: vec!["Error: REDIS is not set".into()],
        hint: "see all of it with `uc logs shop/web`".into(),
    }
}

fn running() -> v1::DeploymentStatus {
    deployment(ID, "m1", Liveness::Up, None)
}

fn recorded() -> Vec<v1::DeploymentStatus> {
    let ended = |id, outcome| {
        let mut end = end(outcome);
        if outcome == DeployOutcome::Done {
            end = v1::DeployFinished {
                outcome: outcome.into(),
                ..Default::default()
            };
        }
        deployment(id, "m2", Liveness::Down, Some(end))
    };
    vec![
        running(),
        deployment(&"1a".repeat(16), "m3", Liveness::Down, None),
        ended(&"2b".repeat(16), DeployOutcome::Done),
        ended(&"3c".repeat(16), DeployOutcome::RolledBack),
        ended(&"4d".repeat(16), DeployOutcome::Superseded),
    ]
}

fn with(deployments: Vec<v1::DeploymentStatus>) -> World {
    World::with(Daemon {
        deployments,
        ..Daemon::default()
    })
}

#[test]
fn deployments_ls_shows_how_each_ended() {
    let world = with(recorded());
    insta::assert_snapshot!(world.connected(&["deployments", "ls", "-p", "shop"]).text());
    assert_eq!(world.daemon.asked(), ["ListDeployments shop"]);
    let empty = with(Vec::new());
    assert_eq!(
        empty.connected(&["deployments", "ls"]).text(),
        "exit 0\n--- stdout\n--- stderr\nno deployments\n"
    );
}

#[test]
fn deployments_show_reports_services_and_outcome() {
    let world = with(recorded());
    insta::assert_snapshot!(world.connected(&["deployments", "show", "3c3c"]).text());
}

#[test]
fn deployments_as_json() {
    let mut rolled_back = recorded().remove(3);
    rolled_back.began_at_ms = 1_700_000_000_000;
    rolled_back.ended_at_ms = 1_700_000_001_500;
    let world = with(vec![rolled_back]);
    let listed = world.connected(&["deployments", "ls", "-o", "json"]).json();
    let shown = world
        .connected(&["deployments", "show", "3c3c", "-o", "json"])
        .json();
    assert_eq!(listed, serde_json::json!([shown]));
    insta::assert_snapshot!(serde_json::to_string_pretty(&shown).unwrap());
}

#[test]
fn watch_shows_a_running_deployment_to_its_end() {
    let mut events = vec![began()];
    events.extend(good(&["m1"]));
    let world = World::with(daemon(Vec::new(), vec![(events, None)]));
    let ran = world.connected(&["deployments", "watch", "0123"]);
    insta::assert_snapshot!(ran.text());
    assert_eq!(world.daemon.asked(), ["Watch 0123"]);
}

#[test]
fn watch_of_an_ended_deployment_has_its_outcome_and_exit_code() {
    for (outcome, code) in [
        (DeployOutcome::Done, 0),
        (DeployOutcome::RolledBack, 3),
        (DeployOutcome::Superseded, 4),
    ] {
        let events = vec![finished(outcome, "web failed", "")];
        let world = World::with(daemon(Vec::new(), vec![(events, None)]));
        let ran = world.connected(&["deployments", "watch", ID]);
        assert_eq!(ran.code, Some(code), "{}", ran.text());
        let line = if code == 0 {
            "done\n"
        } else {
            "error: web failed\n"
        };
        assert_eq!(ran.stderr, line);
    }
    let unknown = World::new().connected(&["deployments", "watch", "ff"]);
    assert_eq!(unknown.code, Some(2), "{}", unknown.text());
}

#[test]
fn cancel_asks_and_succeeds_when_it_was_rolled_back() {
    let world = World::with(Daemon {
        deployments: vec![running()],
        ..endless()
    });
    let refused = world.connected(&["deployments", "cancel", "0123"]);
    assert_eq!(refused.code, Some(2), "{}", refused.text());
    let ran = world.dialogue("deployments cancel 0123", &[("did? [y/N] ", "y\n")]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(
        ran.stdout
            .contains("Cancel deployment 0123456789ab of shop/db, shop/web on the cluster"),
        "{}",
        ran.text()
    );
    assert!(
        ran.stdout.ends_with("cancelled and rolled back\r\n"),
        "{}",
        ran.text()
    );
    let calls = world.daemon.asked();
    let watch_and_cancel = [format!("Watch {ID}"), format!("Cancel {ID}")];
    assert_eq!(calls[calls.len() - 2..], watch_and_cancel, "{calls:?}");
}

#[test]
fn cancel_of_a_deployment_that_is_done_fails() {
    let world = World::with(Daemon {
        deployments: vec![running()],
        ..daemon(Vec::new(), vec![(good(&["m1"]), None)])
    });
    let ran = world.connected(&["deployments", "cancel", "-y", ID]);
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(
        ran.stderr.contains("done before it could be cancelled"),
        "{}",
        ran.text()
    );
    let ended = with(recorded());
    let ran = ended.connected(&["deployments", "cancel", "-y", "2b2b"]);
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.stderr.contains("has ended"), "{}", ran.text());
    assert_eq!(ended.daemon.asked(), ["ListDeployments"]);
}
