//! Ctrl-C in a terminal and a closed terminal: SIGINT or SIGHUP for the whole foreground process
//! group. A supervisor sends SIGTERM.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::Signal;
use uc_api::v1;

use crate::daemon::{CLUSTER, Daemon};
use crate::deploy::{daemon, plan, step};
use crate::provision::{SSH, cluster, fresh, from, world};
use crate::world::{World, eventually, send_signal_to_group};

/// The host m1 is the member behind `uc.sock`, every other host the machine behind `remote.sock`.
fn ssh() -> String {
    format!(
        r#"for last; do host=${{previous#*@}}; previous=$last; done
if [ "$host" = m1 ]; then exec @UC@ dial-stdio --socket @DIR@/uc.sock; fi
{SSH}"#
    )
}

/// `uc` at the head of a process group of its own, as a shell starts it in a terminal.
fn in_foreground(world: &World, arguments: &[&str]) -> Child {
    // The caller of the tests may ignore SIGHUP, and a child would inherit that.
    let mut command = Command::new("/usr/bin/env");
    command
        .args(["--default-signal=HUP", env!("CARGO_BIN_EXE_uc")])
        .args(arguments);
    world.environment(&mut command);
    start(command)
}

fn start(mut command: Command) -> Child {
    command
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Each signal that asks a program to end, and the exit code for it.
const SIGNALS: [(Signal, i32); 3] = [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)];

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn machine_add_rolls_back_over_ssh_after_a_signal() {
    for (signal, code) in SIGNALS {
        let joining = Daemon {
            stalled_call: Some("Join"),
            ..fresh()
        };
        let (world, remote) = world(cluster(), joining);
        world.program("ssh", &ssh());
        world.write(
            "config/uc/config.toml",
            &format!("contexts.a = {{ cluster = '{CLUSTER}', connections = [{{ address = 'ssh://root@m1' }}] }}"),
        );
        let from = from(&world);
        let arguments = [
            "machine",
            "add",
            "root@203.0.113.9",
            "-y",
            "--install-from",
            &from,
        ];
        let child = in_foreground(&world, &arguments);
        eventually("it joins", || {
            remote.asked().iter().any(|call| call.starts_with("Join"))
        });
        send_signal_to_group(&child, signal);
        if signal == Signal::HUP {
            // A shell and the kernel both send it when a terminal is closed.
            send_signal_to_group(&child, signal);
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        let asked = world.daemon.asked();
        assert!(
            asked.last().unwrap().starts_with("RemoveMachine "),
            "{asked:?} {}",
            text(&output)
        );
        assert!(!text(&output).contains("warning"), "{}", text(&output));
    }
}

/// A deployment of which `uc` shows the first step and no end.
fn endless_deployment() -> World {
    let begun = vec![step("m1", v1::StepPhase::Started, "", &[])];
    let world = World::with(Daemon {
        endless: true,
        ..daemon(vec![plan("d1", &["m1"])], vec![(begun, None)])
    });
    world.program("ssh", &ssh());
    world
}

const SCALE: [&str; 6] = ["--connect", "ssh://root@m1", "scale", "-y", "web", "3"];

/// Reads stderr until the deployment has begun, and returns what follows.
fn begun(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    assert!(
        lines.any(|line| line.contains("shop/web on m1")),
        "the deployment has begun"
    );
    lines
}

#[test]
fn deployment_over_ssh_continues_after_a_signal() {
    for (signal, code) in SIGNALS {
        let world = endless_deployment();
        let mut child = in_foreground(&world, &SCALE);
        let rest = begun(&mut child);
        send_signal_to_group(&child, signal);
        let rest: Vec<_> = rest.collect();
        // 4 would mean that the connection broke before uc noticed the signal.
        assert_eq!(child.wait().unwrap().code(), Some(code), "{rest:?}");
        assert!(
            rest.iter()
                .any(|line| line.contains("stopped watching; the deployment continues")),
            "{rest:?}"
        );
    }
}

#[test]
fn deployment_started_with_nohup_is_watched_after_sighup() {
    let world = endless_deployment();
    let mut command = Command::new("/usr/bin/env");
    command
        .args(["--ignore-signal=HUP", env!("CARGO_BIN_EXE_uc")])
        .args(SCALE);
    world.environment(&mut command);
    let mut child = start(command);
    let rest = begun(&mut child);
    send_signal_to_group(&child, Signal::HUP);
    send_signal_to_group(&child, Signal::INT);
    let rest: Vec<_> = rest.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
}
