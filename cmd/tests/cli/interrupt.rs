//! Ctrl-C in a terminal: SIGINT for the whole foreground process group.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};

use uc_api::v1;

use crate::daemon::{CLUSTER, Daemon};
use crate::deploy::{daemon, plan, step};
use crate::provision::{SSH, cluster, fresh, from, world};
use crate::world::{World, eventually};

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
    let mut command = world.command(arguments);
    command
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// What the terminal does on Ctrl-C.
fn press_ctrl_c(child: &Child) {
    let group = format!("-{}", child.id());
    let status = Command::new("kill")
        .args(["-INT", "--", &group])
        .status()
        .unwrap();
    assert!(status.success());
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn machine_add_rolls_back_over_ssh_after_ctrl_c() {
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
        "--install-from",
        &from,
    ];
    let child = in_foreground(&world, &arguments);
    eventually("it joins", || {
        remote.asked().iter().any(|call| call.starts_with("Join"))
    });
    press_ctrl_c(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    let asked = world.daemon.asked();
    assert!(
        asked.last().unwrap().starts_with("RemoveMachine "),
        "{asked:?} {}",
        text(&output)
    );
    assert!(!text(&output).contains("warning"), "{}", text(&output));
}

#[test]
fn deployment_over_ssh_continues_after_ctrl_c() {
    let begun = vec![step("m1", v1::StepPhase::Started, "", &[])];
    let world = World::with(Daemon {
        endless: true,
        ..daemon(vec![plan("d1", &["m1"])], vec![(begun, None)])
    });
    world.program("ssh", &ssh());
    let arguments = ["--connect", "ssh://root@m1", "scale", "-y", "web", "3"];
    let mut child = in_foreground(&world, &arguments);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().contains("shop/web on m1")),
        "the deployment has begun"
    );
    press_ctrl_c(&child);
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    // 4 would mean that the connection broke before uc noticed Ctrl-C.
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
}
