//! `uc exec`

use std::io::Write as _;
use std::process::Stdio;

use crate::world::World;

#[test]
fn exec_exits_with_the_code_of_the_command() {
    let world = World::new();
    let ran = world.connected(&["exec", "web", "fail", "42"]);
    assert_eq!(ran.text(), "exit 42\n--- stdout\n--- stderr\nit failed\n");
    assert_eq!(
        world.connected(&["exec", "web", "fail", "127"]).code,
        Some(127)
    );
}

#[test]
fn exec_whose_stderr_is_closed_does_not_succeed() {
    let world = World::new();
    let mut command = world.command(&["exec", "web", "fail", "0"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stderr(writer).env(
        "UC_CONNECT",
        format!("unix://{}", world.path("uc.sock").display()),
    );
    assert_eq!(command.status().unwrap().code(), Some(125));
}

#[test]
fn exec_passes_output_on_unchanged() {
    let ran = World::new().connected(&["exec", "web", "hello"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "hello \u{1b}[31mred\u{1b}[0m\n")
    );
}

#[test]
fn exec_passes_stdin_on_to_its_end() {
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
fn exec_flags_after_the_command_belong_to_it() {
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
fn exec_flags_directly_after_the_service_belong_to_the_command() {
    let world = World::new();
    let ran = world.connected(&["exec", "web", "-u", "root", "-T", "--help"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert_eq!(
        world.daemon.asked()[1],
        r#"web ["-u", "root", "-T", "--help"] tty=false env=[]"#
    );
    let ran = world.connected(&["exec", "--nope", "web", "ls"]);
    assert_eq!(ran.code, Some(2), "{}", ran.text());
}

#[test]
fn exec_accepts_interactive_and_tty_flags() {
    let world = World::new();
    let ran = world.connected(&["exec", "-i", "web", "hello"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    let ran = world.on_terminal("exec -it web hello", "");
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(
        world.daemon.asked()[3].contains("tty=true"),
        "{:?}",
        world.daemon.asked()
    );
    let ran = world.connected(&["exec", "-it", "web", "hello"]);
    assert_eq!(
        ran.text(),
        "exit 125\n--- stdout\n--- stderr\nerror: cannot allocate a TTY (-t): stdin is not a terminal\nhint: leave out `-t`\n"
    );
    assert_eq!(world.daemon.asked().len(), 4, "nothing was called");
    let help = world.uc(&["exec", "--help"]).stdout;
    assert!(!help.contains("--interactive"), "{help}");
}

/// The first signal comes once the terminal is in raw mode, so it always meets that state.
#[test]
fn exec_ended_by_a_signal_restores_the_terminal() {
    for (signal, code) in [("TERM", 143), ("HUP", 129)] {
        let world = World::new();
        world.write(
            "session",
            &format!(
                "(until stty -a </dev/tty | grep -q -- '-icanon'; do
                    [ ! -e pid ] || kill -0 \"$(cat pid)\" || exit
                    sleep 0.05
                  done
                  kill -{signal} \"$(cat pid)\") &
                sh -c 'echo $$ >pid.new; mv pid.new pid; exec env --default-signal=HUP \"$0\" exec web cat' '{}'
                echo \"code $?\"
                wait
                stty -a | tr ' ;' '\\n\\n' | grep -x -e icanon -e echo",
                env!("CARGO_BIN_EXE_uc")
            ),
        );
        let line = format!("sh '{}'", world.path("session").display());
        let ran = world.shell_on_terminal(&line);
        let text = ran.stdout.replace('\r', "");
        assert!(
            text.contains(&format!("code {code}\nicanon\necho\n")),
            "{}",
            ran.text()
        );
    }
}

#[test]
fn exec_that_cannot_run_exits_125() {
    let world = World::new();
    let ran = world.connected(&["exec", "nope", "true"]);
    assert_eq!(
        ran.text(),
        "exit 125\n--- stdout\n--- stderr\nerror: service `nope` not found\nhint: did you mean `node`?\n"
    );
    assert_eq!(
        world
            .uc(&["--connect", "unix:///nonexistent", "exec", "web", "true"])
            .code,
        Some(125)
    );
}

#[test]
fn exec_allocates_a_tty_on_a_terminal() {
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
