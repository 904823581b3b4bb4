use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn spec() -> v1::ServiceSpec {
    v1::ServiceSpec {
        project: "shop".into(),
        name: "web".into(),
        image: "nginx:1".into(),
        ..Default::default()
    }
}

static NO_FILES: BTreeMap<String, PathBuf> = BTreeMap::new();
static NO_SECRETS: BTreeMap<String, String> = BTreeMap::new();

fn placement(image_entrypoint: &[String]) -> Placement<'_> {
    Placement {
        cluster: "c1",
        machine: "m1",
        bridge: Ipv4Addr::new(10, 210, 3, 1),
        revision: "r1",
        deployment: "d1",

        step: "",
        image_entrypoint,
        api: ApiVersion::new(1, 48),
        shared: &NO_SECRETS,
        files: &NO_FILES,
        handed_on: &[],
        secrets: &NO_SECRETS,
    }
}

fn body(spec: &v1::ServiceSpec) -> ContainerCreateBody {
    check(spec).unwrap();
    container(spec, "shop-web-abcd", &placement(&[])).unwrap()
}

fn host(spec: &v1::ServiceSpec) -> HostConfig {
    body(spec).host_config.unwrap()
}

fn hostname(spec: &v1::ServiceSpec, name: &str) -> String {
    network::hostname(spec, name).unwrap()
}

fn words(values: &[&str]) -> v1::StringList {
    v1::StringList {
        values: values.iter().map(|&value| value.to_owned()).collect(),
    }
}

/// Sorts the keys of maps, because the engine's model uses hash maps.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map
                .into_iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

fn json(spec: &v1::ServiceSpec) -> String {
    serde_json::to_string_pretty(&sorted(serde_json::to_value(body(spec)).unwrap())).unwrap()
}

#[test]
fn container_of_minimal_service() {
    insta::assert_snapshot!(json(&spec()), @r#"
    {
      "Env": [
        "UC_MACHINE_ID=m1"
      ],
      "HostConfig": {
        "Dns": [
          "10.210.3.1"
        ],
        "DnsOptions": [
          "ndots:1"
        ],
        "DnsSearch": [
          "shop.internal",
          "internal"
        ],
        "LogConfig": {
          "Type": "local"
        },
        "NetworkMode": "uc",
        "RestartPolicy": {
          "Name": "on-failure"
        }
      },
      "Hostname": "shop-web-abcd",
      "Image": "nginx:1",
      "Labels": {
        "uc.cluster": "c1",
        "uc.deployment": "d1",
        "uc.machine": "m1",
        "uc.project": "shop",
        "uc.restart": "default",
        "uc.revision": "r1",
        "uc.service": "web"
      },
      "NetworkingConfig": {
        "EndpointsConfig": {
          "uc": {}
        }
      }
    }
    "#);
}

#[test]
fn container_of_complete_service() {
    let port = |published_port, host_ip: &str, protocol: v1::Protocol| v1::PortSpec {
        container_port: 80,
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
    let whole = v1::ServiceSpec {
        command: Some(words(&["serve", "--port", "80"])),
        entrypoint: Some(words(&["/entry"])),
        environment: [
            ("Z", "last"),
            ("A", "a=b"),
            ("UC_MACHINE_ID", "forged"),
            ("EMPTY", ""),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        labels: [("team", "blue"), ("uc.service", "forged")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ports: vec![
            port(8080, "", v1::Protocol::Tcp),
            port(8081, "127.0.0.1", v1::Protocol::Unspecified),
            port(0, "", v1::Protocol::Udp),
        ],
        mounts: vec![
            mount(v1::MountKind::Volume, "shop_data", "/data", false),
            mount(v1::MountKind::Volume, "", "/scratch", false),
            mount(v1::MountKind::Bind, "/srv/x", "/x", true),
            mount(v1::MountKind::Bind, "/srv/a:b", "/y", false),
            mount(v1::MountKind::Tmpfs, "", "/tmp", false),
        ],
        healthcheck: Some(v1::Healthcheck {
            test: vec!["CMD-SHELL".into(), "curl -f localhost".into()],
            interval_ms: Some(1500),
            timeout_ms: Some(2000),
            start_period_ms: Some(0),
            retries: Some(5),
            ..Default::default()
        }),
        user: "1000:1000".into(),
        working_dir: "/app".into(),
        stop_grace_period_ms: Some(1500),
        stop_signal: "SIGQUIT".into(),
        restart: v1::RestartPolicy::OnFailure.into(),
        init: true,
        read_only: true,
        tty: true,
        stdin_open: true,
        hostname: "front".into(),
        cap_add: vec!["NET_ADMIN".into()],
        cap_drop: vec!["ALL".into()],
        ..spec()
    };
    insta::assert_snapshot!(json(&whole), @r#"
    {
      "Cmd": [
        "serve",
        "--port",
        "80"
      ],
      "Entrypoint": [
        "/entry"
      ],
      "Env": [
        "A=a=b",
        "EMPTY=",
        "UC_MACHINE_ID=m1",
        "Z=last"
      ],
      "ExposedPorts": {
        "80/tcp": {},
        "80/udp": {}
      },
      "Healthcheck": {
        "Interval": 1500000000,
        "Retries": 5,
        "StartPeriod": 0,
        "Test": [
          "CMD-SHELL",
          "curl -f localhost"
        ],
        "Timeout": 2000000000
      },
      "HostConfig": {
        "Binds": [
          "/srv/x:/x:ro"
        ],
        "CapAdd": [
          "NET_ADMIN"
        ],
        "CapDrop": [
          "ALL"
        ],
        "Dns": [
          "10.210.3.1"
        ],
        "DnsOptions": [
          "ndots:1"
        ],
        "DnsSearch": [
          "shop.internal",
          "internal"
        ],
        "Init": true,
        "LogConfig": {
          "Type": "local"
        },
        "Mounts": [
          {
            "Source": "shop_data",
            "Target": "/data",
            "Type": "volume"
          },
          {
            "Target": "/scratch",
            "Type": "volume"
          },
          {
            "BindOptions": {
              "CreateMountpoint": true
            },
            "Source": "/srv/a:b",
            "Target": "/y",
            "Type": "bind"
          }
        ],
        "NetworkMode": "uc",
        "PortBindings": {
          "80/tcp": [
            {
              "HostIp": "",
              "HostPort": "8080"
            },
            {
              "HostIp": "127.0.0.1",
              "HostPort": "8081"
            }
          ],
          "80/udp": [
            {
              "HostIp": "",
              "HostPort": ""
            }
          ]
        },
        "ReadonlyRootfs": true,
        "RestartPolicy": {
          "Name": "on-failure"
        },
        "Tmpfs": {
          "/tmp": ""
        }
      },
      "Hostname": "front",
      "Image": "nginx:1",
      "Labels": {
        "team": "blue",
        "uc.cluster": "c1",
        "uc.deployment": "d1",
        "uc.machine": "m1",
        "uc.project": "shop",
        "uc.revision": "r1",
        "uc.service": "web"
      },
      "NetworkingConfig": {
        "EndpointsConfig": {
          "uc": {}
        }
      },
      "OpenStdin": true,
      "StopSignal": "SIGQUIT",
      "StopTimeout": 2,
      "Tty": true,
      "User": "1000:1000",
      "WorkingDir": "/app"
    }
    "#);
}

#[test]
fn container_command_absent_is_the_images_and_empty_is_none() {
    let run =
        |command: Option<v1::StringList>, entrypoint: Option<v1::StringList>, of_image: &[&str]| {
            let of_image: Vec<String> = of_image.iter().map(|&word| word.to_owned()).collect();
            let body = container(
                &v1::ServiceSpec {
                    command,
                    entrypoint,
                    ..spec()
                },
                "n",
                &placement(&of_image),
            )?;
            Ok::<_, SpecError>((body.entrypoint, body.cmd))
        };
    let some = |values: &[&str]| Some(words(values).values);
    assert_eq!(run(None, None, &[]), Ok((None, None)));
    assert_eq!(
        run(Some(words(&["a"])), None, &[]),
        Ok((None, some(&["a"])))
    );
    // The image's entrypoint without the image's command.
    assert_eq!(
        run(Some(words(&[])), None, &["/entry"]),
        Ok((some(&["/entry"]), some(&[])))
    );
    assert_eq!(
        run(Some(words(&["a"])), Some(words(&[])), &[]),
        Ok((some(&[""]), some(&["a"])))
    );
    assert_eq!(
        run(None, Some(words(&["/e"])), &[]),
        Ok((some(&["/e"]), None))
    );
    let nothing = Err(SpecError::NothingToRun {
        service: "web".into(),
        image: "nginx:1".into(),
    });
    assert_eq!(run(Some(words(&[])), None, &[]), nothing);
    assert_eq!(run(None, Some(words(&[])), &[]), nothing);
    assert_eq!(run(Some(words(&[])), Some(words(&[])), &[]), nothing);
}

#[test]
fn needs_image_entrypoint_only_for_empty_command() {
    assert!(needs_image_entrypoint(&v1::ServiceSpec {
        command: Some(words(&[])),
        ..spec()
    }));
    assert!(!needs_image_entrypoint(&spec()));
    assert!(!needs_image_entrypoint(&v1::ServiceSpec {
        command: Some(words(&["a"])),
        ..spec()
    }));
    assert!(!needs_image_entrypoint(&v1::ServiceSpec {
        command: Some(words(&[])),
        entrypoint: Some(words(&["a"])),
        ..spec()
    }));
}

#[test]
fn container_maps_restart_policies() {
    let name = |policy: v1::RestartPolicy| {
        host(&v1::ServiceSpec {
            restart: policy.into(),
            ..spec()
        })
        .restart_policy
        .unwrap()
        .name
        .unwrap()
        .to_string()
    };
    assert_eq!(name(v1::RestartPolicy::Unspecified), "on-failure");
    assert_eq!(name(v1::RestartPolicy::UnlessStopped), "unless-stopped");
    assert_eq!(name(v1::RestartPolicy::No), "no");
    assert_eq!(name(v1::RestartPolicy::Always), "always");
    assert_eq!(name(v1::RestartPolicy::OnFailure), "on-failure");
}

#[test]
fn container_healthcheck_can_be_disabled_or_only_retimed() {
    let of = |check| {
        body(&v1::ServiceSpec {
            healthcheck: Some(check),
            ..spec()
        })
        .healthcheck
        .unwrap()
    };
    let off = of(v1::Healthcheck {
        test: vec!["NONE".into()],
        ..Default::default()
    });
    assert_eq!(off.test, Some(vec!["NONE".to_owned()]));
    let retimed = of(v1::Healthcheck {
        interval_ms: Some(u64::MAX),
        ..Default::default()
    });
    assert_eq!((retimed.test, retimed.interval), (None, Some(i64::MAX)));
}

#[test]
fn container_name_ends_in_four_base_32_characters() {
    assert_eq!(container_name(&spec(), 0), "shop-web-aaaa");
    assert_eq!(container_name(&spec(), u32::MAX), "shop-web-7777");
    assert_eq!(
        container_name(&spec(), 0b00011_00010_00001_11111),
        "shop-web-7bcd"
    );
}

#[test]
fn container_hostname_too_long_keeps_its_end() {
    let long = v1::ServiceSpec {
        project: "p".repeat(60),
        name: "s".repeat(60),
        ..spec()
    };
    let name = container_name(&long, 0);
    let host = hostname(&long, &name);
    assert_eq!(host.len(), 63);
    assert!(name.ends_with(&host) && host.ends_with("-aaaa"));
    // Cut exactly between the two names.
    let seam = v1::ServiceSpec {
        project: "p".repeat(60),
        name: "s".repeat(57),
        ..spec()
    };
    assert_eq!(hostname(&seam, &container_name(&seam, 0)).len(), 62);
    assert_eq!(hostname(&spec(), "shop-web-abcd"), "shop-web-abcd");
}

#[test]
fn check_refuses_invalid_values_with_their_place() {
    let wrong = |change: fn(&mut v1::ServiceSpec)| {
        let mut spec = spec();
        change(&mut spec);
        check(&spec).unwrap_err().to_string()
    };
    assert!(wrong(|spec| spec.project = "Shop".into()).contains("project name `Shop`"));
    assert!(wrong(|spec| spec.name = "a/b".into()).contains("service name `a/b`"));
    assert_eq!(
        wrong(|spec| spec.image = String::new()),
        "service `web` has no image"
    );
    assert_eq!(
        wrong(|spec| spec.image = "a b".into()),
        "service `web`: invalid image reference `a b`"
    );
    let port = |container_port, published_port, host_ip: &str| {
        let port = v1::PortSpec {
            container_port,
            published_port,
            host_ip: host_ip.into(),
            ..Default::default()
        };
        check(&v1::ServiceSpec {
            ports: vec![port],
            ..spec()
        })
        .unwrap_err()
        .to_string()
    };
    assert_eq!(
        port(0, 80, ""),
        "service `web`: port 80:0: the container's port must be between 1 and 65535"
    );
    assert!(port(80, 65536, "").contains("at most 65535"));
    assert!(port(80, 80, "localhost").contains("must be an IP address"));
    let mount = |kind: v1::MountKind, source: &str, target: &str| {
        let mount = v1::MountSpec {
            kind: kind.into(),
            source: source.into(),
            target: target.into(),
            ..Default::default()
        };
        check(&v1::ServiceSpec {
            mounts: vec![mount],
            ..spec()
        })
        .unwrap_err()
        .to_string()
    };
    assert!(mount(v1::MountKind::Volume, "a", "data").contains("absolute path"));
    assert!(mount(v1::MountKind::Bind, "./a", "/data").contains("absolute path on the machine"));
    assert!(mount(v1::MountKind::Unspecified, "a", "/data").contains("the type must be volume"));
}

#[test]
fn volume_labels_name_cluster_machine_and_project() {
    let volume = v1::VolumeSpec {
        project: "shop".into(),
        name: "shop_data".into(),
        labels: [
            ("uc.project".to_owned(), "forged".to_owned()),
            ("team".to_owned(), "blue".to_owned()),
        ]
        .into(),
        ..Default::default()
    };
    let labels = volume_labels(&volume, "c1", "m1");
    let labels: Vec<(&str, &str)> = labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        labels,
        [
            ("team", "blue"),
            ("uc.cluster", "c1"),
            ("uc.machine", "m1"),
            ("uc.project", "shop")
        ]
    );
}

proptest! {
    #[test]
    fn container_name_is_always_valid_for_docker(
        project in "[a-z0-9][a-z0-9_-]{0,62}",
        name in "[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}",
        random in any::<u32>(),
    ) {
        let spec = v1::ServiceSpec { project, name, ..spec() };
        check(&spec).unwrap();
        let name = container_name(&spec, random);
        prop_assert!(is_object_name(&name));
        let host = hostname(&spec, &name);
        prop_assert!(host.len() <= 63 && host.starts_with(|first: char| first.is_ascii_alphanumeric()));
        prop_assert_eq!(container_name(&spec, random), name);
    }
}

mod keys;
