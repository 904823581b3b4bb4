//! Ways to a daemon, and what is said when there is none.

use uc_api::version::{PROTOCOL, VERSION};
use uc_api::{Code, Failure};

use crate::daemon::Daemon;
use crate::world::World;

#[test]
fn no_daemon_says_how_to_start_it() {
    let world = World::new();
    let ran = world.uc(&["--connect", "unix:///nonexistent/uc.sock", "ps"]);
    insta::assert_snapshot!(ran.text());
}

#[test]
fn a_socket_that_nobody_listens_on() {
    let world = World::new();
    let path = world.path("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let ran = world.uc(&["--connect", &format!("unix://{}", path.display()), "ps"]);
    insta::assert_snapshot!(ran.text());
}

#[test]
fn something_else_on_the_socket_is_noticed() {
    let world = World::new();
    let path = world.path("other.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let other = std::thread::spawn(move || {
        use std::io::Write as _;
        listener
            .accept()
            .unwrap()
            .0
            .write_all(b"220 mail.example.org ESMTP\r\n")
            .unwrap();
    });
    let ran = world.uc(&["--connect", &format!("unix://{}", path.display()), "ps"]);
    other.join().unwrap();
    assert_eq!(ran.code, Some(4));
    assert!(
        ran.stderr
            .contains("expected the daemon, but received `220 mail.example.org ESMTP`"),
        "{}",
        ran.text()
    );
}

#[test]
fn every_call_says_which_version_we_are() {
    let world = World::new();
    assert_eq!(world.connected(&["ps"]).code, Some(0));
    assert_eq!(
        *world.daemon.versions.lock().unwrap(),
        [(VERSION.to_owned(), PROTOCOL.to_string())]
    );
}

#[test]
fn a_daemon_of_another_version_says_what_to_upgrade() {
    let refused = uc_api::version::check_client("0.0.1", Some(0)).unwrap_err();
    let world = World::with(Daemon {
        refuse: Some(refused),
        ..Daemon::default()
    });
    let ran = world.connected(&["ls"]);
    let text = ran.text().replace(VERSION, "[VERSION]");
    insta::assert_snapshot!(text);
}

#[test]
fn a_failure_of_the_daemon_keeps_hint_and_code() {
    let failure = Failure::new(Code::Unreachable, "m2 does not answer").hint("uc machine ls");
    let world = World::with(Daemon {
        refuse: Some(failure),
        ..Daemon::default()
    });
    let ran = world.connected(&["ls"]);
    assert_eq!(
        ran.text(),
        "exit 4\n--- stdout\n--- stderr\nerror: m2 does not answer\nhint: uc machine ls\n"
    );
}

#[test]
fn over_ssh_through_dial_stdio() {
    let world = World::new();
    world.program(
        "ssh",
        r#"echo "$@" > @DIR@/ssh-arguments; exec @UC@ dial-stdio --socket @DIR@/uc.sock"#,
    );
    let ran = world.uc(&[
        "--connect",
        "ssh://root@10.0.0.9:2222",
        "machine",
        "ls",
        "-o",
        "json",
    ]);
    assert_eq!(ran.json(), serde_json::json!([]));
    let arguments = world.read("ssh-arguments");
    assert!(
        arguments.trim_end().ends_with(
            "-p 2222 -- root@10.0.0.9 sh -c 'PATH=/usr/local/bin:$PATH; exec uc dial-stdio'"
        ),
        "{arguments}"
    );
    assert!(arguments.contains("BatchMode=yes"), "{arguments}");
}

#[test]
fn the_ssh_config_is_passed_on() {
    let world = World::new();
    world.program(
        "ssh",
        r#"echo "$@" > @DIR@/ssh-arguments; exec @UC@ dial-stdio --socket @DIR@/uc.sock"#,
    );
    let mut command = world.command(&["--connect", "ssh://host", "ps"]);
    command.env("UC_SSH_CONFIG", "/etc/my-ssh-config");
    assert_eq!(world.finish(command).code, Some(0));
    assert!(
        world
            .read("ssh-arguments")
            .contains("-F /etc/my-ssh-config")
    );
}

/// What OpenSSH 9.2 prints; the real ones are tried in the testbed.
#[test]
fn troubles_of_ssh_are_explained() {
    let world = World::new();
    for (name, script) in [
        (
            "unreachable",
            "printf 'ssh: connect to host 10.0.0.9 port 22: Connection timed out\\r\\n' >&2; exit 255",
        ),
        (
            "wrong_key",
            "printf 'root@10.0.0.9: Permission denied (publickey).\\r\\n' >&2; exit 255",
        ),
        (
            "host_key_changed",
            "printf '%s\\r\\n' '@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @' 'SHA256:abc.' \
             'Offending ED25519 key in /root/.ssh/known_hosts:3' '  remove with:' \
             '  ssh-keygen -f \"/root/.ssh/known_hosts\" -R \"10.0.0.9\"' 'Host key verification failed.' >&2; exit 255",
        ),
        (
            "no_uc",
            "echo 'bash: line 1: uc: command not found' >&2; exit 127",
        ),
        (
            "no_daemon",
            "exec @UC@ dial-stdio --socket /nonexistent/uc.sock",
        ),
        ("greeting", "echo 'Welcome to m1'; sleep 2"),
    ] {
        world.program("ssh", script);
        let ran = world.uc(&["--connect", "ssh://root@10.0.0.9", "ps"]);
        insta::assert_snapshot!(format!("ssh_{name}"), ran.text());
    }
}

#[test]
fn without_ssh_itself() {
    let world = World::new();
    let mut command = world.command(&["--connect", "ssh://h", "ps"]);
    command.env("PATH", "/nonexistent");
    let ran = world.finish(command);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("cannot start `ssh`") && ran.stderr.contains("openssh-client"),
        "{}",
        ran.text()
    );
}

#[test]
fn where_no_connection_answers_each_is_named() {
    let world = World::new();
    world.program(
        "ssh",
        "printf 'root@h: Permission denied (publickey).\\r\\n' >&2; exit 255",
    );
    world.config(
        Some("a"),
        &[("a", &["unix:///nonexistent/1", "ssh://root@h"])],
    );
    let ran = world.uc(&["ps"]);
    assert_eq!(ran.code, Some(4));
    assert!(
        ran.stderr
            .contains("none of the 2 connections of context `a` works"),
        "{}",
        ran.text()
    );
    assert!(
        ran.stderr.contains("\n- the daemon is not running"),
        "{}",
        ran.text()
    );
    assert!(
        ran.stderr.contains("\n- root@h refused the login"),
        "{}",
        ran.text()
    );
}

#[test]
fn a_connection_that_makes_no_sense_is_a_usage_error() {
    let ran = World::new().uc(&["--connect", "tcp://h:1", "ps"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("`tcp://` is not supported"),
        "{}",
        ran.text()
    );
}

/// sudo's `secure_path` and non-interactive logins often lack /usr/local/bin, where install.sh puts
/// `uc`.
#[test]
fn uc_outside_of_path_is_found_over_ssh() {
    let world = World::new();
    world.program(
        "ssh",
        "for last; do :; done\n\
         last=$(printf '%s' \"$last\" | sed 's|/usr/local/bin|@DIR@/local|')\n\
         PATH=/usr/bin:/bin exec sh -c \"$last\"",
    );
    world.program("uc", "exec @UC@ dial-stdio --socket @DIR@/uc.sock");
    std::fs::create_dir(world.path("local")).unwrap();
    std::fs::rename(world.path("bin/uc"), world.path("local/uc")).unwrap();
    let ran = world.uc(&["--connect", "ssh://root@h", "ps"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
}
