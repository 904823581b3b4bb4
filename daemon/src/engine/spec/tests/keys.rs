//! Keys that only some services have: what reaches the engine, and what is refused.

mod mounts;

use serde_json::json;

use super::*;

/// Returns the fields of the host configuration that differ from those of a service without the
/// key.
fn host_of(change: impl Fn(&mut v1::ServiceSpec)) -> Value {
    let mut changed = spec();
    change(&mut changed);
    let (plain, host) = (
        serde_json::to_value(host(&spec())).unwrap(),
        serde_json::to_value(host(&changed)).unwrap(),
    );
    let Value::Object(fields) = host else {
        panic!("{host}")
    };
    Value::Object(
        fields
            .into_iter()
            .filter(|(key, value)| plain.get(key) != Some(value))
            .collect(),
    )
}

fn told(change: impl Fn(&mut v1::ServiceSpec), expected: Value) {
    assert_eq!(sorted(host_of(change)), sorted(expected));
}

fn with(change: impl Fn(&mut v1::ServiceSpec)) -> v1::ServiceSpec {
    let mut spec = spec();
    change(&mut spec);
    spec
}

fn refused(change: impl Fn(&mut v1::ServiceSpec)) -> String {
    check(&with(change)).unwrap_err().to_string()
}

fn on(api: ApiVersion, spec: &v1::ServiceSpec) -> Result<ContainerCreateBody, SpecError> {
    check(spec).unwrap();
    container(
        spec,
        "shop-web-abcd",
        &Placement {
            api,
            ..placement(&[])
        },
    )
}

/// Docker 20.10, the oldest supported version.
const OLD: ApiVersion = ApiVersion::new(1, 41);

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn container_passes_every_field_to_the_engine() {
    // Fields that are not in a container. The last two reach the engine by other ways, or only
    // change the revision.
    const ELSEWHERE: [&str; 17] = [
        "name",
        "project",
        "built",
        "depends_on",
        "mode",
        "replicas",
        "update_order",
        "machines",
        "reschedule_after_ms",
        "pull_policy",
        "aliases",
        "pre_deploy",
        "update",
        "placement",
        "service_labels",
        "platform",
        "shared_revisions",
    ];
    // Fields for display, and for the daemon that stores the content.
    const OF_CONTENTS: [&str; 2] = ["files[].name", "files[].secret"];
    // Some keys exclude each other, so each variant has some of them: first the network's, then
    // those of the machine's network, then the types of mounts.
    let mut variants: Vec<v1::ServiceSpec> = Vec::new();
    let mut whole = uc_api::every_field::spec();
    (whole.network_mode, whole.uts) = (String::new(), String::new());
    whole.device_requests[0].device_ids.clear();
    for kind in [
        v1::MountKind::Bind,
        v1::MountKind::Volume,
        v1::MountKind::Tmpfs,
        v1::MountKind::Image,
    ] {
        let mut variant = whole.clone();
        variant.mounts[0].kind = kind.into();
        variants.push(variant);
    }
    let mut short = whole.clone();
    short.mounts[0] = v1::MountSpec {
        kind: v1::MountKind::Bind.into(),
        recursive: String::new(),
        ..short.mounts[0].clone()
    };
    variants.push(short);
    let mut host = whole.clone();
    (host.network_mode, host.uts) = ("host".into(), "host".into());
    host.device_requests[0].device_ids = texts(&["0"]);
    variants.push(host);

    let files = |spec: &v1::ServiceSpec| -> BTreeMap<String, PathBuf> {
        spec.files
            .iter()
            .map(|file| {
                (
                    file.hash.clone(),
                    PathBuf::from(format!("/files/{}", file.hash)),
                )
            })
            .collect()
    };
    let body = |spec: &v1::ServiceSpec| {
        let secrets = spec
            .secret_environment
            .keys()
            .map(|name| (name.clone(), "x".to_owned()))
            .collect();
        let placement = Placement {
            files: &files(spec),
            handed_on: &[],
            secrets: &secrets,
            ..placement(&[])
        };
        let body = container(spec, "shop-web-abcd", &placement).unwrap();
        sorted(serde_json::to_value(body).unwrap())
    };
    let bodies: Vec<Value> = variants.iter().map(body).collect();
    for (path, changed) in uc_api::every_field::changes() {
        let field = path.split(['.', '[']).next().unwrap();
        if ELSEWHERE.contains(&field) || OF_CONTENTS.contains(&path.as_str()) {
            continue;
        }
        let changed = serde_json::to_value(changed).unwrap();
        let reaches = |(variant, unchanged): (&_, &Value)| {
            body(&with_value_of(variant, &path, &changed)) != *unchanged
        };
        assert!(variants.iter().zip(&bodies).any(reaches), "{path}");
    }
}

/// Returns the spec with the value at the path taken from another spec.
fn with_value_of(spec: &v1::ServiceSpec, path: &str, from: &Value) -> v1::ServiceSpec {
    let pointer = format!("/{}", path.replace("[]", "/0").replace('.', "/"));
    // A map's key can contain a dot. In that case the whole map is taken.
    let field = format!("/{}", path.split('.').next().unwrap());
    let pointer = if from.pointer(&pointer).is_some() {
        pointer
    } else {
        field
    };
    let mut to = serde_json::to_value(spec).unwrap();
    // A list that the variant has emptied does not have this place.
    if let Some(place) = to.pointer_mut(&pointer) {
        *place = from.pointer(&pointer).unwrap().clone();
    }
    serde_json::from_value(to).unwrap()
}

#[test]
fn container_maps_resources() {
    told(
        |spec| {
            spec.resources = Some(v1::Resources {
                nano_cpus: Some(1_500_000_000),
                memory: Some(1 << 30),
                reserved_memory: Some(1 << 29),
                reserved_nano_cpus: Some(1),
                pids: Some(-1),
                memory_swap: Some(-1),
                cpuset: "0-1".into(),
                oom_score_adj: Some(-5),
                ..Default::default()
            });
        },
        json!({"NanoCpus": 1_500_000_000_u64, "Memory": 1 << 30, "MemoryReservation": 1 << 29, "PidsLimit": -1,
            "MemorySwap": -1, "CpusetCpus": "0-1", "OomScoreAdj": -5}),
    );
    told(
        |spec| {
            let device = v1::DeviceValue {
                path: "/dev/a".into(),
                value: 7,
            };
            spec.resources = Some(v1::Resources {
                block_io: Some(v1::BlockIo {
                    weight: Some(10),
                    weight_devices: vec![device.clone()],
                    write_iops: vec![device],
                    ..Default::default()
                }),
                ..Default::default()
            });
        },
        json!({"BlkioWeight": 10, "BlkioWeightDevice": [{"Path": "/dev/a", "Weight": 7}],
            "BlkioDeviceWriteIOps": [{"Path": "/dev/a", "Rate": 7}]}),
    );
    told(
        |spec| {
            spec.ulimits = [("nofile".to_owned(), v1::Ulimit { soft: 10, hard: -1 })].into();
            spec.shm_size = Some(1024);
        },
        json!({"Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": -1}], "ShmSize": 1024}),
    );
}

#[test]
fn container_maps_devices() {
    let device = |source: &str, target: &str, permissions: &str| v1::DeviceSpec {
        source: source.into(),
        target: target.into(),
        permissions: permissions.into(),
    };
    let by_name = |spec: &mut v1::ServiceSpec| {
        spec.devices = vec![
            device("/dev/fuse", "", ""),
            device("/dev/a", "/dev/b", "r"),
            device("vendor.com/gpu=all", "", ""),
        ];
    };
    told(
        by_name,
        json!({"Devices": [
            {"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"},
            {"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}],
            "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.com/gpu=all"]}]}),
    );
    let old = on(OLD, &with(by_name)).unwrap_err();
    assert_eq!(
        old.to_string(),
        "service `web`: devices requires Docker 25 or newer on the machine"
    );
    let request = |request: v1::DeviceRequest| {
        host_of(|spec| spec.device_requests = vec![request.clone()])["DeviceRequests"][0].clone()
    };
    let gpu = v1::DeviceRequest {
        capabilities: texts(&["gpu", "utility"]),
        ..Default::default()
    };
    assert_eq!(
        request(gpu.clone()),
        json!({"Count": -1, "Capabilities": [["gpu", "utility"]]})
    );
    assert_eq!(
        request(v1::DeviceRequest {
            count: 2,
            driver: "nvidia".into(),
            options: map(&[("a", "b")]),
            ..gpu.clone()
        }),
        json!({"Count": 2, "Driver": "nvidia", "Capabilities": [["gpu", "utility"]], "Options": {"a": "b"}})
    );
    assert_eq!(
        request(v1::DeviceRequest {
            device_ids: texts(&["0", "3"]),
            ..gpu
        }),
        json!({"DeviceIDs": ["0", "3"], "Capabilities": [["gpu", "utility"]]})
    );
}

#[test]
fn container_maps_hosts_and_dns() {
    told(
        |spec| {
            spec.dns = texts(&["10.0.0.53", "fd00::53"]);
            spec.dns_search = texts(&["corp"]);
            spec.dns_options = texts(&["rotate", "ndots:3"]);
            spec.extra_hosts = texts(&["one=10.0.0.1", "six=[fd00::1]", "machine=host-gateway"]);
        },
        json!({"Dns": ["10.210.3.1", "10.0.0.53", "fd00::53"], "DnsSearch": ["corp", "shop.internal", "internal"],
            "DnsOptions": ["rotate", "ndots:3"],
            "ExtraHosts": ["one:10.0.0.1", "six:fd00::1", "machine:10.210.3.1"]}),
    );
    assert!(
        refused(|spec| spec.extra_hosts = texts(&["one:10.0.0.1"]))
            .contains("invalid entry `one:10.0.0.1`")
    );
    assert!(refused(|spec| spec.extra_hosts = texts(&["one=two"])).contains("`one=two`"));
    assert!(
        refused(|spec| spec.dns = texts(&["ns.example"]))
            .contains("dns: `ns.example` is not an IP address")
    );
    let named = body(&with(|spec| spec.domainname = "example.org".into()));
    assert_eq!(named.domainname.as_deref(), Some("example.org"));
    let mac = with(|spec| spec.mac_address = "02:42:ac:11:65:43".into());
    let endpoints = body(&mac)
        .networking_config
        .unwrap()
        .endpoints_config
        .unwrap();
    assert_eq!(
        endpoints["uc"].mac_address.as_deref(),
        Some("02:42:ac:11:65:43")
    );
    assert!(
        on(OLD, &mac)
            .unwrap_err()
            .to_string()
            .contains("mac_address requires Docker 25")
    );
}

#[test]
fn container_joins_networks_of_others() {
    let ports = vec![v1::PortSpec {
        container_port: 80,
        published_port: 80,
        ..Default::default()
    }];
    let shared = map(&[("vpn", "abc123")]);
    let of = |mode: &str| {
        let spec = v1::ServiceSpec {
            network_mode: mode.into(),
            ports: ports.clone(),
            ..spec()
        };
        check(&spec).unwrap();
        let body = container(
            &spec,
            "shop-web-abcd",
            &Placement {
                shared: &shared,
                ..placement(&[])
            },
        )
        .unwrap();
        assert!(
            body.networking_config.is_none() && body.exposed_ports.is_none(),
            "{mode}"
        );
        let address = body.labels.unwrap().get(label::ADDRESS).cloned();
        let host = body.host_config.unwrap();
        assert!(host.port_bindings.is_none(), "{mode}");
        (
            host.network_mode.unwrap(),
            body.hostname,
            host.dns.is_some(),
            address,
        )
    };
    assert_eq!(
        of("host"),
        ("host".into(), None, true, Some("10.210.3.1".into()))
    );
    assert_eq!(
        of("none"),
        ("none".into(), Some("shop-web-abcd".into()), false, None)
    );
    assert_eq!(
        of("service:vpn"),
        ("container:abc123".into(), None, false, None)
    );
    assert_eq!(
        of("container:other"),
        ("container:other".into(), None, false, None)
    );

    let alone = with(|spec| spec.network_mode = "service:db".into());
    let error = on(OLD, &alone).unwrap_err();
    assert_eq!(
        error.to_string(),
        "service `web`: network_mode: no replica of `db` runs on this machine"
    );
    assert!(refused(|spec| spec.network_mode = "service:web".into()).contains("itself"));
    assert!(refused(|spec| spec.network_mode = "bridge2".into()).contains("`bridge2`"));
    assert!(refused(|spec| spec.network_mode = "container:a/b".into()).contains("`container:a/b`"));
    for change in [
        (|spec: &mut v1::ServiceSpec| spec.hostname = "front".into()) as fn(&mut v1::ServiceSpec),
        |spec| spec.dns = texts(&["10.0.0.1"]),
        |spec| spec.extra_hosts = texts(&["a=10.0.0.1"]),
        |spec| spec.mac_address = "02:42:ac:11:65:43".into(),
    ] {
        let message = refused(|spec| {
            spec.network_mode = "container:vpn".into();
            change(spec);
        });
        assert!(
            message.contains("cannot be combined with network_mode `container:vpn`"),
            "{message}"
        );
    }
}

#[test]
fn container_maps_namespaces() {
    let shared = map(&[("db", "abc123")]);
    let spec = with(|spec| {
        spec.ipc = "service:db".into();
        spec.pid = "container:other".into();
        spec.uts = "host".into();
        spec.userns = "host".into();
        spec.cgroup = "private".into();
        spec.cgroup_parent = "/parent".into();
    });
    assert_eq!(shared_services(&spec), ["db"]);
    check(&spec).unwrap();
    let body = container(
        &spec,
        "shop-web-abcd",
        &Placement {
            shared: &shared,
            ..placement(&[])
        },
    )
    .unwrap();
    assert_eq!(body.hostname, None, "the machine's");
    let host = serde_json::to_value(body.host_config.unwrap()).unwrap();
    for (key, value) in [
        ("IpcMode", "container:abc123"),
        ("PidMode", "container:other"),
        ("UTSMode", "host"),
        ("UsernsMode", "host"),
        ("CgroupnsMode", "private"),
        ("CgroupParent", "/parent"),
    ] {
        assert_eq!(host[key], value, "{key}");
    }
    told(
        |spec| spec.ipc = "shareable".into(),
        json!({"IpcMode": "shareable"}),
    );
    told(
        |spec| (spec.pid, spec.cgroup) = ("host".into(), "host".into()),
        json!({"PidMode": "host", "CgroupnsMode": "host"}),
    );
    for (key, change) in [
        (
            "ipc",
            (|spec| spec.ipc = "x".into()) as fn(&mut v1::ServiceSpec),
        ),
        ("pid", |spec| spec.pid = "none".into()),
        ("uts", |spec| spec.uts = "service:db".into()),
        ("userns_mode", |spec| spec.userns = "keep-id".into()),
        ("cgroup", |spec| spec.cgroup = "shared".into()),
    ] {
        assert!(
            refused(change).contains(&format!(": {key}: invalid value `")),
            "{key}"
        );
    }
    assert!(
        refused(|spec| (spec.uts, spec.hostname) = ("host".into(), "a".into())).contains("uts")
    );
}

#[test]
fn container_maps_rights_and_runtime() {
    told(
        |spec| {
            spec.privileged = true;
            spec.group_add = texts(&["audio"]);
            spec.security_opt = texts(&["seccomp={}"]);
            spec.device_cgroup_rules = texts(&["c 1:3 r"]);
            spec.sysctls = map(&[("net.core.somaxconn", "1")]);
            spec.storage_opt = map(&[("size", "1G")]);
            spec.runtime = "runsc".into();
        },
        json!({"Privileged": true, "GroupAdd": ["audio"], "SecurityOpt": ["seccomp={}"],
            "DeviceCgroupRules": ["c 1:3 r"], "Sysctls": {"net.core.somaxconn": "1"},
            "StorageOpt": {"size": "1G"}, "Runtime": "runsc"}),
    );
    let annotated = with(|spec| spec.annotations = map(&[("a", "b")]));
    told(
        |spec| spec.annotations = map(&[("a", "b")]),
        json!({"Annotations": {"a": "b"}}),
    );
    assert!(
        on(OLD, &annotated)
            .unwrap_err()
            .to_string()
            .contains("annotations requires Docker 24")
    );
    let restarted = |restart: v1::RestartPolicy| {
        host_of(|spec| {
            spec.restart = restart.into();
            spec.restart_attempts = 4;
        })
    };
    assert_eq!(
        restarted(v1::RestartPolicy::OnFailure),
        json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 4}})
    );
    assert_eq!(
        restarted(v1::RestartPolicy::Always),
        json!({"RestartPolicy": {"Name": "always"}})
    );
}

#[test]
fn container_maps_logging() {
    let of = |driver: &str, options: &[(&str, &str)]| {
        let options = map(options);
        host_of(|spec| {
            spec.logging = Some(v1::Logging {
                driver: driver.into(),
                options: options.clone(),
            });
        })["LogConfig"]
            .clone()
    };
    assert_eq!(
        of("", &[("max-size", "1m")]),
        json!({"Config": {"max-size": "1m"}}),
        "the engine's default driver"
    );
    assert_eq!(
        of("syslog", &[("tag", "x")]),
        json!({"Type": "syslog", "Config": {"tag": "x"}})
    );
    assert_eq!(of("none", &[]), json!({"Type": "none"}));
}

fn placement_without() -> Placement<'static> {
    placement(&[])
}

#[test]
fn container_labels_hold_what_is_needed_later() {
    let spec = with(|spec| {
        let hook = |program: &str| v1::Hook {
            command: texts(&[program]),
            ..Default::default()
        };
        spec.post_start = vec![hook("warm"), hook("up")];
        spec.pre_stop = vec![hook("drain")];
        spec.resources = Some(v1::Resources {
            reserved_nano_cpus: Some(5),
            reserved_memory: Some(6),
            ..Default::default()
        });
    });
    let labels = body(&spec).labels.unwrap();
    let hooks = |key: &str| serde_json::from_str::<Vec<v1::Hook>>(&labels[key]).unwrap();
    assert_eq!(
        (hooks(label::POST_START), hooks(label::PRE_STOP)),
        (spec.post_start, spec.pre_stop)
    );
    assert_eq!(
        (
            labels[label::RESERVED_CPU].as_str(),
            labels[label::RESERVED_MEMORY].as_str()
        ),
        ("5", "6")
    );
    // Labels that a user must not set.
    let forged = with(|spec| {
        spec.labels = map(&[
            (label::ADDRESS, "10.0.0.1"),
            (label::PRE_STOP, "[]"),
            (label::FILES, "x"),
            ("mine", "1"),
        ]);
    });
    let labels = body(&forged).labels.unwrap();
    assert_eq!(labels.get("mine").map(String::as_str), Some("1"));
    for key in [label::ADDRESS, label::PRE_STOP, label::FILES] {
        assert_eq!(labels.get(key), None, "{key}");
    }
    assert!(
        refused(|spec| spec.pre_stop = vec![v1::Hook::default()])
            .contains("pre_stop: a hook has no command")
    );
}

#[test]
fn container_maps_port_ranges() {
    let port = |published_port, published_last, protocol: v1::Protocol| v1::PortSpec {
        container_port: 80,
        published_port,
        published_last,
        protocol: protocol.into(),
        ..Default::default()
    };
    let told = host_of(|spec| {
        spec.ports = vec![
            port(8000, 8010, v1::Protocol::Tcp),
            port(9000, 9000, v1::Protocol::Tcp),
            port(1, 0, v1::Protocol::Sctp),
        ];
    });
    assert_eq!(
        told["PortBindings"],
        json!({"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}, {"HostIp": "", "HostPort": "9000"}],
            "80/sctp": [{"HostIp": "", "HostPort": "1"}]})
    );
    let wrong =
        |first, last| refused(|spec| spec.ports = vec![port(first, last, v1::Protocol::Tcp)]);
    assert!(wrong(8000, 7000).contains("8000-7000:80: the range"));
    assert!(wrong(0, 7000).contains("above 0"));
    assert!(wrong(8000, 70_000).contains("at most 65535"));
}

#[test]
fn container_leaves_out_start_interval_for_old_engine() {
    let spec = with(|spec| {
        spec.healthcheck = Some(v1::Healthcheck {
            start_interval_ms: Some(500),
            ..Default::default()
        });
    });
    let interval = |api| on(api, &spec).unwrap().healthcheck.unwrap().start_interval;
    assert_eq!(
        (interval(ApiVersion::new(1, 44)), interval(OLD)),
        (Some(500_000_000), None)
    );
}
