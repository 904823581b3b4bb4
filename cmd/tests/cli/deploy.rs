//! Plan, question, images, execution: `deploy`, `scale` and `rm`.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use uc_api::v1::deploy_event::Event;
use uc_api::v1::plan_request::Change;
use uc_api::v1::{self};
use uc_api::{Code, Failure};

use crate::daemon::Daemon;
use crate::world::World;

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

fn event(event: Event) -> v1::DeployEvent {
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

fn finished(outcome: v1::DeployOutcome, message: &str, hint: &str) -> v1::DeployEvent {
    event(Event::Finished(v1::DeployFinished {
        outcome: outcome.into(),
        message: message.into(),
        log_tail: Vec::new(),
        hint: hint.into(),
    }))
}

fn good(machines: &[&str]) -> Vec<v1::DeployEvent> {
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
    assert!(
        Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
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

/// `docker` as far as `uc` uses it: one image whose id is made from the build context's Dockerfile.
const DOCKER: &str = r#"
echo "$@" >> @DIR@/docker-calls
case $1 in
build)
    echo "step 1/1"
    [ -n "$FAIL_BUILD" ] && { echo "no such stage" >&2; exit 1; }
    while [ $# -gt 1 ]; do
        [ "$1" = --iidfile ] && out=$2
        shift
    done
    printf 'sha256:%s' "$(sha256sum < "$1/Dockerfile" | cut -c1-64)" > "$out" ;;
tag) ;;
image) case "$*" in *Size*) echo 200000 ;; *) echo sha256:0123456789abcdef ;; esac ;;
save) head -c 200000 /dev/zero ;;
esac"#;

const COMPOSE: &str = "
name: shop
services:
  web:
    build: .
    depends_on: [db]
  db:
    image: redis:7
  other:
    image: nginx:1
";

fn project(daemon: Daemon) -> World {
    let world = World::with(daemon);
    world.program("docker", DOCKER);
    world.write("project/compose.yaml", COMPOSE);
    world.write("project/Dockerfile", "FROM scratch\n");
    world
}

fn desired(world: &World) -> Vec<v1::DesiredServices> {
    let wishes = world.daemon.wishes.lock().unwrap();
    let deploy = |wish: &v1::PlanRequest| match &wish.change {
        Some(Change::Deploy(desired)) => Some(desired.clone()),
        _ => None,
    };
    wishes.iter().filter_map(deploy).collect()
}

#[test]
fn build_is_tagged_by_its_content() {
    let world = project(Daemon::default());
    assert_eq!(world.connected(&["deploy"]).code, Some(0));
    assert_eq!(world.connected(&["deploy"]).code, Some(0));
    world.write("project/Dockerfile", "FROM scratch\nLABEL a=b\n");
    assert_eq!(world.connected(&["deploy"]).code, Some(0));
    let images: Vec<String> = desired(&world)
        .iter()
        .map(|desired| {
            desired
                .services
                .iter()
                .find(|spec| spec.name == "web")
                .unwrap()
        })
        .map(|spec| {
            assert!(spec.built);
            spec.image.clone()
        })
        .collect();
    assert_eq!(
        images[0], images[1],
        "an unchanged build is an unchanged spec"
    );
    assert_ne!(images[1], images[2]);
    let (repository, digits) = images[0].split_once(':').unwrap();
    assert_eq!((repository, digits.len()), ("shop-web", 12));
    assert!(
        world.read("docker-calls").contains("build --iidfile "),
        "{}",
        world.read("docker-calls")
    );
}

#[test]
fn output_of_docker_build_goes_to_stderr() {
    let world = project(Daemon::default());
    let ran = world.connected(&["deploy"]);
    assert_eq!(ran.stdout, "");
    assert!(
        ran.stderr.contains("building shop/web\nstep 1/1\n"),
        "{}",
        ran.text()
    );
}

#[test]
fn named_services_include_their_dependencies() {
    let world = project(Daemon::default());
    assert_eq!(world.connected(&["deploy", "web"]).code, Some(0));
    let names: Vec<_> = desired(&world)[0]
        .services
        .iter()
        .map(|spec| spec.name.clone())
        .collect();
    assert_eq!(names, ["db", "web"]);
    let ran = world.connected(&["deploy", "wbe"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("service `wbe` not found")
            && ran.stderr.contains("did you mean `web`?"),
        "{}",
        ran.text()
    );
}

#[test]
fn no_build_uses_the_image_of_the_last_build() {
    let world = project(Daemon::default());
    assert_eq!(world.connected(&["deploy", "--no-build"]).code, Some(0));
    assert!(!world.read("docker-calls").contains("build "));
    assert_eq!(
        desired(&world)[0]
            .services
            .iter()
            .find(|spec| spec.name == "web")
            .unwrap()
            .image,
        "shop-web:0123456789ab"
    );
}

#[test]
fn failed_build_ends_before_a_plan_is_made() {
    let world = project(Daemon::default());
    let mut command = world.command(&["deploy", "-y"]);
    command.env("FAIL_BUILD", "1").env(
        "UC_CONNECT",
        format!("unix://{}", world.path("uc.sock").display()),
    );
    let ran = world.finish(command);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("no such stage")
            && ran.stderr.contains("cannot build the image of shop/web"),
        "{}",
        ran.text()
    );
    assert!(world.daemon.asked().is_empty());
}

#[test]
fn missing_docker_is_reported_with_a_hint() {
    let world = project(Daemon::default());
    let mut command = world.command(&["deploy"]);
    command.env("PATH", "/nonexistent").env(
        "UC_CONNECT",
        format!("unix://{}", world.path("uc.sock").display()),
    );
    let ran = world.finish(command);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("cannot run `docker`") && ran.stderr.contains("`build:`"),
        "{}",
        ran.text()
    );
}

fn pushing(push_errors: Vec<v1::PushResult>) -> World {
    let mut plan = plan("d1", &["m1"]);
    let target = v1::ImageTarget {
        image: "shop-web:0123".into(),
        machine_ids: vec!["id-m1".into(), "id-m2".into()],
    };
    plan.images = vec![target.clone()];
    let missing = vec![v1::ImageTarget {
        machine_ids: vec!["id-m2".into()],
        ..target
    }];
    project(Daemon {
        missing,
        push_errors,
        ..daemon(vec![plan], vec![(good(&["m1"]), None)])
    })
}

#[test]
fn missing_images_are_pushed_in_small_chunks_before_execution() {
    let world = pushing(Vec::new());
    let ran = world.connected(&["deploy", "-y"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(
        ran.stderr.contains("✔ image shop-web:0123 → 1 machine"),
        "{}",
        ran.text()
    );
    assert_eq!(
        world.daemon.asked(),
        [
            "ListConflicts",
            "Plan",
            "MissingImages",
            "PushImage",
            "Execute d1"
        ]
    );
    let pushed = world.daemon.pushed.lock().unwrap();
    assert_eq!(pushed[0].image, "shop-web:0123");
    assert_eq!(pushed[0].machines, ["id-m2"]);
    assert_eq!(pushed[0].bytes, 200_000);
    assert!(pushed[0].largest_chunk <= 64 * 1024);
}

#[test]
fn image_that_cannot_be_loaded_stops_the_deployment() {
    let result = v1::PushResult {
        machine_name: "m2".into(),
        error: "disk full".into(),
        ..Default::default()
    };
    let world = pushing(vec![result]);
    let ran = world.connected(&["deploy", "-y"]);
    assert_eq!(ran.code, Some(4));
    assert!(
        ran.stderr.contains("image shop-web:0123") && ran.stderr.contains("m2: disk full"),
        "{}",
        ran.text()
    );
    assert!(
        !world
            .daemon
            .asked()
            .iter()
            .any(|call| call.starts_with("Execute"))
    );
}

#[test]
fn truncated_archive_is_not_accepted() {
    let world = pushing(Vec::new());
    world.program(
        "docker",
        &DOCKER.replace(
            "head -c 200000 /dev/zero",
            "head -c 100000 /dev/zero; echo 'no space' >&2; exit 1",
        ),
    );
    let ran = world.connected(&["deploy", "-y"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("docker save failed") && ran.stderr.contains("no space"),
        "{}",
        ran.text()
    );
    assert!(world.daemon.pushed.lock().unwrap().is_empty());
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
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
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

#[test]
fn services_of_the_file_that_are_not_deployed_are_sent_as_such() {
    let world = World::new();
    world.write(
        "project/compose.yaml",
        "name: shop\nservices:\n  web: {image: a}\n  db: {image: b}\n  \
         tools: {image: c, profiles: [debug]}\n",
    );
    assert_eq!(world.connected(&["deploy"]).code, Some(0));
    let ran = world.connected(&["deploy", "--remove-orphans", "web"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    let sent: Vec<_> = desired(&world)
        .into_iter()
        .map(|desired| (desired.other_services, desired.remove_orphans))
        .collect();
    assert_eq!(
        sent,
        [
            (vec!["tools".to_owned()], false),
            (vec!["db".to_owned(), "tools".to_owned()], true),
        ]
    );
}

#[test]
fn dry_run_builds_nothing_and_plans_with_the_image_of_the_last_build() {
    let world = project(daemon(vec![plan("d1", &["m1"])], Vec::new()));
    let ran = world.connected(&["deploy", "--dry-run"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    let calls = world.read("docker-calls");
    assert!(
        calls.lines().all(|call| call.starts_with("image inspect")),
        "{calls}"
    );
    let image = |world: &World| {
        let sent = desired(world).pop().unwrap().services;
        let web = sent.into_iter().find(|spec| spec.name == "web").unwrap();
        web.image
    };
    assert_eq!(image(&world), "shop-web:0123456789ab");
    assert!(
        ran.stderr
            .contains("dry run: shop/web was not built; the plan has the image of its last build"),
        "{}",
        ran.text()
    );

    world.program("docker", "exit 1");
    let ran = world.connected(&["deploy", "--dry-run"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert_eq!(image(&world), "shop-web:not-built");
}

#[test]
fn dry_run_runs_no_command_and_keeps_the_deployed_content() {
    let file = v1::FileSpec {
        hash: "ab".repeat(32),
        target: "/run/secrets/token".into(),
        name: "secret token".into(),
        secret: true,
    };
    let web = v1::ServiceSpec {
        project: "shop".into(),
        name: "web".into(),
        files: vec![file],
        ..Default::default()
    };
    let world = World::with(Daemon {
        services: vec![v1::ServiceStatus {
            spec: Some(web),
            ..Default::default()
        }],
        ..Daemon::default()
    });
    world.write(
        "project/compose.yaml",
        "name: shop\nservices:\n  web: {image: a, secrets: [token]}\n  \
         new: {image: a, secrets: [token]}\nsecrets:\n  \
         token: {x-command: [sh, -c, 'echo ran >> ran; echo t0ken']}\n",
    );
    let ran = world.connected(&["deploy", "--dry-run"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert_eq!(world.read("project/ran"), "", "the command was not run");
    let sent = desired(&world).pop().unwrap().services;
    let hash = |name: &str| {
        let spec = sent.iter().find(|spec| spec.name == name).unwrap();
        spec.files[0].hash.clone()
    };
    assert_eq!(hash("web"), "ab".repeat(32));
    assert_eq!(hash("new"), "0".repeat(64));
    assert!(
        ran.stderr
            .contains("the plan assumes that its output has not changed")
            && ran.stderr.contains("the plan shows it as new"),
        "{}",
        ran.text()
    );
}
