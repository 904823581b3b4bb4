//! `uc config`: the file resolved, what it lists, where files and variables come from, and what is
//! said of files that cannot be.

use serde_json::json;

use crate::world::{Ran, World};

const SHOP: &str = "\
name: shop
services:
  web:
    image: nginx:${TAG:-1}
    depends_on: [db]
    networks: [front]
  db:
    image: redis:${REDIS:?which redis}
    volumes: [data:/data]
  debug:
    image: shell
    profiles: [tools]
  worker:
    build: .
networks:
  front:
volumes:
  data:
  unused:
";

fn shop() -> World {
    let world = World::new();
    world.write("project/compose.yaml", SHOP);
    world.write("project/.env", "REDIS=7\n");
    world
}

fn with(world: &World, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = world.command(arguments);
    command.envs(variables.iter().copied());
    world.finish(command)
}

fn image(ran: &Ran) -> String {
    ran.json()["services"]["web"]["image"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn names_one_a_line() {
    let world = shop();
    for (list, expected) in [
        ("--services", "db\nweb\nworker\n"),
        ("--images", "redis:7\nnginx:1\nshop-worker\n"),
        ("--volumes", "data\n"),
        ("--networks", "default\nfront\n"),
        ("--profiles", "tools\n"),
    ] {
        let ran = world.uc(&["config", list]);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(0), expected),
            "{list}: {}",
            ran.text()
        );
    }
    assert_eq!(
        world.uc(&["config", "--services", "-o", "json"]).json(),
        json!(["db", "web", "worker"])
    );
    assert_eq!(
        world
            .uc(&["config", "--services", "--profile", "tools"])
            .stdout,
        "db\ndebug\nweb\nworker\n"
    );
    let environment = world.uc(&["config", "--environment"]).stdout;
    assert!(
        environment.contains("\nREDIS=7\n") && environment.contains("COMPOSE_PROJECT_NAME=shop\n")
    );
    // No shell has set it here.
    assert!(
        environment.contains("\nPWD=[DIR]/project\n"),
        "{environment}"
    );
    assert_eq!(
        world.uc(&["config", "--services", "--images"]).code,
        Some(2),
        "one list at a time"
    );
}

#[test]
fn a_hash_changes_with_its_service_only() {
    let world = shop();
    let lines = |ran: Ran| ran.stdout.lines().map(str::to_owned).collect::<Vec<_>>();
    let before = lines(world.uc(&["config", "--hash", "*"]));
    assert_eq!(before.len(), 3);
    assert!(
        before[0].starts_with("db ") && before[0].len() == 67,
        "{before:?}"
    );
    let after = lines(with(&world, &["config", "--hash", "*"], &[("TAG", "2")]));
    assert_eq!((&before[0], &before[2]), (&after[0], &after[2]));
    assert_ne!(before[1], after[1]);
    assert_eq!(lines(world.uc(&["config", "--hash", "db"])), before[..1]);
    let ran = world.uc(&["config", "--hash", "bd"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("service `bd` not found") && ran.stderr.contains("did you mean `db`?")
    );
}

#[test]
fn variables_can_be_told_of_a_file_that_lacks_them() {
    let world = shop();
    std::fs::remove_file(world.path("project/.env")).unwrap();
    insta::assert_snapshot!(world.uc(&["config", "--variables"]).text());
    let json = world
        .uc(&["config", "--variables", "--format", "json"])
        .json();
    let redis = json!({"Name": "REDIS", "DefaultValue": "", "PresenceValue": "", "Required": true});
    assert_eq!(json["REDIS"], redis);
    let yaml = world
        .uc(&["config", "--variables", "--format", "yaml"])
        .stdout;
    assert!(
        yaml.contains("TAG:\n  name: TAG\n  defaultvalue: \"1\"\n"),
        "{yaml}"
    );
}

#[test]
fn services_with_what_they_need() {
    let world = shop();
    let json = world.uc(&["config", "--format", "json", "db"]).json();
    let keys = |name: &str| {
        json[name]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (keys("services"), keys("volumes"), keys("networks")),
        (
            vec!["db".to_owned()],
            vec!["data".to_owned()],
            vec!["default".to_owned()]
        )
    );
    assert_eq!(
        world.uc(&["config", "--services", "web"]).stdout,
        "db\nweb\n"
    );
    assert_eq!(
        world.uc(&["config", "--services", "debug"]).stdout,
        "debug\n",
        "whatever its profile"
    );
    assert_eq!(world.uc(&["config", "nowhere"]).code, Some(2));
}

#[test]
fn variables_may_stay_as_they_are() {
    let world = shop();
    let ran = world.uc(&["config", "--no-interpolate"]);
    assert!(
        ran.stdout.contains("image: nginx:${TAG:-1}")
            && ran.stdout.contains("${REDIS:?which redis}")
    );
}

#[test]
fn what_yaml_prints_reads_back() {
    let world = World::new();
    let text = "services:\n  web:\n    image: x\n    environment: {A: 'yes', B: '1', C: \"a\\nb\\n\", D: $$x, E: '12:30', F: \"\\t# \"}\n";
    world.write("project/compose.yaml", text);
    let yaml = world.uc(&["config"]).stdout;
    world.write("project/again.yaml", &yaml);
    assert_eq!(
        world
            .uc(&["config", "-f", "again.yaml", "--format", "json"])
            .json(),
        world.uc(&["config", "--format", "json"]).json()
    );
}

#[test]
fn env_files_replace_the_default_one() {
    let world = shop();
    world.write("project/.env", "REDIS=7\nTAG=dotenv\n");
    world.write("project/a.env", "REDIS=a\nTAG=a\n");
    world.write("project/b.env", "TAG=${TAG}b\n");
    let json = ["config", "--format", "json"];
    assert_eq!(image(&world.uc(&json)), "nginx:dotenv");
    let files = [
        "config",
        "--format",
        "json",
        "--env-file",
        "a.env",
        "--env-file",
        "b.env",
    ];
    assert_eq!(image(&world.uc(&files)), "nginx:ab");
    assert_eq!(
        image(&with(
            &world,
            &json,
            &[("COMPOSE_ENV_FILES", "a.env,b.env")]
        )),
        "nginx:ab"
    );
    assert_eq!(
        image(&with(&world, &files, &[("TAG", "process")])),
        "nginx:process"
    );
    let off = with(
        &world,
        &json,
        &[("COMPOSE_DISABLE_ENV_FILE", "true"), ("REDIS", "1")],
    );
    assert_eq!(image(&off), "nginx:1");
    insta::assert_snapshot!(
        "missing_env_file",
        world.uc(&["config", "--env-file", "gone.env"]).text()
    );
    let neither = with(&world, &json, &[("COMPOSE_DISABLE_ENV_FILE", "perhaps")]);
    assert_eq!(neither.code, Some(2));
    assert!(
        neither.stderr.contains("it must be `true` or `false`"),
        "{}",
        neither.text()
    );
}

#[test]
fn the_env_file_may_say_which_project_it_is() {
    let world = World::new();
    world.write("project/.env", "COMPOSE_FILE=one.yaml;sub/two.yaml\nCOMPOSE_PATH_SEPARATOR=;\nCOMPOSE_PROFILES=p\nCOMPOSE_PROJECT_NAME=named\nV=first\n");
    world.write(
        "project/one.yaml",
        "services:\n  a: {image: \"a:$V\", profiles: [p]}\n",
    );
    world.write("project/sub/two.yaml", "services:\n  b: {image: b}\n");
    let json = world.uc(&["config", "--format", "json"]).json();
    assert_eq!(json["name"], "named");
    assert_eq!(json["services"]["a"]["image"], "a:first");
    assert_eq!(json["services"]["b"]["image"], "b");
    let listed = with(
        &world,
        &["config", "--services"],
        &[("COMPOSE_FILE", "sub/two.yaml")],
    );
    assert_eq!(listed.stdout, "b\n", "the process beats the file");
}

#[test]
fn the_directory_of_the_files_has_an_env_file_too() {
    let world = World::new();
    world.write("project/.env", "COMPOSE_FILE=sub/compose.yaml\nV=here\n");
    world.write("project/sub/.env", "V=sub\nW=sub\n");
    world.write(
        "project/sub/compose.yaml",
        "services:\n  web: {image: \"x:$V-$W\", build: ctx}\n",
    );
    let json = world.uc(&["config", "--format", "json"]).json();
    assert_eq!(json["services"]["web"]["image"], "x:here-sub");
    assert_eq!(
        json["services"]["web"]["build"]["context"],
        world.path("project/sub/ctx").display().to_string().replace(
            &world
                .path("")
                .display()
                .to_string()
                .trim_end_matches('/')
                .to_owned(),
            "[DIR]"
        )
    );
}

#[test]
fn paths_start_in_the_project_directory() {
    let world = World::new();
    world.write(
        "project/files/compose.yaml",
        "services:\n  web: {build: ctx}\n",
    );
    world.write("project/other/.env", "A=1\n");
    let arguments = ["config", "--format", "json", "-f", "files/compose.yaml"];
    let context = |ran: Ran| ran.json()["services"]["web"]["build"]["context"].clone();
    assert_eq!(context(world.uc(&arguments)), "[DIR]/project/files/ctx");
    let moved = world.uc(&[&arguments[..], &["--project-directory", "other"]].concat());
    assert_eq!(context(moved), "[DIR]/project/other/ctx");
    let gone = world.uc(&[&arguments[..], &["--project-directory", "gone"]].concat());
    assert_eq!(gone.code, Some(2));
    assert!(
        gone.stderr
            .contains("project directory `gone` does not exist"),
        "{}",
        gone.text()
    );
}

#[test]
fn what_is_found_is_data_with_o_json() {
    let world = World::new();
    world.write(
        "project/compose.yaml",
        "services:\n  web:\n    imagee: nginx\n  db:\n    image: x\n    isolation: hyperv\n",
    );
    let ran = world.uc(&["config", "-o", "json"]);
    assert_eq!(ran.code, Some(2), "{}", ran.text());
    let found: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let first = &found["diagnostics"][0];
    assert_eq!(
        (
            &first["severity"],
            &first["rule"],
            &first["line"],
            &first["column"],
            &first["length"]
        ),
        (
            &json!("error"),
            &json!("unknown-key"),
            &json!(3),
            &json!(5),
            &json!(6)
        )
    );
    assert_eq!(
        (&first["file"], &first["path"]),
        (&json!("compose.yaml"), &json!("services.web"))
    );
    assert_eq!(first["hint"], "did you mean `image`?");

    world.write(
        "project/compose.yaml",
        "services:\n  db:\n    image: x\n    isolation: hyperv\n",
    );
    let good = world.uc(&["config", "-o", "json"]).json();
    assert_eq!(good["diagnostics"][0]["severity"], "warning");
    assert_eq!(good["config"]["services"]["db"]["image"], "x");
    assert_eq!(
        world
            .uc(&["config", "-q", "-o", "json"])
            .json()
            .get("config"),
        None
    );
    let missing = world.uc(&["config", "-o", "json", "-f", "gone.yaml"]);
    assert_eq!(missing.code, Some(2));
    let document: serde_json::Value = serde_json::from_str(&missing.stdout).unwrap();
    assert_eq!(
        document["error"]["message"], "`gone.yaml` not found",
        "the error itself, not a count"
    );
}

#[test]
fn a_deployment_of_a_bad_file_says_so_as_data_and_asks_nobody() {
    let world = World::new();
    world.write(
        "project/compose.yaml",
        "services:\n  web:\n    image: ${GONE:?is needed}\n",
    );
    let ran = world.connected(&["deploy", "-y", "-o", "json"]);
    assert_eq!(ran.code, Some(2));
    let found: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found["diagnostics"][0]["rule"], "variable");
    assert!(world.daemon.asked().is_empty());
}

#[test]
fn files_that_cannot_be_read() {
    let world = World::new();
    std::fs::create_dir(world.path("project/folder")).unwrap();
    world.write("project/folder/compose.yml", "services: {}\n");
    world.write("project/web.yaml", "services: {}\n");
    std::fs::write(
        world.path("project/latin.yaml"),
        b"services:\n  web: {image: \"caf\xe9\"}\n",
    )
    .unwrap();
    std::fs::write(world.path("project/wide.yaml"), b"\xff\xfes\0e\0").unwrap();
    std::fs::write(
        world.path("project/program"),
        b"\x7fELF\x02\x01\0\0\xff\xff",
    )
    .unwrap();
    world.write(
        "project/huge.yaml",
        &format!("services: {{}}\n#{}\n", "x".repeat(5 << 20)),
    );
    world.write("project/empty.yaml", "");
    let mut all = Vec::new();
    for file in [
        "folder",
        "wbe.yaml",
        "gone/x.yaml",
        "latin.yaml",
        "wide.yaml",
        "program",
        "huge.yaml",
        "empty.yaml",
    ] {
        let ran = world.uc(&["config", "-f", file]);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(2), ""),
            "{}",
            ran.text()
        );
        all.push(ran.stderr);
    }
    insta::assert_snapshot!(all.join("---\n"));
}

#[test]
fn git_is_asked_only_where_a_name_is_a_template() {
    let world = World::new();
    let git = "echo \"$@\" >> @DIR@/git-calls\ncase \"$*\" in *log*) echo 84d33bbf0dbb37f96e7df6a5010aed7bab00b089 1755349654 ;; esac";
    world.program("git", git);
    world.write(
        "project/compose.yaml",
        "name: shop\nservices:\n  web:\n    image: nginx\n",
    );
    assert_eq!(world.uc(&["config", "-q"]).code, Some(0));
    assert_eq!(world.read("git-calls"), "");
    let text = "name: shop\nservices:\n  web:\n    image: \"{{.Project}}/web:{{.Tag}}\"\n";
    world.write("project/compose.yaml", text);
    assert_eq!(
        image(&world.uc(&["config", "--format", "json"])),
        "shop/web:2025-08-16-130734.84d33bb"
    );
    assert_eq!(
        world.uc(&["config", "--images"]).stdout,
        "shop/web:2025-08-16-130734.84d33bb\n"
    );
    world.program(
        "git",
        &git.replace(" esac", " *status*) echo ' M x' ;; esac"),
    );
    assert_eq!(
        image(&world.uc(&["config", "--format", "json"])),
        "shop/web:2025-08-16-130734.84d33bb.dirty"
    );
    world.program("git", "exit 128");
    world.write("project/compose.yaml", &text.replace(".Tag", "gitsha 7"));
    let ran = world.connected(&["deploy", "-y"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("its tag is empty") && ran.stderr.contains("compose.yaml:4:12"),
        "{}",
        ran.text()
    );
    assert_eq!(
        world.uc(&["config", "-q"]).code,
        Some(0),
        "Docker Compose reads it"
    );
}

#[test]
fn config_of_named_service_activates_its_profiles_only() {
    let world = World::new();
    world.write(
        "project/compose.yaml",
        "services:\n  web: {image: x, isolation: hyperv}\n  debug: {image: x, profiles: [dev], cpu_count: 1}\n  admin: {image: x, profiles: [ops], uts: nonsense}\n",
    );
    let ran = world.uc(&["config", "--services", "debug"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "debug\n"));
    assert!(
        ran.stderr.contains("`cpu_count` is ignored"),
        "{}",
        ran.stderr
    );
    assert!(
        !ran.stderr.contains("isolation") && !ran.stderr.contains("uts"),
        "about services that were not named: {}",
        ran.stderr
    );
}

#[test]
fn config_lists_keys_without_effect() {
    let world = World::new();
    world.write(
        "project/compose.yaml",
        "services:\n  web: {image: x, expose: [80], attach: true}\n",
    );
    let ran = world.uc(&["config", "--strict"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            Some(0),
            "note: keys without effect here: services.web.expose, services.web.attach\n"
        )
    );
    assert_eq!(world.uc(&["config", "-q"]).stderr, "");
    assert_eq!(
        world.uc(&["config", "-q", "-o", "json"]).json(),
        json!({"diagnostics": [], "no_effect": ["services.web.expose", "services.web.attach"]})
    );
}

#[test]
fn deploy_groups_warnings_and_config_shows_each() {
    let world = World::new();
    let services = (0..25)
        .map(|n| format!("  s{n}: {{image: x, isolation: hyperv}}"))
        .collect::<Vec<_>>()
        .join("\n");
    world.write("project/compose.yaml", &format!("services:\n{services}"));
    // There is no cluster: the warnings come before the error.
    let deploy = world.uc(&["deploy", "--yes"]).stderr;
    assert_eq!(
        deploy.matches("`isolation` is ignored").count(),
        1,
        "{deploy}"
    );
    assert!(
        deploy.contains("also in the services `s1`, `s2`, `s3`, `s4` and 20 more"),
        "{deploy}"
    );
    assert!(deploy.lines().count() < 12, "{deploy}");
    let config = world.uc(&["config"]).stderr;
    assert_eq!(config.matches("`isolation` is ignored").count(), 25);
}
