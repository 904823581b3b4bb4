//! `uc machine` with a running daemon: `init` of this computer, `join`, `rename`, `rm`, `token`.

use std::sync::Arc;

use uc_api::token::JoinToken;
use uc_api::v1::{self, Liveness};

use crate::daemon::{CLUSTER, Daemon, Info, member, status};
use crate::world::World;

/// A machine that is not in a cluster.
fn outside() -> Daemon {
    Daemon {
        info: Info::outside(),
        ..Daemon::default()
    }
}

fn two_members(connected: usize) -> Daemon {
    let machine = |index: usize| {
        let member = member(
            &format!("id-{index}"),
            &format!("m{index}"),
            &format!("10.210.{index}.0/24"),
        );
        status(&member, Liveness::Up, index == connected)
    };
    Daemon {
        machines: vec![machine(1), machine(2)].into(),
        ..Daemon::default()
    }
}

#[test]
fn init_of_this_computer_saves_a_context() {
    let world = World::with(outside());
    let socket = format!("unix://{}", world.path("uc.sock").display());
    let ran = world.uc(&[
        "--connect",
        &socket,
        "-c",
        "home",
        "machine",
        "init",
        "-n",
        "m1",
        "--wg-endpoint",
        "my.host",
    ]);
    insta::assert_snapshot!(ran.text());
    assert_eq!(
        world.daemon.asked(),
        ["Info", "Init m1  [\"my.host:51820\"] 0"]
    );
    assert_eq!(world.uc(&["ctx", "show"]).stdout, "home\n");
    assert_eq!(world.uc(&["ps"]).code, Some(0), "the context leads to it");
    assert!(
        world
            .read("config/uc/config.toml")
            .contains("machine = \"m-1\"")
    );
}

#[test]
fn init_of_a_member_is_refused() {
    let info = v1::InfoResponse {
        cluster_id: CLUSTER.into(),
        machine_name: "old".into(),
        ..Default::default()
    };
    let world = World::with(Daemon {
        info: info.into(),
        ..Daemon::default()
    });
    let ran = world.connected(&["machine", "init"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains(
            "already belongs to cluster c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1, as machine old"
        ),
        "{}",
        ran.text()
    );
    assert_eq!(world.daemon.asked(), ["Info"]);
    assert_eq!(world.read("config/uc/config.toml"), "");
}

#[test]
fn init_checks_names_first() {
    let world = World::new();
    let ran = world.connected(&["machine", "init", "-n", "Web_1"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("invalid machine name `Web_1`"),
        "{}",
        ran.text()
    );
    world.config(None, &[("home", &["@"])]);
    let ran = world.connected(&["machine", "init", "-c", "home"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("context `home` already exists"),
        "{}",
        ran.text()
    );
    assert!(world.daemon.asked().is_empty());
}

fn token(expires_at_ms: i64) -> String {
    JoinToken {
        id: "t".into(),
        private_key: "k".into(),
        members: Vec::new(),
        expires_at_ms,
    }
    .to_line()
}

#[test]
fn join_accepts_only_a_valid_token() {
    let joined = format!(
        "exit 0\n--- stdout\n--- stderr\njoined cluster {CLUSTER} as new (10.210.1.0/24)\n"
    );
    let valid = format!("{}\n", token(i64::MAX));
    for arguments in [&["-"][..], &[]] {
        let world = World::with(outside());
        let line = [&["machine", "join", "--name", "new"], arguments].concat();
        let ran = world.connected_with(&line, &valid);
        assert_eq!(ran.text(), joined);
        assert_eq!(world.daemon.asked(), ["Info", "JoinWithToken new []"]);
    }
    let world = World::with(outside());
    for (token, said) in [
        ("hello".to_owned(), "not a join token"),
        (token(5), "has expired"),
        (String::new(), "no join token"),
    ] {
        let ran = world.connected_with(&["machine", "join"], &token);
        assert_ne!(ran.code, Some(0));
        assert!(
            ran.stderr.contains(said) && ran.stderr.contains("uc machine token"),
            "{}",
            ran.text()
        );
    }
    assert!(world.daemon.asked().is_empty());
}

#[test]
fn join_with_the_token_as_an_argument_warns() {
    let world = World::with(outside());
    let ran = world.connected(&["machine", "join", &token(i64::MAX), "--name", "new"]);
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.stderr
            .starts_with("warning: other users of this machine can read the token"),
        "{}",
        ran.text()
    );
    assert_eq!(world.daemon.asked(), ["Info", "JoinWithToken new []"]);
}

#[test]
fn join_asks_for_the_token_on_a_terminal() {
    let world = World::with(outside());
    let keys = format!("{}\n", token(i64::MAX));
    let ran = world.on_terminal_at("machine join --name new", "Join token: ", &keys);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert_eq!(world.daemon.asked(), ["Info", "JoinWithToken new []"]);
    let keys = format!("uc1:{}\n", "A".repeat(5000));
    let ran = world.on_terminal_at("machine join --name new", "Join token: ", &keys);
    assert!(
        ran.stdout.contains("too long for a terminal"),
        "{}",
        ran.text()
    );
}

#[test]
fn token_prints_only_the_token_on_stdout() {
    let world = World::new();
    let ran = world.connected(&["machine", "token", "--ttl", "30m"]);
    insta::assert_snapshot!(ran.text());
    assert_eq!(world.daemon.asked(), ["CreateToken 1800"]);
    assert_eq!(
        world
            .connected(&["machine", "token", "--ttl", "31days"])
            .code,
        Some(2)
    );
}

#[test]
fn rename_finds_the_machine_and_reports_the_new_name() {
    let world = World::with(two_members(1));
    let ran = world.connected(&["machine", "rename", "m2", "db-1"]);
    assert_eq!(
        ran.text(),
        "exit 0\n--- stdout\n--- stderr\nrenamed m2 to db-1\n"
    );
    assert_eq!(
        world.daemon.asked(),
        ["ListMachines", "RenameMachine id-2 db-1"]
    );
    let ran = world.connected(&["machine", "rename", "db-11", "x"]);
    assert!(
        ran.stderr.contains("did you mean `db-1`?"),
        "{}",
        ran.text()
    );
}

#[test]
fn removal_tells_of_a_machine_that_is_down_and_of_volumes_that_stay() {
    let mut daemon = two_members(1);
    daemon.machines.lock().unwrap()[1].liveness = Liveness::Down.into();
    let mount = |source: &str| v1::MountSpec {
        kind: v1::MountKind::Volume.into(),
        source: source.into(),
        ..Default::default()
    };
    daemon.replicas = vec![v1::ReplicaStatus {
        replica: Some(v1::ReplicaRecord {
            container_id: "0123456789abcdef".into(),
            project: "shop".into(),
            service: "db".into(),
            mounts: vec![mount("shop_data"), mount(&"0f".repeat(32))],
            ..Default::default()
        }),
        machine_id: "id-2".into(),
        ..Default::default()
    }];
    let ran = World::with(daemon).connected(&["machine", "rm", "-y", "m2"]);
    insta::assert_snapshot!(ran.text());
}

#[test]
fn label_sets_removes_and_prints_labels() {
    let world = World::with(two_members(1));
    let ran = world.connected(&["machine", "label", "m2", "disk=ssd", "zone=b", "old-"]);
    assert_eq!(
        ran.text(),
        "exit 0\n--- stdout\n--- stderr\nlabels of m2: disk=ssd, zone=b\n"
    );
    assert_eq!(
        world.daemon.asked(),
        [
            "ListMachines",
            "LabelMachine id-2 {\"disk\": \"ssd\", \"zone\": \"b\"} [\"old\"]"
        ]
    );
    let ran = world.connected(&["machine", "label", "m2"]);
    assert_eq!(ran.stdout, "disk=ssd\nzone=b\n");
    assert_eq!(
        world.connected(&["machine", "label", "m1"]).text(),
        "exit 0\n--- stdout\n--- stderr\n"
    );
    let listed = world.connected(&["machine", "ls", "-o", "wide"]);
    let titles = listed.stdout.lines().next().unwrap();
    assert!(
        titles.ends_with("LABELS") && listed.stdout.contains("disk=ssd, zone=b"),
        "{}",
        listed.text()
    );
    let listed: serde_json::Value =
        serde_json::from_str(&world.connected(&["machine", "ls", "-o", "json"]).stdout).unwrap();
    assert_eq!(listed[0]["labels"], serde_json::json!({}));
    assert_eq!(
        listed[1]["labels"],
        serde_json::json!({ "disk": "ssd", "zone": "b" })
    );
    let ran = world.connected(&["machine", "label", "m2", "disk-", "zone-"]);
    assert_eq!(ran.stderr, "m2 now has no labels\n");
    assert!(
        !world
            .connected(&["machine", "ls", "-o", "wide"])
            .stdout
            .contains("LABELS"),
        "no machine has one"
    );
    let ran = world.connected(&["machine", "label", "m2", "disk"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr
            .contains("write `disk=VALUE` to set the label, or `disk-` to remove it"),
        "{}",
        ran.text()
    );
}

#[test]
fn rm_of_another_machine_asks_and_forgets_its_connection() {
    let world = World::with(two_members(1));
    world.config(Some("a"), &[("a", &["@"])]);
    let mut text = world.read("config/uc/config.toml");
    text.push_str("[[contexts.a.connections]]\naddress = \"ssh://root@m2\"\nmachine = \"id-2\"\n");
    world.write("config/uc/config.toml", &text);
    world.program("ssh", "exit 255");
    let ran = world.uc(&["machine", "rm", "m2"]);
    assert_eq!(ran.code, Some(2), "it asks: {}", ran.text());
    let ran = world.uc(&["machine", "rm", "-y", "m2"]);
    insta::assert_snapshot!(ran.text());
    assert!(
        world
            .daemon
            .asked()
            .contains(&"RemoveMachine id-2 no_reset=false".to_owned())
    );
    assert!(
        !world.read("config/uc/config.toml").contains("m2"),
        "its connection is gone"
    );
}

#[test]
fn rm_succeeds_with_a_warning_if_the_config_cannot_be_written() {
    let alone = status(&member("id-1", "m1", "10.210.1.0/24"), Liveness::Up, true);
    for (machines, machine, hint) in [
        (
            two_members(1).machines.into_inner().unwrap(),
            "m2",
            "update the context through another machine: `uc ctx add a USER@HOST`",
        ),
        (vec![alone], "m1", "remove the context with `uc ctx rm a`"),
    ] {
        let world = World::with(Daemon {
            machines: machines.into(),
            ..Daemon::default()
        });
        world.config(Some("a"), &[("a", &["ssh://root@m1"])]);
        // A link that leads nowhere, in place of the directory: it can be read as empty.
        world.program(
            "ssh",
            "rm -r @DIR@/config/uc\nln -s /nonexistent/uc @DIR@/config/uc\nexec @UC@ dial-stdio --socket @DIR@/uc.sock",
        );
        let ran = world.uc(&["machine", "rm", "-y", machine]);
        assert_eq!(ran.code, Some(0), "{}", ran.text());
        assert!(
            ran.stderr
                .contains("warning: the context on this computer was not updated: cannot write")
                && ran.stderr.contains(hint),
            "{}",
            ran.text()
        );
    }
}

#[test]
fn rm_of_the_connected_machine_goes_through_another() {
    let world = World::with(two_members(1));
    let ran = world.connected(&["machine", "rm", "-y", "m1"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("uc is connected to m1 itself"),
        "{}",
        ran.text()
    );
    assert!(
        !world
            .daemon
            .asked()
            .iter()
            .any(|call| call.starts_with("RemoveMachine"))
    );

    let second = Arc::new(two_members(2));
    world.serve("second.sock", Arc::clone(&second));
    let through = format!("unix://{}", world.path("second.sock").display());
    // The first is alone until the second is asked for on purpose.
    world.config(Some("a"), &[("a", &["@", &through])]);
    let ran = world.uc(&["machine", "rm", "-y", "m1"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(
        second
            .asked()
            .contains(&"RemoveMachine id-1 no_reset=false".to_owned())
    );
    assert!(
        !world
            .daemon
            .asked()
            .iter()
            .any(|call| call.starts_with("RemoveMachine"))
    );
}

#[test]
fn rm_of_the_last_machine_ends_the_cluster() {
    let alone = status(&member("id-1", "m1", "10.210.0.0/24"), Liveness::Up, true);
    let world = World::with(Daemon {
        machines: vec![alone].into(),
        ..Daemon::default()
    });
    world.config(Some("a"), &[("a", &["@"])]);
    assert_eq!(
        world.uc(&["machine", "rm", "-y", "--no-reset", "m1"]).code,
        Some(2)
    );
    let ran = world.uc(&["machine", "rm", "-y", "m1"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(world.daemon.asked().contains(&"Reset".to_owned()));
    assert_eq!(world.read("config/uc/config.toml"), "");
}

#[test]
fn machine_commands_print_json() {
    let world = World::with(two_members(1));
    let json = |line: &[&str]| world.connected(line).json();
    let entry = |name: &str| {
        serde_json::json!({
            "id": "id-2",
            "name": name,
            "subnet": "10.210.2.0/24",
            "public_key": "a2V5",
            "endpoints": ["203.0.113.1:51820"],
            "created_at": "2023-11-14T22:13:20Z",
            "labels": {},
            "cordoned_at": null,
        })
    };
    assert_eq!(
        json(&["machine", "rename", "m2", "db-1", "-o", "json"]),
        serde_json::json!({ "old_name": "m2", "machine": entry("db-1") })
    );
    assert_eq!(
        json(&["machine", "label", "db-1", "-o", "json"]),
        entry("db-1")
    );
    let labelled = json(&["machine", "label", "db-1", "a=b", "-o", "json"]);
    assert_eq!(labelled["labels"], serde_json::json!({ "a": "b" }));
    assert_eq!(
        json(&["machine", "token", "-o", "json"]),
        serde_json::json!({ "token": "uc1:abc", "expires_at": "2030-03-17T17:46:40Z" })
    );
    let removed = json(&["machine", "rm", "-y", "--no-reset", "db-1", "-o", "json"]);
    assert_eq!(removed["machine"]["name"], "db-1");
    assert_eq!(removed["reset"], false);
    assert_eq!(removed["reset_error"], serde_json::Value::Null);
    assert_eq!(removed["cluster_ended"], false);

    let world = World::with(outside());
    let made = world.connected(&["machine", "init", "-n", "m1", "-o", "json"]);
    let made = made.json();
    assert_eq!(made["cluster_id"], CLUSTER);
    assert_eq!(made["context"], "default");
    assert_eq!(made["machine"]["name"], "m1");
    let world = World::with(outside());
    let line = ["machine", "join", &token(i64::MAX), "-o", "json"];
    let joined = world.connected(&line).json();
    assert_eq!(joined["machine"]["name"], "new");
}

#[test]
fn backup_reports_the_file_on_the_machine() {
    let world = World::with(two_members(1));
    let ran = world.connected(&["machine", "backup", "--to", "a.db"]);
    insta::assert_snapshot!(ran.text());
    let json = world
        .connected(&["machine", "backup", "m2", "--to", "a.db", "-o", "json"])
        .json();
    assert_eq!(
        json,
        serde_json::json!({
            "machine": {"id": "id-2", "name": "m2"},
            "path": "/var/lib/uc/backups/a.db",
            "bytes": 81_920,
            "blake3": "ab12".repeat(16),
        })
    );
    assert_eq!(
        world.daemon.asked(),
        ["Backup  a.db", "ListMachines", "Backup id-2 a.db"]
    );
}

#[test]
fn backup_without_a_name_is_named_after_the_time() {
    let world = World::with(two_members(1));
    let ran = world.connected(&["machine", "backup", "m22"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("did you mean `m2`?"), "{}", ran.text());
    assert_eq!(world.connected(&["machine", "backup"]).code, Some(0));
    let asked = world.daemon.asked();
    let name = asked[1]
        .strip_prefix("Backup  ")
        .unwrap()
        .strip_suffix(".db")
        .unwrap();
    assert!(
        name.parse::<jiff::Timestamp>().is_ok() && name.len() == "2026-11-21T12:00:00Z".len(),
        "{name}"
    );
}
