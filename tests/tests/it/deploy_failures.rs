//! Deployments that cannot work: a clear message, the exit code of the contract, and everything as
//! it was.

use uc_testbed::{http, wait_for};

use crate::cluster::{Cluster, MACHINES, SOON, ids};

const PORT: u16 = 8092;

/// A service that serves a page, with a command that a test spoils.
fn page(command: &str, more: &str) -> String {
    format!(
        "services:\n  page:\n    @busybox\n    command: [\"sh\", \"-c\", {command:?}]\n    \
         ports: [\"{PORT}:80\"]\n    deploy: {{replicas: 3}}\n{more}"
    )
}

const SERVES: &str = "mkdir /w; echo one > /w/index.html; exec httpd -f -p 80 -h /w";
/// Docker restarts it until the deployment gives up: `it exited with code 9 and was restarted 7
/// times`.
const EXITED: &str = "is not ready: it exited with code 9";
const EXITS: &str = "echo opening the vault; echo there is no key >&2; exit 9";

#[track_caller]
fn serves(cluster: &Cluster) {
    for machine in cluster.machines() {
        let page = http::get(&machine.address, PORT, "/").expect("the previous revision serves");
        assert_eq!(page, "one\n", "{}", machine.name);
    }
}

#[track_caller]
fn nothing_left(cluster: &Cluster, project: &str) {
    assert!(
        !cluster.projects(&[]).contains(project),
        "{project} is listed"
    );
    for name in MACHINES {
        assert_eq!(cluster.containers(name, project), [""; 0], "{name}");
    }
}

#[test]
fn failed_deployment_keeps_the_previous_revision_serving() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    // First deployments leave nothing behind.
    let file = cluster.compose("broken", &page(EXITS, ""));
    let first = cluster.ends(3, &["deploy", "-y", "-f", &file]);
    assert!(first.stderr.contains(EXITED), "{first}");
    assert!(
        first.stderr.contains("    | opening the vault")
            && first.stderr.contains("    | there is no key"),
        "{first}"
    );
    nothing_left(&cluster, "broken");
    // But for the logs, although the service does not exist.
    let logs = cluster.ok(&["logs", "broken/page"]);
    assert!(logs.stdout.contains("opening the vault"), "{logs}");
    cluster.ok(&["rm", "-y", "broken/page"]);
    cluster.ends(2, &["logs", "broken/page"]);
    // Nobody listens there: a registry that is not reached.
    let file = cluster.compose(
        "broken",
        "services:\n  page:\n    image: 127.0.0.1:9/no/such:1\n    deploy: {replicas: 3}\n",
    );
    let first = cluster.ends(3, &["deploy", "-y", "-f", &file]);
    assert!(
        first.stderr.contains("error: m")
            && first.stderr.contains("cannot pull `127.0.0.1:9/no/such:1`"),
        "{first}"
    );
    assert!(first.stderr.contains("hint: "), "{first}");
    nothing_left(&cluster, "broken");

    cluster.deploy("pages", &page(SERVES, ""));
    let before = cluster.replicas("page");
    let revision = before[0].revision.clone();
    let check =
        "    healthcheck: {test: [\"CMD\", \"false\"], interval: 500ms, timeout: 1s, retries: 2}\n";
    let other = "services:\n  page:\n    image: 127.0.0.1:9/no/such:2\n    deploy: {replicas: 3}\n";
    for (services, words) in [
        (page(EXITS, ""), &[EXITED, "    | there is no key"][..]),
        (
            page("echo I am ill; exec sleep 9999", check),
            &["its healthcheck failed 2 times in a row", "    | I am ill"],
        ),
        (
            page("exec /no/such/program", ""),
            &[
                "is not ready: it exited with code 127",
                "    | sh: exec: line 0: /no/such/program: not found",
            ],
        ),
        (other.to_owned(), &["cannot pull `127.0.0.1:9/no/such:2`"]),
    ] {
        let file = cluster.compose("pages", &services);
        let failed = cluster.ends(3, &["deploy", "-y", "-f", &file]);
        for word in words {
            assert!(failed.stderr.contains(word), "{word} is not in {failed}");
        }
        serves(&cluster);
        let now = cluster.replicas("page");
        assert!(
            now.len() == 3
                && now
                    .iter()
                    .all(|one| one.current && one.revision == revision),
            "{now:?}"
        );
        for name in MACHINES {
            assert_eq!(cluster.containers(name, "pages").len(), 1, "{name}");
        }
        // All that a replica printed before it failed can still be read.
        if let Some(printed) = words.iter().find_map(|word| word.strip_prefix("    | ")) {
            let kept = cluster.replicas_and_kept("page");
            assert!(
                kept.iter().any(|one| one.kept.as_deref() == Some("failed")),
                "{kept:?}"
            );
            let logs = cluster.ok(&["logs", "page"]);
            let both = format!("{}{}", logs.stdout, logs.stderr);
            assert!(both.contains(printed), "{printed} is not in {logs}");
        }
    }
    // What was deployed last and worked is up to date.
    let again = cluster.deploy("pages", &page(SERVES, ""));
    assert!(again.stderr.contains("services are up to date"), "{again}");
}

#[test]
fn invalid_compose_file_changes_nothing() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    for (services, words) in [
        (
            "services:\n  a:\n    imagee: x\n",
            &["unknown key `imagee`", ":4:5", "did you mean `image`?"][..],
        ),
        (
            "services:\n  a:\n    image: \"b\n  c: d\n",
            &["not valid YAML", ":4:12", "close the quote"],
        ),
        (
            "services:\n  a:\n    image: b\n    depends_on: [nobody]\n",
            &["nobody", ":5:18"],
        ),
        (
            "services:\n  a:\n    image: b\n    ports: [\"99999:80\"]\n",
            &["99999", ":5:13"],
        ),
        (
            "services:\n  a: {image: b, depends_on: [c]}\n  c: {image: b, depends_on: [a]}\n",
            &["a", "c", "hint: "],
        ),
    ] {
        let file = cluster.compose("typo", services);
        let output = cluster.ends(2, &["deploy", "-y", "-f", &file]);
        for word in words {
            assert!(output.stderr.contains(word), "{word} is not in {output}");
        }
        let output = cluster.ends(2, &["config", "-q", "-f", &file]);
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{output}"
        );
    }
    nothing_left(&cluster, "typo");
    let missing = cluster.ends(2, &["deploy", "-y", "-f", "/nonexistent/compose.yaml"]);
    assert!(
        missing.stderr.contains("/nonexistent/compose.yaml"),
        "{missing}"
    );
}

#[test]
fn published_port_in_use_is_refused() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let listener = format!(
        "systemd-run --quiet --unit squatter perl -MIO::Socket::INET -e \
         '$$s = IO::Socket::INET->new(LocalPort => {PORT}, Listen => 1) or die; sleep 300'"
    );
    let machine = cluster.machine("m2");
    machine.sh(&listener).expect("it starts");
    wait_for("the port to be taken", SOON, || {
        machine.sh(&format!("ss -Hltn sport = :{PORT} | grep LISTEN"))
    })
    .expect("taken");
    let file = cluster.compose("taken", &page(SERVES, ""));
    let refused = cluster
        .uc
        .run(&["deploy", "-y", "-f", &file])
        .expect("uc runs");
    machine.sh("systemctl stop squatter").expect("stopped");
    assert_eq!(refused.code, Some(3), "{refused}");
    assert!(
        refused.stderr.contains("error: m2: ") && refused.stderr.contains(&format!("port {PORT}")),
        "{refused}"
    );
    nothing_left(&cluster, "taken");
    cluster.ok(&["deploy", "-y", "-f", &file]);
    serves(&cluster);
    // And by another service: that is known while planning, so nothing is begun.
    let other = cluster.compose("second", &page(SERVES, ""));
    let refused = cluster
        .uc
        .run(&["deploy", "-y", "-f", &other])
        .expect("uc runs");
    assert!(matches!(refused.code, Some(1 | 2)), "{refused}");
    assert!(
        refused.stderr.contains(&format!("port {PORT}")) && refused.stderr.contains("taken/page"),
        "{refused}"
    );
    nothing_left(&cluster, "second");
    serves(&cluster);
}

/// What takes a few seconds to deploy.
const ORPHAN: &str = r#"
services:
  slow:
    @busybox
    command: ["sh", "-c", "sleep 3; touch /tmp/ready; exec sleep 9999"]
    healthcheck: {test: ["CMD", "test", "-e", "/tmp/ready"], interval: 500ms, timeout: 1s, retries: 60}
  after:
    @busybox
    command: ["sleep", "9999"]
    depends_on: {slow: {condition: service_healthy}}
    deploy: {replicas: 3}
"#;

#[test]
fn deployment_continues_after_its_client_is_killed() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let file = cluster.compose("orphan", ORPHAN);
    // Two users deploy one project at the same time, through any machine: the second is refused.
    let connect = ["--connect", "ssh://root@m1", "deploy", "-y", "-f"];
    let mut first = cluster.uc.command(&[&connect[..], &[&file]].concat());
    let mut first = first
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("uc runs");
    wait_for("the first step", SOON, || {
        anyhow::ensure!(!cluster.replicas("").is_empty());
        Ok(())
    })
    .expect("begun");
    let changed = cluster.compose(
        "orphan",
        "services:\n  slow:\n    @busybox\n    command: [\"sleep\", \"1\"]\n",
    );
    for machine in ["m2", "m1"] {
        let through = format!("ssh://root@{machine}");
        let second = cluster
            .uc
            .run(&["--connect", &through, "deploy", "-y", "-f", &changed])
            .expect("uc runs");
        assert_eq!(second.code, Some(1), "{second}");
        assert!(
            second
                .stderr
                .contains("another deployment of project orphan is running"),
            "{second}"
        );
    }
    first.kill().expect("killed");
    first.wait().expect("it ends");
    assert!(
        cluster.replicas("after").is_empty(),
        "it was killed too late to prove anything"
    );
    wait_for("the deployment to end", SOON, || {
        let after = cluster.replicas("after");
        anyhow::ensure!(
            after.len() == 3 && after.iter().all(|one| one.state == "running"),
            "{after:?}"
        );
        Ok(())
    })
    .expect("it continues");
    // Nothing is left to do, and when it has ended the project may be changed.
    let before = cluster.replicas("");
    let same = cluster.compose("orphan", ORPHAN);
    let again = cluster.ok(&[&connect[..], &[&same]].concat());
    assert!(again.stderr.contains("services are up to date"), "{again}");
    assert_eq!(
        (ids(&before), before.len()),
        (ids(&cluster.replicas("")), 4)
    );
    let remove = ["--connect", "ssh://root@m1", "rm", "-y", "-p", "orphan"];
    wait_for("its turn", SOON, || cluster.uc.run(&remove)?.checked())
        .expect("the first deployment ends");
}

#[test]
fn dependent_service_waits_for_its_dependency() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let services = |exit: u8| {
        format!(
            r#"
services:
  migration:
    @busybox
    command: ["sh", "-c", "sleep 2; exit {exit}"]
    restart: "no"
  db:
    @busybox
    command: ["sh", "-c", "sleep 3; touch /tmp/ready; exec sleep 9999"]
    healthcheck: {{test: ["CMD", "test", "-e", "/tmp/ready"], interval: 500ms, timeout: 1s, retries: 60}}
  app:
    @busybox
    command: ["sleep", "9999"]
    depends_on:
      db: {{condition: service_healthy}}
      migration: {{condition: service_completed_successfully}}
    deploy: {{replicas: 2}}
"#
        )
    };
    cluster.deploy("order", &services(0));
    let time = |service: &str, field: &str| {
        let replica = &cluster.replicas(service)[0];
        let show = format!(
            "docker inspect --format '{{{{{field}}}}}' {}",
            replica.container_id
        );
        cluster
            .machine(&replica.machine.name)
            .sh(&show)
            .expect("docker answers")
    };
    // All machines have one clock here.
    let started = time("app", ".State.StartedAt");
    assert!(
        time("migration", ".State.FinishedAt") < started,
        "the migration had not ended"
    );
    let ready = cluster
        .inside("db", &cluster.replicas("db")[0], "stat -c %Y /tmp/ready")
        .stdout;
    let app = cluster
        .inside("app", &cluster.replicas("app")[0], "stat -c %Y /proc/1")
        .stdout;
    assert!(
        ready.trim() <= app.trim(),
        "app began at {app} and db was ready at {ready}"
    );
    // An unchanged file is up to date although the migration has ended.
    let again = cluster.deploy("order", &services(0));
    assert!(again.stderr.contains("services are up to date"), "{again}");
    // One that fails holds the others up, and all goes back.
    let before: Vec<_> = cluster
        .replicas("app")
        .into_iter()
        .map(|one| one.container_id)
        .collect();
    let file = cluster.compose("order", &services(7).replace("\"9999\"", "\"8888\""));
    let failed = cluster.ends(3, &["deploy", "-y", "-f", &file]);
    assert!(
        failed.stderr.contains("migration") && failed.stderr.contains("exit code 7"),
        "{failed}"
    );
    let now: Vec<_> = cluster
        .replicas("app")
        .into_iter()
        .map(|one| one.container_id)
        .collect();
    assert_eq!(before, now, "app was touched");
}

#[test]
fn healthcheck_that_cannot_succeed_holds_up_no_other_service_and_can_be_skipped() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let services = "services:\n  \
         slow:\n    @busybox\n    command: [\"sleep\", \"9999\"]\n    stop_grace_period: 0s\n    \
         healthcheck: {test: [CMD, curl, -f, \"http://localhost\"], interval: 1s, retries: 5, start_period: 10s}\n  \
         quick:\n    @busybox\n    command: [\"sleep\", \"9999\"]\n    stop_grace_period: 0s\n    depends_on: [slow]\n  \
         patient:\n    @busybox\n    command: [\"sleep\", \"9999\"]\n    stop_grace_period: 0s\n    \
         depends_on: {slow: {condition: service_healthy}}\n";
    let file = cluster.compose("wrongcheck", services);
    let failed = cluster.ends(3, &["deploy", "-y", "-f", &file]);
    let quick_is_done = failed.stderr.find("✔ + wrongcheck/quick");
    let slow_failed = failed.stderr.find("its healthcheck failed");
    assert!(
        quick_is_done.is_some() && quick_is_done < slow_failed,
        "{failed}"
    );
    assert!(failed.stderr.contains("--skip-health"), "{failed}");
    nothing_left(&cluster, "wrongcheck");
    cluster.ok(&["deploy", "-y", "--skip-health", "-f", &file]);
    for service in ["slow", "quick", "patient"] {
        let replicas = cluster.replicas(service);
        assert!(replicas.len() == 1 && replicas[0].current, "{replicas:?}");
    }
}
