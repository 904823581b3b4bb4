//! Files, folders, configs and secrets of the computer that deploys, in containers on any machine.

use std::fs;

use crate::cluster::{Cluster, MACHINES, ids, on, places};

/// A file that names a file, a folder, a folder for data, a config and a secret as file and as
/// variable.
const SERVICES: &str = r#"
services:
  app:
    @busybox
    command: [sleep, '9999']
    environment: {TOKEN: "secret://token"}
    volumes:
      - ./motd:/etc/motd:ro
      - ./site:/site:ro
    configs:
      - {source: settings, target: /etc/settings, uid: "1000", gid: "1001", mode: 0440}
    secrets: [password]
    deploy: {replicas: 2}
configs:
  settings: {content: "level=5"}
secrets:
  password: {file: ./password}
  token: {x-command: [sh, -c, "echo from $$(pwd) | sed 's,/.*/,,'"]}
"#;

#[test]
fn contents_are_copied_to_machines_that_need_them_later() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let file = cluster.compose("travel", SERVICES);
    cluster.write("travel", "motd", "hello\n");
    cluster.write("travel/site/css", "a.css", "body{}");
    cluster.write("travel/site", "index.html", "<p>one</p>");
    cluster.write("travel", "password", "hunter2\n");
    let first = cluster.ok(&["deploy", "-y", "-f", &file]);
    assert!(
        !first.stderr.contains("hunter2") && !first.stdout.contains("hunter2"),
        "{first}"
    );
    let script = "cat /etc/motd /site/index.html /site/css/a.css /run/secrets/password; echo $TOKEN; \
                  cat /etc/settings; echo; stat -c '%u %g %a' /etc/settings; stat -c '%a' /run/secrets/password";
    let expected = "hello\n<p>one</p>body{}hunter2\nfrom travel\nlevel=5\n1000 1001 440\n444";
    let replicas = cluster.replicas("app");
    for replica in &replicas {
        let said = cluster.inside("app", replica, script);
        assert_eq!(said.stdout.trim(), expected, "{said}");
    }
    // Nobody writes into what others have as well.
    let written = cluster.inside("app", &replicas[0], "echo x >> /etc/motd");
    assert_ne!(written.code, Some(0), "{written}");
    // On the machines, only root and the service itself can read a secret.
    let place = cluster.machine(&replicas[0].machine.name);
    let readable = place.sh("find /var/lib/uc -type f -exec grep -l hunter2 {} + | xargs -r -n1 dirname | xargs -r -n1 namei -m | grep -c 'drwx------'");
    assert_ne!(readable.expect("found").trim(), "0");
    for words in [
        &["inspect", "app", "-o", "json"][..],
        &["inspect", "app"],
        &["ps", "-o", "json"],
    ] {
        let shown = cluster.ok(words);
        assert!(
            !shown.stdout.contains("hunter2") && !shown.stdout.contains("from travel"),
            "{shown}"
        );
    }

    // The same files: nothing to do. A third machine gets them without the computer that has them.
    let again = cluster.ok(&["deploy", "-y", "-f", &file]);
    assert!(again.stderr.contains("services are up to date"), "{again}");
    fs::remove_dir_all(cluster.uc.home().join("travel/site")).expect("removed");
    cluster.ok(&["scale", "-y", "app", "3"]);
    let three = cluster.replicas("app");
    assert_eq!(places(&three), MACHINES);
    for machine in MACHINES {
        assert_eq!(
            cluster
                .inside("app", on(&three, machine), script)
                .stdout
                .trim(),
            expected,
            "{machine}"
        );
    }

    // A changed file is a change of the service that has it, shown without its content.
    cluster.write("travel/site", "index.html", "<p>two</p>");
    cluster.write("travel", "password", "hunter3\n");
    let changed = cluster.ok(&["deploy", "-y", "-f", &file]);
    assert!(
        changed.stderr.contains("./site") && !changed.stderr.contains("hunter3"),
        "{changed}"
    );
    let replica = &cluster.replicas("app")[0];
    let said = cluster.inside("app", replica, "cat /site/index.html /run/secrets/password");
    assert_eq!(said.stdout, "<p>two</p>hunter3\n", "{said}");
}

#[test]
fn data_folder_becomes_a_volume_that_is_kept() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let services = |time: u32| {
        format!(
            "services:\n  db:\n    @busybox\n    command: [sleep, '{time}']\n    volumes: [\"./data/db:/var/lib/db\"]\n"
        )
    };
    let first = cluster.deploy("keeper", &services(9999));
    assert!(first.stderr.contains("keeper_data"), "{first}");
    let db = cluster.replicas("db").remove(0);
    let written = cluster.inside("db", &db, "echo precious > /var/lib/db/row");
    assert_eq!(written.code, Some(0), "{written}");
    cluster.deploy("keeper", &services(9998));
    let now = cluster.replicas("db").remove(0);
    assert_ne!(now.container_id, db.container_id);
    assert_eq!(now.machine.name, db.machine.name);
    assert_eq!(
        cluster.inside("db", &now, "cat /var/lib/db/row").stdout,
        "precious\n"
    );
}

#[test]
fn invalid_contents_stop_the_deployment_before_it_begins() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    cluster.deploy(
        "stays",
        "services:\n  app:\n    @busybox\n    command: [sleep, '9999']\n",
    );
    let before = cluster.replicas("app");
    let directory = cluster.uc.home().join("stays");
    fs::create_dir_all(directory.join("big")).expect("made");
    fs::write(directory.join("big/large"), vec![7_u8; 20 << 20]).expect("written");
    std::os::unix::fs::symlink("/etc/passwd", directory.join("big/link")).expect("linked");
    for (keys, said) in [
        ("    volumes: [\"./big:/big:ro\"]\n", "large"),
        (
            "    secrets: [s]\nsecrets: {s: {file: ./missing}}\n",
            "missing",
        ),
        (
            "    secrets: [s]\nsecrets: {s: {environment: NOBODY_SETS_THIS}}\n",
            "NOBODY_SETS_THIS",
        ),
        (
            "    secrets: [s]\nsecrets: {s: {x-command: [sh, -c, 'exit 3']}}\n",
            "3",
        ),
        (
            "    secrets: [s]\nsecrets: {s: {external: true}}\n",
            "external",
        ),
    ] {
        let file = cluster.compose(
            "stays",
            &format!("services:\n  app:\n    @busybox\n    command: [sleep, '1']\n{keys}"),
        );
        let refused = cluster
            .uc
            .run(&["deploy", "-y", "-f", &file])
            .expect("uc runs");
        assert_eq!(refused.code, Some(2), "{keys}: {refused}");
        assert!(
            refused.stderr.contains(said) && refused.stderr.contains("compose.yaml"),
            "{keys}: {refused}"
        );
    }
    assert_eq!(ids(&cluster.replicas("app")), ids(&before));
}
