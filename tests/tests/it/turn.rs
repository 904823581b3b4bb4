//! Who may deploy now, and which machines take replicas.

use std::thread;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use uc_testbed::wait_for;

use crate::cluster::{Cluster, MACHINES, SOON, array, places};

/// A service whose replicas take a while to count, so that a deployment of it can be observed.
fn slow(text: &str) -> String {
    format!(
        "services:\n  web:\n    @busybox\n    command: [\"sh\", \"-c\", \"echo {text}; exec sleep 9999\"]\n    \
         deploy: {{replicas: 2, update_config: {{monitor: 6s}}}}\n"
    )
}

fn locks(cluster: &Cluster) -> Vec<Value> {
    array(&cluster.json(&["lock", "show"]))
        .expect("an array")
        .clone()
}

#[test]
fn of_two_deployments_that_begin_together_one_continues() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    cluster.deploy("race", &slow("first"));
    for round in 0..3 {
        let file = cluster.compose("race", &slow(&format!("round {round}")));
        let deploy = |through: &'static str| {
            let (uc, file) = (&cluster.uc, &file);
            let connect = format!("ssh://root@{through}");
            move || {
                uc.run(&["--connect", &connect, "deploy", "-y", "-f", file])
                    .expect("uc runs")
            }
        };
        let outputs = thread::scope(|scope| {
            let both = ["m1", "m2"].map(|through| scope.spawn(deploy(through)));
            both.map(|one| one.join().expect("no panic"))
        });
        let (done, refused): (Vec<_>, Vec<_>) =
            outputs.iter().partition(|output| output.code == Some(0));
        assert_eq!((done.len(), refused.len()), (1, 1), "{outputs:?}");
        let refused = refused[0];
        assert_eq!(refused.code, Some(1), "{refused}");
        assert!(
            refused
                .stderr
                .contains("another deployment of project race is running on m")
                && refused.stderr.contains("uc lock show"),
            "{refused}"
        );
        assert!(locks(&cluster).is_empty());
    }
}

#[test]
fn lock_is_shown_released_and_free_after_every_end() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    assert!(locks(&cluster).is_empty());
    let file = cluster.compose("locked", &slow("first"));
    let mut running = cluster.watch(&["--connect", "ssh://root@m1", "deploy", "-y", "-f", &file]);
    let held = wait_for("the lock", SOON, || {
        let held = locks(&cluster);
        ensure!(held.len() == 1 && held[0]["confirmed"] == true, "{held:?}");
        Ok(held[0].clone())
    })
    .expect("a deployment has a lock");
    assert_eq!(held["project"], "locked");
    assert_eq!(held["machine"]["name"], "m1");
    assert_eq!(held["holders"].as_array().map(Vec::len), Some(3), "{held}");

    // Another one can begin once a user has released the project.
    let released = cluster.ok(&["lock", "release", "locked", "-y"]);
    assert!(
        released.stderr.contains("released locked on 3 machines"),
        "{released}"
    );
    assert_eq!(running.end().expect("it ends"), Some(0));
    assert!(locks(&cluster).is_empty());
    cluster.ends(2, &["lock", "release", "locked", "-y"]);

    // The executor's daemon dies during a deployment: its successor releases the project.
    let file = cluster.compose("locked", &slow("second"));
    let mut running = cluster.watch(&["--connect", "ssh://root@m1", "deploy", "-y", "-f", &file]);
    wait_for("the lock", SOON, || {
        ensure!(!locks(&cluster).is_empty(), "no lock");
        Ok(())
    })
    .expect("a deployment has a lock");
    let machine = cluster.machine("m1");
    machine.sh("systemctl kill -s KILL ucd").expect("killed");
    let _lost = running.end();
    wait_for("the release", Duration::from_secs(45), || {
        let held = locks(&cluster);
        ensure!(held.is_empty(), "{held:?}");
        Ok(())
    })
    .expect("the restarted daemon releases or ends its deployment");
    cluster.deploy("locked", &slow("third"));
}

#[test]
fn plan_tells_by_its_exit_code_whether_there_are_changes() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let file = cluster.compose("planned", &slow("first"));
    let plan = cluster.ends(10, &["plan", "-f", &file]);
    assert!(plan.stdout.contains("2 containers to create"), "{plan}");
    assert!(cluster.replicas("").is_empty());
    cluster.ok(&["deploy", "-y", "-f", &file]);
    cluster.ends(0, &["plan", "-f", &file]);
}

#[test]
fn drained_machine_runs_nothing_but_what_has_its_volume_there() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let services = "services:\n  web:\n    @busybox\n    command: [\"sleep\", \"9999\"]\n    deploy: {replicas: 3}\n  \
                    agent:\n    @busybox\n    command: [\"sleep\", \"9999\"]\n    deploy: {mode: global}\n  \
                    db:\n    @busybox\n    command: [\"sleep\", \"9999\"]\n    volumes: [\"data:/data\"]\n\
                    volumes: {data: }\n";
    cluster.deploy("moving", services);
    let home = cluster.replicas("moving/db")[0].machine.name.clone();
    let other = MACHINES
        .into_iter()
        .find(|name| *name != home)
        .expect("three machines");

    // Nothing new on a cordoned machine; what runs there stays.
    cluster.ok(&["machine", "cordon", other]);
    let before = cluster.replicas("moving/web");
    cluster.ok(&["scale", "-y", "moving/web", "5"]);
    let count = |replicas: &[crate::cluster::Replica], machine: &str| {
        let there = replicas.iter().filter(|one| one.machine.name == machine);
        there.count()
    };
    assert_eq!(
        count(&cluster.replicas("moving/web"), other),
        count(&before, other)
    );
    let doctor = cluster.uc.run(&["doctor"]).expect("uc runs");
    assert!(doctor.stdout.contains("is cordoned"), "{doctor}");

    // Shown, then done.
    let dry = cluster.ok(&["machine", "drain", other, "--dry-run"]);
    assert!(dry.stdout.contains("moved to another machine"), "{dry}");
    assert_eq!(
        count(&cluster.replicas("moving/web"), other),
        count(&before, other)
    );
    cluster.ok(&["machine", "drain", other, "-y"]);
    let after = cluster.replicas("");
    assert_eq!(count(&after, other), 0, "{after:?}");
    assert_eq!(cluster.replicas("moving/web").len(), 5);
    assert!(cluster.containers(other, "moving").is_empty());

    // A deployment brings nothing back before the machine is uncordoned.
    let file = cluster.compose("moving", services);
    cluster.ok(&["deploy", "-y", "-f", &file]);
    assert_eq!(count(&cluster.replicas(""), other), 0);

    // What has its volume on a machine stays there.
    let stays = cluster.ends(4, &["machine", "drain", &home, "-y"]);
    assert!(stays.stderr.contains("moving/db"), "{stays}");
    let after = cluster.replicas("");
    let there: Vec<_> = after
        .iter()
        .filter(|one| one.machine.name == home)
        .map(|one| one.service.as_str())
        .collect();
    assert_eq!(there, ["db"]);

    // Nothing is left to move to: refused, and the machine is not cordoned.
    let last = MACHINES
        .into_iter()
        .find(|name| *name != home && *name != other)
        .expect("three machines");
    let refused = cluster.ends(1, &["machine", "drain", last, "-y"]);
    assert!(refused.stderr.contains("nothing was changed"), "{refused}");
    for machine in [home.as_str(), other] {
        cluster.ok(&["machine", "uncordon", machine]);
    }
    cluster.ok(&["deploy", "-y", "-f", &file]);
    assert_eq!(places(&cluster.replicas("moving/agent")), MACHINES);
}
