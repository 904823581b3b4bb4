//! Help, version, completion: no daemon, no runtime, no network.

use crate::world::World;

#[test]
fn help_shows_examples_and_exit_codes() {
    let ran = World::new().uc(&["--help"]);
    assert_eq!(ran.code, Some(0));
    insta::assert_snapshot!(ran.stdout);
}

#[test]
fn each_command_has_help() {
    let world = World::new();
    for command in [
        "deploy",
        "logs",
        "exec",
        "machine",
        "conflicts",
        "doctor",
        "ctx",
    ] {
        let ran = world.uc(&[command, "-h"]);
        assert_eq!(ran.code, Some(0));
        insta::assert_snapshot!(format!("help_{command}"), ran.stdout);
    }
}

#[test]
fn version_in_both_forms() {
    let world = World::new();
    let text = world.uc(&["version"]);
    assert!(
        text.stdout.starts_with(concat!(
            "uc ",
            env!("CARGO_PKG_VERSION"),
            " (protocol 1, linux/"
        )),
        "{}",
        text.text()
    );
    let json = world.uc(&["version", "-o", "json"]).json();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["protocol"], 1);
}

#[test]
fn completion_knows_the_commands() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = world.uc(&["completion", shell]);
        assert_eq!(ran.code, Some(0));
        assert!(ran.stdout.contains("machine"), "{shell}");
    }
}

#[test]
fn a_typing_error_is_exit_code_2_with_a_suggestion() {
    let ran = World::new().uc(&["deplyo"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("deploy"), "{}", ran.text());
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
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
