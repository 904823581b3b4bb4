//! Daemons, engines and machines that end in the middle of a deployment: it is finished all the
//! same, and nothing is left over.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use uc_testbed::{Machine, http, wait_for};

use crate::cluster::{Cluster, SOON, array, places};

const PORT: u16 = 8097;
const PROJECT: &str = "durable";
const START_FIRST: &str = "start-first";
const STOP_FIRST: &str = "stop-first";
/// The machines of the replicas. The first one executes the deployments.
const WHERE: [&str; 2] = ["m1", "m2"];
/// Within this time of a deployment's beginning something ends. The update takes about ten seconds.
const MOMENTS_MS: u64 = 8_000;
/// Everything is right again this long after everything is back.
const RIGHT: Duration = Duration::from_secs(30);

/// A page that says `text`, on two machines.
fn pages(text: &str, order: &str) -> String {
    // Start-first, two cannot have one port of a machine.
    let ports = if order == STOP_FIRST {
        format!("ports: [\"{PORT}:80\"]\n    ")
    } else {
        String::new()
    };
    format!(
        "services:\n  page:\n    @busybox\n    command: [\"sh\", \"-c\", \"mkdir /w; echo {text} > /w/index.html; \
         exec httpd -f -p 80 -h /w\"]\n    {ports}stop_grace_period: 1s\n    x-machines: [m1, m2]\n    \
         deploy: {{replicas: 2, update_config: {{order: {order}}}}}\n    \
         healthcheck: {{test: [CMD, test, -e, /w/index.html], interval: 1s, retries: 5}}\n"
    )
}

/// A moment that differs from run to run. It is printed, and `UC_MOMENT_MS` repeats it.
fn moment(number: u64) -> Duration {
    let chosen = std::env::var("UC_MOMENT_MS").ok();
    let chosen = chosen.and_then(|text| text.parse().ok());
    let millis = chosen.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanos = now.expect("after 1970").subsec_nanos();
        (u64::from(nanos) / 1_000 + number * 3_571) % MOMENTS_MS
    });
    eprintln!("UC_MOMENT_MS={millis}");
    Duration::from_millis(millis)
}

/// Exactly one replica on each machine, of the present revision, and no other container.
fn right(cluster: &Cluster) -> anyhow::Result<()> {
    let replicas = cluster.replicas("page");
    ensure!(places(&replicas) == WHERE, "{replicas:?}");
    ensure!(
        replicas
            .iter()
            .all(|one| one.current && one.state == "running"),
        "{replicas:?}"
    );
    for machine in WHERE {
        let containers = cluster.containers(machine, PROJECT);
        ensure!(containers.len() == 1, "{machine}: {containers:?}");
    }
    let listed = cluster.json(&["deployments", "ls", "-p", PROJECT]);
    let newest = &array(&listed)?[0];
    ensure!(newest["state"] == "done", "{newest}");
    Ok(())
}

/// The id of the newest deployment.
fn newest(cluster: &Cluster) -> String {
    let listed = cluster.json(&["deployments", "ls", "-p", PROJECT]);
    listed[0]["id"].to_string()
}

/// Deploys an update in each of these orders, and ends something on the machine in the middle of
/// it.
fn hurt(of: &str, orders: &[&str], end: impl Fn(&Cluster, &Machine)) {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    for (number, order) in (0..).zip(orders.iter().copied()) {
        cluster.deploy(PROJECT, &pages("old", order));
        let file = cluster.compose(PROJECT, &pages("new", order));
        let before = newest(&cluster);
        let mut deploy =
            cluster.watch(&["--connect", "ssh://root@m1", "deploy", "-y", "-f", &file]);
        wait_for("the deployment to begin", RIGHT, || {
            let now = newest(&cluster);
            ensure!(now != before, "{now}");
            Ok(())
        })
        .expect("it begins");
        thread::sleep(moment(number));
        end(&cluster, cluster.machine(of));
        cluster.whole(SOON).expect("all are back");
        wait_for("the deployment to be finished", RIGHT, || right(&cluster))
            .expect("it is continued");
        // `uc` has found the deployment again, unless the connection itself was what ended.
        let code = deploy.end().expect("it ends");
        assert!(matches!(code, Some(0 | 4)), "{code:?}");
        if order == STOP_FIRST {
            for machine in WHERE {
                let page = http::get(&cluster.machine(machine).address, PORT, "/");
                assert_eq!(page.expect("it answers"), "new\n", "{machine}");
            }
        }
        let again = cluster.ok(&["deploy", "-y", "-f", &file]);
        assert!(again.stderr.contains("up to date"), "{again}");
        cluster.ok(&["rm", "-y", "-p", PROJECT]);
    }
}

fn kill_daemon(_: &Cluster, machine: &Machine) {
    let kill = "kill -9 $(systemctl show --property MainPID --value ucd)";
    machine.sh(kill).expect("killed");
}

fn restart_daemon(_: &Cluster, machine: &Machine) {
    machine.sh("systemctl restart ucd").expect("restarted");
}

fn restart_docker(_: &Cluster, machine: &Machine) {
    machine.sh("systemctl restart docker").expect("restarted");
}

fn cut_power(cluster: &Cluster, machine: &Machine) {
    cluster.kill(&machine.name);
    cluster.start(&machine.name);
}

#[test]
fn a_killed_daemon_that_executes_continues() {
    hurt("m1", &[START_FIRST, STOP_FIRST], kill_daemon);
}

#[test]
fn a_restarted_daemon_that_executes_continues() {
    hurt("m1", &[STOP_FIRST], restart_daemon);
}

#[test]
fn a_killed_daemon_of_a_replica_continues() {
    hurt("m2", &[STOP_FIRST], kill_daemon);
}

#[test]
fn a_restarted_docker_of_a_replica_is_waited_for() {
    hurt("m2", &[START_FIRST], restart_docker);
}

#[test]
fn a_machine_that_executes_and_loses_power_continues() {
    hurt("m1", &[START_FIRST], cut_power);
}

#[test]
fn a_machine_of_a_replica_that_loses_power_continues() {
    hurt("m2", &[STOP_FIRST], cut_power);
}
