//! `uc build`, and what it passes to docker.

use crate::world::{Ran, World};

/// `docker` as far as builds use it; `build --help` knows the options in @MODERN@.
const DOCKER: &str = r#"
echo "$@" >> @DIR@/docker-calls
case "$1 $2" in
"build --help") echo "  --tag list"; echo "  @MODERN@ string" ;;
"build "*)
    env | grep '^TOKEN=' >> @DIR@/docker-calls
    while [ $# -gt 1 ]; do
        [ "$1" = --iidfile ] && out=$2
        shift
    done
    printf 'sha256:%s' "$(printf '%s' "$1" | sha256sum | cut -c1-64)" > "$out" ;;
"info "*) echo '[["driver-type","io.containerd.snapshotter.v1"]]' ;;
esac"#;

fn world(compose: &str, modern: &str) -> World {
    let world = World::new();
    world.program("docker", &DOCKER.replace("@MODERN@", modern));
    world.write("project/compose.yaml", compose);
    for name in ["base", "web"] {
        std::fs::create_dir(world.path(&format!("project/{name}"))).unwrap();
    }
    world
}

fn builds(world: &World) -> Vec<String> {
    world
        .read("docker-calls")
        .lines()
        .filter(|line| line.starts_with("build --iid"))
        .map(str::to_owned)
        .collect()
}

const CHAIN: &str = "\
name: shop
services:
  a-web:
    build:
      context: web
      additional_contexts: [base=service:z-base]
      secrets: [token]
    depends_on: [db]
  db: {image: redis}
  z-base: {build: base}
secrets:
  token: {environment: TOKEN}
";

fn with_token(world: &World, arguments: &[&str]) -> Ran {
    world.write("project/.env", "TOKEN=t0p\n");
    world.uc(arguments)
}

#[test]
fn build_orders_images_by_dependency() {
    let world = world(CHAIN, "--secret string  --build-context");
    let ran = with_token(
        &world,
        &[
            "build",
            "a-web",
            "--build-arg",
            "V=1",
            "--no-cache",
            "--build-pull",
        ],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    let names: Vec<&str> = ran.stdout.lines().collect();
    assert!(
        names[0].starts_with("shop-z-base:") && names[1].starts_with("shop-a-web:"),
        "{names:?}"
    );
    let builds = builds(&world);
    assert!(
        builds[0].ends_with("project/base") && builds[1].ends_with("project/web"),
        "{builds:?}"
    );
    assert!(
        builds[1].contains(&format!("--build-context base=docker-image://{}", names[0])),
        "{builds:?}"
    );
    assert!(
        builds[1].contains("--secret id=token,type=env,env=TOKEN"),
        "{builds:?}"
    );
    assert!(
        builds[1].contains("--build-arg V=1 --pull --no-cache"),
        "{builds:?}"
    );
    assert!(
        world.read("docker-calls").contains("\nTOKEN=t0p\n"),
        "variables of .env count"
    );
    let json = with_token(&world, &["build", "-o", "json"]).json();
    assert_eq!(
        (&json[1]["service"], &json[1]["image"]),
        (&"a-web".into(), &names[1].into())
    );
}

#[test]
fn build_option_that_docker_lacks_fails_before_any_build() {
    let world = world(
        &CHAIN.replace("[base=service:z-base]", "[base=./base]"),
        "--secret",
    );
    let ran = with_token(&world, &["build", "a-web"]);
    insta::assert_snapshot!(ran.text());
    assert!(builds(&world).is_empty());
}

#[test]
fn build_secret_with_unset_variable_fails() {
    let world = world(CHAIN, "--secret string --build-context");
    let ran = world.uc(&["build", "a-web"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("its variable TOKEN is not set"),
        "{}",
        ran.text()
    );
}

#[test]
fn build_context_that_does_not_exist_fails() {
    let world = world("services:\n  web: {build: gone}\n", "--x");
    let ran = world.uc(&["build"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("does not exist: [DIR]/project/gone"),
        "{}",
        ran.text()
    );
    let remote = "services:\n  web: {build: \"https://example.org/x.git#main:sub\"}\n";
    world.write("project/compose.yaml", remote);
    assert_eq!(world.uc(&["build"]).code, Some(0));
    assert!(builds(&world)[0].ends_with("-- https://example.org/x.git#main:sub"));
}

#[test]
fn build_without_build_keys_reports_nothing_to_build() {
    let world = world("services:\n  web: {image: x}\n", "--x");
    let ran = world.uc(&["build"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""));
    assert!(ran.stderr.contains("nothing to build"), "{}", ran.text());
    assert_eq!(
        world.uc(&["build", "-o", "json"]).json(),
        serde_json::json!([])
    );
}

#[test]
fn build_for_several_platforms_needs_the_containerd_store() {
    let compose =
        "services:\n  web: {build: {context: web, platforms: [linux/amd64, linux/arm64]}}\n";
    let world = world(compose, "--load");
    assert_eq!(world.uc(&["build"]).code, Some(0));
    assert!(builds(&world)[0].contains("--load --platform linux/amd64,linux/arm64"));
    world.program(
        "docker",
        &DOCKER
            .replace("@MODERN@", "--load")
            .replace("io.containerd.snapshotter.v1", "overlay2"),
    );
    let ran = world.uc(&["build"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("stores images of one platform only"),
        "{}",
        ran.text()
    );
}

#[test]
fn deploy_without_build_ignores_build_options() {
    let ran = World::new().uc(&["deploy", "--no-build", "--no-cache"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("cannot be used with"), "{}", ran.text());
}
