//! `uc machine add` that fails or is interrupted leaves the cluster as it was.

use std::sync::Arc;

use rustix::process::Signal;
use uc_api::v1::{self, Liveness};
use uc_api::{Code, Failure};

use crate::daemon::{CLUSTER, Daemon, member, status};
use crate::provision::{add, cluster, fresh, from, members, registered_id, world};
use crate::world::{World, eventually, send_signal_to_group};

#[test]
fn add_whose_join_fails_leaves_no_member() {
    let refused = Failure::new(Code::Unreachable, "no member answers on the mesh")
        .hint("let UDP 51820 through");
    let (world, _) = world(
        cluster(),
        Daemon {
            refuse_call: Some(("Join", refused)),
            ..fresh()
        },
    );
    world.config(Some("a"), &[("a", &["@"])]);
    let ran = world.finish(add(&world));
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    assert!(
        ran.stderr
            .contains("the machine could not join: no member answers on the mesh"),
        "{}",
        ran.text()
    );
    assert!(
        ran.stderr
            .contains("rolled back: the machine was not added"),
        "{}",
        ran.text()
    );
    assert_eq!(members(&world), ["m1"]);
    assert!(!world.read("config/uc/config.toml").contains("203.0.113.9"));
    let again = world.finish(add(&world));
    assert_eq!(
        again.code,
        Some(4),
        "not refused as taken: {}",
        again.text()
    );
    assert_eq!(members(&world), ["m1"]);
}

#[test]
fn add_interrupted_during_registration_leaves_no_member() {
    let (world, remote) = world(
        Daemon {
            stalled_call: Some("AddMachine"),
            ..cluster()
        },
        fresh(),
    );
    world.config(Some("a"), &[("a", &["@"])]);
    let registered = || members_now(&world.daemon).len() == 2;
    let text = interrupt_when(add(&world), registered);
    assert!(
        text.contains("rolled back: the machine was not added"),
        "{text}"
    );
    assert_eq!(members(&world), ["m1"]);
    assert!(remote.info.get().cluster_id.is_empty());
}

#[test]
fn add_interrupted_during_join_resets_the_machine_and_leaves_no_member() {
    let (world, remote) = world(
        cluster(),
        Daemon {
            stalled_call: Some("Join"),
            ..fresh()
        },
    );
    world.config(Some("a"), &[("a", &["@"])]);
    let joined = || !remote.info.get().cluster_id.is_empty();
    let text = interrupt_when(add(&world), joined);
    assert!(
        text.contains("rolled back: the machine was not added"),
        "{text}"
    );
    assert_eq!(members(&world), ["m1"]);
    let reset = format!("Reset {}", registered_id(&world));
    assert!(remote.asked().contains(&reset), "{:?}", remote.asked());
    assert!(remote.info.get().cluster_id.is_empty());
}

#[test]
fn add_of_a_machine_that_joined_elsewhere_leaves_it_there() {
    const OTHER: &str = "0dd00dd00dd00dd00dd00dd00dd00dd0";
    let lost = Failure::new(Code::Internal, "the stream was reset");
    // Join is refused, or its outcome is not known and the machine is reset.
    for (refuse_call, resets) in [(None, 0), (Some(("Join", lost)), 1)] {
        let (world, remote) = world(
            cluster(),
            Daemon {
                after_info: Some(OTHER.to_owned()).into(),
                refuse_call,
                ..fresh()
            },
        );
        world.config(Some("a"), &[("a", &["@"])]);
        let ran = world.finish(add(&world));
        assert_eq!(ran.code, Some(1), "{}", ran.text());
        assert!(
            ran.stderr
                .contains("rolled back: the machine was not added"),
            "{}",
            ran.text()
        );
        assert_eq!(members(&world), ["m1"]);
        assert_eq!(remote.info.get().cluster_id, OTHER);
        let asked = remote.asked();
        let reset = asked.iter().filter(|call| call.starts_with("Reset"));
        assert_eq!(reset.count(), resets, "{asked:?}");
    }
}

/// A cluster of m1, which dies after it has registered the machine, and m2.
fn world_whose_m1_dies(m2: Daemon) -> (World, Arc<Daemon>) {
    let first = Daemon {
        dies_in: Some("AddMachine"),
        ..cluster()
    };
    let (world, _) = world(first, fresh());
    let second = status(&member("id-2", "m2", "10.210.1.0/24"), Liveness::Up, true);
    let info = v1::InfoResponse {
        cluster_id: CLUSTER.into(),
        machine_id: "id-2".into(),
        machine_name: "m2".into(),
        ..Default::default()
    };
    let m2 = Arc::new(Daemon {
        info: info.into(),
        machines: vec![second].into(),
        ..m2
    });
    world.serve("m2.sock", Arc::clone(&m2));
    // It is dialled first from now on.
    world.config(Some("a"), &[("a", &["@"])]);
    assert_eq!(members(&world), ["m1"]);
    let address = format!("unix://{}", world.path("m2.sock").display());
    world.config(Some("a"), &[("a", &["@", &address])]);
    (world, m2)
}

#[test]
fn add_whose_cluster_connection_breaks_removes_the_record_when_it_replicates() {
    let (world, m2) = world_whose_m1_dies(Daemon {
        replicates_late: true,
        ..Daemon::default()
    });
    let ran = world.finish(add(&world));
    assert_ne!(ran.code, Some(0), "{}", ran.text());
    assert!(
        ran.stderr
            .contains("rolled back: the machine was not added"),
        "{}",
        ran.text()
    );
    assert_eq!(members_now(&m2), ["m2"]);
}

#[test]
fn add_whose_cluster_connection_breaks_warns_if_the_record_does_not_replicate() {
    let (world, _) = world_whose_m1_dies(Daemon::default());
    let ran = world.finish(add(&world));
    assert_ne!(ran.code, Some(0), "{}", ran.text());
    assert!(!ran.stderr.contains("rolled back"), "{}", ran.text());
    assert!(
        ran.stderr.contains(
            "pi-4 may still be in the cluster's list of machines: m2 does not have its record, \
             and m1 does not answer"
        ),
        "{}",
        ran.text()
    );
}

fn members_now(daemon: &Daemon) -> Vec<String> {
    let machines = daemon.machines.lock().unwrap();
    let names = machines.iter().filter_map(|status| status.machine.as_ref());
    names.map(|machine| machine.name.clone()).collect()
}

/// Starts the command in a process group of its own and sends Ctrl-C to the group, as a terminal
/// does, once `ready` holds. Returns its stderr.
fn interrupt_when(mut command: std::process::Command, ready: impl Fn() -> bool) -> String {
    use std::os::unix::process::CommandExt as _;
    let child = command
        .process_group(0)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the command gets there", ready);
    send_signal_to_group(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{text}");
    text
}

#[test]
fn add_whose_registration_is_refused_has_nothing_to_roll_back() {
    let taken = Failure::new(Code::Exists, "the name pi-4 is taken");
    let (world, remote) = world(
        Daemon {
            refuse_call: Some(("AddMachine", taken)),
            ..cluster()
        },
        fresh(),
    );
    world.config(Some("a"), &[("a", &["@"])]);
    let ran = world.uc(&[
        "machine",
        "add",
        "root@203.0.113.9",
        "-y",
        "--install-from",
        &from(&world),
    ]);
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(
        !world
            .daemon
            .asked()
            .iter()
            .any(|call| call.starts_with("RemoveMachine"))
    );
    assert_eq!(remote.asked(), ["Info"]);
}
