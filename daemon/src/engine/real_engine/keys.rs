//! Checks one container with as many keys as possible from inside, and containers that share
//! namespaces with it and with the machine.

use super::*;

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn hook(script: &str) -> v1::Hook {
    v1::Hook {
        command: texts(&["sh", "-c", script]),
        ..Default::default()
    }
}

fn bind(source: &std::path::Path, target: &str) -> v1::MountSpec {
    v1::MountSpec {
        kind: v1::MountKind::Bind.into(),
        source: source.to_string_lossy().into_owned(),
        target: target.into(),
        ..Default::default()
    }
}

/// A spec with every key whose effect is visible in a container.
fn everything(folder: &std::path::Path) -> v1::ServiceSpec {
    let mut spec = service("all", "trap 'exit 0' TERM; while true; do sleep 0.1; done");
    spec.stop_grace_period_ms = Some(5000);
    spec.hostname = "front".into();
    spec.domainname = "example.org".into();
    spec.extra_hosts = texts(&["one=10.9.8.7", "six=fd00::1", "machine=host-gateway"]);
    spec.dns = texts(&["10.0.0.53"]);
    spec.dns_search = texts(&["corp"]);
    spec.dns_options = texts(&["rotate"]);
    spec.ipc = "shareable".into();
    spec.cgroup = "private".into();
    spec.group_add = texts(&["4242"]);
    spec.cap_add = texts(&["NET_ADMIN"]);
    spec.cap_drop = texts(&["CHOWN"]);
    spec.security_opt = texts(&["no-new-privileges"]);
    spec.device_cgroup_rules = texts(&["c 1:3 r"]);
    spec.devices = vec![v1::DeviceSpec {
        source: "/dev/null".into(),
        target: "/dev/nothing".into(),
        permissions: "rw".into(),
    }];
    spec.sysctls = [("net.core.somaxconn".to_owned(), "1234".to_owned())].into();
    spec.ulimits = [(
        "nofile".to_owned(),
        v1::Ulimit {
            soft: 1111,
            hard: 2222,
        },
    )]
    .into();
    spec.shm_size = Some(3 << 20);
    spec.logging = Some(v1::Logging {
        options: [("max-size".to_owned(), "1m".to_owned())].into(),
        ..Default::default()
    });
    spec.restart = v1::RestartPolicy::OnFailure.into();
    spec.restart_attempts = 3;
    spec.platform = "linux".into();
    spec.init = true;
    spec.mounts = vec![
        v1::MountSpec {
            selinux: "z".into(),
            propagation: "private".into(),
            ..bind(folder, "/bound")
        },
        v1::MountSpec {
            create_host_path: Some(false),
            recursive: "disabled".into(),
            ..bind(folder, "/flat")
        },
        v1::MountSpec {
            kind: v1::MountKind::Tmpfs.into(),
            target: "/scratch".into(),
            tmpfs_size: Some(1 << 20),
            tmpfs_mode: Some(0o1750),
            tmpfs_options: texts(&["exec"]),
            ..Default::default()
        },
        v1::MountSpec {
            kind: v1::MountKind::Volume.into(),
            target: "/bin2".into(),
            nocopy: true,
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..Default::default()
        },
    ];
    let second = v1::Hook {
        user: "1000:1000".into(),
        working_dir: "/scratch".into(),
        environment: [("WHO".to_owned(), "me".to_owned())].into(),
        ..hook("echo $WHO $(/bin/busybox id -u) $(/bin/busybox pwd) >> /bound/hooks")
    };
    spec.post_start = vec![
        hook("echo started > /bound/hooks; /bin/busybox chmod 666 /bound/hooks"),
        second,
    ];
    spec.pre_stop = vec![hook("echo stopping >> /bound/hooks")];
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_engine_honours_every_key() {
    let Some(dockerd) = Dockerd::start().await else {
        return;
    };
    let Served {
        engine,
        node,
        _identity,
        _state,
        ..
    } = served(&dockerd).await;
    let folder = tempfile::tempdir().unwrap();
    let hooks = || std::fs::read_to_string(folder.path().join("hooks")).unwrap_or_default();
    let seen = async |id: &str, command: &str| {
        let start = v1::ExecStart {
            container: id.to_owned(),
            command: texts(&["sh", "-c", command]),
            ..Default::default()
        };
        let (output, code) = exec(&node, start, b"").await;
        assert_eq!(code, 0, "{command}: {output}");
        output.trim_end().to_owned()
    };

    let (_, id) = create(&node, everything(folder.path())).await.unwrap();
    assert_eq!(hooks(), "");
    let record = start(&node, &id).await.unwrap();
    assert_eq!(hooks(), "started\nme 1000 /scratch\n");
    for (command, expected) in [
        ("hostname", "front"),
        ("cat /proc/sys/kernel/domainname", "example.org"),
        ("cat /proc/sys/net/core/somaxconn", "1234"),
        // Read from process 1, because older runtimes lose the lower limit for an exec.
        (
            "/bin/busybox awk '/open files/ { print $4, $5 }' /proc/1/limits",
            "1111 2222",
        ),
        (
            "/bin/busybox df -k /dev/shm | /bin/busybox awk 'END { print $2 }'",
            "3072",
        ),
        (
            "/bin/busybox df -k /scratch | /bin/busybox awk 'END { print $2 }'",
            "1024",
        ),
        ("/bin/busybox stat -c %a /scratch", "1750"),
        (
            "/bin/busybox stat -c '%F' /dev/nothing",
            "character special file",
        ),
        (
            "/bin/busybox awk '/NoNewPrivs/ { print $2 }' /proc/1/status",
            "1",
        ),
        (
            "/bin/busybox awk '/^Groups/ { print $NF }' /proc/1/status",
            "4242",
        ),
        ("/bin/busybox cat /proc/1/comm", "docker-init"),
        (
            "/bin/busybox grep -c -w '10.9.8.7[[:space:]]one' /etc/hosts",
            "1",
        ),
        (
            "/bin/busybox grep -c 'fd00::1[[:space:]]six' /etc/hosts",
            "1",
        ),
        (
            "/bin/busybox grep -c '10.233.0.1[[:space:]]machine' /etc/hosts",
            "1",
        ),
        (
            "/bin/busybox grep -v '^#' /etc/resolv.conf",
            "search corp suite.internal internal\nnameserver 127.0.0.11\noptions rotate ndots:1",
        ),
        ("/bin/busybox ls /bin2", ""),
        (
            "/bin/busybox grep -c ' /scratch .*noexec' /proc/mounts || true",
            "0",
        ),
    ] {
        assert_eq!(seen(&id, command).await, expected, "{command}");
    }
    // What cannot be seen from inside, as the engine reports it.
    let told = engine
        .docker()
        .await
        .unwrap()
        .inspect_container(&id, None)
        .await
        .unwrap();
    let host = told.host_config.unwrap();
    let policy = host.restart_policy.unwrap();
    assert_eq!(policy.maximum_retry_count, Some(3));
    // Without a driver in the file, the options go to the engine's default one.
    let log = host.log_config.unwrap();
    assert_eq!(log.typ.as_deref(), Some("json-file"));
    assert_eq!(log.config.unwrap()["max-size"], "1m");
    // On a network of ours, Docker's own DNS server comes before these.
    assert_eq!(host.dns.unwrap(), ["10.233.0.1", "10.0.0.53"]);
    assert_eq!(host.device_cgroup_rules.unwrap(), ["c 1:3 r"]);
    assert_eq!(
        (host.cap_add.unwrap(), host.cap_drop.unwrap()),
        (texts(&["NET_ADMIN"]), texts(&["CHOWN"]))
    );
    let propagation = told
        .mounts
        .unwrap()
        .into_iter()
        .find(|mount| mount.destination.as_deref() == Some("/bound"));
    assert_eq!(propagation.unwrap().propagation.as_deref(), Some("private"));
    assert_eq!(record.mounts.len(), 4, "{:?}", record.mounts);

    // Another container joins its namespaces by the service's name.
    let mut joined = service("joined", "sleep 1000");
    joined.stop_grace_period_ms = Some(0);
    (joined.network_mode, joined.ipc, joined.pid) = (
        "service:all".into(),
        "service:all".into(),
        "service:all".into(),
    );
    let (_, other) = create(&node, joined).await.unwrap();
    assert_eq!(start(&node, &other).await.unwrap().ip, record.ip);
    for namespace in ["net", "ipc"] {
        let link = format!("/bin/busybox readlink /proc/self/ns/{namespace}");
        assert_eq!(
            seen(&other, &link).await,
            seen(&id, &link).await,
            "{namespace}"
        );
    }
    assert_eq!(seen(&other, "hostname").await, "front");
    assert_eq!(
        seen(&other, "/bin/busybox cat /proc/1/comm").await,
        "docker-init"
    );

    // A third container has the machine's namespaces.
    let mut own = service("machine", "sleep 1000");
    own.stop_grace_period_ms = Some(0);
    (own.network_mode, own.pid, own.uts, own.ipc) =
        ("host".into(), "host".into(), "host".into(), "host".into());
    own.ports = vec![v1::PortSpec {
        container_port: 80,
        published_port: 80,
        ..Default::default()
    }];
    let (_, of_machine) = create(&node, own).await.unwrap();
    let record = start(&node, &of_machine).await.unwrap();
    assert_eq!((record.ip.as_str(), record.ports.len()), ("10.233.0.1", 0));
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(seen(&of_machine, "hostname").await, name.trim_end());
    assert_eq!(
        seen(&of_machine, "/bin/busybox grep -c br- /proc/net/dev").await,
        "1"
    );
    assert_eq!(
        seen(&of_machine, "/bin/busybox grep nameserver /etc/resolv.conf").await,
        "nameserver 10.233.0.1"
    );

    // What the oldest engines cannot do is reported, not left out.
    if engine.version().await.unwrap().api < ApiVersion::new(1, 43) {
        let mut new = service("new", "true");
        new.annotations = [("a".to_owned(), "b".to_owned())].into();
        let failure = create(&node, new).await.unwrap_err();
        assert!(
            failure.message.contains("annotations requires Docker 24"),
            "{failure:?}"
        );
    }
    let mut device = service("device", "true");
    device.devices = vec![v1::DeviceSpec {
        source: "/dev/no-such".into(),
        ..Default::default()
    }];
    let (_, without) = create(&node, device).await.unwrap();
    let failure = start(&node, &without).await.unwrap_err();
    assert_eq!(failure.code, Code::Refused, "{failure:?}");
    let platform = v1::ServiceSpec {
        platform: "linux/s390x".into(),
        pull_policy: v1::PullPolicy::Never.into(),
        ..service("platform", "true")
    };
    let failure = create(&node, platform).await.unwrap_err();
    assert!(
        failure.code == Code::Refused && failure.message.contains("platform"),
        "{failure:?}"
    );

    node.remove(&id).await.unwrap();
    assert_eq!(hooks(), "started\nme 1000 /scratch\nstopping\n");
    node.remove_all().await.unwrap();
    assert!(engine.containers().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_engine_limits_what_a_service_may_have() {
    let Some(dockerd) = Dockerd::start().await else {
        return;
    };
    let Served {
        engine,
        node,
        _identity,
        _state,
        ..
    } = served(&dockerd).await;
    let mut spec = service("limits", "sleep 1000");
    spec.resources = Some(v1::Resources {
        nano_cpus: Some(250_000_000),
        memory: Some(64 << 20),
        reserved_memory: Some(32 << 20),
        memory_swap: Some(64 << 20),
        pids: Some(50),
        cpu_shares: Some(512),
        cpuset: "0".into(),
        oom_score_adj: Some(500),
        ..Default::default()
    });
    spec.stop_grace_period_ms = Some(0);
    let (_, id) = create(&node, spec).await.unwrap();
    start(&node, &id).await.unwrap();
    let told = engine
        .docker()
        .await
        .unwrap()
        .inspect_container(&id, None)
        .await
        .unwrap();
    let host = told.host_config.unwrap();
    assert_eq!(
        (
            host.nano_cpus,
            host.memory,
            host.memory_reservation,
            host.pids_limit
        ),
        (Some(250_000_000), Some(64 << 20), Some(32 << 20), Some(50))
    );
    assert_eq!(
        (host.cpu_shares, host.cpuset_cpus.as_deref()),
        (Some(512), Some("0"))
    );
    let start = v1::ExecStart {
        container: id,
        command: texts(&["sh", "-c", "cat /proc/1/oom_score_adj"]),
        ..Default::default()
    };
    assert_eq!(exec(&node, start, b"").await.0, "500\n");
    node.remove_all().await.unwrap();
}
