//! The commands that look at what runs, and get into it.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::{Cluster, MACHINES, array, on};

const SERVICES: &str = r#"
services:
  talker:
    @busybox
    command: ["sh", "-c", "i=0; while :; do i=$$((i+1)); echo said $$i; echo moaned $$i >&2; sleep 0.5; done"]
    environment: {NAME: talker}
    labels: {team: a}
    deploy: {replicas: 3}
  quiet:
    @busybox
    command: ["sleep", "9999"]
    ports: ["127.0.0.1:8091:80/udp"]
"#;

/// Fails unless each object has exactly these keys.
#[track_caller]
fn has_keys(value: &Value, keys: &str) {
    let mut expected: Vec<_> = keys.split_whitespace().collect();
    expected.sort_unstable();
    let mut found: Vec<_> = value
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    found.sort_unstable();
    assert_eq!(found, expected, "{value}");
}

const SERVICE: &str = "project name revision mode replicas image ports updated_at";
const REPLICA: &str = "project service container_id container_name image revision current state health exit_code \
                       restart_count draining to_be_removed kept ip ports created_at machine";
const EXAMINED: &str = "id name state connected answered failure clock uc_version docker_version docker_failure \
                        started_at unready disk_failure set_aside rejoining store peers";
const STORE: &str = "changes actors tombstones collected conflicts quarantined quarantined_writers opaque loose waiting \
                     commits durable_commits failed_commits commit_us commit_buckets rejoins file_bytes";
const PEER: &str = "id name state neighbour connected sessions lag frames_in frames_out bytes_in bytes_out \
                    differences";
const SPEC: &str = "image built command entrypoint environment ports mounts healthcheck depends_on mode \
                    replicas machines user working_dir hostname labels stop_grace_period_ms stop_signal \
                    restart pull_policy update_order init read_only tty stdin_open cap_add cap_drop aliases \
                    domainname extra_hosts dns dns_search dns_options network_mode mac_address ipc pid uts \
                    userns cgroup cgroup_parent privileged group_add security_opt device_cgroup_rules \
                    devices device_requests sysctls storage_opt annotations ulimits resources logging \
                    runtime platform shm_size restart_attempts files secret_environment post_start pre_stop \
                    pre_deploy update placement service_labels shared_revisions image_digest \
                    reschedule_after_ms";

#[test]
fn listings_logs_and_exec_work_on_every_machine() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    cluster.deploy("looks", SERVICES);
    listings(&cluster);
    logs(&cluster);
    exec(&cluster);
    unknown_names(&cluster);
}

fn listings(cluster: &Cluster) {
    let table = cluster.ok(&["ps"]).stdout;
    assert_eq!(table.lines().count(), 5, "{table}");
    let services = cluster.json(&["ls"]);
    for service in array(&services).expect("an array") {
        has_keys(service, SERVICE);
        has_keys(&service["replicas"], "desired running healthy completed");
    }
    assert_eq!(services[0]["name"], "quiet");
    has_keys(
        &services[0]["ports"][0],
        "container_port published_port published_last host_ip protocol",
    );
    assert_eq!(services[0]["ports"][0]["protocol"], "udp");
    assert_eq!(services[1]["replicas"]["running"], 3);
    let replicas = cluster.json(&["ps"]);
    for replica in array(&replicas).expect("an array") {
        has_keys(replica, REPLICA);
        has_keys(&replica["machine"], "id name state engine_away_since");
    }
    let machines = cluster.json(&["machine", "ls"]);
    for machine in array(&machines).expect("an array") {
        has_keys(
            machine,
            "id name state connected subnet public_key endpoints replicas created_at labels cordoned_at facts",
        );
        has_keys(
            &machine["facts"],
            "hostname os kernel arch docker_version uc_version cpus memory_bytes engine_away_since",
        );
    }
    let doctor = cluster.json(&["doctor"]);
    has_keys(&doctor, "findings machines");
    for machine in array(&doctor["machines"]).expect("an array") {
        has_keys(machine, EXAMINED);
        has_keys(&machine["clock"], "ahead_ms error_ms");
        has_keys(&machine["store"], STORE);
        has_keys(&machine["store"]["commit_buckets"][0], "up_to_us commits");
        has_keys(&machine["peers"][0], PEER);
    }
    let all = cluster.json(&["inspect", "talker"]);
    has_keys(&all, "service spec replicas volumes");
    has_keys(&all["service"], SERVICE);
    has_keys(&all["spec"], SPEC);
    assert_eq!(all["spec"]["environment"]["NAME"], "talker");
    assert_eq!(all["replicas"].as_array().map(Vec::len), Some(3));
    let contexts = cluster.json(&["ctx", "ls"]);
    has_keys(&contexts[0], "name current cluster_id connections");
    has_keys(
        &cluster.json(&["version"]),
        "version protocol platform commit built server",
    );
    let file = cluster
        .uc
        .home()
        .join("looks/compose.yaml")
        .to_string_lossy()
        .into_owned();
    let resolved = cluster
        .ok(&["config", "-f", &file, "--format", "json"])
        .stdout;
    let resolved: Value = serde_json::from_str(&resolved).expect("JSON");
    assert_eq!(resolved["name"], "looks");
    assert_eq!(resolved["services"]["quiet"]["ports"][0]["target"], 80);
    // What it prints is a compose file that means the same.
    let text = cluster.ok(&["config", "-f", &file]).stdout;
    let again = cluster
        .write("looks", "resolved.yaml", &text)
        .to_string_lossy()
        .into_owned();
    let deployed = cluster.ok(&["deploy", "-y", "-f", &again]);
    assert!(
        deployed.stderr.contains("services are up to date"),
        "{deployed}\n{text}"
    );
}

fn logs(cluster: &Cluster) {
    let output = cluster.ok(&["logs", "-n", "2", "looks/talker"]);
    assert_eq!(
        (output.stdout.lines().count() + output.stderr.lines().count()),
        6,
        "{output}"
    );
    for name in MACHINES {
        assert!(
            format!("{}{}", output.stdout, output.stderr).contains(&format!(" {name} talker/")),
            "{output}"
        );
    }
    let output = cluster.ok(&["logs", "-n", "20", "-o", "json", "talker"]);
    let lines: Vec<Value> = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    // The lines of one replica come as Docker keeps them: it takes the time of the two streams'
    // lines side by side and writes them down afterwards, so that a line may follow one that is a
    // little younger.
    let mut latest: BTreeMap<&str, &str> = BTreeMap::new();
    let times: Vec<_> = lines
        .iter()
        .map(|line| {
            let of = |key: &str| line[key].as_str().expect("a string");
            let latest = latest.entry(of("container_id")).or_default();
            *latest = of("time").max(*latest);
            *latest
        })
        .collect();
    assert!(times.is_sorted(), "{output}");
    for line in &lines {
        has_keys(
            line,
            "time machine project service container_id stream message problem",
        );
        let (stream, message) = (
            line["stream"].as_str(),
            line["message"].as_str().expect("a message"),
        );
        assert_eq!(
            stream == Some("stderr"),
            message.starts_with("moaned "),
            "{line}"
        );
    }
    // Followed until Ctrl-C, with news from every machine.
    let mut follow = cluster.watch(&["logs", "-f", "-n", "1", "talker"]);
    for name in MACHINES {
        for _ in 0..3 {
            assert!(
                follow.line_with(&format!(" {name} ")).is_some(),
                "{name} has no more to say"
            );
        }
    }
    follow.signal(Signal::INT);
    let code = follow.end().expect("Ctrl-C ends it");
    assert!(matches!(code, Some(0 | 130)), "{code:?}");
}

fn exec(cluster: &Cluster) {
    let talkers = cluster.replicas("talker");
    for name in MACHINES {
        let replica = on(&talkers, name);
        let said = cluster.inside(
            "talker",
            replica,
            "echo out; echo err >&2; hostname -i; exit 42",
        );
        assert_eq!(said.code, Some(42), "{said}");
        assert_eq!(
            (said.stdout, said.stderr),
            (
                format!("out\n{}\n", replica.ip.as_deref().expect("an address")),
                "err\n".into()
            )
        );
    }
    let mut child = cluster
        .uc
        .command(&[
            "exec",
            "-T",
            "-e",
            "A=b",
            "-w",
            "/tmp",
            "quiet",
            "sh",
            "-c",
            "cat; pwd; echo $A",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("uc runs");
    let text = "line\n".repeat(100_000);
    let mut stdin = child.stdin.take().expect("a pipe");
    let sent = text.clone();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, sent.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("all was taken");
    assert!(output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stdout) == text + "/tmp\nb\n",
        "half a megabyte comes back whole"
    );
    let missing = cluster.ends(127, &["exec", "-T", "quiet", "no-such-program"]);
    // Docker 20.10 says so in the command's own output.
    assert!(
        format!("{}{}", missing.stdout, missing.stderr).contains("no-such-program"),
        "{missing}"
    );
    let folder = cluster.ends(126, &["exec", "-T", "quiet", "/tmp"]);
    assert!(
        format!("{}{}", folder.stdout, folder.stderr).contains("/tmp"),
        "{folder}"
    );
    // Killing uc ends a command that never ends, and does not affect the service.
    let mut long = cluster.watch(&["exec", "-T", "quiet", "sh", "-c", "echo begun; sleep 60"]);
    assert!(long.line_with("begun").is_some());
    long.signal(Signal::KILL);
    long.end().expect("killed");
    cluster.ok(&["exec", "-T", "quiet", "true"]);
}

fn unknown_names(cluster: &Cluster) {
    for (code, words) in [
        (125, &["exec", "-T", "tolker", "true"][..]),
        (2, &["logs", "tolker"]),
        (2, &["inspect", "tolker"]),
        (2, &["scale", "-y", "tolker", "2"]),
        (2, &["rm", "-y", "tolker"]),
    ] {
        let output = cluster.ends(code, words);
        assert!(
            output.stderr.contains("service `tolker` not found"),
            "{output}"
        );
        assert!(
            output.stderr.contains("hint: did you mean `talker`?"),
            "{output}"
        );
    }
    assert!(
        cluster.ok(&["ls"]).stdout.contains("talker"),
        "nothing was removed"
    );
    let nobody = cluster.ends(4, &["--connect", "unix:///nonexistent/uc.sock", "ls"]);
    assert!(
        nobody.stderr.contains("/nonexistent/uc.sock") && nobody.stderr.contains("hint: "),
        "{nobody}"
    );
    let stopped = Duration::from_secs(10);
    let daemon = cluster.machine("m3");
    daemon.sh("systemctl stop ucd").expect("stopped");
    let output = cluster
        .uc
        .run(&["--connect", "ssh://root@m3", "ls"])
        .expect("uc runs");
    daemon.sh("systemctl start ucd").expect("started");
    assert_eq!(output.code, Some(4), "{output}");
    assert!(
        output.stderr.contains("hint: ") && output.stderr.contains("systemctl"),
        "{output}"
    );
    cluster.whole(stopped * 3).expect("whole again");
}
