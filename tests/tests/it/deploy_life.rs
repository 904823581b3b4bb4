//! The life of a project: first deployment, changes, scaling, the end.

use std::collections::BTreeMap;
use std::time::Duration;

use uc_testbed::{http, wait_for};

use crate::cluster::{Cluster, MACHINES, SOON, ids, on, places};

const PORT: u16 = 8090;

/// Three kinds of service: with a published port, with a volume, with neither.
fn guestbook(greeting: &str, level: &str) -> String {
    format!(
        r#"
services:
  web:
    @busybox
    command: ["sh", "-c", "mkdir /w; echo $$GREETING from $$(hostname) > /w/index.html; exec httpd -f -p 80 -h /w"]
    environment: {{GREETING: {greeting}}}
    ports: ["{PORT}:80"]
    depends_on: {{db: {{condition: service_healthy}}}}
    deploy: {{replicas: 3}}
  worker:
    @busybox
    command: ["sleep", "9999"]
    environment: {{LEVEL: "{level}"}}
    deploy: {{replicas: 2}}
  db:
    @busybox
    command: ["sh", "-c", "date >> /data/starts; exec sleep 9999"]
    volumes: ["data:/data"]
    healthcheck: {{test: ["CMD", "test", "-s", "/data/starts"], interval: 1s, timeout: 2s, retries: 5}}
volumes: {{data: }}
"#
    )
}

#[test]
fn project_is_deployed_changed_scaled_and_removed() {
    let Some(cluster) = Cluster::take() else {
        return;
    };

    // First: everything is new, spread over the machines, and serves when the command returns.
    let first = cluster.deploy("book", &guestbook("hello", "1"));
    assert!(first.stderr.contains("+ volume book_data on m"), "{first}");
    assert!(
        first
            .stderr
            .contains("1 volume to create, 6 containers to create"),
        "{first}"
    );
    assert!(
        first.stderr.ends_with("done\n") && first.stdout.is_empty(),
        "{first}"
    );
    let web = cluster.replicas("book/web");
    assert_eq!(places(&web), MACHINES);
    let workers = cluster.replicas("worker");
    let worker_places = places(&workers);
    assert!(
        worker_places.len() == 2 && worker_places[0] != worker_places[1],
        "{worker_places:?}"
    );
    let db = cluster.replicas("db");
    assert_eq!((db.len(), db[0].health.as_str()), (1, "healthy"));
    for machine in cluster.machines() {
        let page = http::get(&machine.address, PORT, "/").expect("each machine answers");
        assert!(page.starts_with("hello from "), "{page}");
    }
    for replica in cluster.replicas("") {
        let found = cluster.containers(&replica.machine.name, "book");
        assert!(
            found.contains(&replica.container_id),
            "{replica:?} is not in Docker's list"
        );
        assert!(replica.current && replica.state == "running", "{replica:?}");
    }

    // Unchanged: nothing to do, and nothing done.
    let all = cluster.replicas("");
    let again = cluster.deploy("book", &guestbook("hello", "1"));
    assert!(again.stderr.contains("services are up to date"), "{again}");
    assert_eq!(ids(&all), ids(&cluster.replicas("")));

    // Dry run: the plan on stdout, nothing done.
    let file = cluster.compose("book", &guestbook("good day", "1"));
    let dry = cluster.ok(&["deploy", "--dry-run", "-f", &file]);
    assert!(
        dry.stdout
            .contains("environment.GREETING: hello → good day"),
        "{dry}"
    );
    assert_eq!(ids(&all), ids(&cluster.replicas("")));

    // Changed: what changed is replaced, the rest stays. A published port has one holder a machine.
    let changed = cluster.deploy("book", &guestbook("good day", "2"));
    assert!(changed.stderr.contains("db unchanged"), "{changed}");
    assert!(
        changed.stderr.contains("environment.LEVEL: 1 → 2"),
        "{changed}"
    );
    assert!(changed.stderr.contains("5 to replace"), "{changed}");
    for machine in cluster.machines() {
        let page = http::get(&machine.address, PORT, "/").expect("each machine answers");
        assert!(page.starts_with("good day from "), "{page}");
    }
    let after = cluster.replicas("");
    let old: Vec<_> = all
        .iter()
        .filter(|one| one.service != "db")
        .map(|one| &one.container_id)
        .collect();
    assert!(
        after
            .iter()
            .all(|one| one.current && !old.contains(&&one.container_id)),
        "{after:?}"
    );
    assert_eq!(
        (places(&cluster.replicas("web")), after.len()),
        (MACHINES.to_vec(), 6)
    );
    assert_eq!(ids(&db), ids(&cluster.replicas("db")));

    // --recreate replaces what has not changed.
    let revisions = |replicas: &[crate::cluster::Replica]| -> BTreeMap<String, String> {
        replicas
            .iter()
            .map(|one| (one.service.clone(), one.revision.clone()))
            .collect()
    };
    let file = cluster.compose("book", &guestbook("good day", "2"));
    cluster.ok(&["deploy", "-y", "--recreate", "-f", &file, "worker"]);
    let recreated = cluster.replicas("");
    let workers = cluster.replicas("worker");
    assert!(
        workers
            .iter()
            .all(|one| !ids(&after).contains(&one.container_id.as_str())),
        "{workers:?}"
    );
    assert_eq!(
        revisions(&after),
        revisions(&recreated),
        "the same revisions in new containers"
    );
    let kept = |replicas: &[crate::cluster::Replica]| -> Vec<String> {
        let kept = replicas.iter().filter(|one| one.service != "worker");
        let mut kept: Vec<_> = kept.map(|one| one.container_id.clone()).collect();
        kept.sort();
        kept
    };
    assert_eq!(
        kept(&after),
        kept(&recreated),
        "a deployment of worker touches worker only"
    );

    // Scaled up, down, to none, and back by the compose file.
    let before = cluster.replicas("worker");
    cluster.ok(&["scale", "-y", "worker", "3"]);
    let three = cluster.replicas("worker");
    assert_eq!(places(&three), MACHINES);
    assert!(
        ids(&before).iter().all(|id| ids(&three).contains(id)),
        "scaling up replaces nothing"
    );
    cluster.ok(&["scale", "-y", "book/worker", "1"]);
    let one = cluster.replicas("worker");
    assert!(
        one.len() == 1 && ids(&three).contains(&ids(&one)[0]),
        "{one:?}"
    );
    cluster.ok(&["scale", "-y", "worker", "0"]);
    assert!(cluster.replicas("worker").is_empty());
    let listed = cluster.ok(&["ls"]).stdout;
    assert!(
        listed
            .lines()
            .any(|line| line.contains("worker") && line.contains("0/0")),
        "{listed}"
    );
    cluster.ok(&["deploy", "-y", "-f", &file]);
    assert_eq!(cluster.replicas("worker").len(), 2);

    // Removed: names and containers go, the volume and what is in it stay.
    let home = cluster.replicas("db")[0].machine.name.clone();
    cluster.ok(&["rm", "-y", "-p", "book"]);
    assert!(cluster.projects(&[]).is_empty());
    for name in MACHINES {
        assert_eq!(cluster.containers(name, "book"), [""; 0], "{name}");
    }
    cluster.deploy("book", &guestbook("hello", "1"));
    let db = cluster.replicas("db");
    assert_eq!(places(&db), [&home], "a volume stays where it is");
    let starts = cluster.inside("db", &db[0], "cat /data/starts | wc -l");
    assert_eq!(starts.stdout.trim(), "2", "{starts}");
}

#[test]
fn update_stops_first_only_for_published_ports() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let services = |value: &str| {
        format!(
            r#"
services:
  open:
    @busybox
    command: ["sleep", "9999"]
    environment: {{VALUE: "{value}"}}
    ports: ["{PORT}:80"]
  closed:
    @busybox
    command: ["sleep", "9999"]
    environment: {{VALUE: "{value}"}}
"#
        )
    };
    cluster.deploy("orders", &services("1"));
    // Docker's own notes of what happened, on the machine where it did.
    let place = |service: &str| cluster.replicas(service)[0].machine.name.clone();
    let (open, closed) = (place("open"), place("closed"));
    let begun: BTreeMap<_, _> = MACHINES
        .map(|name| {
            (
                name,
                cluster
                    .machine(name)
                    .sh("date +%s.%N")
                    .expect("it has a clock"),
            )
        })
        .into();
    let changed = cluster.deploy("orders", &services("2"));
    assert!(changed.stderr.contains("stop-first"), "{changed}");
    for (service, machine, expected) in
        [("open", open, "die start"), ("closed", closed, "start die")]
    {
        let since = begun[machine.as_str()].trim();
        let events = cluster.machine(&machine).sh(&format!(
            "docker events --since {since} --until $(date +%s.%N) --filter label=uc.service={service} \
             --filter event=start --filter event=die --format '{{{{.Action}}}}'"
        ));
        let events = events
            .expect("docker answers")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(events, expected, "{service} on {machine}");
    }
}

#[test]
fn project_can_be_changed_through_any_machine() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let services = |replicas: usize| {
        format!(
            "services:\n  app:\n    @busybox\n    command: [sleep, '9999']\n    deploy: {{replicas: {replicas}}}\n"
        )
    };
    for (replicas, name) in [(1, "m1"), (2, "m2"), (3, "m3")] {
        let file = cluster.compose("anyone", &services(replicas));
        cluster.ok(&[
            "--connect",
            &format!("ssh://root@{name}"),
            "deploy",
            "-y",
            "-f",
            &file,
        ]);
        for asked in MACHINES {
            wait_for("the replicas to be known", Duration::from_secs(5), || {
                let seen = cluster.json(&["--connect", &format!("ssh://root@{asked}"), "ps"]);
                let count = seen.as_array().map_or(0, Vec::len);
                anyhow::ensure!(
                    count == replicas,
                    "{asked} sees {count} of {replicas}: {seen}"
                );
                Ok(())
            })
            .expect("every machine knows");
        }
    }
    // A replica that was removed without uc is replaced, and no other.
    let all = cluster.replicas("app");
    let gone = on(&all, "m2");
    cluster
        .machine("m2")
        .sh(&format!("docker rm -f {}", gone.container_id))
        .expect("removed");
    wait_for("the loss to be seen", SOON, || {
        anyhow::ensure!(cluster.replicas("app").len() == 2);
        Ok(())
    })
    .expect("seen");
    cluster.deploy("anyone", &services(3));
    let healed = cluster.replicas("app");
    assert_eq!(places(&healed), MACHINES);
    let stayed = ids(&healed)
        .into_iter()
        .filter(|id| ids(&all).contains(id))
        .count();
    assert_eq!(stayed, 2, "the others stay");
}
