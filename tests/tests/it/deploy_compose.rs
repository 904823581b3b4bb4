//! What a compose file says of a container is so on the machine: limits, namespaces, names, hooks,
//! placement.

use std::time::Duration;

use serde_json::Value;
use uc_testbed::wait_for;

use crate::cluster::{Cluster, MACHINES, Replica, SOON, ids, on, places};

/// As the engine of the replica's machine sees its container.
fn inspect(cluster: &Cluster, replica: &Replica) -> Value {
    let said = cluster
        .machine(&replica.machine.name)
        .sh(&format!("docker inspect {}", replica.container_id));
    let value: Value = serde_json::from_str(&said.expect("docker answers")).expect("JSON");
    value[0].clone()
}

/// Addresses that a machine's name server gives.
fn addresses(cluster: &Cluster, machine: &str, name: &str) -> Vec<String> {
    let number: u8 = machine[1..].parse().expect("m1, m2, m3");
    let said = cluster.machine(machine).sh(&format!(
        "dig +short +tries=1 +time=3 @10.210.{}.1 {name} A",
        number - 1
    ));
    let mut found: Vec<_> = said
        .expect("dig runs")
        .lines()
        .map(ToOwned::to_owned)
        .collect();
    found.sort();
    found
}

#[test]
fn container_keys_take_effect_inside_the_container() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let file = cluster.compose(
        "keys",
        r#"
services:
  app:
    @busybox
    command: [sleep, '9999']
    hostname: box
    domainname: example.org
    extra_hosts: ["one=192.0.2.1", "machine:host-gateway"]
    dns_search: [first.example]
    user: "1000:1000"
    group_add: ["2000"]
    cap_add: [NET_ADMIN]
    security_opt: ["no-new-privileges:true"]
    sysctls: {net.core.somaxconn: 777}
    ulimits: {nofile: {soft: 111, hard: 222}}
    shm_size: 5m
    mem_limit: 64m
    pids_limit: 77
    cpus: 0.5
    cpu_shares: 200
    oom_score_adj: 300
    tmpfs: ["/scratch:size=1m,noexec"]
    volumes:
      - {type: tmpfs, target: /small, tmpfs: {size: 2m, mode: 0o1777}}
    labels: {team: a}
    logging: {driver: json-file, options: {max-size: 1m}}
    restart: on-failure:4
    init: true
    post_start:
      - command: [sh, -c, "echo $$HOOK > /dev/shm/hook; id -u >> /dev/shm/hook"]
        user: "0:0"
        environment: {HOOK: ran}
    healthcheck: {test: [CMD, "true"], interval: 500ms, start_period: 5s, start_interval: 200ms}
"#,
    );
    let first = cluster.ok(&["deploy", "-y", "-f", &file]);
    assert!(!first.stderr.contains("warning"), "{first}");
    let app = &cluster.replicas("app")[0];
    assert_eq!(
        (app.state.as_str(), app.health.as_str()),
        ("running", "healthy")
    );
    for (script, expected) in [
        ("hostname", "box"),
        ("cat /proc/sys/kernel/domainname", "example.org"),
        (
            "grep -c '^192.0.2.1.*one' /etc/hosts; grep -c machine /etc/hosts",
            "1\n1",
        ),
        (
            "grep -o 'search first.example keys.internal internal' /etc/resolv.conf",
            "search first.example keys.internal internal",
        ),
        ("id -u; id -g; id -G", "1000\n1000\n1000 2000"),
        (
            "grep NoNewPrivs /proc/self/status | tr -s '\\t' ' '",
            "NoNewPrivs: 1",
        ),
        ("cat /proc/sys/net/core/somaxconn", "777"),
        ("ulimit -S -n; ulimit -H -n", "111\n222"),
        (
            "df -k /dev/shm | tail -1 | awk '{print $2}'; df -k /scratch | tail -1 | awk '{print $2}'; df -k /small | tail -1 | awk '{print $2}'",
            "5120\n1024\n2048",
        ),
        ("grep -c ' /scratch .*noexec' /proc/mounts", "1"),
        ("cat /proc/1/oom_score_adj", "300"),
        ("cat /dev/shm/hook", "ran\n0"),
    ] {
        let said = cluster.inside("app", app, script);
        assert_eq!(said.stdout.trim(), expected, "{script}: {said}");
    }
    let seen = inspect(&cluster, app);
    for (pointer, expected) in [
        ("/HostConfig/Memory", Value::from(64 << 20)),
        ("/HostConfig/PidsLimit", Value::from(77)),
        ("/HostConfig/NanoCpus", Value::from(500_000_000)),
        ("/HostConfig/CpuShares", Value::from(200)),
        ("/HostConfig/LogConfig/Type", Value::from("json-file")),
        ("/HostConfig/LogConfig/Config/max-size", Value::from("1m")),
        ("/HostConfig/RestartPolicy/Name", Value::from("on-failure")),
        (
            "/HostConfig/RestartPolicy/MaximumRetryCount",
            Value::from(4),
        ),
        ("/Config/Labels/team", Value::from("a")),
    ] {
        assert_eq!(seen.pointer(pointer), Some(&expected), "{pointer}: {seen}");
    }
    // None of it changes from one run to the next.
    let again = cluster.ok(&["deploy", "-y", "-f", &file]);
    assert!(again.stderr.contains("services are up to date"), "{again}");
}

#[test]
fn container_names_and_links_of_single_host_files_resolve() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    cluster.deploy(
        "names",
        r#"
services:
  db:
    @busybox
    command: [sleep, '9999']
    container_name: names-postgres
    networks: {back: {aliases: [database]}}
  web:
    @busybox
    command: [sleep, '9999']
    links: ["db:store"]
    networks: [back]
  raw:
    @busybox
    command: [sleep, '9999']
    network_mode: host
    x-machines: m2
networks:
  back:
"#,
    );
    let db = cluster.replicas("db")[0].ip.clone().expect("an address");
    for machine in MACHINES {
        for name in ["db", "names-postgres", "database", "store"] {
            wait_for("the name", Duration::from_secs(5), || {
                let found = addresses(&cluster, machine, &format!("{name}.names.internal"));
                anyhow::ensure!(found == [db.as_str()], "{name} on {machine}: {found:?}");
                Ok(())
            })
            .expect("every name is known everywhere");
        }
        // A container in the machine's own network is found at the machine's address.
        wait_for("the name", Duration::from_secs(5), || {
            let found = addresses(&cluster, machine, "raw.names.internal");
            anyhow::ensure!(found == ["10.210.1.1"], "{machine}: {found:?}");
            Ok(())
        })
        .expect("the machine's address");
    }
    let raw = cluster.inside("raw", &cluster.replicas("raw")[0], "ls /sys/class/net");
    assert!(
        raw.stdout.contains("uc0"),
        "the machine's own interfaces: {raw}"
    );
}

/// A name server that knows one answer, `192.0.2.77`, whatever it is asked.
const NAME_SERVER: &str = r#"use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalAddr => $ARGV[0], LocalPort => 53, Proto => "udp") or die $!;
while (1) { my $from = $s->recv(my $q, 512); my ($question) = $q =~ /^.{12}((?:.*?)\0....)/s;
$s->send(substr($q, 0, 2) . pack("n5", 0x8180, 1, 1, 0, 0) . $question . pack("n3Nn", 0xc00c, 1, 1, 1, 4) . "\xc0\0\x02\x4d", 0, $from); }"#;

#[test]
fn service_dns_setting_is_used_for_outside_names_only() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let server = cluster.machine("m1");
    let address = server
        .sh("hostname -I | tr ' ' '\n' | grep -m1 '^10[.]213[.]'")
        .expect("an address");
    let address = address.trim();
    server
        .write_file("/root/name-server.pl", NAME_SERVER.as_bytes(), 0o644)
        .expect("written");
    server
        .sh(&format!("systemctl stop uc-test-dns 2>/dev/null; systemd-run --unit uc-test-dns --collect perl /root/name-server.pl {address}"))
        .expect("it runs");
    cluster.deploy(
        "resolvers",
        &format!("services:\n  own:\n    @busybox\n    command: [sleep, '9999']\n    dns: [{address}]\n    x-machines: m2\n  other:\n    @busybox\n    command: [sleep, '9999']\n    x-machines: m2\n"),
    );
    let asked = |service: &str, name: &str| {
        let replica = &cluster.replicas(service)[0];
        let pid = format!(
            "$(docker inspect --format '{{{{.State.Pid}}}}' {})",
            replica.container_id
        );
        let dig = format!(
            "nsenter --target {pid} --net dig +short +tries=1 +time=8 @127.0.0.11 {name} A || true"
        );
        cluster
            .machine("m2")
            .sh(&dig)
            .expect("dig runs")
            .trim()
            .to_owned()
    };
    wait_for("the name", SOON, || {
        let found = asked("own", "example.com");
        anyhow::ensure!(found == "192.0.2.77", "{found}");
        Ok(())
    })
    .expect("its own resolver answers");
    let other = cluster.replicas("other")[0].ip.clone().expect("an address");
    assert_eq!(
        asked("own", "other.resolvers.internal"),
        other,
        "services are still found"
    );
    assert_eq!(
        asked("own", "nobody.resolvers.internal"),
        "",
        "no other resolver is asked for the cluster's names"
    );
    assert_ne!(asked("other", "example.com"), "192.0.2.77");
    server.sh("systemctl stop uc-test-dns").expect("stopped");
}

/// A service in the network of another one; `@version` changes that one.
const SIDECAR: &str = r#"
services:
  app:
    @busybox
    command: [sh, -c, "mkdir /w; echo @version > /w/index.html; exec httpd -f -p 127.0.0.1:80 -h /w"]
    healthcheck: {test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1/"], interval: 500ms, retries: 20}
  side:
    @busybox
    command: [sleep, '9999']
    network_mode: service:app
"#;

#[test]
fn service_sharing_a_network_runs_on_the_same_machine() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    for version in ["one", "two"] {
        cluster.deploy("pair", &SIDECAR.replace("@version", version));
        let (app, side) = (&cluster.replicas("app")[0], &cluster.replicas("side")[0]);
        assert_eq!(app.machine.name, side.machine.name);
        let page = cluster.inside("side", side, "wget -q -O - http://127.0.0.1/");
        assert_eq!(page.stdout.trim(), version, "{page}");
        assert_eq!(app.ip, side.ip, "one network, one address");
        assert!(side.current && app.current);
    }
    let again = cluster.ok(&[
        "deploy",
        "-y",
        "-f",
        &cluster.compose("pair", &SIDECAR.replace("@version", "two")),
    ]);
    assert!(again.stderr.contains("services are up to date"), "{again}");
}

#[test]
fn machine_labels_constrain_placement() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    for (machine, zone) in [("m1", "a"), ("m2", "a"), ("m3", "b")] {
        cluster.ok(&["machine", "label", machine, &format!("zone={zone}")]);
    }
    let services = |placement: &str, replicas: u32| {
        format!(
            "services:\n  app:\n    @busybox\n    command: [sleep, '9999']\n    deploy:\n      replicas: {replicas}\n      placement: {placement}\n"
        )
    };
    cluster.deploy(
        "placed",
        &services("{constraints: [node.labels.zone == b]}", 2),
    );
    assert_eq!(places(&cluster.replicas("app")), ["m3", "m3"]);
    cluster.deploy(
        "placed",
        &services(
            "{constraints: ['node.hostname != m3'], max_replicas_per_node: 1}",
            2,
        ),
    );
    assert_eq!(places(&cluster.replicas("app")), ["m1", "m2"]);
    cluster.deploy(
        "placed",
        &services("{preferences: [{spread: node.labels.zone}]}", 4),
    );
    let spread = cluster.replicas("app");
    let in_b = spread
        .iter()
        .filter(|replica| replica.machine.name == "m3")
        .count();
    assert_eq!(in_b, 2, "half of them in each zone: {:?}", places(&spread));

    // What cannot be is said, and nothing changes.
    for (placement, said) in [
        (
            "{constraints: [node.labels.zone==c]}",
            "node.labels.zone == c",
        ),
        ("{constraints: [node.lables.zone==c]}", "node.labels"),
        ("{max_replicas_per_node: 1}", "max_replicas_per_node"),
    ] {
        let file = cluster.compose("placed", &services(placement, 4));
        let refused = cluster
            .uc
            .run(&["deploy", "-y", "-f", &file])
            .expect("uc runs");
        assert!(
            refused.code != Some(0) && refused.stderr.contains(said),
            "{refused}"
        );
    }
    assert_eq!(ids(&cluster.replicas("app")), ids(&spread));
    for machine in MACHINES {
        cluster.ok(&["machine", "label", machine, "zone-"]);
    }
}

/// A service that serves what a command before it wrote into its volume.
fn prepared(command: &str) -> String {
    format!(
        r#"
services:
  app:
    @busybox
    command: [sh, -c, "cat /data/ready && exec sleep 9999"]
    volumes: ["data:/data"]
    x-pre_deploy:
      command: [sh, -c, "{command}"]
      environment: {{WHO: me}}
      timeout: 1m
volumes: {{data: }}
"#
    )
}

#[test]
fn failed_pre_deploy_command_stops_the_deployment() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let first = cluster.deploy("hooked", &prepared("echo $$WHO > /data/ready"));
    assert!(first.stderr.contains("pre-deploy"), "{first}");
    let app = &cluster.replicas("app")[0];
    assert_eq!(
        cluster.inside("app", app, "cat /data/ready").stdout.trim(),
        "me"
    );
    // Its container is gone and never counted.
    let containers: usize = MACHINES
        .iter()
        .map(|machine| cluster.containers(machine, "hooked").len())
        .sum();
    assert_eq!(containers, 1);
    let again = cluster.deploy("hooked", &prepared("echo $$WHO > /data/ready"));
    assert!(again.stderr.contains("services are up to date"), "{again}");

    let file = cluster.compose(
        "hooked",
        &prepared("echo no such luck >&2; false").replace("9999", "9998"),
    );
    let failed = cluster.ends(3, &["deploy", "-y", "-f", &file]);
    assert!(failed.stderr.contains("no such luck"), "{failed}");
    assert_eq!(cluster.replicas("app")[0].container_id, app.container_id);
    let containers: usize = MACHINES
        .iter()
        .map(|machine| cluster.containers(machine, "hooked").len())
        .sum();
    assert_eq!(containers, 1);
}

#[test]
fn rolling_update_keeps_parallelism_and_pauses_on_failure() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let services = |command: &str, update: &str| {
        format!(
            "services:\n  app:\n    @busybox\n    command: {command}\n    restart: 'no'\n    deploy:\n      replicas: 3\n      update_config: {update}\n"
        )
    };
    cluster.deploy("paced", &services("[sleep, '9999']", "{parallelism: 0}"));
    let before = cluster.replicas("app");
    // One machine's replica cannot run: the others' turn does not come, and what is old stays.
    let file = cluster.compose(
        "paced",
        &services(
            "[sh, -c, 'exit 5']",
            "{failure_action: pause, order: start-first}",
        ),
    );
    let failed = cluster.ends(3, &["deploy", "-y", "-f", &file]);
    assert!(failed.stderr.contains("pause"), "{failed}");
    wait_for("the old ones", SOON, || {
        let now = cluster.replicas("app");
        anyhow::ensure!(ids(&now) == ids(&before), "{now:?}");
        Ok(())
    })
    .expect("what ran before runs");
    for machine in MACHINES {
        assert_eq!(on(&cluster.replicas("app"), machine).state, "running");
    }
}
