//! Plan, question, images, execution: `deploy`, `scale` and `rm`.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use rustix::process::Signal;
use uc_api::v1::deploy_event::Event;
use uc_api::v1::{self};
use uc_api::{Code, Failure};

use crate::daemon::Daemon;
use crate::deploy_images::project;
use crate::world::{World, send_signal};

pub(crate) fn plan(digest: &str, machines: &[&str]) -> v1::Plan {
    let step = |machine: &&str| v1::ReplicaStep {
        id: format!("step-{machine}"),
        action: v1::ReplicaAction::Create.into(),
        machine_id: format!("id-{machine}"),
        machine_name: (*machine).into(),
        reason: "new replica".into(),
        ..Default::default()
    };
    let service = v1::ServicePlan {
        project: "shop".into(),
        service: "web".into(),
        change: v1::ServiceChange::Update.into(),
        steps: machines.iter().map(step).collect(),
        kept: 1,
        desired: 3,
        ..Default::default()
    };
    v1::Plan {
        digest: digest.into(),
        services: vec![service],
        ..Default::default()
    }
}

pub(crate) fn event(event: Event) -> v1::DeployEvent {
    v1::DeployEvent { event: Some(event) }
}

pub(crate) fn step(
    machine: &str,
    phase: v1::StepPhase,
    message: &str,
    log_tail: &[&str],
) -> v1::DeployEvent {
    event(Event::Step(v1::StepEvent {
        step_id: format!("step-{machine}"),
        phase: phase.into(),
        message: message.into(),
        log_tail: log_tail.iter().map(|line| (*line).to_owned()).collect(),
        service: "web".into(),
        machine_name: machine.into(),
    }))
}

pub(crate) fn finished(outcome: v1::DeployOutcome, message: &str, hint: &str) -> v1::DeployEvent {
    event(Event::Finished(v1::DeployFinished {
        outcome: outcome.into(),
        message: message.into(),
        log_tail: Vec::new(),
        hint: hint.into(),
    }))
}

pub(crate) fn good(machines: &[&str]) -> Vec<v1::DeployEvent> {
    let mut events = vec![event(Event::Notice("m9 is down and is skipped".into()))];
    for machine in machines {
        events.push(step(machine, v1::StepPhase::Started, "", &[]));
        events.push(step(
            machine,
            v1::StepPhase::Progress,
            "waiting until it is healthy",
            &[],
        ));
        events.push(step(
            machine,
            v1::StepPhase::Done,
            "healthy after 2.1 s",
            &[],
        ));
    }
    events.push(finished(v1::DeployOutcome::Done, "", ""));
    events
}

pub(crate) fn daemon(
    plans: Vec<v1::Plan>,
    executions: Vec<(Vec<v1::DeployEvent>, Option<Failure>)>,
) -> Daemon {
    Daemon {
        plans: VecDeque::from(plans).into(),
        executions: VecDeque::from(executions).into(),
        ..Daemon::default()
    }
}

#[test]
fn scale_shows_the_plan_and_the_progress() {
    let world = World::with(daemon(
        vec![plan("d1", &["m1", "m2"])],
        vec![(good(&["m1", "m2"]), None)],
    ));
    insta::assert_snapshot!(world.connected(&["scale", "-y", "web", "3"]).text());
    assert_eq!(world.daemon.asked(), ["Plan", "Execute d1"]);
}

#[test]
fn empty_plan_executes_nothing() {
    let world = World::new();
    let ran = world.connected(&["scale", "web", "3"]);
    assert_eq!(
        ran.text(),
        "exit 0\n--- stdout\n--- stderr\nservices are up to date\n"
    );
    assert_eq!(world.daemon.asked(), ["Plan"]);
}

#[test]
fn without_terminal_and_yes_nothing_is_executed() {
    let world = World::with(daemon(vec![plan("d1", &["m1"])], Vec::new()));
    let ran = world.connected(&["rm", "web"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains(
            "confirmation is required before removing services, but stdin is not a terminal"
        ) && ran.stderr.contains("add `-y`"),
        "{}",
        ran.text()
    );
    assert_eq!(world.daemon.asked(), ["Plan"]);
}

#[test]
fn auto_confirm_variable_confirms_unless_it_is_0() {
    let world = World::with(daemon(
        vec![plan("d1", &["m1"])],
        vec![(good(&["m1"]), None)],
    ));
    let mut command = world.command(&["rm", "web"]);
    command.env("UC_AUTO_CONFIRM", "1").env(
        "UC_CONNECT",
        format!("unix://{}", world.path("uc.sock").display()),
    );
    assert_eq!(world.finish(command).code, Some(0));
    let mut command = world.command(&["rm", "web"]);
    command.env("UC_AUTO_CONFIRM", "0").env(
        "UC_CONNECT",
        format!("unix://{}", world.path("uc.sock").display()),
    );
    assert_eq!(world.finish(command).code, Some(2));
}

#[test]
fn question_on_a_terminal_names_the_destination_and_takes_the_answer() {
    let plans = vec![plan("d1", &["m1"])];
    let world = World::with(daemon(plans, vec![(good(&["m1"]), None)]));
    let ran = world.on_terminal("scale web 3", "n\n");
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(
        ran.stdout
            .contains("Scale on the cluster of m1 (unix://[DIR]/uc.sock)? [y/N]")
            && ran.stdout.contains("cancelled; nothing was changed"),
        "{}",
        ran.text()
    );
    assert_eq!(world.daemon.asked(), ["Plan"]);
    let ran = world.on_terminal("scale web 3", "y\n");
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert_eq!(world.daemon.asked(), ["Plan", "Plan", "Execute d1"]);
}

#[test]
fn rolled_back_deployment_exits_3_and_shows_the_last_log_lines() {
    let events = vec![
        step("m1", v1::StepPhase::Started, "", &[]),
        step(
            "m1",
            v1::StepPhase::Failed,
            "exited with code 1",
            &["starting", "panic: no database"],
        ),
        step("m1", v1::StepPhase::Undone, "", &[]),
        finished(
            v1::DeployOutcome::RolledBack,
            "shop/web on m1 exited with code 1; the previous revision serves again",
            "uc logs web",
        ),
    ];
    let world = World::with(daemon(vec![plan("d1", &["m1"])], vec![(events, None)]));
    insta::assert_snapshot!(world.connected(&["scale", "-y", "web", "3"]).text());
}

#[test]
fn paused_deployment_exits_3() {
    let said = "shop/web on m1 exited with code 1; the deployment stopped there: what is new stays";
    let events = vec![finished(
        v1::DeployOutcome::Paused,
        said,
        "`uc deploy` tries what is left again",
    )];
    let world = World::with(daemon(vec![plan("d1", &["m1"])], vec![(events, None)]));
    let ran = world.connected(&["scale", "-y", "web", "3"]);
    assert_eq!(ran.code, Some(3), "{}", ran.text());
    assert!(
        ran.stderr.contains(said) && ran.stderr.contains("hint: `uc deploy` tries"),
        "{}",
        ran.text()
    );
}

#[test]
fn tolerated_failures_exit_4_and_are_reported() {
    let events = vec![finished(
        v1::DeployOutcome::Incomplete,
        "1 step failed and the rest was carried out",
        "",
    )];
    let world = World::with(daemon(vec![plan("d1", &["m1"])], vec![(events, None)]));
    let ran = world.connected(&["scale", "-y", "web", "3"]);
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    assert!(
        ran.stderr
            .contains("error: 1 step failed and the rest was carried out"),
        "{}",
        ran.text()
    );
    assert!(!ran.stderr.contains("done"), "{}", ran.text());
}

#[test]
fn pre_deploy_command_is_in_the_plan_and_its_failure_is_reported() {
    let mut plan = plan("d1", &["m1"]);
    plan.services[0].pre_deploy = Some(v1::PreDeployStep {
        id: "before".into(),
        machine_name: "m1".into(),
        command: vec!["./migrate.sh".into(), "--all".into()],
        ..Default::default()
    });
    let failed = v1::StepEvent {
        step_id: "before".into(),
        phase: v1::StepPhase::Failed.into(),
        message: "the pre-deploy command of web exited with code 7".into(),
        log_tail: vec!["no such table".into()],
        ..Default::default()
    };
    let events = vec![
        event(Event::Step(failed)),
        finished(v1::DeployOutcome::RolledBack, "", ""),
    ];
    let world = World::with(daemon(vec![plan], vec![(events, None)]));
    let ran = world.connected(&["scale", "-y", "web", "3"]);
    assert_eq!(ran.code, Some(3));
    insta::assert_snapshot!(ran.text());
}

#[test]
fn failed_rollback_exits_4() {
    let events = vec![finished(v1::DeployOutcome::Failed, "", "")];
    let world = World::with(daemon(vec![plan("d1", &["m1"])], vec![(events, None)]));
    let ran = world.connected(&["scale", "-y", "web", "3"]);
    assert_eq!(ran.code, Some(4), "{}", ran.text());
}

#[test]
fn changed_plan_is_shown_and_confirmed_again() {
    let changed = Failure::new(Code::PlanChanged, "the plan changed");
    let world = World::with(daemon(
        vec![plan("d1", &["m1"]), plan("d2", &["m2"])],
        vec![(Vec::new(), Some(changed)), (good(&["m2"]), None)],
    ));
    let ran = world.connected(&["scale", "-y", "web", "3"]);
    insta::assert_snapshot!(ran.text());
    assert_eq!(
        world.daemon.asked(),
        ["Plan", "Execute d1", "Plan", "Execute d2"]
    );
}

#[test]
fn plan_that_keeps_changing_is_given_up() {
    let changed = || {
        (
            Vec::new(),
            Some(Failure::new(Code::PlanChanged, "the plan changed")),
        )
    };
    let world = World::with(daemon(
        vec![plan("d1", &["m1"])],
        (0..9).map(|_| changed()).collect(),
    ));
    let ran = world.connected(&["scale", "-y", "web", "3"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .contains("the plan kept changing; gave up after 5 plans"),
        "{}",
        ran.text()
    );
}

#[test]
fn lost_connection_says_that_the_deployment_continues() {
    let begun = vec![step("m1", v1::StepPhase::Started, "", &[])];
    for failure in [None, Some(Failure::new(Code::Unreachable, "gone"))] {
        let world = World::with(daemon(
            vec![plan("d1", &["m1"])],
            vec![(begun.clone(), failure)],
        ));
        let ran = world.connected(&["scale", "-y", "web", "3"]);
        assert_eq!(ran.code, Some(4), "{}", ran.text());
        assert!(
            ran.stderr.contains("lost sight of the deployment"),
            "{}",
            ran.text()
        );
        assert!(
            ran.stderr.contains("which continues without uc"),
            "{}",
            ran.text()
        );
    }
}

#[test]
fn ctrl_c_stops_watching_and_says_that_the_deployment_continues() {
    let begun = vec![step("m1", v1::StepPhase::Started, "", &[])];
    let world = World::with(Daemon {
        endless: true,
        ..daemon(vec![plan("d1", &["m1"])], vec![(begun, None)])
    });
    let mut command = world.command(&["scale", "-y", "web", "3"]);
    command.env(
        "UC_CONNECT",
        format!("unix://{}", world.path("uc.sock").display()),
    );
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap() == "… + shop/web on m1"),
        "it has begun"
    );
    send_signal(&child, Signal::INT);
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(
        rest.iter()
            .any(|line| line.contains("the deployment continues on")),
        "{rest:?}"
    );
}

#[test]
fn unknown_service_is_reported_with_the_nearest_name() {
    let failure =
        Failure::new(Code::NotFound, "service `wbe` not found").hint("did you mean `web`?");
    let world = World::with(Daemon {
        refuse_call: Some(("Plan", failure)),
        ..Daemon::default()
    });
    let ran = world.connected(&["scale", "wbe", "3"]);
    assert_eq!(
        ran.text(),
        "exit 2\n--- stdout\n--- stderr\nerror: service `wbe` not found\nhint: did you mean `web`?\n"
    );
}

#[test]
fn dry_run_prints_the_plan_and_executes_nothing() {
    let world = project(daemon(vec![plan("d1", &["m1"])], Vec::new()));
    let ran = world.connected(&["deploy", "--dry-run"]);
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.stdout.contains("1 container to create"),
        "{}",
        ran.text()
    );
    assert_eq!(world.daemon.asked(), ["ListConflicts", "Plan"]);
}

#[test]
fn error_in_the_file_is_shown_with_its_place_before_connecting() {
    let world = World::new();
    world.write(
        "project/compose.yaml",
        "services:\n  web:\n    imagee: nginx\n",
    );
    let ran = world.connected(&["deploy", "-y"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("compose.yaml:3:5") && ran.stderr.contains("imagee"),
        "{}",
        ran.text()
    );
    assert!(world.daemon.asked().is_empty());
}

#[test]
fn missing_compose_file_is_reported() {
    let ran = World::new().connected(&["deploy"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr
            .contains("no compose file in [DIR]/project or above it"),
        "{}",
        ran.text()
    );
    assert!(ran.stderr.contains("`-f FILE`"), "{}", ran.text());
}

#[test]
fn config_prints_the_resolved_file_as_yaml_and_json() {
    let world = World::new();
    world.write(
        "project/compose.yaml",
        "name: shop\nservices:\n  web:\n    image: nginx:${TAG:-1}\n",
    );
    let yaml = world.uc(&["config"]);
    assert!(yaml.stdout.contains("image: nginx:1"), "{}", yaml.text());
    let mut command = world.command(&["config", "--format", "json"]);
    command.env("TAG", "2");
    assert_eq!(
        world.finish(command).json()["services"]["web"]["image"],
        "nginx:2"
    );
    assert_eq!(
        world.uc(&["config", "-q"]).text(),
        "exit 0\n--- stdout\n--- stderr\n"
    );
    let named = world.uc(&["config", "-p", "other", "--format", "json"]);
    assert_eq!(named.json()["name"], "other");
}

#[test]
fn x_context_selects_the_context_unless_one_is_named() {
    let world = World::new();
    world.config(None, &[("a", &["@"]), ("b", &["unix:///nonexistent"])]);
    world.write(
        "project/compose.yaml",
        "name: shop\nx-context: a\nservices:\n  web:\n    image: nginx\n",
    );
    assert_eq!(world.uc(&["deploy"]).code, Some(0));
    assert_eq!(
        world.uc(&["-c", "b", "deploy"]).code,
        Some(4),
        "an argument takes precedence"
    );
}

/// Runs `uc` with a config of two contexts, both of which lead to the daemon.
fn contexts(daemon: Daemon) -> World {
    let world = World::with(daemon);
    world.config(Some("staging"), &[("prod", &["@"]), ("staging", &["@"])]);
    world
}

const FOR_PROD: &str = "name: shop\nx-context: prod\nservices:\n  web:\n    image: nginx\n";

#[test]
fn compose_file_for_another_context_is_warned_about() {
    let warning = "warning: the compose file has `x-context: prod`, but this command goes to \
                   `staging`";
    let world = contexts(Daemon::default());
    for command in [&["rm", "web"][..], &["scale", "web", "2"]] {
        let ran = world.uc(command);
        assert!(!ran.stderr.contains("x-context"), "{}", ran.text());
    }
    world.write("project/compose.yaml", FOR_PROD);
    for (command, warns) in [
        (&["rm", "web"][..], true),
        (&["scale", "web", "2"], true),
        (&["-c", "staging", "deploy"], true),
        (&["-c", "prod", "rm", "web"], false),
        (&["deploy"], false),
    ] {
        let ran = world.uc(command);
        assert_eq!(ran.stderr.contains(warning), warns, "{}", ran.text());
    }
}

#[test]
fn plan_names_the_cluster_and_the_connection() {
    let world = contexts(daemon(
        vec![plan("d1", &["m1"])],
        vec![(good(&["m1"]), None)],
    ));
    let ran = world.uc(&["-c", "prod", "scale", "-y", "web", "3"]);
    assert!(
        ran.stderr
            .starts_with("plan for `prod` (through m1)\nproject shop\n"),
        "{}",
        ran.text()
    );
}

/// Runs `uc scale` until the daemon has got `Execute`, whose answer does not come.
fn waiting_for_execute() -> (World, std::process::Child) {
    let world = World::with(Daemon {
        execute_hangs: true,
        ..daemon(vec![plan("d1", &["m1"])], Vec::new())
    });
    let mut command = world.command(&["scale", "-y", "-o", "json", "web", "3"]);
    command.env(
        "UC_CONNECT",
        format!("unix://{}", world.path("uc.sock").display()),
    );
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !world.daemon.asked().contains(&"Execute d1".to_owned()) {
        std::thread::yield_now();
    }
    (world, child)
}

fn text_and_outcome(output: &std::process::Output) -> (String, serde_json::Value) {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    (text, document["outcome"].clone())
}

#[test]
fn ctrl_c_before_the_first_event_says_that_the_deployment_may_have_started() {
    let (_world, child) = waiting_for_execute();
    send_signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    let (text, outcome) = text_and_outcome(&output);
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("the deployment may have started"), "{text}");
    assert_eq!(outcome, "unknown");
}

#[test]
fn lost_connection_before_the_first_event_says_that_the_deployment_may_have_started() {
    let (mut world, child) = waiting_for_execute();
    world.stop_daemon();
    let output = child.wait_with_output().unwrap();
    let (text, outcome) = text_and_outcome(&output);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("the deployment may have started"), "{text}");
    assert_eq!(outcome, "unknown");
}

#[test]
fn ctrl_c_at_the_question_ends_the_line_and_changes_nothing() {
    let world = World::with(daemon(vec![plan("d1", &["m1"])], Vec::new()));
    let ran = world.on_terminal_at("scale web 3", "[y/N] ", "\u{3}");
    assert_eq!(ran.code, Some(130), "{}", ran.text());
    assert!(ran.stdout.ends_with("[y/N] ^C\r\n"), "{:?}", ran.stdout);
    assert_eq!(world.daemon.asked(), ["Plan"]);
}
