//! Files, folders and secrets of this computer on their way to the cluster.

use std::collections::VecDeque;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use uc_api::v1::deploy_event::Event;
use uc_api::v1::plan_request::Change;
use uc_api::v1::{self};
use uc_api::{Code, Failure};

use crate::daemon::{Content, Daemon};
use crate::world::World;

const COMPOSE: &str = "name: shop
services:
  web:
    image: nginx
    environment: {TOKEN: 'secret://token'}
    volumes: ['./nginx.conf:/etc/nginx/nginx.conf:ro', './data:/data']
    configs: [motd]
    secrets: [password]
  worker:
    image: busybox
    configs: [motd]
configs:
  motd: {content: 'hello there'}
secrets:
  password: {environment: PASSWORD}
  token: {x-command: [sh, -c, 'echo ran >> ran; echo t0ken']}
";

fn daemon() -> Daemon {
    let step = v1::ReplicaStep {
        id: "s1".into(),
        action: v1::ReplicaAction::Create.into(),
        machine_id: "id-m1".into(),
        machine_name: "m1".into(),
        reason: "new replica".into(),
        ..Default::default()
    };
    let service = v1::ServicePlan {
        project: "shop".into(),
        service: "web".into(),
        change: v1::ServiceChange::Create.into(),
        steps: vec![step],
        desired: 1,
        ..Default::default()
    };
    let plan = v1::Plan {
        digest: "d1".into(),
        services: vec![service],
        ..Default::default()
    };
    let finished = v1::DeployFinished {
        outcome: v1::DeployOutcome::Done.into(),
        ..Default::default()
    };
    let good = vec![v1::DeployEvent {
        event: Some(Event::Finished(finished)),
    }];
    Daemon {
        plans: VecDeque::from([plan]).into(),
        executions: VecDeque::from([(good.clone(), None), (good, None)]).into(),
        ..Daemon::default()
    }
}

fn world(compose: &str, daemon: Daemon) -> World {
    let world = World::with(daemon);
    world.write("project/compose.yaml", compose);
    world
}

fn deploy(world: &World, arguments: &[&str]) -> crate::world::Ran {
    let mut command = world.command(&[&["deploy"], arguments].concat());
    command
        .env(
            "UC_CONNECT",
            format!("unix://{}", world.path("uc.sock").display()),
        )
        .env("PASSWORD", "s3cret");
    world.finish(command)
}

fn wish(world: &World) -> v1::DesiredServices {
    match world
        .daemon
        .wishes
        .lock()
        .unwrap()
        .last()
        .unwrap()
        .change
        .clone()
        .unwrap()
    {
        Change::Deploy(desired) => desired,
        other => panic!("{other:?}"),
    }
}

/// Text and mode of the only file of a pushed content.
fn text(world: &World, hash: &str) -> (String, u32, bool) {
    let Content { secret, archive } = world.daemon.contents.lock().unwrap()[hash].clone();
    let mut archive = tar::Archive::new(archive.as_slice());
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    let mut text = String::new();
    entry.read_to_string(&mut text).unwrap();
    (text, entry.header().mode().unwrap(), secret)
}

#[test]
fn what_services_need_is_sent_before_execution_and_only_once() {
    let world = world(COMPOSE, daemon());
    let conf = world.write("project/nginx.conf", "events {}\n");
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o640)).unwrap();
    let ran = deploy(&world, &["-y"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    let asked = world.daemon.asked();
    let pushes = asked.iter().filter(|call| *call == "PushContent").count();
    assert_eq!(pushes, 4, "{asked:?}");
    let position = |wanted: &str| {
        asked
            .iter()
            .position(|call| call.starts_with(wanted))
            .unwrap()
    };
    assert!(
        position("Plan") < position("MissingContents 4")
            && position("PushContent") < position("Execute")
    );

    let desired = wish(&world);
    let web = &desired.services[0];
    let files: Vec<_> = web
        .files
        .iter()
        .map(|file| (file.name.as_str(), file.target.as_str()))
        .collect();
    assert_eq!(
        files,
        [
            ("./nginx.conf", "/etc/nginx/nginx.conf"),
            ("config motd", "/motd"),
            ("secret password", "/run/secrets/password")
        ]
    );
    assert_eq!(
        text(&world, &web.files[0].hash),
        ("events {}\n".into(), 0o640, false)
    );
    assert_eq!(
        text(&world, &web.files[1].hash),
        ("hello there".into(), 0o444, false)
    );
    assert_eq!(
        text(&world, &web.files[2].hash),
        ("s3cret".into(), 0o444, true)
    );
    assert_eq!(
        text(&world, &web.secret_environment["TOKEN"]),
        ("t0ken".into(), 0o444, true)
    );
    assert!(web.environment.is_empty());
    assert_eq!(desired.services[1].files[0].hash, web.files[1].hash);

    // The missing folder is a volume, declared like any other.
    assert_eq!(
        (web.mounts[0].source.as_str(), web.mounts[0].nocopy),
        ("shop_data", true)
    );
    assert_eq!(
        desired
            .volumes
            .iter()
            .map(|volume| volume.name.as_str())
            .collect::<Vec<_>>(),
        ["shop_data"]
    );
    assert_eq!(
        ran.stderr.matches("it becomes volume shop_data").count(),
        1,
        "{}",
        ran.text()
    );
    assert_eq!(world.read("project/ran"), "ran\n", "a command runs once");

    // Secrets are nowhere to be seen.
    let wishes = format!("{:?}", world.daemon.wishes.lock().unwrap());
    for seen in [&ran.stdout, &ran.stderr, &wishes] {
        assert!(
            !seen.contains("s3cret") && !seen.contains("t0ken"),
            "{seen}"
        );
    }

    let again = deploy(&world, &["-y"]);
    assert_eq!(again.code, Some(0), "{}", again.text());
    assert_eq!(wish(&world), desired, "the same files are the same wish");
    assert_eq!(
        world
            .daemon
            .asked()
            .iter()
            .filter(|call| *call == "PushContent")
            .count(),
        4
    );
}

#[test]
fn nothing_is_sent_without_a_yes() {
    let world = world(COMPOSE, daemon());
    world.write("project/nginx.conf", "events {}\n");
    assert_eq!(deploy(&world, &["--dry-run"]).code, Some(0));
    assert_eq!(
        deploy(&world, &[]).code,
        Some(2),
        "there is no terminal to ask at"
    );
    assert!(world.daemon.contents.lock().unwrap().is_empty());
    assert!(
        !world
            .daemon
            .asked()
            .iter()
            .any(|call| call.starts_with("MissingContents"))
    );
}

#[test]
fn what_cannot_be_read_is_shown_with_its_place_and_nothing_is_planned() {
    let compose = "name: shop
services:
  web:
    image: nginx
    volumes: ['./conf:/conf:ro']
    configs: [site]
    secrets: [token]
configs: {site: {file: ./none.conf}}
secrets: {token: {environment: TOKEN}}
";
    let world = world(compose, daemon());
    world.write("project/conf/a", "1");
    std::os::unix::fs::symlink("../../x", world.path("project/conf/out")).unwrap();
    let ran = deploy(&world, &["-y"]);
    insta::assert_snapshot!(ran.text());
    assert!(!world.daemon.asked().iter().any(|call| call == "Plan"));
}

#[test]
fn folders_that_would_behave_otherwise_are_said_and_refused_if_asked() {
    let compose = "name: shop
services:
  web:
    image: nginx
    volumes: ['./conf:/conf', './data:/data']
";
    let world = world(compose, daemon());
    world.write("project/conf/a", "1");
    let ran = deploy(&world, &["-y"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(
        ran.stderr
            .contains("warning: `./conf` is mounted read-only on the machines"),
        "{}",
        ran.text()
    );
    assert!(ran.stderr.contains("compose.yaml:5:"), "{}", ran.text());
    let ran = deploy(&world, &["-y", "--strict"]);
    assert_eq!(ran.code, Some(2));
    assert_eq!(ran.stderr.matches("error: ").count(), 3, "{}", ran.text());
    assert!(
        ran.stderr
            .contains("2 errors in local files that the compose file uses; nothing was changed"),
        "{}",
        ran.text()
    );
}

#[test]
fn what_is_too_large_names_the_largest_file() {
    let compose = "name: shop
services:
  web:
    image: nginx
    volumes: ['.:/app:ro']
";
    let world = world(compose, daemon());
    let large = world.write("project/node_modules/blob", "");
    fs::OpenOptions::new()
        .write(true)
        .open(large)
        .unwrap()
        .set_len(20 << 20)
        .unwrap();
    let ran = deploy(&world, &["-y"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("node_modules/blob with 20.0 MiB"),
        "{}",
        ran.text()
    );
    assert!(
        ran.stderr.contains("named volume") && ran.stderr.contains("image"),
        "{}",
        ran.text()
    );
}

#[test]
fn a_machine_that_refuses_a_content_ends_it() {
    let failure = Failure::new(Code::Exhausted, "the disk is full").hint("free some space");
    let world = world(
        COMPOSE,
        Daemon {
            refuse_call: Some(("PushContent", failure)),
            ..daemon()
        },
    );
    world.write("project/nginx.conf", "events {}\n");
    let ran = deploy(&world, &["-y"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("the disk is full") && ran.stderr.contains("free some space"),
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
fn a_data_folder_of_the_cluster_stays_one() {
    let compose = "name: shop
services:
  web:
    image: nginx
    volumes: ['./data:/data']
";
    let mount = v1::MountSpec {
        kind: v1::MountKind::Volume.into(),
        source: "shop_data".into(),
        target: "/data".into(),
        ..Default::default()
    };
    let spec = v1::ServiceSpec {
        project: "shop".into(),
        name: "web".into(),
        mounts: vec![mount],
        ..Default::default()
    };
    let services = vec![v1::ServiceStatus {
        spec: Some(spec),
        ..Default::default()
    }];
    let world = world(
        compose,
        Daemon {
            services,
            ..daemon()
        },
    );
    world.write("project/data/db", "of a try on this computer");
    let ran = deploy(&world, &["-y"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(
        ran.stderr.contains("`./data` is not uploaded"),
        "{}",
        ran.text()
    );
    let desired = wish(&world);
    assert_eq!(desired.services[0].mounts[0].source, "shop_data");
    assert!(
        desired.services[0].files.is_empty() && world.daemon.contents.lock().unwrap().is_empty()
    );
}
