use bollard::models as engine;

use super::*;

/// An answer of engine version 27, reduced to what matters.
const INSPECTED: &str = r#"{
  "Id": "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
  "Created": "2026-03-01T12:00:00.123456789Z",
  "Name": "/shop-web-ab2c",
  "RestartCount": 2,
  "State": {"Status": "running", "Running": true, "ExitCode": 0, "OOMKilled": false, "Error": "",
    "Health": {"Status": "healthy", "FailingStreak": 0, "Log": []}},
  "HostConfig": {
    "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
    "PortBindings": {
      "80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": "8081"}],
      "53/udp": [{"HostIp": "", "HostPort": ""}]
    }
  },
  "Mounts": [
    {"Type": "volume", "Name": "shop_data", "Source": "/var/lib/docker/volumes/shop_data/_data", "Destination": "/data", "Driver": "local", "RW": true},
    {"Type": "bind", "Source": "/srv/x", "Destination": "/conf", "RW": false},
    {"Type": "tmpfs", "Source": "", "Destination": "/tmp", "RW": true}
  ],
  "Config": {
    "Image": "nginx:1",
    "StopTimeout": 30,
    "Labels": {"uc.cluster": "c1", "uc.machine": "m1", "uc.project": "shop", "uc.service": "web", "uc.revision": "r1"},
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5000000000, "Retries": 0}
  },
  "NetworkSettings": {
    "Ports": {
      "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
      "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "32768"}]
    },
    "Networks": {"uc": {"IPAddress": "10.210.3.2"}, "other": {"IPAddress": "172.18.0.2"}}
  }
}"#;

fn inspected() -> engine::ContainerInspectResponse {
    serde_json::from_str(INSPECTED).unwrap()
}

#[test]
fn container_converts_running_container() {
    let container = container(inspected());
    let port =
        |container_port, published_port, host_ip: &str, protocol: v1::Protocol| v1::PortSpec {
            container_port,
            published_port,
            host_ip: host_ip.into(),
            protocol: protocol.into(),
            ..Default::default()
        };
    let mount = |kind: v1::MountKind, source: &str, target: &str, read_only| v1::MountSpec {
        kind: kind.into(),
        source: source.into(),
        target: target.into(),
        read_only,
        ..Default::default()
    };
    assert_eq!(
        container.record,
        v1::ReplicaRecord {
            container_id: "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff".into(),
            container_name: "shop-web-ab2c".into(),
            project: "shop".into(),
            service: "web".into(),
            revision: "r1".into(),
            image: "nginx:1".into(),
            state: v1::ReplicaState::Running.into(),
            health: v1::Health::Healthy.into(),
            ip: "10.210.3.2".into(),
            created_at_ms: 1_772_366_400_123,
            exit_code: None,
            ports: vec![
                port(53, 32768, "", v1::Protocol::Udp),
                port(80, 8080, "", v1::Protocol::Tcp),
                port(80, 8081, "127.0.0.1", v1::Protocol::Tcp),
            ],
            draining: false,
            restart_count: 2,
            mounts: vec![
                mount(v1::MountKind::Bind, "/srv/x", "/conf", true),
                mount(v1::MountKind::Volume, "shop_data", "/data", false),
                mount(v1::MountKind::Tmpfs, "", "/tmp", false),
            ],
            ..Default::default()
        }
    );
    assert!(container.managed);
    assert_eq!(container.restart, v1::RestartPolicy::UnlessStopped);
    assert_eq!(container.stop_grace, Duration::from_secs(30));
    let limits = container.healthcheck.unwrap();
    assert_eq!(
        (limits.interval, limits.timeout),
        (Duration::from_secs(5), HEALTH_TIMEOUT)
    );
    assert_eq!((limits.retries, limits.start_period), (3, Duration::ZERO));
}

#[test]
fn container_converts_states_and_exit_codes() {
    use engine::ContainerStateStatusEnum as Status;
    let of = |status| {
        let mut inspected = inspected();
        let state = inspected.state.as_mut().unwrap();
        state.status = Some(status);
        state.exit_code = Some(137);
        let record = container(inspected).record;
        (record.state(), record.exit_code)
    };
    assert_eq!(of(Status::CREATED), (v1::ReplicaState::Created, None));
    assert_eq!(of(Status::PAUSED), (v1::ReplicaState::Paused, None));
    assert_eq!(
        of(Status::RESTARTING),
        (v1::ReplicaState::Restarting, Some(137))
    );
    assert_eq!(of(Status::EXITED), (v1::ReplicaState::Exited, Some(137)));
    assert_eq!(of(Status::DEAD), (v1::ReplicaState::Dead, Some(137)));
    assert_eq!(of(Status::REMOVING), (v1::ReplicaState::Dead, Some(137)));
}

#[test]
fn container_without_healthcheck_has_no_limits() {
    let with = |test: Option<Vec<String>>| {
        let mut inspected = inspected();
        inspected.state.as_mut().unwrap().health = None;
        inspected.config.as_mut().unwrap().healthcheck = test.map(|test| engine::HealthConfig {
            test: Some(test),
            ..Default::default()
        });
        container(inspected)
    };
    for test in [
        None,
        Some(vec![]),
        Some(vec!["NONE".to_owned()]),
        Some(vec![String::new()]),
    ] {
        let container = with(test.clone());
        assert_eq!(
            (container.healthcheck, container.record.health()),
            (None, v1::Health::None),
            "{test:?}"
        );
    }
    let limits = with(Some(vec!["CMD".into(), "true".into()]))
        .healthcheck
        .unwrap();
    assert_eq!(limits.limit(), Duration::from_secs(3 * 60 + 5));
}

#[test]
fn container_from_empty_answer_is_cautious() {
    let container = container(engine::ContainerInspectResponse::default());
    assert!(!container.managed);
    assert_eq!(container.record.state(), v1::ReplicaState::Unspecified);
    assert_eq!(container.restart, v1::RestartPolicy::No);
    assert_eq!(container.stop_grace, Duration::from_secs(10));
}

#[test]
fn volume_leaves_out_anonymous_volumes() {
    let of = |name: &str, label: Option<(&str, &str)>| {
        volume(engine::Volume {
            name: name.into(),
            driver: "local".into(),
            labels: label
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            ..Default::default()
        })
    };
    let ours = of("shop_data", Some(("uc.project", "shop")))
        .unwrap()
        .record;
    assert_eq!(
        (ours.name.as_str(), ours.project.as_str()),
        ("shop_data", "shop")
    );
    assert_eq!(of("mine", None).unwrap().record.project, "");
    assert_eq!(of(&"ab".repeat(32), None), None);
    assert_eq!(of("named", Some(("com.docker.volume.anonymous", ""))), None);
}

#[test]
fn port_holders_are_running_containers_with_published_ports() {
    let summary: engine::ContainerSummary = serde_json::from_str(
        r#"{"Id": "abc", "Names": ["/shop-web-ab2c"], "Labels": {"uc.project": "shop", "uc.service": "web"},
            "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                      {"PrivatePort": 443, "Type": "tcp"},
                      {"IP": "::", "PrivatePort": 53, "PublicPort": 53, "Type": "udp"}]}"#,
    )
    .unwrap();
    let holders = port_holders(summary);
    let short: Vec<_> = holders
        .iter()
        .map(|holder| (holder.host_ip.as_str(), holder.port, holder.protocol))
        .collect();
    assert_eq!(
        short,
        [
            ("0.0.0.0", 8080, v1::Protocol::Tcp),
            ("::", 53, v1::Protocol::Udp)
        ]
    );
    assert_eq!(
        (
            holders[0].container_name.as_str(),
            holders[0].service.as_str()
        ),
        ("shop-web-ab2c", "web")
    );
}

#[test]
fn container_reads_its_labels() {
    let mut inspected = inspected();
    let labels = inspected.config.as_mut().unwrap().labels.as_mut().unwrap();
    let hooks = r#"[{"command": ["drain", "now"], "user": "root"}]"#;
    for (key, value) in [
        ("uc.files", "ab12,cd34"),
        ("uc.reserved.cpu", "500000000"),
        ("uc.reserved.memory", "1048576"),
        ("uc.pre-stop", hooks),
        ("uc.post-start", "not json"),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    let container = container(inspected);
    assert_eq!(container.record.files, ["ab12", "cd34"]);
    let reserved = (
        container.record.reserved_nano_cpus,
        container.record.reserved_memory,
    );
    assert_eq!(reserved, (500_000_000, 1 << 20));
    assert_eq!(container.pre_stop[0].command, ["drain", "now"]);
    assert_eq!(
        (
            container.pre_stop[0].user.as_str(),
            container.post_start.len()
        ),
        ("root", 0)
    );
}

#[test]
fn container_address_comes_from_network_machine_or_other_container() {
    use engine::ContainerStateStatusEnum as Status;
    let of = |mode: &str, status| {
        let mut inspected = inspected();
        inspected.state.as_mut().unwrap().status = Some(status);
        inspected.host_config.as_mut().unwrap().network_mode = Some(mode.to_owned());
        inspected.network_settings.as_mut().unwrap().networks = None;
        let labels = inspected.config.as_mut().unwrap().labels.as_mut().unwrap();
        if mode == "host" {
            labels.insert("uc.address".into(), "10.210.3.1".into());
        }
        container(inspected)
    };
    assert_eq!(of("host", Status::RUNNING).record.ip, "10.210.3.1");
    assert_eq!(of("host", Status::PAUSED).record.ip, "10.210.3.1");
    for status in [
        Status::CREATED,
        Status::EXITED,
        Status::RESTARTING,
        Status::DEAD,
    ] {
        assert_eq!(of("host", status).record.ip, "", "{status}");
    }
    assert_eq!(of("none", Status::RUNNING).record.ip, "");
    let mut joined = of("container:abc", Status::RUNNING);
    assert_eq!(
        (joined.network_of.as_str(), joined.record.ip.as_str()),
        ("abc", "")
    );
    share_address(&mut joined, &container(inspected()));
    assert_eq!(joined.record.ip, "10.210.3.2");
    let mut ended = of("container:abc", Status::EXITED);
    share_address(&mut ended, &container(inspected()));
    assert_eq!(ended.record.ip, "");
    assert_eq!(container(inspected()).network_of, "");
}

#[test]
fn container_lists_tmpfs_and_image_mounts() {
    let mut inspected = inspected();
    let options = [("/run", "size=1,ro"), ("/cache", "")];
    inspected.host_config.as_mut().unwrap().tmpfs = Some(
        options
            .map(|(target, options)| (target.to_owned(), options.to_owned()))
            .into(),
    );
    inspected.mounts = Some(vec![engine::MountPoint {
        typ: Some("image".to_owned()),
        source: Some("data:1".to_owned()),
        destination: Some("/data".to_owned()),
        rw: Some(false),
        ..Default::default()
    }]);
    let mounts = container(inspected).record.mounts;
    let short: Vec<_> = mounts
        .iter()
        .map(|mount| (mount.kind(), mount.target.as_str(), mount.read_only))
        .collect();
    assert_eq!(
        short,
        [
            (v1::MountKind::Tmpfs, "/cache", false),
            (v1::MountKind::Image, "/data", true),
            (v1::MountKind::Tmpfs, "/run", true)
        ]
    );
}

/// A user can mount an anonymous volume of earlier days by its name. It is not the engine's then.
#[test]
fn anonymous_volumes_are_those_without_a_name_and_those_handed_on() {
    let hex = |digit: &str| digit.repeat(64);
    let point = |name: &str, target: &str| engine::MountPoint {
        typ: Some("volume".into()),
        name: Some(name.into()),
        destination: Some(target.into()),
        ..Default::default()
    };
    let mount = |name: &str| engine::Mount {
        typ: Some(engine::MountType::VOLUME),
        source: Some(name.into()),
        ..Default::default()
    };
    let mut inspected = inspected();
    let points = ["a", "b", "c", "d"].map(|digit| point(&hex(digit), &format!("/{digit}")));
    inspected.mounts = Some(points.to_vec());
    let host = inspected.host_config.as_mut().unwrap();
    host.mounts = Some(vec![mount(&hex("a")), mount(&hex("b"))]);
    host.binds = Some(vec![format!("{}:/c:ro", hex("c"))]);
    let labels = inspected.config.as_mut().unwrap().labels.as_mut();
    labels.unwrap().insert(label::HANDED_ON.into(), hex("b"));
    let volumes = container(inspected).anonymous_volumes;
    let volumes: Vec<(&str, &str)> = volumes
        .iter()
        .map(|volume| (volume.target.as_str(), volume.name.as_str()))
        .collect();
    assert_eq!(volumes, [("/b", &*hex("b")), ("/d", &*hex("d"))]);
}
