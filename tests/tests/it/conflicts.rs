//! A record that was changed on two sides of a partition: every machine lists both values and uses
//! one of them until a user resolves the conflict. And backups: a copy of a machine's store, made
//! while it runs.

use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use uc_testbed::wait_for;

use crate::cluster::{Cluster, MACHINES, SOON, array};

/// `app` says a colour; `idle` runs nothing and has a label.
fn services(colour: &str, replicas: u8, label: &str) -> String {
    format!(
        "services:\n  app:\n    @busybox\n    command: [sleep, '9999']\n    environment: {{COLOUR: {colour}}}\n    \
         deploy: {{replicas: {replicas}}}\n  idle:\n    @busybox\n    labels: {{made: {label}}}\n    \
         deploy: {{replicas: 0}}\n"
    )
}

fn at(machine: &str) -> [String; 2] {
    ["--connect".to_owned(), format!("ssh://root@{machine}")]
}

impl Cluster {
    fn json_at(&self, machine: &str, words: &[&str]) -> anyhow::Result<Value> {
        let [connect, address] = at(machine);
        self.uc
            .json(&[&[connect.as_str(), address.as_str()], words].concat())
    }

    #[track_caller]
    fn ok_at(&self, machine: &str, words: &[&str]) -> uc_testbed::Output {
        let [connect, address] = at(machine);
        self.ok(&[&[connect.as_str(), address.as_str()], words].concat())
    }

    /// m3 alone, m1 and m2 together, and both halves know it.
    fn split(&self) {
        self.cut("m1", "m3");
        self.cut("m2", "m3");
        for (name, others) in [("m1", &["m3"][..]), ("m2", &["m3"]), ("m3", &["m1", "m2"])] {
            wait_for("the cut to be noticed", SOON, || {
                let seen = self.json_at(name, &["machine", "ls"])?;
                let down: Vec<_> = array(&seen)?
                    .iter()
                    .filter(|machine| machine["state"] == "down")
                    .filter_map(|machine| machine["name"].as_str())
                    .collect();
                ensure!(down == others, "{name} sees {seen}");
                Ok(())
            })
            .expect("it is");
        }
    }

    /// Waits until all machines list the same conflicts, of these records; gives them as m1 lists
    /// them.
    fn conflicts(&self, records: &[&str]) -> Vec<Value> {
        let names = |seen: &Value| -> anyhow::Result<Vec<String>> {
            Ok(array(seen)?
                .iter()
                .map(|one| one["name"].as_str().unwrap_or_default().to_owned())
                .collect())
        };
        wait_for("all machines to list the same conflicts", SOON, || {
            let first = self.json_at("m1", &["conflicts", "ls"])?;
            ensure!(names(&first)? == records, "m1 lists {first:#}");
            for name in &MACHINES[1..] {
                let seen = self.json_at(name, &["conflicts", "ls"])?;
                ensure!(seen == first, "{name} lists {seen:#}, m1 {first:#}");
            }
            Ok(array(&first)?.clone())
        })
        .expect("they do")
    }

    /// The colour of `app` on every machine.
    fn colour(&self) -> String {
        let colours: Vec<_> = MACHINES
            .iter()
            .map(|name| {
                self.json_at(name, &["inspect", "split/app"])
                    .expect("inspected")
            })
            .map(|seen| {
                seen["spec"]["environment"]["COLOUR"]
                    .as_str()
                    .expect("a colour")
                    .to_owned()
            })
            .collect();
        assert!(
            colours.iter().all(|colour| *colour == colours[0]),
            "{colours:?}"
        );
        colours[0].clone()
    }
}

#[test]
fn conflict_is_listed_and_resolved_on_every_machine() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    cluster.deploy("split", &services("grey", 1, "before"));
    assert_eq!(cluster.conflicts(&[]), [] as [Value; 0]);
    assert_eq!(cluster.ok(&["machine", "ls"]).stderr, "");

    cluster.split();
    let file = cluster.compose("split", &services("red", 2, "m1"));
    cluster.ok_at("m1", &["deploy", "-y", "-f", &file, "app"]);
    cluster.ok_at("m1", &["rm", "-y", "split/idle"]);
    // The later of two changes is the active one; the machines of the testbed share one clock.
    let file = cluster.compose("split", &services("blue", 1, "m3"));
    cluster.ok_at("m3", &["deploy", "-y", "-f", &file]);
    cluster.heal();
    cluster.whole(SOON).expect("they meet again");

    let listed = cluster.conflicts(&["service/split/app", "service/split/idle"]);
    let [app, idle] = listed.as_slice() else {
        panic!("{listed:#?}")
    };
    let written =
        |conflict: &Value, side: usize| conflict["sides"][side]["machine"]["name"].clone();
    assert_eq!(
        (written(app, 0), written(app, 1)),
        ("m3".into(), "m1".into()),
        "{app:#}"
    );
    assert_eq!(
        app["sides"][1]["differs"],
        serde_json::json!(["environment.COLOUR", "deploy.replicas"])
    );
    assert_eq!(
        app["sides"][1]["value"]["spec"]["environment"]["COLOUR"],
        "red"
    );
    assert_eq!(
        cluster.colour(),
        "blue",
        "the active value counts everywhere"
    );
    assert_eq!(
        written(idle, 0),
        "m3",
        "a change is active before a removal"
    );
    assert_eq!(
        (&idle["sides"][1]["deleted"], &idle["sides"][1]["value"]),
        (&true.into(), &Value::Null)
    );
    let note = cluster.ok_at("m2", &["machine", "ls"]).stderr;
    assert_eq!(
        note,
        "2 records were changed on both sides of a network split: see `uc conflicts ls`\n"
    );
    let shown = cluster
        .ok_at("m2", &["conflicts", "show", "split/app"])
        .stdout;
    assert!(
        shown.contains("- environment.COLOUR: blue\n  + environment.COLOUR: red\n"),
        "{shown}"
    );

    // On a machine that wrote none of them.
    let id = app["id"].as_str().expect("an id");
    cluster.ok_at("m2", &["conflicts", "settle", id, "--keep", "2", "-y"]);
    cluster.conflicts(&["service/split/idle"]);
    assert_eq!(cluster.colour(), "red");
    // What it stood for is no more.
    let again = cluster.ends(2, &["conflicts", "settle", id, "--keep", "1", "-y"]);
    assert!(
        again.stderr.contains(&format!("conflict `{id}` not found")),
        "{again}"
    );

    // A removal can be chosen, and any later change settles as well.
    cluster.ok_at(
        "m3",
        &[
            "conflicts",
            "settle",
            "service/split/idle",
            "--keep",
            "2",
            "-y",
        ],
    );
    cluster.conflicts(&[]);
    for name in MACHINES {
        wait_for("the service to be gone", Duration::from_secs(20), || {
            let seen = cluster.json_at(name, &["ls", "-p", "split"])?;
            let names: Vec<_> = array(&seen)?
                .iter()
                .map(|service| service["name"].clone())
                .collect();
            ensure!(names == ["app"], "{name} lists {seen:#}");
            Ok(())
        })
        .expect("it is");
        assert_eq!(cluster.ok_at(name, &["machine", "ls"]).stderr, "");
    }

    // The containers follow with the next deployment.
    let file = cluster.compose("split", &services("red", 2, "m1"));
    cluster.ok(&["deploy", "-y", "-f", &file, "app"]);
    let replicas = cluster.replicas("app");
    assert_eq!(replicas.len(), 2, "{replicas:?}");
    assert!(
        replicas.iter().all(|replica| replica.current),
        "{replicas:?}"
    );
}

#[test]
fn backup_of_running_machine_can_be_restored() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let idle = "services:\n  idle:\n    @busybox\n    deploy: {replicas: 0}\n";
    cluster.deploy("before", idle);
    let m2 = cluster.machine("m2");
    m2.sh("rm -rf /var/lib/uc/backups")
        .expect("nothing from before");
    let to = ["--to", "uc.db"];
    // Through another machine.
    let words = [&["machine", "backup", "m2"], &to[..]].concat();
    let done = cluster.json_at("m1", &words).expect("a backup");
    assert_eq!(done["machine"]["name"], "m2");
    let file = m2
        .sh("cd /var/lib/uc/backups && ls -A && stat -c '%s %a' uc.db")
        .expect("a file");
    assert_eq!(file.trim(), format!("uc.db\n{} 600", done["bytes"]));
    let [connect, address] = at("m1");
    let again = cluster.ends(
        1,
        &[&[connect.as_str(), address.as_str()], &words[..]].concat(),
    );
    assert!(
        again
            .stderr
            .contains("m2: /var/lib/uc/backups/uc.db already exists; nothing was written"),
        "{again}"
    );
    // Places where the service must not write, or where no user finds the file.
    for (to, said) in [
        (
            "/root/uc.db",
            "cannot write to /root: Read-only file system",
        ),
        ("/etc/uc.db", "cannot write to /etc: Read-only file system"),
        ("/tmp/uc.db", "/tmp is private to ucd"),
    ] {
        let refused = cluster.ends(1, &["machine", "backup", "--to", to]);
        assert!(refused.stderr.contains(said), "{refused}");
        assert!(
            refused
                .stderr
                .contains("hint: ucd can write only to a few directories"),
            "{refused}"
        );
    }

    // Written by m2 itself after the copy: the others have it, and m2 gets it back from them.
    let file = cluster.compose("after", idle);
    cluster.ok_at("m2", &["deploy", "-y", "-f", &file]);
    let known = |name: &str| {
        wait_for("both projects to be known", SOON, || {
            let seen = cluster.json_at(name, &["ls"])?;
            let projects: Vec<_> = array(&seen)?
                .iter()
                .map(|service| service["project"].clone())
                .collect();
            ensure!(projects == ["after", "before"], "{name} lists {seen:#}");
            Ok(())
        })
        .expect("they are");
    };
    known("m1");
    known("m3");
    m2.sh(
        "systemctl stop ucd && cp /var/lib/uc/backups/uc.db /var/lib/uc/state.db \
         && rm -f /var/lib/uc/state.db-wal /var/lib/uc/state.db-shm && systemctl start ucd",
    )
    .expect("the copy is put back");
    cluster.whole(SOON).expect("m2 is a member as before");
    known("m2");
    assert_eq!(cluster.conflicts(&[]), [] as [Value; 0]);
    // It continues to write, with versions that no peer has seen.
    cluster.ok_at("m2", &["rm", "-y", "-p", "after"]);
    for name in MACHINES {
        wait_for("what m2 wrote to be known", SOON, || {
            let seen = cluster.json_at(name, &["ls", "-p", "after"])?;
            ensure!(array(&seen)?.is_empty(), "{name} lists {seen:#}");
            Ok(())
        })
        .expect("it is");
    }
}
