//! Names and addresses as containers see them.

use std::time::{Duration, Instant};

use uc_testbed::wait_for;

use crate::cluster::{Cluster, MACHINES, Replica, SOON, on};

/// A service that says which project it is of and whom it sees, and another that asks.
const SERVICES: &str = r#"
services:
  web:
    @busybox
    command:
      - sh
      - -c
      - |
        mkdir -p /w/cgi-bin; echo @project > /w/index.html
        printf '#!/bin/sh\necho; echo $$REMOTE_ADDR\n' > /w/cgi-bin/who; chmod +x /w/cgi-bin/who
        exec httpd -f -p 80 -h /w
    healthcheck: {test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"], interval: 500ms, timeout: 2s, retries: 20}
    deploy: {replicas: 3}
"#;

#[test]
fn short_names_resolve_within_the_project() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    for project in ["alpha", "beta"] {
        cluster.deploy(project, &SERVICES.replace("@project", project));
    }
    for (own, other) in [("alpha", "beta"), ("beta", "alpha")] {
        let service = format!("{own}/web");
        let replicas = cluster.replicas(&service);
        for machine in MACHINES {
            let replica = on(&replicas, machine);
            let hosts = [
                "web",
                &format!("web.{own}.internal"),
                &format!("web.{other}.internal"),
            ];
            let said = fetch(&cluster, replica, &hosts);
            let expected = format!("{own}\n{own}\n{other}\n");
            assert_eq!(said, expected, "in {own} on {machine}");
        }
        // Every replica's address, and no other, on every machine.
        let mut expected: Vec<_> = replicas.iter().filter_map(|one| one.ip.clone()).collect();
        expected.sort();
        for machine in MACHINES {
            let found = wait_for("all addresses", Duration::from_secs(5), || {
                let found = addresses(&cluster, machine, &format!("web.{own}.internal"));
                anyhow::ensure!(
                    found == expected,
                    "{machine}: {found:?} instead of {expected:?}"
                );
                Ok(())
            });
            found.expect("the name is known everywhere");
        }
    }
    // Who connects from another machine is seen with its own address.
    let alpha = cluster.replicas("alpha/web");
    for (from, to) in [("m1", "m2"), ("m2", "m3"), ("m3", "m1"), ("m2", "m2")] {
        let (from, to) = (on(&alpha, from), on(&alpha, to));
        let address = to.ip.as_deref().expect("an address");
        let seen = fetch(&cluster, from, &[&format!("{address}/cgi-bin/who")]);
        let own = from.ip.as_deref().expect("an address");
        assert_eq!(
            seen.trim()
                .trim_start_matches("[::ffff:")
                .trim_end_matches(']'),
            own,
            "the address that another machine sees"
        );
    }
}

/// These pages as a program in the replica sees them. A static busybox has no resolver that works,
/// so the machine's curl runs with the container's network and resolv.conf.
fn fetch(cluster: &Cluster, replica: &Replica, pages: &[&str]) -> String {
    let script = format!(
        "set -e; pid=$(docker inspect --format '{{{{.State.Pid}}}}' {}); \
         cat /proc/$pid/root/etc/resolv.conf > /run/resolv.of; \
         nsenter --target $pid --net unshare --mount sh -ec \"mount --bind /run/resolv.of /etc/resolv.conf; \
         for page in {}; do curl --silent --show-error --max-time 5 http://\\$page || echo \\$page \\$?; done\"",
        replica.container_id,
        pages.join(" ")
    );
    cluster
        .machine(&replica.machine.name)
        .sh(&script)
        .expect("it asks")
}

/// What the machine's name server answers, sorted.
fn addresses(cluster: &Cluster, machine: &str, name: &str) -> Vec<String> {
    let number: u8 = machine[1..].parse().expect("m1, m2, m3");
    let server = format!("10.210.{}.1", number - 1);
    let said = cluster
        .machine(machine)
        .sh(&format!("dig +short +tries=1 +time=3 @{server} {name} A"));
    let mut found: Vec<_> = said
        .expect("dig runs")
        .lines()
        .map(ToOwned::to_owned)
        .collect();
    found.sort();
    found
}

#[test]
fn unknown_and_outside_names_are_answered_without_delay() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    cluster.deploy(
        "lonely",
        "services:\n  app:\n    @busybox\n    command: [sleep, '9999']\n",
    );
    let app = &cluster.replicas("app")[0];
    let machine = cluster.machine(&app.machine.name);
    let number: u8 = app.machine.name[1..].parse().expect("m1, m2, m3");
    let pid = format!(
        "$(docker inspect --format '{{{{.State.Pid}}}}' {})",
        app.container_id
    );
    // As the container's own resolver is asked, and as uc's name server is.
    for server in ["127.0.0.11".to_owned(), format!("10.210.{}.1", number - 1)] {
        for (name, codes) in [
            ("app.lonely.internal", &["NOERROR"][..]),
            ("nobody.lonely.internal", &["NXDOMAIN"]),
            ("app.nobody.internal", &["NXDOMAIN"]),
            // No packet leaves the testbed, so no resolver can answer.
            ("example.com", &["SERVFAIL"]),
        ] {
            let start = Instant::now();
            let dig =
                format!("nsenter --target {pid} --net dig +tries=1 +time=8 @{server} {name} A");
            let said = machine
                .sh(&dig)
                .unwrap_or_else(|error| panic!("{name}: {error:#}"));
            let took = start.elapsed();
            assert!(
                codes
                    .iter()
                    .any(|code| said.contains(&format!("status: {code}"))),
                "{server} {name}: {said}"
            );
            assert!(
                took < Duration::from_secs(6),
                "{server} took {took:?} for {name}"
            );
        }
    }
    // The name of a service without replicas exists and has no addresses.
    cluster.ok(&["scale", "-y", "app", "0"]);
    wait_for("the address to go", SOON, || {
        let said = machine.sh(&format!(
            "dig +tries=1 +time=3 @10.210.{}.1 app.lonely.internal A",
            number - 1
        ))?;
        anyhow::ensure!(
            said.contains("status: NOERROR") && said.contains("ANSWER: 0"),
            "{said}"
        );
        Ok(())
    })
    .expect("no address is left");
}
