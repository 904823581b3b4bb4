//! What a deployment sends: built images, named services, and what a dry run leaves out.

use uc_api::v1::plan_request::Change;
use uc_api::v1::{self};

use crate::daemon::Daemon;
use crate::deploy::{daemon, good, plan};
use crate::world::World;

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

pub(crate) fn project(daemon: Daemon) -> World {
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
            .contains("shop/web was not built; the plan has the image of its last build"),
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
