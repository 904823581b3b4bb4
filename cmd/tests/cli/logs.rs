//! `uc logs`

use uc_api::v1::{LogEntry, LogStream};

use crate::daemon::Daemon;
use crate::world::World;

fn entry(stream: LogStream, message: &str) -> LogEntry {
    LogEntry {
        machine_id: "m-1".into(),
        machine_name: "m1".into(),
        project: "shop".into(),
        service: "web".into(),
        container_id: "0123456789abcdef".into(),
        stream: stream.into(),
        time_ns: 1_700_000_000_123_456_789,
        message: message.as_bytes().to_vec(),
        ..Default::default()
    }
}

fn missing() -> LogEntry {
    LogEntry {
        machine_name: "m2".into(),
        problem: "it does not answer".into(),
        ..Default::default()
    }
}

#[test]
fn logs_write_stderr_lines_to_stderr() {
    let logs = vec![
        entry(LogStream::Stdout, "GET /\n"),
        entry(LogStream::Stderr, "oh no"),
    ];
    let world = World::with(Daemon {
        logs,
        ..Daemon::default()
    });
    insta::assert_snapshot!(world.connected(&["logs", "web"]).text());
}

#[test]
fn logs_of_a_missing_machine_warn_and_exit_4() {
    let logs = vec![entry(LogStream::Stdout, "GET /"), missing()];
    let world = World::with(Daemon {
        logs,
        ..Daemon::default()
    });
    insta::assert_snapshot!(world.connected(&["logs"]).text());
}

#[test]
fn logs_as_json_are_one_object_per_line() {
    let logs = vec![entry(LogStream::Stderr, "oh no\n"), missing()];
    let world = World::with(Daemon {
        logs,
        ..Daemon::default()
    });
    let ran = world.connected(&["logs", "-o", "json"]);
    insta::assert_snapshot!(ran.stdout);
    assert!(
        ran.stdout
            .lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
    );
}

#[test]
fn logs_flags_reach_the_daemon() {
    let world = World::new();
    world.connected(&["logs", "-f", "-n", "all", "--since", "10m", "web"]);
    world.connected(&["logs"]);
    let asked = world.daemon.asked();
    assert_eq!(asked[0], "Logs [\"web\"] follow=true tail=-1 since=true");
    assert_eq!(asked[1], "Logs [] follow=false tail=100 since=false");
    let ran = world.connected(&["logs", "--since", "yesterdayish"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("invalid time"), "{}", ran.text());
}
