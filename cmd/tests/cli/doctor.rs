//! `uc doctor`: what it asks, prints and ends with. What it finds has tests beside it.

use uc_api::v1::{
    Examination, ExaminedMachine, Liveness, PeerFigures, ServiceSpec, ServiceStatus, StoreFigures,
};
use uc_api::{Code, Failure};

use crate::daemon::{Daemon, member};
use crate::world::World;

/// 2023-11-14T22:13:20Z
const NOW: i64 = 1_700_000_000_000;

fn peer(id: &str, name: &str, lag: u64) -> PeerFigures {
    PeerFigures {
        machine_id: id.into(),
        machine_name: name.into(),
        liveness: Liveness::Up.into(),
        neighbour: true,
        connected: true,
        sessions: 2,
        lag,
        frames_in: 7,
        frames_out: 9,
        bytes_in: 4096,
        bytes_out: 812,
        ..Default::default()
    }
}

fn examined(id: &str, name: &str, peers: Vec<PeerFigures>) -> ExaminedMachine {
    let store = StoreFigures {
        changes: 12,
        actors: 2,
        commits: 200,
        durable_commits: 20,
        commit_us: 90_000,
        commit_buckets: vec![150, 50, 0],
        commit_bucket_ends_us: vec![250, 500],
        file_bytes: 65_536,
        ..Default::default()
    };
    ExaminedMachine {
        machine: Some(member(id, name, "10.210.0.0/24")),
        liveness: Liveness::Up.into(),
        connected: name == "m1",
        asked_at_ms: NOW,
        heard_at_ms: NOW + 4,
        examination: Some(Examination {
            uc_version: "0.1.0".into(),
            docker_version: "28.5.1".into(),
            clock_from_ms: NOW + 2,
            clock_to_ms: NOW + 2,
            started_at_ms: NOW - 180_000,
            store: Some(store),
            peers,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn two(lag: u64) -> Vec<ExaminedMachine> {
    vec![
        examined("id-1", "m1", vec![peer("id-2", "m2", lag)]),
        examined("id-2", "m2", vec![peer("id-1", "m1", 0)]),
    ]
}

fn down() -> ExaminedMachine {
    ExaminedMachine {
        machine: Some(member("id-3", "m3", "10.210.2.0/24")),
        liveness: Liveness::Down.into(),
        failure: "no answer within 5 s".into(),
        ..Default::default()
    }
}

fn world(looks: Vec<Vec<ExaminedMachine>>) -> World {
    let daemon = Daemon::default();
    *daemon.examined.lock().unwrap() = looks.into();
    World::with(daemon)
}

#[test]
fn doctor_without_findings_prints_one_line_on_stderr() {
    let world = world(vec![two(0)]);
    let ran = world.connected(&["doctor"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), ""),
        "{}",
        ran.text()
    );
    assert_eq!(ran.stderr, "2 machines examined: no problems found\n");
    assert_eq!(
        world.daemon.asked(),
        ["Examine [] all=true", "List", "Ps"],
        "one look is enough"
    );
}

#[test]
fn doctor_prints_findings_with_hints() {
    let mut machines = two(0);
    machines.push(down());
    let said = machines[1].examination.as_mut().unwrap();
    said.uc_version = "0.2.0".into();
    said.store.as_mut().unwrap().conflicts = 2;
    said.clock_from_ms += 45_000;
    said.clock_to_ms += 45_000;
    let ran = world(vec![machines]).connected(&["doctor"]);
    assert_eq!(ran.code, Some(4));
    insta::assert_snapshot!(ran.text());
}

#[test]
fn doctor_with_problems_exits_1() {
    let mut machines = two(0);
    machines[1].examination.as_mut().unwrap().docker_failure = "connection refused".into();
    let ran = world(vec![machines]).connected(&["doctor", "m2", "m1"]);
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(
        ran.stdout.contains("problem: m2: Docker does not answer"),
        "{}",
        ran.text()
    );
}

#[test]
fn doctor_looks_again_at_what_can_pass() {
    let passed = world(vec![two(5_000), two(0)]);
    let ran = passed.connected(&["doctor", "m1", "m2"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (Some(0), "2 machines examined: no problems found\n")
    );
    assert_eq!(
        passed.daemon.asked(),
        [r#"Examine ["m1", "m2"] all=false"#; 2]
    );
    let stays = world(vec![two(5_000), two(5_000)]).connected(&["doctor"]);
    assert!(
        stays
            .stdout
            .starts_with("warning: m2 is 5000 changes behind m1"),
        "{}",
        stays.text()
    );
    assert_eq!(stays.code, Some(0), "a warning is not a failure");
    let world = world(vec![two(5_000), two(0)]);
    let once = world.connected(&["doctor", "--once"]);
    assert!(
        once.stdout
            .starts_with("note: m2 is 5000 changes behind m1"),
        "{}",
        once.text()
    );
    assert_eq!(world.daemon.asked(), ["Examine [] all=true", "List", "Ps"]);
}

#[test]
fn doctor_names_a_service_without_replicas() {
    let spec = ServiceSpec {
        project: "shop".into(),
        name: "web".into(),
        replicas: 1,
        ..Default::default()
    };
    let daemon = Daemon {
        services: vec![ServiceStatus {
            spec: Some(spec),
            desired: 1,
            ..Default::default()
        }],
        ..Daemon::default()
    };
    *daemon.examined.lock().unwrap() = [two(0)].into();
    let world = World::with(daemon);
    let ran = world.connected(&["doctor"]);
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(
        ran.stdout
            .starts_with("problem: 0 of 1 replicas of shop/web run: 1 is missing"),
        "{}",
        ran.text()
    );
    assert_eq!(world.daemon.asked().len(), 6, "it looks again");
    // What is asked about machines is answered about machines.
    let of_one = world.connected(&["doctor", "m1"]);
    assert_eq!(of_one.code, Some(0), "{}", of_one.text());
}

#[test]
fn doctor_prints_figures_after_findings() {
    let mut machines = two(0);
    machines[0]
        .examination
        .as_mut()
        .unwrap()
        .store
        .as_mut()
        .unwrap()
        .opaque = 1;
    let ran = world(vec![machines]).connected(&["doctor", "--figures"]);
    assert_eq!(ran.code, Some(0));
    insta::assert_snapshot!(ran.stdout);
}

#[test]
fn doctor_json_has_findings_and_examinations() {
    let mut machines = two(0);
    machines.truncate(1);
    machines.push(down());
    let ran = world(vec![machines]).connected(&["doctor", "-o", "json"]);
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    insta::assert_snapshot!(ran.stdout);
}

#[test]
fn doctor_reports_a_refusal_of_the_daemon() {
    let failure = Failure::new(Code::Refused, "machine m1 is not in a cluster");
    let daemon = Daemon {
        refuse_call: Some(("Examine", failure)),
        ..Daemon::default()
    };
    let ran = World::with(daemon).connected(&["doctor"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("machine m1 is not in a cluster"),
        "{}",
        ran.text()
    );
}
