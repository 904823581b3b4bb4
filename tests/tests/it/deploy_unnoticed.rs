//! Updates that no client of a service notices. On each machine, a client in a container looks the
//! service up and connects again for each request, through the resolver that every container has,
//! and a program of the machine asks the cluster's DNS server every 5 ms.

use anyhow::{Context as _, ensure};
use uc_testbed::wait_for;

use crate::cluster::{Cluster, MACHINES, Replica, SOON, ids};

const PROJECT: &str = "unnoticed";
const REQUESTS: &str = include_str!("../../scripts/requests.pl");
const LOOKUPS: &str = include_str!("../../scripts/lookups.pl");
const DELAY: &str = include_str!("../../scripts/delay.pl");
/// Where a machine has the clients' programs.
const PROGRAMS: &str = "/opt/unnoticed";
/// Where the program of the machine writes its counts.
const COUNTS: &str = "/run/unnoticed";
/// A healthcheck that succeeds when the web server listens.
const LISTENS: &str = "    healthcheck: {test: [CMD-SHELL, \"netstat -ltn | grep -q ':80 '\"], interval: 500ms, \
                       retries: 20}\n";

/// A web server, and a client of it on each machine. The client uses perl and the C library of the
/// machine: busybox is linked statically, and crashes when `wget` resolves a name.
fn site(version: usize, replicas: usize, more: &str) -> String {
    format!(
        "services:\n  web:\n    @busybox\n    \
         command: [\"sh\", \"-c\", \"mkdir /w; echo v{version} > /w/index.html; exec httpd -f -p 80 -h /w\"]\n    \
         deploy: {{replicas: {replicas}, update_config: {{order: start-first, parallelism: 2}}}}\n{more}  \
         client:\n    @busybox\n    deploy: {{mode: global}}\n    \
         volumes: [\"/usr:/usr:ro\", \"/usr/lib:/lib:ro\", \"/usr/lib64:/lib64:ro\", \"{PROGRAMS}:{PROGRAMS}:ro\"]\n    \
         command: [/usr/bin/perl, {PROGRAMS}/requests.pl, web, \"4\", /tmp]\n"
    )
}

/// What a client counted.
#[derive(Debug, Clone, Copy)]
struct Counts {
    good: u64,
    failed: u64,
}

/// The sum of several lines of two numbers.
fn sum(text: &str) -> anyhow::Result<Counts> {
    let mut sum = Counts { good: 0, failed: 0 };
    for line in text.lines() {
        let (good, failed) = line.split_once(' ').context("not two numbers")?;
        sum.good += good.parse::<u64>()?;
        sum.failed += failed.parse::<u64>()?;
    }
    Ok(sum)
}

/// The clients on all machines.
struct Clients<'a> {
    cluster: &'a Cluster,
    containers: Vec<Replica>,
    /// Failed before the first version served.
    too_early: Vec<u64>,
}

impl<'a> Clients<'a> {
    /// Deploys the first version, with the clients in containers, and starts those of the machines.
    fn start(cluster: &'a Cluster, services: &str) -> Self {
        for machine in cluster.machines() {
            machine
                .sh(&format!(
                    "mkdir -p {PROGRAMS}; systemctl stop lookups; rm -rf {COUNTS}; mkdir {COUNTS}"
                ))
                .expect("a directory");
            for (name, program) in [("requests", REQUESTS), ("lookups", LOOKUPS)] {
                let path = format!("{PROGRAMS}/{name}.pl");
                machine
                    .write_file(&path, program.as_bytes(), 0o644)
                    .expect("written");
            }
        }
        cluster.deploy(PROJECT, services);
        for machine in cluster.machines() {
            let lookups = format!(
                "server=$(ip -4 -o address show dev uc0 | awk '{{split($4, part, \"/\"); print part[1]}}'); \
                 systemd-run --quiet --collect --unit lookups \
                 perl {PROGRAMS}/lookups.pl $server web.{PROJECT}.internal {COUNTS}"
            );
            machine.sh(&lookups).expect("it starts");
        }
        let containers = cluster.replicas("client");
        assert_eq!(containers.len(), MACHINES.len(), "{containers:?}");
        let mut clients = Self {
            cluster,
            containers,
            too_early: Vec::new(),
        };
        // The first version was starting when the clients in containers began.
        clients.continue_for(20);
        for container in &clients.containers {
            cluster.inside("client", container, "rm -f /tmp/failures");
        }
        let counts = clients.counts().expect("they count").into_iter();
        clients.too_early = counts.map(|(_, counts)| counts.failed).collect();
        clients
    }

    /// What each client prints for a file of its directory: those in containers, then those of the
    /// machines.
    fn read(&self, file: &str) -> Vec<(String, String)> {
        let requests = self.containers.iter().map(|container| {
            let text = self
                .cluster
                .inside("client", container, &format!("cat /tmp/{file}"));
            (
                format!("requests on {}", container.machine.name),
                text.stdout,
            )
        });
        let lookups = self.cluster.machines().iter().map(|machine| {
            let text = machine
                .sh(&format!("cat {COUNTS}/{file} || true"))
                .expect("it runs");
            (format!("lookups on {}", machine.name), text)
        });
        requests.chain(lookups).collect()
    }

    fn counts(&self) -> anyhow::Result<Vec<(String, Counts)>> {
        let texts = self.read("counts.*").into_iter();
        texts
            .map(|(client, text)| Ok((client, sum(&text)?)))
            .collect()
    }

    /// Waits until each client was served so many times more.
    fn continue_for(&self, times: u64) {
        let before = wait_for("all clients", SOON, || self.counts()).expect("they count");
        wait_for("further requests", SOON, || {
            for ((client, now), (_, before)) in self.counts()?.iter().zip(&before) {
                ensure!(
                    now.good >= before.good + times,
                    "{client}: {before:?}, {now:?}"
                );
            }
            Ok(())
        })
        .expect("the clients continue");
    }

    /// Fails if a client was not served once since the first version served.
    fn assert_none_failed(&self) {
        self.continue_for(20);
        let mut failed = 0;
        for ((client, counts), too_early) in self
            .counts()
            .expect("they count")
            .iter()
            .zip(&self.too_early)
        {
            let late = counts.failed - too_early;
            eprintln!("{client}: {} good, {late} failed", counts.good);
            failed += late;
        }
        let failures = self.read("failures").into_iter().map(|(client, text)| {
            let first: Vec<_> = text.lines().take(10).collect();
            format!("{client}:\n{}\n", first.join("\n"))
        });
        let failures: String = failures.collect();
        assert_eq!(failed, 0, "{failures}");
    }
}

impl Drop for Clients<'_> {
    fn drop(&mut self) {
        for machine in self.cluster.machines() {
            // The machine can be off after a test that failed.
            let _ = machine.sh("systemctl stop lookups");
        }
    }
}

/// Each packet from a machine to another one arrives 300 ms later, until this is dropped.
struct LongLinks<'a>(&'a Cluster);

impl<'a> LongLinks<'a> {
    fn begin(cluster: &'a Cluster) -> Self {
        let links = Self(cluster);
        for machine in cluster.machines() {
            let path = format!("{PROGRAMS}/delay.pl");
            machine
                .sh(&format!("mkdir -p {PROGRAMS}"))
                .expect("a directory");
            machine
                .write_file(&path, DELAY.as_bytes(), 0o644)
                .expect("written");
            // Before connection tracking, which drops the second packet of a connection while the
            // first one is held.
            let others = cluster
                .machines()
                .iter()
                .filter(|other| other.name != machine.name);
            let rules = others.map(|other| {
                format!(
                    "iptables -w -t raw -A OUTPUT -d {} -j NFQUEUE --queue-num 7 --queue-bypass; ",
                    other.address
                )
            });
            let rules: String = rules.collect();
            let start = format!(
                "set -e; {rules} systemd-run --quiet --collect --unit delay perl {path} 7 0.3"
            );
            machine.sh(&start).expect("it starts");
        }
        let far = cluster.machine("m2");
        let time = wait_for("a delayed packet", SOON, || {
            let words = format!(
                "ping -c 1 -W 5 {} | sed -n 's/.* time=\\([0-9]*\\).* ms/\\1/p'",
                far.address
            );
            Ok(cluster.machine("m1").sh(&words)?.trim().parse::<u64>()?)
        });
        // A lower bound: both directions.
        assert!(
            time.expect("it arrives") >= 550,
            "the packets are not delayed"
        );
        links
    }
}

impl Drop for LongLinks<'_> {
    fn drop(&mut self) {
        for machine in self.0.machines() {
            // The machine can be off after a test that failed.
            let _ = machine.sh("iptables -w -t raw -F OUTPUT; systemctl stop delay");
        }
    }
}

/// Updates a service of this many replicas.
fn update(cluster: &Cluster, replicas: usize, updates: usize, more: &str) {
    let clients = Clients::start(cluster, &site(0, replicas, more));
    for version in 1..=updates {
        cluster.deploy(PROJECT, &site(version, replicas, more));
    }
    eprintln!("{updates} updates of {replicas} replicas:");
    clients.assert_none_failed();
    drop(clients);
    cluster.ok(&["rm", "-y", "-p", PROJECT]);
}

#[test]
fn ten_rolling_updates_fail_no_request_and_no_lookup() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    for (replicas, updates) in [(1, 4), (3, 3), (6, 3)] {
        update(&cluster, replicas, updates, LISTENS);
    }
}

#[test]
fn updates_over_long_links_fail_no_request_and_no_lookup() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let _links = LongLinks::begin(&cluster);
    for (replicas, updates) in [(1, 2), (3, 2), (6, 1)] {
        update(&cluster, replicas, updates, LISTENS);
    }
}

/// Prints 230 KB, the reason last, and never serves.
const NEVER_HEALTHY: &str = "    command: [\"sh\", \"-c\", \"echo opening the vault; \
                             yes 'looking for the key in the cellar and above' | head -n 5000; \
                             echo there is no key; exec sleep 9999\"]\n    \
                             healthcheck: {test: [CMD, \"false\"], interval: 500ms, retries: 4}\n";

#[test]
fn replica_that_never_becomes_healthy_fails_no_request() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let good = site(1, 3, LISTENS);
    let clients = Clients::start(&cluster, &good);
    let before = cluster.replicas("web");
    let command = good
        .lines()
        .find(|line| line.contains("httpd"))
        .expect("its command");
    let spoilt = good
        .replace(&format!("{command}\n"), "")
        .replace(LISTENS, NEVER_HEALTHY);
    let file = cluster.compose(PROJECT, &spoilt);
    let failed = cluster.ends(3, &["deploy", "-y", "-f", &file]);
    for words in [
        "its healthcheck failed 4 times in a row",
        "    | looking for the key in the cellar and above",
        "    | there is no key",
    ] {
        assert!(failed.stderr.contains(words), "{words} is not in {failed}");
    }
    clients.assert_none_failed();
    assert_eq!(ids(&before), ids(&cluster.replicas("web")));
    // All of it can still be read.
    let logs = cluster.ok(&["logs", "--tail", "all", "web"]);
    for (words, lines) in [
        ("opening the vault", 1),
        ("looking for the key", 5000),
        ("there is no key", 1),
    ] {
        let found = logs
            .stdout
            .lines()
            .filter(|line| line.contains(words))
            .count();
        assert!(found >= lines, "{found} lines with `{words}`");
    }
}

#[test]
fn updates_without_a_healthcheck_fail_no_request_and_no_lookup() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    for replicas in [1, 3] {
        // It listens only when it has run for a second.
        update(
            &cluster,
            replicas,
            2,
            "    entrypoint: [sh, -c, 'sleep 1; exec \"$$@\"', sh]\n",
        );
    }
}
