//! `uc exec`

use std::io::Write as _;
use std::process::Stdio;

use crate::world::World;

#[test]
fn the_exit_code_is_the_containers() {
    let world = World::new();
    let ran = world.connected(&["exec", "web", "fail", "42"]);
    assert_eq!(ran.text(), "exit 42\n--- stdout\n--- stderr\nit failed\n");
    assert_eq!(
        world.connected(&["exec", "web", "fail", "127"]).code,
        Some(127)
    );
}

#[test]
fn output_is_not_touched() {
    let ran = World::new().connected(&["exec", "web", "hello"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "hello \u{1b}[31mred\u{1b}[0m\n")
    );
}

#[test]
fn stdin_goes_in_and_ends() {
    let world = World::new();
    let mut command = world.command(&["exec", "-T", "web", "cat"]);
    command.env(
        "UC_CONNECT",
        format!("unix://{}", world.path("uc.sock").display()),
    );
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text = "line\n".repeat(50_000);
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, text.as_bytes());
}

#[test]
fn flags_after_the_service_belong_to_the_command() {
    let world = World::new();
    let mut command = world.command(&[
        "exec", "-e", "A=1", "-e", "B", "-e", "UNSET", "web", "ls", "-l", "--all",
    ]);
    command.env("B", "2").env(
        "UC_CONNECT",
        format!("unix://{}", world.path("uc.sock").display()),
    );
    assert_eq!(world.finish(command).code, Some(0));
    assert_eq!(
        world.daemon.asked()[1],
        r#"web ["ls", "-l", "--all"] tty=false env=["A=1", "B=2"]"#
    );
}

#[test]
fn what_could_not_be_run_at_all_is_125() {
    let world = World::new();
    let ran = world.connected(&["exec", "nope", "true"]);
    assert_eq!(
        ran.text(),
        "exit 125\n--- stdout\n--- stderr\nerror: there is no service `nope`\nhint: did you mean `node`?\n"
    );
    assert_eq!(
        world
            .uc(&["--connect", "unix:///nonexistent", "exec", "web", "true"])
            .code,
        Some(125)
    );
}

#[test]
fn on_a_terminal_there_is_one() {
    let world = World::new();
    let ran = world.on_terminal("exec web hello", "");
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(ran.stdout.contains("hello"), "{}", ran.text());
    assert!(
        world.daemon.asked()[1].contains("tty=true"),
        "{:?}",
        world.daemon.asked()
    );
    let ran = world.on_terminal("exec -T web fail 3", "");
    assert_eq!(ran.code, Some(3), "{}", ran.text());
    assert!(
        world.daemon.asked()[3].contains("tty=false"),
        "{:?}",
        world.daemon.asked()
    );
}
