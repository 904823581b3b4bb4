//! What a deployment prints: JSON, progress, and streams without a reader.

use std::process::Stdio;

use uc_api::v1::deploy_event::Event;
use uc_api::v1::{self};
use uc_api::{Code, Failure};

use crate::daemon::Daemon;
use crate::deploy::{daemon, event, finished, good, plan, step};
use crate::deploy_images::project;
use crate::world::World;

/// Runs `uc` with a stderr or stdout whose reader has already closed it.
fn with_closed(world: &World, arguments: &[&str], closed: Closed) -> std::process::Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = world.command(arguments);
    command.env(
        "UC_CONNECT",
        format!("unix://{}", world.path("uc.sock").display()),
    );
    match closed {
        Closed::Stderr => command.stderr(writer).stdout(Stdio::piped()),
        Closed::Stdout => command.stdout(writer).stderr(Stdio::piped()),
    };
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[derive(Clone, Copy)]
enum Closed {
    Stdout,
    Stderr,
}

#[test]
fn closed_stderr_does_not_stop_a_deployment() {
    let world = World::with(daemon(
        vec![plan("d1", &["m1"])],
        vec![(good(&["m1"]), None)],
    ));
    let output = with_closed(&world, &["scale", "-y", "web", "3"], Closed::Stderr);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(world.daemon.asked(), ["Plan", "Execute d1"]);
}

#[test]
fn closed_stderr_keeps_the_exit_code_of_a_failure() {
    let events = vec![finished(v1::DeployOutcome::RolledBack, "web failed", "")];
    let world = World::with(daemon(vec![plan("d1", &["m1"])], vec![(events, None)]));
    let output = with_closed(&world, &["scale", "-y", "web", "3"], Closed::Stderr);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn closed_stdout_does_not_stop_a_deployment_that_prints_json() {
    let world = project(daemon(
        vec![plan("d1", &["m1"])],
        vec![(good(&["m1"]), None)],
    ));
    let output = with_closed(&world, &["deploy", "-y", "-o", "json"], Closed::Stdout);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(
        world.daemon.asked().contains(&"Execute d1".to_owned()),
        "{stderr}"
    );
}

#[test]
fn closed_stdout_keeps_the_exit_code_of_a_failure_that_prints_json() {
    let events = vec![finished(v1::DeployOutcome::RolledBack, "web failed", "")];
    let world = project(daemon(vec![plan("d1", &["m1"])], vec![(events, None)]));
    let output = with_closed(&world, &["deploy", "-y", "-o", "json"], Closed::Stdout);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn deployment_as_json_has_cluster_plan_and_outcome() {
    let world = project(daemon(
        vec![plan("d1", &["m1"])],
        vec![(good(&["m1"]), None)],
    ));
    let ran = world.connected(&["deploy", "-y", "-o", "json"]);
    let document = ran.json();
    insta::assert_snapshot!(
        serde_json::to_string_pretty(&document)
            .unwrap()
            .replace(&*world.path("uc.sock").to_string_lossy(), "[DIR]/uc.sock")
    );
}

#[test]
fn outcome_of_each_end_is_in_the_json() {
    let rolled_back = vec![
        step("m1", v1::StepPhase::Failed, "exited with code 1", &["boom"]),
        finished(v1::DeployOutcome::RolledBack, "web failed", "uc logs web"),
    ];
    let changed = || {
        let failure = Failure::new(Code::PlanChanged, "the plan changed");
        (Vec::new(), Some(failure))
    };
    for (executions, arguments, code, outcome, kind) in [
        (
            vec![(rolled_back, None)],
            "-y",
            3,
            "rolled-back",
            "rolled-back",
        ),
        (Vec::new(), "-n", 0, "planned", ""),
        (Vec::new(), "--strict", 2, "not-started", "usage"),
        (
            (0..9).map(|_| changed()).collect(),
            "-y",
            1,
            "not-started",
            "plan-changed",
        ),
        (
            vec![(vec![step("m1", v1::StepPhase::Started, "", &[])], None)],
            "-y",
            4,
            "unknown",
            "partial",
        ),
    ] {
        let world = project(daemon(vec![plan("d1", &["m1"])], executions));
        let ran = world.connected(&["deploy", arguments, "-o", "json"]);
        assert_eq!(ran.code, Some(code), "{}", ran.text());
        let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(document["outcome"], outcome, "{}", ran.text());
        assert_eq!(document["plan"]["digest"], "d1");
        assert!(document["diagnostics"].is_array());
        if kind.is_empty() {
            assert!(document.get("error").is_none(), "{}", ran.text());
        } else {
            assert_eq!(document["error"]["kind"], kind, "{}", ran.text());
            assert_eq!(document["error"]["exit_code"], code);
        }
    }
}

#[test]
fn failed_step_is_in_the_json_with_its_log() {
    let events = vec![
        step("m1", v1::StepPhase::Failed, "exited with code 1", &["boom"]),
        step("m1", v1::StepPhase::Undone, "", &[]),
        finished(v1::DeployOutcome::RolledBack, "web failed", ""),
    ];
    let world = World::with(daemon(vec![plan("d1", &["m1"])], vec![(events, None)]));
    let ran = world.connected(&["scale", "-y", "-o", "json", "web", "3"]);
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        document["steps"]["step-m1"],
        serde_json::json!({
            "service": "web",
            "machine": "m1",
            "result": "undone",
            "message": "exited with code 1",
            "log": ["boom"],
        })
    );
}

#[test]
fn refused_call_is_json_on_stdout_with_o_json() {
    let failure =
        Failure::new(Code::NotFound, "service `wbe` not found").hint("did you mean `web`?");
    let world = World::with(Daemon {
        refuse: Some(failure),
        ..Daemon::default()
    });
    for command in [
        &["rm", "wbe", "-y", "-o", "json"][..],
        &["inspect", "wbe", "-o", "json"],
        &["machine", "ls", "-o", "json"],
    ] {
        let ran = world.connected(command);
        let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(
            document["error"],
            serde_json::json!({
                "kind": "usage",
                "exit_code": 2,
                "message": "service `wbe` not found",
                "causes": [],
                "log": [],
                "hints": ["did you mean `web`?"],
            }),
            "{}",
            ran.text()
        );
        assert!(ran.stderr.contains("error: service `wbe` not found"));
    }
}

#[test]
fn progress_off_a_terminal_prints_phases_and_not_each_event() {
    let mut events = vec![step("m1", v1::StepPhase::Started, "creating", &[])];
    for done in 0..300 {
        let message = format!("pulling nginx: {done} of 300 MB");
        events.push(step("m1", v1::StepPhase::Progress, &message, &[]));
    }
    events.push(step("m1", v1::StepPhase::Progress, "starting", &[]));
    events.push(step("m1", v1::StepPhase::Done, "", &[]));
    events.push(finished(v1::DeployOutcome::Done, "", ""));
    let world = World::with(daemon(vec![plan("d1", &["m1"])], vec![(events, None)]));
    let ran = world.connected(&["scale", "-y", "web", "3"]);
    let lines: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|line| line.contains("shop/web on m1"))
        .collect();
    assert_eq!(
        lines,
        [
            "… + shop/web on m1  creating",
            "… + shop/web on m1  pulling nginx: 0 of 300 MB",
            "… + shop/web on m1  starting",
            "✔ + shop/web on m1",
        ]
    );
}

#[test]
fn output_of_a_container_cannot_control_the_terminal() {
    let events = vec![
        step(
            "m1",
            v1::StepPhase::Failed,
            "exited \u{1b}[2Jwith code 1",
            &[
                "\u{1b}[31mred\u{1b}[0m",
                "\u{1b}]0;title\u{7}\u{1b}[1;1Hmoved",
            ],
        ),
        event(Event::Notice("m2 is \u{1b}[2Jdown".into())),
        finished(v1::DeployOutcome::RolledBack, "web \u{1b}[2Jfailed", ""),
    ];
    let world = World::with(daemon(vec![plan("d1", &["m1"])], vec![(events, None)]));
    let mut command = world.command(&["scale", "-y", "web", "3"]);
    command.env("CLICOLOR_FORCE", "1").env(
        "UC_CONNECT",
        format!("unix://{}", world.path("uc.sock").display()),
    );
    let ran = world.finish(command);
    for bad in ["[2J", "title", "[1;1H", "\u{7}"] {
        assert!(!ran.stderr.contains(bad), "{bad:?} in {:?}", ran.stderr);
    }
    for good in ["\u{1b}[31mred", "moved", "web failed", "m2 is down"] {
        assert!(ran.stderr.contains(good), "{good:?} in {:?}", ran.stderr);
    }
}

#[test]
fn locale_without_utf_8_gets_ascii_marks() {
    let world = World::with(daemon(
        vec![plan("d1", &["m1"])],
        vec![(good(&["m1"]), None)],
    ));
    let mut command = world.command(&["scale", "-y", "web", "3"]);
    command.env("LC_ALL", "C").env(
        "UC_CONNECT",
        format!("unix://{}", world.path("uc.sock").display()),
    );
    let ran = world.finish(command);
    assert!(ran.stderr.is_ascii(), "{}", ran.text());
    assert!(
        ran.stderr
            .contains("ok + shop/web on m1  healthy after 2.1 s"),
        "{}",
        ran.text()
    );
}
