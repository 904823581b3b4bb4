//! `down` leaves nothing behind, no matter which process was killed and when.

use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use anyhow::ensure;
use uc_testbed::{Claim, Layout, Testbed, TestbedName, Turn, UpOptions, list, wait_for};

use crate::{possible, remains};

/// Set for the process that is going to be killed.
const VICTIM: &str = "UC_TESTBED_VICTIM";

const LIMIT: Duration = Duration::from_mins(2);

fn name() -> TestbedName {
    "it-crash".parse().expect("valid")
}

fn options() -> UpOptions {
    UpOptions {
        name: name(),
        machines: 2,
        ..UpOptions::default()
    }
}

#[test]
#[ignore = "not a test: the process that `down_removes_everything_after_up_was_killed` kills"]
fn victim() {
    if env::var_os(VICTIM).is_some() {
        Testbed::up(&options()).expect("up").keep();
    }
}

fn spawn_victim() -> Child {
    let program = env::current_exe().expect("this program");
    Command::new(program)
        .args(["--exact", "crash::victim", "--ignored"])
        .env(VICTIM, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts")
}

fn expect_nothing_left(when: &str) {
    let report = list()
        .expect("a list")
        .into_iter()
        .find(|one| one.name == name().as_ref());
    // A testbed that was killed before it wrote anything has no subnet.
    let subnet = report.map_or_else(|| "none".to_owned(), |report| remains::subnet(&report));
    Testbed::down(&name()).expect("down works after a crash");
    let left = remains::of(name().as_ref(), &subnet);
    assert!(
        left.is_empty(),
        "left after a kill {when}:\n{}",
        left.join("\n")
    );
}

#[test]
fn down_removes_everything_after_up_was_killed() {
    if !possible() {
        return;
    }
    let _turn = Turn::take();
    let _claim = Claim::stake(&name()).expect("a claim");
    Testbed::down(&name()).expect("clean");
    let layout = Layout::new(name());
    let (state, containers) = (
        layout.state_dir().join("state.json"),
        layout.state_dir().join("docker/containers"),
    );
    let running = || {
        Command::new("docker")
            .args(["--host", &layout.docker_host(), "ps", "--quiet"])
            .output()
    };
    let moments: [(&str, &dyn Fn() -> bool); 5] = [
        ("as the state is written", &|| state.exists()),
        ("as the engine starts", &|| layout.engine_log().exists()),
        ("as the image is unpacked", &|| {
            layout.run_dir().join("docker.sock").exists()
        }),
        ("as machines are made", &|| {
            fs::read_dir(&containers).is_ok_and(|made| made.count() > 0)
        }),
        ("as machines boot", &|| {
            running().is_ok_and(|output| !output.stdout.is_empty())
        }),
    ];
    for (when, come) in moments {
        let mut victim = spawn_victim();
        wait_for(when, LIMIT, || {
            ensure!(
                victim.try_wait()?.is_none(),
                "it came up before it could be killed"
            );
            ensure!(come(), "not yet");
            Ok(())
        })
        .expect("the moment comes");
        victim.kill().expect("killed");
        victim.wait().expect("dead");
        expect_nothing_left(when);
    }
}

#[test]
fn up_replaces_a_testbed_whose_engine_was_killed() {
    if !possible() {
        return;
    }
    let _turn = Turn::take();
    let _claim = Claim::stake(&name()).expect("a claim");
    Testbed::down(&name()).expect("clean");
    let mut testbed = Testbed::up(&options()).expect("up");
    testbed.keep();
    let pid = fs::read_to_string(Layout::new(name()).run_dir().join("docker.pid"))
        .expect("the engine runs");
    let killed = Command::new("sh")
        .args(["-c", "kill -KILL \"$1\"", "sh", pid.trim()])
        .status()
        .expect("sh runs");
    assert!(killed.success());
    let broken = wait_for("the engine to be dead", LIMIT, || {
        let error = Testbed::open(&name()).err().map(|error| error.to_string());
        error.ok_or_else(|| anyhow::anyhow!("it still answers"))
    });
    let broken = broken.expect("it dies");
    assert!(
        broken.starts_with("the testbed 'it-crash' is broken"),
        "{broken}"
    );
    let report = list()
        .expect("a list")
        .into_iter()
        .find(|one| one.name == name().as_ref())
        .expect("listed");
    assert_eq!(report.state, "broken");
    // A new one takes its place, without being asked to clean up.
    let renewed = Testbed::up(&options()).expect("up again");
    assert_eq!(
        renewed.machines()[1].sh("hostname").expect("it runs"),
        "m2\n"
    );
    let subnet = remains::subnet(&renewed.report().expect("a report"));
    drop(renewed);
    assert_eq!(remains::of(name().as_ref(), &subnet), [""; 0]);
}

#[test]
fn down_succeeds_without_a_testbed() {
    if !possible() {
        return;
    }
    let _turn = Turn::take();
    let name: TestbedName = "it-never-was".parse().expect("valid");
    Testbed::down(&name).expect("that is fine");
    assert_eq!(remains::of(name.as_ref(), "none"), [""; 0]);
}
