//! Updates that nobody who uses the service notices.

use uc_testbed::Machine;

use crate::cluster::{Cluster, MACHINES};

const PROJECT: &str = "unnoticed";

/// A web service, and on each machine a client that looks it up and connects anew for each request.
fn site(version: usize, replicas: usize) -> String {
    format!(
        "services:\n  web:\n    @busybox\n    command: [\"sh\", \"-c\", \"mkdir /w; echo v{version} > /w/index.html; \
         exec httpd -f -p 80 -h /w\"]\n    stop_grace_period: 1s\n    \
         deploy: {{replicas: {replicas}, update_config: {{order: start-first, parallelism: 2}}}}\n    \
         healthcheck: {{test: [CMD, test, -e, /w/index.html], interval: 1s, retries: 5}}\n  \
         client:\n    @busybox\n    deploy: {{mode: global}}\n    stop_grace_period: 0s\n    \
         command: [\"sh\", \"-c\", \"good=0; bad=0; while :; do if wget -q -T 5 -O /dev/null http://web/; \
         then good=$$((good+1)); else bad=$$((bad+1)); date; fi; echo $$good $$bad > /count.new; \
         mv /count.new /count; done\"]\n"
    )
}

/// Starts a loop on the machine that looks the name up; its file has the number of answers without
/// an address.
fn look_up(machine: &Machine, server: &str) {
    machine
        .sh(&format!(
            "rm -f /tmp/empty /tmp/asked /tmp/over; nohup sh -c 'empty=0; asked=0; while ! [ -e /tmp/over ]; do \
             [ -n \"$(dig +short +tries=3 +time=2 @{server} web.{PROJECT}.internal A)\" ] || empty=$((empty+1)); \
             asked=$((asked+1)); done; echo $empty $asked > /tmp/empty' >/dev/null 2>&1 &"
        ))
        .expect("started");
}

fn two_numbers(text: &str) -> (u64, u64) {
    let mut words = text.split_whitespace().map(|word| word.parse());
    let (Some(Ok(first)), Some(Ok(second))) = (words.next(), words.next()) else {
        panic!("not two numbers: {text:?}");
    };
    (first, second)
}

#[test]
fn ten_updates_fail_no_request_and_no_lookup() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let mut version = 0;
    for (replicas, updates) in [(1, 4), (3, 3), (6, 3)] {
        cluster.deploy(PROJECT, &site(version, replicas));
        for (number, name) in MACHINES.iter().enumerate() {
            look_up(cluster.machine(name), &format!("10.210.{number}.1"));
        }
        let clients = cluster.replicas("client");
        let counts = |what: &str| -> Vec<(u64, u64)> {
            let count = |client| cluster.inside("client", client, "cat /count").stdout;
            let counts: Vec<_> = clients.iter().map(|one| two_numbers(&count(one))).collect();
            println!("{replicas} replicas, {what}: {counts:?} good and failed requests");
            counts
        };
        let before = counts("before the updates");
        for _ in 0..updates {
            version += 1;
            cluster.deploy(PROJECT, &site(version, replicas));
        }
        for (before, after) in before.iter().zip(counts("after the updates")) {
            assert_eq!(after.1, before.1, "failed requests");
            assert!(after.0 > before.0 + 100, "the client stopped");
        }
        for name in MACHINES {
            let machine = cluster.machine(name);
            let text = machine
                .sh("touch /tmp/over; for _ in $(seq 100); do [ -e /tmp/empty ] && break; sleep 0.1; done; cat /tmp/empty")
                .expect("the loop has ended");
            let (empty, asked) = two_numbers(&text);
            println!("{name}: {empty} of {asked} lookups without an address");
            assert_eq!(empty, 0, "{name}");
            assert!(asked > 100, "{name}: {asked}");
        }
    }
}
