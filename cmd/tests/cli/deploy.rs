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

fn plan(digest: &str, machines: &[&str]) -> v1::Plan {
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

fn step(machine: &str, phase: v1::StepPhase, message: &str, log_tail: &[&str]) -> v1::DeployEvent {
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
    let mut events = vec![event(Event::Notice("m9 is down and is left out".into()))];
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

fn daemon(
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
fn shown_agreed_and_done() {
    let world = World::with(daemon(
        vec![plan("d1", &["m1", "m2"])],
        vec![(good(&["m1", "m2"]), None)],
    ));
    insta::assert_snapshot!(world.connected(&["scale", "-y", "web", "3"]).text());
    assert_eq!(world.daemon.asked(), ["Plan", "Execute d1"]);
}

#[test]
fn an_empty_plan_changes_nothing() {
    let world = World::new();
    let ran = world.connected(&["scale", "web", "3"]);
    assert_eq!(
        ran.text(),
        "exit 0\n--- stdout\n--- stderr\nservices are up to date\n"
    );
    assert_eq!(world.daemon.asked(), ["Plan"]);
}

#[test]
fn without_a_terminal_and_without_yes_nothing_is_done() {
    let world = World::with(daemon(vec![plan("d1", &["m1"])], Vec::new()));
    let ran = world.connected(&["rm", "web"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("there is no terminal") && ran.stderr.contains("add `-y`"),
        "{}",
        ran.text()
    );
    assert_eq!(world.daemon.asked(), ["Plan"]);
}

#[test]
fn the_variable_agrees_too() {
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
fn on_a_terminal_the_answer_counts() {
    let plans = vec![plan("d1", &["m1"])];
    let world = World::with(daemon(plans, vec![(good(&["m1"]), None)]));
    let ran = world.on_terminal("scale web 3", "n\n");
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(
        ran.stdout.contains("Go ahead?") && ran.stdout.contains("nothing was changed"),
        "{}",
        ran.text()
    );
    assert_eq!(world.daemon.asked(), ["Plan"]);
    let ran = world.on_terminal("scale web 3", "y\n");
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert_eq!(world.daemon.asked(), ["Plan", "Plan", "Execute d1"]);
}

#[test]
fn rolled_back_is_exit_code_3_with_the_containers_last_words() {
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
fn stopped_where_it_was_is_exit_code_3_too() {
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
fn failures_that_were_put_up_with_are_told_with_exit_code_4() {
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
fn a_command_of_before_is_in_the_plan_and_its_failure_told() {
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
fn what_could_not_be_taken_back_is_exit_code_4() {
    let events = vec![finished(v1::DeployOutcome::Failed, "", "")];
    let world = World::with(daemon(vec![plan("d1", &["m1"])], vec![(events, None)]));
    let ran = world.connected(&["scale", "-y", "web", "3"]);
    assert_eq!(ran.code, Some(4), "{}", ran.text());
}

#[test]
fn a_plan_that_changed_is_shown_and_asked_again() {
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
fn a_plan_that_never_holds_is_given_up() {
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
        ran.stderr.contains("the plan changed 5 times"),
        "{}",
        ran.text()
    );
}

#[test]
fn a_connection_lost_on_the_way_says_that_it_goes_on() {
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
            ran.stderr.contains("it goes on without uc"),
            "{}",
            ran.text()
        );
    }
}

#[test]
fn ctrl_c_stops_the_watching_and_says_that_it_goes_on() {
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
            .any(|line| line.contains("the deployment goes on")),
        "{rest:?}"
    );
}

#[test]
fn a_service_that_is_not_there_is_named_with_the_nearest() {
    let failure =
        Failure::new(Code::NotFound, "there is no service `wbe`").hint("did you mean `web`?");
    let world = World::with(Daemon {
        refuse_call: Some(("Plan", failure)),
        ..Daemon::default()
    });
    let ran = world.connected(&["scale", "wbe", "3"]);
    assert_eq!(
        ran.text(),
        "exit 1\n--- stdout\n--- stderr\nerror: there is no service `wbe`\nhint: did you mean `web`?\n"
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
fn a_build_gets_a_tag_of_its_content() {
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
fn what_docker_says_is_no_data_of_ours() {
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
fn named_services_bring_what_they_depend_on() {
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
        ran.stderr.contains("has no service `wbe`") && ran.stderr.contains("did you mean `web`?"),
        "{}",
        ran.text()
    );
}

#[test]
fn no_build_takes_the_last_one() {
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
fn a_build_that_fails_ends_it_before_anything_is_planned() {
    let world = project(Daemon::default());
    let mut command = world.command(&["deploy", "-y"]);
    command.env("FAIL_BUILD", "1").env(
        "UC_CONNECT",
        format!("unix://{}", world.path("uc.sock").display()),
    );
    let ran = world.finish(command);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("no such stage") && ran.stderr.contains("shop/web could not be built"),
        "{}",
        ran.text()
    );
    assert!(world.daemon.asked().is_empty());
}

#[test]
fn without_docker_the_way_out_is_said() {
    let world = project(Daemon::default());
    let mut command = world.command(&["deploy"]);
    command.env("PATH", "/nonexistent").env(
        "UC_CONNECT",
        format!("unix://{}", world.path("uc.sock").display()),
    );
    let ran = world.finish(command);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("`docker` could not be started") && ran.stderr.contains("`build:`"),
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
fn an_image_that_cannot_be_loaded_stops_the_deployment() {
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
fn a_torn_archive_is_never_taken_for_whole() {
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
fn a_dry_run_prints_the_plan_and_stops() {
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
fn an_error_in_the_file_is_shown_with_its_place_before_anything_else() {
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
fn no_compose_file_at_all() {
    let ran = World::new().connected(&["deploy"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr
            .contains("there is no compose file in [DIR]/project or above it"),
        "{}",
        ran.text()
    );
    assert!(ran.stderr.contains("`-f FILE`"), "{}", ran.text());
}

#[test]
fn the_resolved_file_in_both_forms() {
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
fn the_context_of_the_file_is_used() {
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
        "what was typed beats it"
    );
}
