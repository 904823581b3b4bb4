//! Machines, daemons, networks and disks that fail under a running project.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use uc_testbed::{Machine, http, wait_for};

use crate::cluster::{Cluster, MACHINES, SOON, Watched, array, on, places};

const PORT: u16 = 8093;

fn pages(text: &str) -> String {
    format!(
        "services:\n  page:\n    @busybox\n    command: [\"sh\", \"-c\", \"mkdir /w; echo {text} > /w/index.html; \
         exec httpd -f -p 80 -h /w\"]\n    ports: [\"{PORT}:80\"]\n    deploy: {{mode: global}}\n"
    )
}

fn vault(value: &str) -> String {
    format!(
        "services:\n  vault:\n    @busybox\n    command: [\"sh\", \"-c\", \"echo {value} >> /v/values; exec sleep 9999\"]\n    \
         volumes: [\"gold:/v\"]\nvolumes: {{gold: }}\n"
    )
}

/// The address of the machine's name server.
fn server(machine: &str) -> String {
    let number: u8 = machine[1..].parse().expect("m1, m2, m3");
    format!("10.210.{}.1", number - 1)
}

fn asks(machine: &Machine, name: &str) -> anyhow::Result<Vec<String>> {
    let said = machine.sh(&format!(
        "dig +short +tries=1 +time=2 @{} {name} A",
        server(&machine.name)
    ))?;
    let mut found: Vec<_> = said.lines().map(ToOwned::to_owned).collect();
    found.sort();
    Ok(found)
}

#[test]
fn cluster_works_without_a_machine_and_heals_on_its_return() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    cluster.deploy("site", &pages("one"));
    cluster.deploy("vaults", &vault("first"));
    let victim = cluster.replicas("vault")[0].machine.name.clone();
    let rest: Vec<_> = cluster
        .machines()
        .iter()
        .filter(|machine| machine.name != victim)
        .collect();
    let before = cluster.replicas("page");
    assert_eq!(places(&before), MACHINES);
    let mut expected: Vec<_> = before
        .iter()
        .filter(|one| one.machine.name != victim)
        .filter_map(|one| one.ip.clone())
        .collect();
    expected.sort();

    cluster.kill(&victim);
    let dead = Instant::now();
    for machine in &rest {
        wait_for(
            "DNS to leave out the dead machine's replica",
            Duration::from_secs(10),
            || {
                let found = asks(machine, "page.site.internal")?;
                ensure!(
                    found == expected,
                    "{} answers {found:?} after {:?}",
                    machine.name,
                    dead.elapsed()
                );
                Ok(())
            },
        )
        .expect("within ten seconds");
        let page = http::get(&machine.address, PORT, "/").expect("it answers");
        assert_eq!(page, "one\n");
    }
    let listed = cluster.json(&["machine", "ls"]);
    let state = array(&listed)
        .expect("an array")
        .iter()
        .find(|one| one["name"] == victim.as_str());
    assert_eq!(state.expect("it is listed")["state"], "down");

    // The others deploy.
    let changed = cluster.deploy("site", &pages("two"));
    assert!(
        changed
            .stderr
            .contains(&format!("{victim} is down and is skipped")),
        "{changed}"
    );
    for machine in &rest {
        assert_eq!(
            http::get(&machine.address, PORT, "/").expect("it answers"),
            "two\n"
        );
    }
    // What has its data there cannot move, and does not get an empty volume elsewhere.
    let file = cluster.compose("vaults", &vault("second"));
    let refused = cluster
        .uc
        .run(&["deploy", "-y", "-f", &file])
        .expect("uc runs");
    assert!(matches!(refused.code, Some(1 | 4)), "{refused}");
    assert!(
        refused.stderr.contains("vaults_gold") && refused.stderr.contains(&victim),
        "{refused}"
    );
    for machine in &rest {
        assert_eq!(
            machine
                .sh("docker volume ls --quiet")
                .expect("docker answers"),
            "",
            "{}",
            machine.name
        );
    }

    cluster.start(&victim);
    cluster.whole(SOON).expect("it is back");
    // A global service comes to it by itself, in its present revision.
    wait_for("the present revision everywhere", SOON, || {
        let now = cluster.replicas("page");
        let is_current = now.iter().all(|one| one.current && one.state == "running");
        ensure!(places(&now) == MACHINES && is_current, "{now:?}");
        Ok(())
    })
    .expect("without a command");
    cluster.deploy("vaults", &vault("second"));
    for machine in cluster.machines() {
        assert_eq!(
            http::get(&machine.address, PORT, "/").expect("it answers"),
            "two\n"
        );
    }
    let vaults = cluster.replicas("vault");
    let values = cluster.inside("vault", &vaults[0], "cat /v/values").stdout;
    assert!(
        values.starts_with("first\n") && values.ends_with("second\n"),
        "{values}"
    );
}

#[test]
fn killed_daemons_lose_no_packet() {
    const PACKETS: usize = 400;
    let Some(cluster) = Cluster::take() else {
        return;
    };
    cluster.deploy("site", &pages("steady"));
    let replicas = cluster.replicas("page");
    let mut pings: Vec<Watched> = Vec::new();
    for (from, to) in [("m1", "m2"), ("m2", "m3"), ("m3", "m1")] {
        let address = on(&replicas, to).ip.clone().expect("an address");
        let script = format!(
            "exec nsenter --target $(docker inspect --format '{{{{.State.Pid}}}}' {}) --net \
             ping -n -i 0.03 -W 3 -c {PACKETS} {address}",
            on(&replicas, from).container_id
        );
        let mut ping = cluster.machine(from).command(&["sh", "-c", &script]);
        pings.push(Watched::start(
            ping.stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::piped()),
        ));
    }
    for ping in &mut pings {
        assert!(ping.line_with("icmp_seq=20 ").is_some(), "no answers");
    }
    let over = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let visitors: Vec<_> = cluster
            .machines()
            .iter()
            .map(|machine| {
                scope.spawn(|| {
                    let mut asked = 0;
                    while !over.load(Ordering::Relaxed) {
                        match http::get(&machine.address, PORT, "/") {
                            Ok(page) => assert_eq!(page, "steady\n"),
                            Err(error) => {
                                return Err(
                                    error.context(format!("visit {asked} of {}", machine.name))
                                );
                            }
                        }
                        asked += 1;
                        // A visitor, not a load test.
                        thread::sleep(Duration::from_millis(20));
                    }
                    Ok(asked)
                })
            })
            .collect();
        let pid = |machine: &Machine| {
            machine
                .sh("systemctl show --property MainPID --value ucd")
                .expect("systemd answers")
        };
        let before: Vec<_> = cluster.machines().iter().map(pid).collect();
        for machine in cluster.machines() {
            machine
                .sh("kill -9 $(systemctl show --property MainPID --value ucd)")
                .expect("killed");
        }
        for (machine, before) in cluster.machines().iter().zip(before) {
            let back = wait_for("another ucd", SOON, || {
                let now = pid(machine);
                ensure!(now != before && now.trim() != "0", "{now}");
                Ok(())
            });
            back.expect("systemd starts it");
        }
        let summaries: Vec<_> = pings
            .iter_mut()
            .map(|ping| ping.line_with("packets transmitted"))
            .collect();
        over.store(true, Ordering::Relaxed);
        for summary in summaries {
            let summary = summary.expect("ping has last words");
            assert!(
                summary.starts_with(&format!(
                    "{PACKETS} packets transmitted, {PACKETS} received"
                )),
                "{summary}"
            );
        }
        visitors
            .into_iter()
            .map(|one| one.join().expect("no panic"))
            .collect::<Vec<_>>()
    });
    for visits in asked {
        assert!(visits.expect("published ports answer throughout") > 50);
    }
    cluster.whole(SOON).expect("the daemons are back");
    let same = cluster.replicas("page");
    assert_eq!(crate::cluster::ids(&replicas), crate::cluster::ids(&same));
}

#[test]
fn deployments_on_both_sides_of_a_partition_survive() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let service = "services:\n  app:\n    @busybox\n    command: [sleep, '9999']\n";
    cluster.deploy("common", service);
    cluster.cut("m3", "m1");
    cluster.cut("m3", "m2");
    for (side, project, places_there) in
        [("m1", "big", &["m1", "m2"][..]), ("m3", "small", &["m3"])]
    {
        let file = cluster.compose(project, service);
        let connect = format!("ssh://root@{side}");
        cluster.ok(&["--connect", &connect, "deploy", "-y", "-f", &file]);
        let seen = cluster.json(&["--connect", &connect, "ps", "-p", project]);
        let place = seen[0]["machine"]["name"].as_str().expect("a replica");
        assert!(places_there.contains(&place), "{seen}");
    }
    // Neither side can know of the other's.
    assert!(
        !cluster
            .projects(&["--connect", "ssh://root@m1"])
            .contains("small")
    );
    assert!(
        !cluster
            .projects(&["--connect", "ssh://root@m3"])
            .contains("big")
    );
    cluster.heal();
    cluster.whole(SOON).expect("they meet again");
    for name in MACHINES {
        wait_for("all projects to be known everywhere", SOON, || {
            let connect = format!("ssh://root@{name}");
            let seen = cluster.projects(&["--connect", &connect]);
            let all = ["big", "common", "small"];
            ensure!(
                seen.iter().map(String::as_str).eq(all),
                "{name} sees {seen:?}"
            );
            for project in all {
                let found = asks(cluster.machine(name), &format!("app.{project}.internal"))?;
                ensure!(found.len() == 1, "{name} resolves {project} as {found:?}");
            }
            Ok(())
        })
        .expect("they agree");
    }
}

/// Puts what uc keeps on a machine into a small file system, which is full.
const FILL: &str = "set -e; systemctl stop ucd; cp -a /var/lib/uc /var/lib/uc.kept; \
    mount -t tmpfs -o size=24m uc-small /var/lib/uc; cp -a /var/lib/uc.kept/. /var/lib/uc/; systemctl start ucd";

/// Takes what is there now back to the machine's disk.
const UNDO: &str = "rm -f /var/lib/uc/ballast; systemctl stop ucd; rm -rf /var/lib/uc.kept; cp -a /var/lib/uc /var/lib/uc.kept; \
    umount /var/lib/uc; cp -a /var/lib/uc.kept/. /var/lib/uc/; rm -rf /var/lib/uc.kept; systemctl start ucd";

#[test]
fn full_disk_is_reported_and_loses_no_data() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let services = |value: &str| {
        format!(
            "services:\n  app:\n    @busybox\n    command: [sleep, '9999']\n    environment: {{VALUE: {value}}}\n"
        )
    };
    cluster.deploy("notes", &services("one"));
    let machine = cluster.machine("m2");
    machine.sh(FILL).expect("a small file system");
    let connect = ["--connect", "ssh://root@m2"];
    wait_for("m2 to be back", SOON, || {
        cluster.uc.run(&[&connect[..], &["ls"]].concat())?.checked()
    })
    .expect("back");
    cluster.whole(SOON).expect("back");
    machine
        .sh("dd if=/dev/zero of=/var/lib/uc/ballast bs=4k 2>/dev/null; df /var/lib/uc | grep -q 100%")
        .expect("full");

    let file = cluster.compose("notes", &services("two"));
    let refused = cluster
        .uc
        .run(&[&connect[..], &["deploy", "-y", "-f", &file]].concat())
        .expect("uc runs");
    let other = cluster.compose("more", &services("one"));
    let refused_new = cluster
        .uc
        .run(&[&connect[..], &["deploy", "-y", "-f", &other]].concat())
        .expect("uc runs");
    let seen = cluster
        .uc
        .run(&[&connect[..], &["inspect", "app", "-o", "json"]].concat())
        .expect("uc runs");
    let doctor = cluster.uc.run(&["doctor"]).expect("uc runs");
    assert_eq!(doctor.code, Some(1), "{doctor}");
    assert!(
        doctor
            .stdout
            .contains("problem: m2 cannot write to its disk: No space left on device"),
        "{doctor}"
    );
    for refused in [&refused, &refused_new] {
        assert_eq!(refused.code, Some(1), "{refused}");
        let said = "error: the disk of this machine is full, so nothing was written\nhint: free some space";
        assert!(refused.stderr.contains(said), "{refused}");
    }
    assert!(
        seen.success() && seen.stdout.contains("\"VALUE\": \"one\""),
        "{seen}"
    );
    assert!(cluster.json(&["ps", "notes/app"])[0]["state"] == "running");

    machine.sh("rm /var/lib/uc/ballast").expect("removed");
    cluster.ok(&[&connect[..], &["deploy", "-y", "-f", &file]].concat());
    cluster.ok(&[&connect[..], &["deploy", "-y", "-f", &other]].concat());
    machine.sh(UNDO).expect("on the disk again");
    cluster.whole(SOON).expect("back");
    assert_eq!(cluster.projects(&connect).len(), 2);
}
