//! A machine that was off during a deployment, a scaling or a removal: nothing of the past is in
//! DNS or runs when it is back, without a command.

use std::time::Duration;

use anyhow::ensure;
use uc_testbed::{Machine, wait_for};

use crate::cluster::{Cluster, SOON, array, on, places};

/// From the power of a machine until nothing of the past is left on it: boot, start of Docker, the
/// records, and the time that a container has to end (1 s here).
const PAST_GONE: Duration = Duration::from_secs(60);

/// A service whose replicas end at once when they are asked to.
fn sleeper(name: &str, version: &str, deploy: &str) -> String {
    format!(
        "services:\n  {name}:\n    @busybox\n    command: [\"sleep\", \"9999\"]\n    stop_grace_period: 1s\n    \
         environment: {{VERSION: \"{version}\"}}\n    deploy: {{{deploy}}}\n"
    )
}

/// The answer of a machine's own DNS server, sorted.
fn addresses(machine: &Machine, name: &str) -> anyhow::Result<Vec<String>> {
    let number: u8 = machine.name[1..].parse()?;
    let server = format!("10.210.{}.1", number - 1);
    let answer = machine.sh(&format!("dig +short +tries=1 +time=2 @{server} {name} A"))?;
    let mut found: Vec<_> = answer.lines().map(ToOwned::to_owned).collect();
    found.sort();
    Ok(found)
}

/// No machine's DNS gives an address of the machine `back`.
fn ensure_not_given(cluster: &Cluster, name: &str, back: &str) -> anyhow::Result<()> {
    let number: u8 = back[1..].parse()?;
    let subnet = format!("10.210.{}.", number - 1);
    for machine in cluster.machines().iter().filter(|one| one.name != back) {
        let found = addresses(machine, name)?;
        let past = found.iter().any(|address| address.starts_with(&subnet));
        ensure!(!past, "{} answers {found:?} for {name}", machine.name);
    }
    Ok(())
}

fn wait_until_down(cluster: &Cluster, machine: &str) {
    wait_for("the machine to be down", SOON, || {
        let listed = cluster.json(&["machine", "ls"]);
        let mut machines = array(&listed)?.iter();
        let state = machines.find(|one| one["name"] == machine);
        ensure!(state.is_some_and(|one| one["state"] == "down"), "{listed}");
        Ok(())
    })
    .expect("it is down");
}

/// The containers of a project on a machine, asked of its own Docker.
fn left_on(cluster: &Cluster, machine: &str, project: &str) -> Vec<String> {
    cluster.containers(machine, project)
}

#[test]
fn machine_that_was_off_brings_nothing_of_the_past_back() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let spread = "replicas: 3, placement: {max_replicas_per_node: 2}";
    cluster.deploy("scaled", &sleeper("few", "1", "replicas: 3"));
    cluster.deploy("updated", &sleeper("web", "1", spread));
    cluster.deploy("removed", &sleeper("old", "1", "mode: global"));
    cluster.deploy("everywhere", &sleeper("agent", "1", "mode: global"));
    for service in ["few", "web", "old", "agent"] {
        let replicas = cluster.replicas(service);
        assert!(places(&replicas).contains(&"m3"), "{service}: {replicas:?}");
    }

    cluster.kill("m3");
    wait_until_down(&cluster, "m3");
    let scaled = cluster.ok(&["scale", "-y", "scaled/few=2"]);
    let later = "on m3, which is down: ";
    assert!(scaled.stderr.contains(later), "{scaled}");
    let updated = cluster.deploy("updated", &sleeper("web", "2", spread));
    assert!(updated.stderr.contains(later), "{updated}");
    let removed = cluster.ok(&["rm", "-y", "-p", "removed"]);
    assert!(removed.stderr.contains(later), "{removed}");
    cluster.deploy("everywhere", &sleeper("agent", "2", "mode: global"));
    // What is written down is not planned again.
    let again = cluster.deploy("updated", &sleeper("web", "2", spread));
    assert!(again.stderr.contains("up to date"), "{again}");
    let listed = cluster.ok(&["ps"]);
    assert!(listed.stdout.contains("to be removed"), "{listed}");

    cluster.start("m3");
    wait_for("m3 to remove what is of the past", PAST_GONE, || {
        for name in ["few.scaled", "web.updated", "old.removed"] {
            ensure_not_given(&cluster, &format!("{name}.internal"), "m3")?;
        }
        for project in ["scaled", "updated", "removed"] {
            let left = left_on(&cluster, "m3", project);
            ensure!(left.is_empty(), "{project}: {left:?}");
        }
        Ok(())
    })
    .expect("without a command");
    // A global service comes back with its present revision.
    wait_for("the global service on m3", PAST_GONE, || {
        let replicas = cluster.replicas("agent");
        ensure!(places(&replicas) == ["m1", "m2", "m3"], "{replicas:?}");
        ensure!(on(&replicas, "m3").current, "{replicas:?}");
        Ok(())
    })
    .expect("without a command");
    assert_eq!(cluster.replicas("few").len(), 2);
    assert_eq!(cluster.replicas("web").len(), 3);
    let doctor = cluster.ok(&["doctor"]);
    assert!(!doctor.stdout.contains("replica"), "{doctor}");
}

#[test]
fn replicas_that_ask_for_it_start_elsewhere_when_their_machine_is_down() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let asks = |services: &str| services.to_owned() + "    x-reschedule: 10s\n";
    let with_data = |services: &str| {
        services.to_owned() + "    volumes: [\"data:/data\"]\nvolumes: {data: {}}\n"
    };
    cluster.deploy("moves", &asks(&sleeper("web", "1", "replicas: 3")));
    cluster.deploy("stays", &sleeper("plain", "1", "replicas: 3"));
    let deployed = cluster.deploy(
        "data",
        &with_data(&asks(&sleeper(
            "db",
            "1",
            "placement: {constraints: [node.hostname == m3]}",
        ))),
    );
    let no_effect = "`x-reschedule` has no effect: its data in `data_data` is on the machine";
    assert!(deployed.stderr.contains(no_effect), "{deployed}");
    for service in ["web", "plain"] {
        let replicas = cluster.replicas(service);
        assert_eq!(places(&replicas), ["m1", "m2", "m3"], "{replicas:?}");
    }

    cluster.kill("m3");
    let there = |service: &str| {
        let mut replicas = cluster.replicas(service);
        replicas.retain(|replica| replica.machine.name != "m3");
        replicas
    };
    // Until it counts as down, 10 s, and the deployment.
    wait_for(
        "a third replica on m1 or m2",
        Duration::from_secs(120),
        || {
            let replicas = there("web");
            ensure!(replicas.len() == 3, "{replicas:?}");
            Ok(())
        },
    )
    .expect("without a command");
    assert_eq!(there("plain").len(), 2, "it does not ask for it");
    assert!(there("db").is_empty(), "its data is on m3");
    let deployments = cluster.ok(&["deployments", "ls"]);
    let mut lines = deployments.stdout.lines();
    let begun = lines.any(|line| line.starts_with("auto-") && line.contains("moves/web"));
    assert!(begun, "{deployments}");

    cluster.start("m3");
    wait_for(
        "m3 to remove the replica that is elsewhere",
        PAST_GONE,
        || {
            let left = left_on(&cluster, "m3", "moves");
            ensure!(left.is_empty(), "{left:?}");
            let replicas = cluster.replicas("web");
            ensure!(replicas.len() == 3, "{replicas:?}");
            let back = cluster.replicas("plain");
            ensure!(places(&back) == ["m1", "m2", "m3"], "{back:?}");
            Ok(())
        },
    )
    .expect("without a command");
}

#[test]
fn engine_that_is_away_loses_its_names_to_others() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    cluster.deploy("site", &sleeper("web", "1", "mode: global"));
    let m1 = cluster.machine("m1");
    assert_eq!(addresses(m1, "web.site.internal").unwrap().len(), 3);
    cluster
        .machine("m3")
        .sh("systemctl stop docker.socket docker.service")
        .expect("Docker stops");
    // 15 s, and the next look at the engine.
    wait_for("DNS to leave out m3", Duration::from_secs(60), || {
        ensure_not_given(&cluster, "web.site.internal", "m3")
    })
    .expect("within a minute");
    let listed = cluster.ok(&["ps"]);
    let said = "m3: Docker has not answered for";
    assert!(listed.stderr.contains(said), "{listed}");
    let machines = cluster.ok(&["machine", "ls"]);
    assert!(machines.stderr.contains(said), "{machines}");
    assert!(machines.stdout.contains("no Docker"), "{machines}");
    cluster
        .machine("m3")
        .sh("systemctl start docker.socket docker.service")
        .expect("Docker starts");
    wait_for("DNS to give m3 again", SOON, || {
        let found = addresses(m1, "web.site.internal")?;
        ensure!(found.len() == 3, "{found:?}");
        Ok(())
    })
    .expect("it is back");
}
