//! The config file and `uc ctx`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::daemon::{CLUSTER, Daemon, Info, member, status};
use crate::world::World;

#[test]
fn listing_and_choosing() {
    let world = World::new();
    world.config(
        Some("prod"),
        &[
            ("prod", &["ssh://root@10.0.0.1", "ssh://root@10.0.0.2"]),
            ("test", &["@"]),
        ],
    );
    insta::assert_snapshot!(world.uc(&["ctx", "ls"]).text());
    assert_eq!(world.uc(&["ctx", "show"]).stdout, "prod\n");
    let chosen = world.uc(&["ctx", "use", "test"]);
    assert_eq!(
        chosen.text(),
        "exit 0\n--- stdout\n--- stderr\n`test` is the current context\n"
    );
    assert_eq!(world.uc(&["ctx", "show"]).stdout, "test\n");
    assert_eq!(
        world.uc(&["ps"]).code,
        Some(0),
        "the chosen context is used"
    );
    let mode = fs::metadata(world.path("config/uc/config.toml"))
        .unwrap()
        .permissions()
        .mode()
        & 0o777;
    assert_eq!(mode, 0o600);
}

#[test]
fn listing_as_json() {
    let world = World::new();
    world.config(Some("a"), &[("a", &["ssh://root@10.0.0.1"])]);
    let json = world.uc(&["ctx", "ls", "-o", "json"]).json();
    let expected = serde_json::json!([{
        "name": "a", "current": true, "cluster_id": CLUSTER,
        "connections": [{"address": "ssh://root@10.0.0.1", "ssh_key": null, "machine_id": null}],
    }]);
    assert_eq!(json, expected);
}

#[test]
fn an_unknown_context_is_named_with_the_nearest() {
    let world = World::new();
    world.config(None, &[("staging", &["@"]), ("prod", &["@"])]);
    for arguments in [&["ctx", "use", "stagign"][..], &["-c", "stagign", "ps"][..]] {
        let ran = world.uc(arguments);
        assert_eq!(ran.code, Some(2));
        assert!(
            ran.stderr.contains("context `stagign` not found"),
            "{}",
            ran.text()
        );
        assert!(
            ran.stderr.contains("did you mean `staging`?"),
            "{}",
            ran.text()
        );
    }
}

#[test]
fn several_contexts_and_none_chosen() {
    let world = World::new();
    world.config(None, &[("a", &["@"]), ("b", &["@"])]);
    let ran = world.uc(&["ps"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("uc ctx use NAME"), "{}", ran.text());
}

#[test]
fn a_broken_file_is_shown_with_line_and_left_alone() {
    let world = World::new();
    let path = world.write("config/uc/config.toml", "current = \"a\"\n[contexts.a\n");
    let ran = world.uc(&["ps"]);
    insta::assert_snapshot!(ran.text());
    assert_eq!(world.uc(&["ctx", "use", "a"]).code, Some(2));
    assert_eq!(
        fs::read_to_string(path).unwrap(),
        "current = \"a\"\n[contexts.a\n"
    );
    assert_eq!(
        world.connected(&["ps"]).code,
        Some(0),
        "--connect works without the file"
    );
}

#[test]
fn forgetting_asks() {
    let world = World::new();
    world.config(Some("a"), &[("a", &["@"]), ("b", &["@"])]);
    let ran = world.uc(&["ctx", "rm", "a"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("add `-y`"), "{}", ran.text());
    assert_eq!(world.uc(&["ctx", "rm", "-y", "a"]).code, Some(0));
    assert!(!world.read("config/uc/config.toml").contains("contexts.a"));
    let shown = world.uc(&["ctx", "show"]);
    assert_eq!(shown.code, Some(2), "the current context is gone");
}

#[test]
fn commands_print_the_context_as_json() {
    let world = World::new();
    world.config(Some("a"), &[("a", &["ssh://root@m1"]), ("b", &["@"])]);
    let context = |name: &str, current: bool, address: &str| {
        serde_json::json!({
            "name": name,
            "current": current,
            "cluster_id": CLUSTER,
            "connections": [{"address": address, "ssh_key": null, "machine_id": null}],
        })
    };
    let socket = format!("unix://{}", "[DIR]/uc.sock");
    let first = context("a", true, "ssh://root@m1");
    assert_eq!(world.uc(&["ctx", "show", "-o", "json"]).json(), first);
    assert_eq!(
        world.uc(&["-c", "b", "ctx", "show", "-o", "json"]).json(),
        context("b", false, &socket)
    );
    let second = context("b", true, &socket);
    assert_eq!(world.uc(&["ctx", "use", "b", "-o", "json"]).json(), second);
    let ran = world.uc(&["ctx", "rm", "-y", "b", "-o", "json"]);
    assert_eq!(ran.json(), second);
    let ran = world.uc(&["ctx", "show", "-o", "json"]);
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["error"]["exit_code"], 2, "{}", ran.text());
    let address = format!("unix://{}", world.path("uc.sock").display());
    let saved = world
        .uc(&["ctx", "add", "c", &address, "-o", "json"])
        .json();
    assert_eq!(
        (&saved["name"], &saved["current"]),
        (&"c".into(), &true.into())
    );
}

#[test]
fn a_typed_context_beats_the_variable_for_connections() {
    let world = World::new();
    world.config(None, &[("a", &["@"])]);
    let mut command = world.command(&["-c", "a", "ps"]);
    command.env("UC_CONNECT", "unix:///nonexistent");
    assert_eq!(world.finish(command).code, Some(0));
}

#[test]
fn the_config_file_can_be_elsewhere() {
    let world = World::new();
    let path = world.config(Some("a"), &[("a", &["@"])]);
    let elsewhere = world.path("my.toml");
    fs::rename(path, &elsewhere).unwrap();
    assert_eq!(
        world
            .uc(&["--config", elsewhere.to_str().unwrap(), "ctx", "show"])
            .stdout,
        "a\n"
    );
    let mut command = world.command(&["ctx", "show"]);
    command.env("UC_CONFIG", &elsewhere);
    assert_eq!(world.finish(command).stdout, "a\n");
}

/// Two members. The daemon is m1.
fn two_members() -> Daemon {
    let m1 = member("id-1", "m1", "10.210.0.0/24");
    let m2 = uc_api::v1::MachineRecord {
        endpoints: vec!["10.0.0.2:51820".into(), "203.0.113.2:51820".into()],
        ..member("id-2", "m2", "10.210.1.0/24")
    };
    let up = uc_api::v1::Liveness::Up;
    Daemon {
        machines: vec![status(&m1, up, true), status(&m2, up, false)].into(),
        ..Daemon::default()
    }
}

#[test]
fn ctx_add_saves_cluster_and_machines() {
    let world = World::with(two_members());
    world.program("ssh", "exec @UC@ dial-stdio --socket @DIR@/uc.sock");
    let ran = world.uc(&["ctx", "add", "prod", "root@203.0.113.1"]);
    insta::assert_snapshot!(ran.text());
    insta::assert_snapshot!("ctx_add_file", world.read("config/uc/config.toml"));
    assert_eq!(world.uc(&["ps"]).code, Some(0), "the context is current");
    // Again, without a name: the cluster's own context is updated.
    let again = world.uc(&["ctx", "add", "root@203.0.113.1"]);
    assert!(
        again.stderr.contains("saved context `prod`"),
        "{}",
        again.text()
    );
    assert_eq!(
        world
            .uc(&["ctx", "ls", "-o", "json"])
            .json()
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn ctx_add_refuses_the_name_of_another_cluster() {
    let world = World::with(two_members());
    world.program("ssh", "exec @UC@ dial-stdio --socket @DIR@/uc.sock");
    let text = "[contexts.prod]\ncluster = '0dd00dd00dd00dd00dd00dd00dd00dd0'\n";
    world.write("config/uc/config.toml", text);
    let ran = world.uc(&["ctx", "add", "prod", "root@203.0.113.1"]);
    insta::assert_snapshot!(ran.text());
    assert_eq!(world.read("config/uc/config.toml"), text);
}

#[test]
fn ctx_add_of_a_machine_in_no_cluster_says_how_to_make_one() {
    let world = World::with(Daemon {
        info: Info::outside(),
        ..Daemon::default()
    });
    world.program("ssh", "exec @UC@ dial-stdio --socket @DIR@/uc.sock");
    let ran = world.uc(&["ctx", "add", "root@203.0.113.1"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("the machine is not in a cluster")
            && ran.stderr.contains("uc machine init root@203.0.113.1"),
        "{}",
        ran.text()
    );
    assert_eq!(world.read("config/uc/config.toml"), "");
}

#[test]
fn ctx_alone_lists_off_a_terminal_and_asks_on_one() {
    let world = World::new();
    world.config(Some("a"), &[("a", &["@"]), ("b", &["@"])]);
    let listed = world.uc(&["ctx"]);
    assert_eq!(listed.code, Some(0), "{}", listed.text());
    assert!(
        listed.stderr.contains("uc ctx use NAME"),
        "{}",
        listed.text()
    );
    let picked = world.on_terminal("ctx", "2\n");
    assert_eq!(picked.code, Some(0), "{}", picked.text());
    assert!(
        picked.stdout.contains("1  a (current)"),
        "{}",
        picked.text()
    );
    assert_eq!(world.uc(&["ctx", "show"]).stdout, "b\n");
}
