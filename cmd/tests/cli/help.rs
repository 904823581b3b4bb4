//! Help, version, completion: no daemon, no runtime, no network.

use uc_api::v1;

use crate::daemon::Daemon;
use crate::world::World;

#[test]
fn help_shows_examples_and_exit_codes() {
    let ran = World::new().uc(&["--help"]);
    assert_eq!(ran.code, Some(0));
    insta::assert_snapshot!(ran.stdout);
}

#[test]
fn short_help_of_commands() {
    let world = World::new();
    for command in [
        "deploy",
        "plan",
        "logs",
        "exec",
        "machine",
        "conflicts",
        "lock",
        "doctor",
        "ctx",
        "ps",
        "version",
    ] {
        let ran = world.uc(&[command, "-h"]);
        assert_eq!(ran.code, Some(0));
        insta::assert_snapshot!(format!("help_{command}"), ran.stdout);
    }
}

#[test]
fn help_command_prints_the_same_as_the_flag() {
    let world = World::new();
    for words in [&[][..], &["deploy"], &["machine"], &["machine", "add"]] {
        let with_flag = world.uc(&[words, &["--help"]].concat());
        let with_command = world.uc(&[&["help"], words].concat());
        assert_eq!(with_command.code, Some(0), "{}", with_command.text());
        assert_eq!(with_command.text(), with_flag.text(), "{words:?}");
    }
    let unknown = world.uc(&["help", "deplyo"]);
    assert_eq!(unknown.code, Some(2), "{}", unknown.text());
    assert!(unknown.stderr.contains("deploy"), "{}", unknown.text());
}

#[test]
fn command_of_compose_names_what_to_use_and_is_a_usage_error() {
    let world = World::new();
    for arguments in [&["up", "-d"][..], &["help", "up"]] {
        assert_eq!(
            world.uc(arguments).text(),
            "exit 2\n--- stdout\n--- stderr\nerror: `uc up` does not exist\nhint: use `uc deploy`\n"
        );
    }
    let help = world.uc(&["--help"]).stdout;
    assert!(!help.contains("\n  up "), "{help}");
}

#[test]
fn version_without_a_cluster_is_the_one_of_uc() {
    let world = World::new();
    let text = world.uc(&["version"]);
    assert!(
        text.stdout.starts_with(concat!(
            "uc ",
            env!("CARGO_PKG_VERSION"),
            " (protocol 2, linux/"
        )),
        "{}",
        text.text()
    );
    assert_eq!((text.code, text.stderr.as_str()), (Some(0), ""));
    let json = world.uc(&["version", "-o", "json"]).json();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["protocol"], 2);
    assert_eq!(json["server"], serde_json::Value::Null);
}

#[test]
fn version_shows_the_daemon_that_answers() {
    let info = v1::InfoResponse {
        machine_name: "m1".into(),
        facts: Some(v1::MachineFacts {
            uc_version: "0.0.9".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let world = World::with(Daemon {
        info: info.into(),
        ..Daemon::default()
    });
    let text = world.connected(&["version"]).stdout;
    assert!(
        text.contains("\nucd 0.0.9 (m1, unix://[DIR]/uc.sock)\n"),
        "{text}"
    );
    let json = world.connected(&["version", "-o", "json"]).json();
    assert_eq!(json["server"]["version"], "0.0.9");
    assert_eq!(json["server"]["machine"], "m1");
    let calls = world.daemon.asked().len();
    let json = world
        .connected(&["version", "--client", "-o", "json"])
        .json();
    assert_eq!(json["server"], serde_json::Value::Null);
    assert_eq!(world.daemon.asked().len(), calls, "no call with --client");
}

#[test]
fn version_without_an_answer_is_still_printed() {
    let world = World::new();
    let ran = world.uc(&["--connect", "unix:///nonexistent/uc.sock", "version"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(ran.stdout.starts_with("uc "), "{}", ran.text());
    assert!(
        ran.stderr.contains("the daemon's version is unknown: "),
        "{}",
        ran.text()
    );
}

#[test]
fn completion_contains_the_commands() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = world.uc(&["completion", shell]);
        assert_eq!(ran.code, Some(0));
        assert!(ran.stdout.contains("machine"), "{shell}");
    }
}

#[test]
fn typing_error_exits_2_with_a_suggestion() {
    let ran = World::new().uc(&["deplyo"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("deploy"), "{}", ran.text());
    assert_eq!(ran.stdout, "");
}

#[test]
fn closed_stdout_is_not_an_error() {
    let world = World::new();
    let mut command = std::process::Command::new("sh");
    world.environment(&mut command);
    command.args([
        "-c",
        &format!(
            "'{}' completion bash | true; echo ok",
            env!("CARGO_BIN_EXE_uc")
        ),
    ]);
    let ran = world.finish(command);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("ok\n", ""));
}
