//! `ls`, `ps`, `inspect`, `machine ls`: for people and as JSON.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use uc_api::v1;

use crate::daemon::{Daemon, member, status};
use crate::world::World;

fn spec() -> v1::ServiceSpec {
    v1::ServiceSpec {
        project: "shop".into(),
        name: "web".into(),
        image: "shop-web:0123456789ab".into(),
        built: true,
        environment: BTreeMap::from([("MODE".into(), "fast".into())]),
        ports: vec![v1::PortSpec {
            container_port: 80,
            published_port: 8080,
            ..Default::default()
        }],
        mounts: vec![v1::MountSpec {
            kind: v1::MountKind::Volume.into(),
            source: "shop_data".into(),
            target: "/data".into(),
            read_only: false,
            ..Default::default()
        }],
        healthcheck: Some(v1::Healthcheck {
            test: vec!["CMD".into(), "true".into()],
            interval_ms: Some(1000),
            ..Default::default()
        }),
        depends_on: vec![v1::Dependency {
            service: "db".into(),
            condition: v1::DependencyCondition::Healthy.into(),
            ..Default::default()
        }],
        mode: v1::ServiceMode::Replicated.into(),
        replicas: 2,
        ..Default::default()
    }
}

fn service() -> v1::ServiceStatus {
    v1::ServiceStatus {
        spec: Some(spec()),
        revision: "0011223344556677".into(),
        desired: 2,
        running: 1,
        healthy: 1,
        completed: 0,
        updated_at_ms: 1_700_000_000_000,
    }
}

fn replica(created_at_ms: i64) -> v1::ReplicaStatus {
    let record = v1::ReplicaRecord {
        container_id: "0123456789abcdef".repeat(4),
        container_name: "shop-web-x7k2".into(),
        project: "shop".into(),
        service: "web".into(),
        revision: "0011223344556677".into(),
        image: "shop-web:0123456789ab".into(),
        state: v1::ReplicaState::Running.into(),
        health: v1::Health::Healthy.into(),
        ip: "10.210.0.2".into(),
        created_at_ms,
        ports: spec().ports,
        ..Default::default()
    };
    v1::ReplicaStatus {
        replica: Some(record),
        machine_id: "m-1".into(),
        machine_name: "m1".into(),
        machine_liveness: v1::Liveness::Up.into(),
        current: true,
        ..Default::default()
    }
}

fn daemon(created_at_ms: i64) -> Daemon {
    let volume = v1::VolumeSpec {
        project: "shop".into(),
        name: "shop_data".into(),
        ..Default::default()
    };
    Daemon {
        services: vec![service()],
        replicas: vec![replica(created_at_ms)],
        inspection: v1::InspectServiceResponse {
            service: Some(service()),
            replicas: vec![replica(created_at_ms)],
            volumes: vec![volume],
        },
        machines: vec![
            status(
                &member("m-1", "m1", "10.210.0.0/24"),
                v1::Liveness::Up,
                true,
            ),
            status(
                &member("m-2", "m2", "10.210.1.0/24"),
                v1::Liveness::Down,
                false,
            ),
        ]
        .into(),
        ..Daemon::default()
    }
}

/// So that "2 minutes ago" is what is seen.
pub(crate) fn recently() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap() - 150_000
}

#[test]
fn listings_as_tables() {
    let world = World::with(daemon(recently()));
    insta::assert_snapshot!("ls", world.connected(&["ls"]).text());
    insta::assert_snapshot!("ps", world.connected(&["ps"]).text());
    insta::assert_snapshot!("machine_ls", world.connected(&["machine", "ls"]).text());
    let inspected = world.connected(&["inspect", "web"]).text();
    let lines: Vec<_> = inspected
        .lines()
        .filter(|line| !line.starts_with("Updated"))
        .collect();
    insta::assert_snapshot!("inspect", lines.join("\n"));
}

#[test]
fn ps_is_cut_to_the_terminal_and_wide_is_not() {
    let mut long = daemon(recently());
    let image = format!("registry.example.com/{}:1", "shop".repeat(30));
    for status in &mut long.replicas {
        status.replica.as_mut().unwrap().image.clone_from(&image);
    }
    let world = World::with(long);
    let piped = world.connected(&["ps"]).stdout;
    assert!(
        piped.contains(&image),
        "not a terminal: nothing is cut\n{piped}"
    );
    let cut = world.on_terminal_of("80", "ps").stdout;
    assert!(!cut.contains(&image) && cut.contains('…'), "{cut}");
    for line in cut.lines() {
        assert!(line.trim_end().chars().count() <= 80, "{line}");
    }
    let wide = world.on_terminal_of("80", "ps -o wide").stdout;
    assert!(wide.contains(&image), "{wide}");
    for title in ["IP", "NAME", "REVISION", "RESTARTS", "PORTS"] {
        assert!(wide.contains(title), "{wide}");
    }
}

#[test]
fn machine_ls_wide_has_all_columns() {
    let world = World::with(daemon(recently()));
    let table = world.connected(&["machine", "ls"]).stdout;
    let wide = world.connected(&["machine", "ls", "-o", "wide"]).stdout;
    let titles = |text: &str| -> Vec<String> {
        let header = text.lines().next().unwrap();
        header.split_whitespace().map(ToOwned::to_owned).collect()
    };
    assert_eq!(
        titles(&table),
        ["NAME", "STATE", "ADDRESS", "REPLICAS", "OS", "UC"]
    );
    assert_eq!(
        titles(&wide)[6..],
        ["SUBNET", "ENDPOINTS", "ARCH", "DOCKER", "CONNECTED"]
    );
    assert!(
        wide.contains("28.5.1") && !table.contains("28.5.1"),
        "{wide}"
    );
}

#[test]
fn ls_is_not_green_while_replicas_are_unhealthy() {
    let sick = v1::ServiceStatus {
        running: 2,
        healthy: 1,
        completed: 0,
        ..service()
    };
    let world = World::with(Daemon {
        services: vec![sick],
        ..Daemon::default()
    });
    let mut command = world.command(&["ls"]);
    command
        .env(
            "UC_CONNECT",
            format!("unix://{}", world.path("uc.sock").display()),
        )
        .env("CLICOLOR_FORCE", "1");
    let text = world.finish(command).stdout;
    assert!(text.contains("\u{1b}[33m2/2, 1 healthy"), "{text:?}");
}

#[test]
fn listings_as_json() {
    let world = World::with(daemon(1_700_000_000_123));
    insta::assert_snapshot!("ls_json", world.connected(&["ls", "-o", "json"]).stdout);
    insta::assert_snapshot!("ps_json", world.connected(&["ps", "-o", "json"]).stdout);
    insta::assert_snapshot!(
        "machine_ls_json",
        world.connected(&["machine", "ls", "-o", "json"]).stdout
    );
    insta::assert_snapshot!(
        "inspect_json",
        world.connected(&["inspect", "web", "-o", "json"]).stdout
    );
}

#[test]
fn empty_listings_are_empty_arrays() {
    let world = World::new();
    for arguments in [&["ls"][..], &["ps"][..], &["machine", "ls"][..]] {
        let ran = world.connected(&[arguments, &["-o", "json"]].concat());
        assert_eq!(ran.json(), serde_json::json!([]));
        assert_eq!(ran.stderr, "");
    }
    assert_eq!(
        world.connected(&["ps"]).text(),
        "exit 0\n--- stdout\n--- stderr\nno containers\n"
    );
}

#[test]
fn listing_filters_reach_the_daemon() {
    let world = World::new();
    world.connected(&["ps", "web", "shop/db"]);
    world.connected(&["ls", "-p", "shop"]);
    assert_eq!(world.daemon.asked(), ["Ps web,shop/db", "List shop"]);
}

#[test]
fn machine_ls_shows_evicted_until_the_machine_is_up() {
    let listed = |liveness| v1::MachineStatus {
        evicted: true,
        ..status(&member("id-2", "m2", "10.210.1.0/24"), liveness, false)
    };
    let world = World::with(Daemon {
        machines: vec![listed(v1::Liveness::Down), listed(v1::Liveness::Up)].into(),
        ..Daemon::default()
    });
    let table = world.connected(&["machine", "ls"]).stdout;
    let states: Vec<_> = table
        .lines()
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    assert_eq!(states, ["STATE", "evicted", "up"], "{table}");
    let json = world.connected(&["machine", "ls", "-o", "json"]).json();
    assert_eq!([&json[0]["state"], &json[1]["state"]], ["evicted", "up"]);
}

#[test]
fn ps_names_the_replica_that_is_kept_for_its_logs() {
    let mut failed = replica(recently());
    let record = failed.replica.as_mut().unwrap();
    record.state = v1::ReplicaState::Exited.into();
    record.health = v1::Health::None.into();
    record.exit_code = Some(3);
    record.kept = v1::Kept::Failed.into();
    let world = World::with(Daemon {
        replicas: vec![replica(recently()), failed],
        ..Daemon::default()
    });
    insta::assert_snapshot!(world.connected(&["ps"]).text());
    let json = world.connected(&["ps", "-o", "json"]).json();
    assert_eq!(json[0]["kept"], serde_json::Value::Null);
    assert_eq!(json[1]["kept"], "failed");
}
