//! Keys that become part of a service spec: each in its forms, with its errors.

use uc_api::v1::FailureAction;

use super::*;
use crate::{LocalFile, LocalSource};

pub(super) fn spec(keys: &str) -> v1::ServiceSpec {
    service(keys).spec
}

pub(super) fn found_in(keys: &str) -> Vec<String> {
    found(&request(&format!(
        "services:\n  web:\n    image: web:1\n{}",
        indented(keys)
    )))
}

pub(super) fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

#[test]
fn limits_of_both_spellings() {
    for (yaml, expected) in [
        (
            "cpus: 0.5",
            v1::Resources {
                nano_cpus: Some(500_000_000),
                ..Default::default()
            },
        ),
        (
            "cpus: \"1.25\"",
            v1::Resources {
                nano_cpus: Some(1_250_000_000),
                ..Default::default()
            },
        ),
        (
            "mem_limit: 64m",
            v1::Resources {
                memory: Some(64 << 20),
                ..Default::default()
            },
        ),
        (
            "mem_limit: 1048576",
            v1::Resources {
                memory: Some(1 << 20),
                ..Default::default()
            },
        ),
        (
            "mem_reservation: 1gb",
            v1::Resources {
                reserved_memory: Some(1 << 30),
                ..Default::default()
            },
        ),
        (
            "memswap_limit: -1",
            v1::Resources {
                memory_swap: Some(-1),
                ..Default::default()
            },
        ),
        (
            "mem_swappiness: 0",
            v1::Resources {
                memory_swappiness: Some(0),
                ..Default::default()
            },
        ),
        (
            "pids_limit: -1",
            v1::Resources {
                pids: Some(-1),
                ..Default::default()
            },
        ),
        (
            "cpu_period: 100ms",
            v1::Resources {
                cpu_period: Some(100_000),
                ..Default::default()
            },
        ),
        (
            "cpu_quota: 50000",
            v1::Resources {
                cpu_quota: Some(50_000),
                ..Default::default()
            },
        ),
        (
            "cpu_rt_runtime: \"400ms\"",
            v1::Resources {
                cpu_realtime_runtime: Some(400_000),
                ..Default::default()
            },
        ),
        (
            "cpu_rt_period: \"1400us\"",
            v1::Resources {
                cpu_realtime_period: Some(1_400),
                ..Default::default()
            },
        ),
        (
            "cpu_shares: 73",
            v1::Resources {
                cpu_shares: Some(73),
                ..Default::default()
            },
        ),
        (
            "cpuset: 0-3,5",
            v1::Resources {
                cpuset: "0-3,5".into(),
                ..Default::default()
            },
        ),
        (
            "oom_kill_disable: true",
            v1::Resources {
                oom_kill_disable: Some(true),
                ..Default::default()
            },
        ),
        (
            "oom_score_adj: -500",
            v1::Resources {
                oom_score_adj: Some(-500),
                ..Default::default()
            },
        ),
        (
            "deploy: {resources: {limits: {cpus: '0.25', memory: 50M, pids: 9}, reservations: {cpus: 2, memory: 20M}}}",
            v1::Resources {
                nano_cpus: Some(250_000_000),
                memory: Some(50 << 20),
                pids: Some(9),
                reserved_nano_cpus: Some(2_000_000_000),
                reserved_memory: Some(20 << 20),
                ..Default::default()
            },
        ),
    ] {
        assert_eq!(spec(yaml).resources, Some(expected), "{yaml}");
    }
    assert_eq!(spec("mem_limit: 0").resources, None);
    assert_eq!(
        found_in("oom_score_adj: 2000"),
        ["error 4:20 2000 is not between -1000 and 1000"]
    );
}

#[test]
fn block_devices() {
    let yaml = "blkio_config:\n  weight: 300\n  weight_device: [{path: /dev/sda, weight: 400}]\n  \
         device_read_bps: [{path: /dev/sdb, rate: 12mb}]\n  device_write_iops: [{path: /dev/sdb, rate: 30}]";
    let block = spec(yaml).resources.unwrap().block_io.unwrap();
    assert_eq!(block.weight, Some(300));
    assert_eq!(
        block.weight_devices,
        [v1::DeviceValue {
            path: "/dev/sda".into(),
            value: 400
        }]
    );
    assert_eq!(block.read_bps[0].value, 12 << 20);
    assert_eq!(block.write_iops[0].value, 30);
}

#[test]
fn limits_per_process() {
    let limits =
        spec("ulimits: {nproc: 65535, nofile: {soft: 20000, hard: 40000}, memlock: -1}").ulimits;
    let limit = |soft, hard| v1::Ulimit { soft, hard };
    assert_eq!(limits["nproc"], limit(65535, 65535));
    assert_eq!(limits["nofile"], limit(20000, 40000));
    assert_eq!(limits["memlock"], limit(-1, -1));
    assert_eq!(
        found_in("ulimits: {nofile: {soft: 5, hard: 4}}"),
        ["error 4:23 the soft limit 5 is above the hard limit 4"]
    );
}

#[test]
fn the_host() {
    let of = spec(
        "privileged: true\ngroup_add: [mail, 1000]\nsecurity_opt: [\"no-new-privileges:true\", \"seccomp=unconfined\"]\n\
         device_cgroup_rules: [\"c 1:3 mr\"]\nsysctls: [net.core.somaxconn=1024]\nstorage_opt: {size: 1G}\n\
         annotations: {a: b}\nruntime: runc\nplatform: linux/amd64\nshm_size: 2gb\ncgroup_parent: m\ncgroup: private\n\
         userns_mode: host\nuts: host\npid: host\nipc: shareable\n\
         logging: {driver: syslog, options: {syslog-address: \"tcp://10.0.0.1:1\", n: 3}}",
    );
    assert!(of.privileged);
    assert_eq!(of.group_add, ["mail", "1000"]);
    assert_eq!(
        of.security_opt,
        ["no-new-privileges:true", "seccomp=unconfined"]
    );
    assert_eq!(of.device_cgroup_rules, ["c 1:3 mr"]);
    assert_eq!(of.sysctls, pairs(&[("net.core.somaxconn", "1024")]));
    assert_eq!(of.storage_opt, pairs(&[("size", "1G")]));
    assert_eq!(of.annotations, pairs(&[("a", "b")]));
    assert_eq!(
        (of.runtime.as_str(), of.platform.as_str()),
        ("runc", "linux/amd64")
    );
    assert_eq!(of.shm_size, Some(2 << 30));
    assert_eq!(
        (of.cgroup.as_str(), of.cgroup_parent.as_str()),
        ("private", "m")
    );
    assert_eq!(
        (
            of.userns.as_str(),
            of.uts.as_str(),
            of.pid.as_str(),
            of.ipc.as_str()
        ),
        ("host", "host", "host", "shareable")
    );
    let logging = of.logging.unwrap();
    assert_eq!(logging.driver, "syslog");
    assert_eq!(
        logging.options,
        pairs(&[("syslog-address", "tcp://10.0.0.1:1"), ("n", "3")])
    );
    assert_eq!(spec("ipc: private").ipc, "");
    assert_eq!(found_in("pid: mine"), ["error 4:10 `pid` cannot be `mine`"]);
    assert_eq!(
        found_in("security_opt: [\"seccomp:./profile.json\"]"),
        ["error 4:20 the seccomp profile `./profile.json` is a file on this computer"]
    );
}

#[test]
fn devices_and_requests_for_them() {
    let device = |source: &str, target: &str, permissions: &str| v1::DeviceSpec {
        source: source.into(),
        target: target.into(),
        permissions: permissions.into(),
    };
    assert_eq!(
        spec(
            "devices: [\"/dev/ttyUSB0\", \"/dev/sda:/dev/xvda:r\", {source: /dev/dri}, vendor.com/class=gpu0]"
        )
        .devices,
        [
            device("/dev/ttyUSB0", "/dev/ttyUSB0", "rwm"),
            device("/dev/sda", "/dev/xvda", "r"),
            device("/dev/dri", "/dev/dri", "rwm"),
            device("vendor.com/class=gpu0", "", "rwm"),
        ]
    );
    let all = v1::DeviceRequest {
        count: -1,
        capabilities: vec!["gpu".into()],
        ..Default::default()
    };
    assert_eq!(
        spec("gpus: all").device_requests,
        std::slice::from_ref(&all)
    );
    let reserved = |device: &str| {
        spec(&format!(
            "deploy: {{resources: {{reservations: {{devices: [{device}]}}}}}}"
        ))
        .device_requests
    };
    assert_eq!(reserved("{capabilities: [gpu]}"), [all]);
    assert_eq!(
        reserved(
            "{driver: nvidia, device_ids: ['0', '3'], capabilities: [gpu, utility], options: {v: 1}}"
        ),
        [v1::DeviceRequest {
            driver: "nvidia".into(),
            count: 0,
            device_ids: vec!["0".into(), "3".into()],
            capabilities: vec!["gpu".into(), "utility".into()],
            options: pairs(&[("v", "1")]),
        }]
    );
}

#[test]
fn networks_become_names() {
    let text = "services:\n  web:\n    image: x\n    container_name: Shop-Web\n    links: [\"db:database\", other]\n    networks: {a: {aliases: [www, db]}}\n  \
         db: {image: x, networks: [a]}\n  other: {image: x, networks: [a]}\nnetworks: {a: {driver: bridge}}\n";
    let project = project(text);
    let aliases = |name: &str| {
        project
            .services
            .iter()
            .find(|service| service.spec.name == name)
            .unwrap()
            .spec
            .aliases
            .clone()
    };
    assert_eq!(aliases("web"), ["shop-web", "www"]);
    assert_eq!(aliases("db"), ["database"]);
    assert_eq!(aliases("other"), [] as [&str; 0]);
    assert_eq!(
        found(&request(text)),
        [
            "warning 6:35 alias `db` of `web` is ignored: another service of the project has this name"
        ]
    );
}

#[test]
fn networks_that_would_keep_services_apart() {
    let text = |networks: &str| {
        format!(
            "services:\n  a: {{image: x, networks: [one]}}\n  b: {{image: x, networks: {networks}}}\nnetworks: {{one: , two: {{internal: true}}}}\n"
        )
    };
    assert_eq!(
        found(&request(&text("[two]"))),
        [
            "warning 3:17 networks do not separate services: `a` and `b` share none, but can reach each other",
            "warning 4:35 `internal` of network `two` is ignored: its services can reach the internet",
        ]
    );
    let joined = "services:\n  a: {image: x, networks: [one]}\n  b: {image: x, networks: [one, two]}\nnetworks: {one: , two: }\n";
    assert_eq!(found(&request(joined)), [] as [&str; 0]);
}

#[test]
fn network_modes() {
    assert_eq!(spec("network_mode: host").network_mode, "host");
    assert_eq!(spec("network_mode: none").network_mode, "none");
    assert_eq!(spec("network_mode: bridge").network_mode, "");
    assert_eq!(
        spec("network_mode: container:box").network_mode,
        "container:box"
    );
    assert_eq!(
        found_in("network_mode: mynet"),
        [
            "error 4:19 `network_mode: mynet` names a Docker network, and machines share no networks but the cluster's"
        ]
    );
    assert_eq!(spec("network_mode: host\nports: [\"80:80\"]").ports, []);
    assert_eq!(
        found_in("network_mode: host\nports: [\"80:80\"]"),
        ["warning 5:13 `ports` have no effect with `network_mode: host`"]
    );
}

#[test]
fn names_and_resolvers() {
    let of = spec(
        "domainname: example.org\nextra_hosts: [\"a=1.2.3.4\", \"b:host-gateway\"]\ndns: 192.0.2.53\ndns_search: a.example\ndns_opt: [use-vc]\n\
         mac_address: 02:42:ac:11:00:02",
    );
    assert_eq!(of.domainname, "example.org");
    assert_eq!(of.extra_hosts, ["a=1.2.3.4", "b=host-gateway"]);
    assert_eq!(
        (of.dns_search.as_slice(), of.dns_options.as_slice()),
        (&["a.example".into()][..], &["use-vc".into()][..])
    );
    assert_eq!(of.dns, ["192.0.2.53"]);
    assert_eq!(of.mac_address, "02:42:ac:11:00:02");
}

#[test]
fn restarts() {
    use v1::RestartPolicy::{Always, No, OnFailure};
    let of = |yaml: &str| {
        let spec = spec(yaml);
        (spec.restart(), spec.restart_attempts)
    };
    assert_eq!(of("restart: on-failure:3"), (OnFailure, 3));
    assert_eq!(
        of("deploy: {restart_policy: {condition: on-failure, max_attempts: 5}}"),
        (OnFailure, 5)
    );
    assert_eq!(
        of("restart: \"no\"\ndeploy: {restart_policy: {condition: any}}"),
        (Always, 0)
    );
    assert_eq!(of("deploy: {restart_policy: {condition: none}}"), (No, 0));
}

/// `web` waits until `job` has completed.
fn job(keys: &str) -> String {
    format!(
        "services:\n  web: {{image: x, depends_on: {{job: {{condition: service_completed_successfully}}}}}}\n  job:\n    image: x\n{}",
        indented(keys)
    )
}

#[test]
fn a_job_that_others_wait_for_runs_to_completion() {
    use v1::RestartPolicy::{No, OnFailure, Unspecified};
    let ignored =
        "it is restarted only after a failure, because `web` waits for its completion".to_owned();
    for (keys, expected, warned) in [
        ("", (No, 0), false),
        ("restart: \"no\"", (No, 0), false),
        ("restart: on-failure:3", (OnFailure, 3), false),
        ("restart: always", (OnFailure, 0), true),
        ("restart: unless-stopped", (OnFailure, 0), true),
        (
            "deploy: {restart_policy: {condition: any}}",
            (OnFailure, 0),
            true,
        ),
        (
            "deploy: {restart_policy: {delay: 0s}}",
            (OnFailure, 0),
            true,
        ),
    ] {
        let loaded = load(&request(&job(keys)));
        let services = loaded.project.unwrap().services;
        let of = |name: &str| {
            let service = services.iter().find(|service| service.spec.name == name);
            let spec = &service.unwrap().spec;
            (spec.restart(), spec.restart_attempts)
        };
        assert_eq!(of("job"), expected, "{keys}");
        assert_eq!(of("web"), (Unspecified, 0), "{keys}");
        let found: Vec<_> = loaded.diagnostics.iter().map(|d| &d.message).collect();
        assert_eq!(found.contains(&&ignored), warned, "{keys}: {found:?}");
    }
}

#[test]
fn updates_and_placement() {
    let of = spec(
        "deploy:\n  labels: {team: a}\n  update_config: {parallelism: 0, delay: 10s, monitor: 1m, failure_action: pause, max_failure_ratio: 0.3, order: start-first}\n  \
         placement: {constraints: [node.labels.disk==ssd], preferences: [{spread: node.labels.zone}], max_replicas_per_node: 2}",
    );
    assert_eq!(
        of.update.unwrap(),
        v1::UpdatePolicy {
            parallelism: Some(0),
            delay_ms: 10_000,
            monitor_ms: Some(60_000),
            failure_action: FailureAction::Pause.into(),
            max_failure_ratio: 0.3,
        }
    );
    assert_eq!(
        of.placement.unwrap(),
        v1::Placement {
            constraints: vec!["node.labels.disk==ssd".into()],
            spread: vec!["node.labels.zone".into()],
            max_replicas_per_machine: 2,
        }
    );
    assert_eq!(of.service_labels, pairs(&[("team", "a")]));
    assert_eq!(
        found_in("deploy: {update_config: {failure_action: explode}}"),
        ["error 4:46 `failure_action` cannot be `explode`"]
    );
}

#[test]
fn hooks_run_in_the_service_s_container() {
    let of = spec(
        "post_start:\n  - command: [chown, \"1000\", /data]\n    user: root\n    privileged: true\n    working_dir: /\n    environment: [A=1]\n\
         pre_stop:\n  - command: ./flush.sh now",
    );
    assert_eq!(
        of.post_start,
        [v1::Hook {
            command: ["chown", "1000", "/data"].map(String::from).to_vec(),
            user: "root".into(),
            privileged: true,
            working_dir: "/".into(),
            environment: pairs(&[("A", "1")]),
        }]
    );
    assert_eq!(of.pre_stop[0].command, ["./flush.sh", "now"]);
    assert_eq!(
        found_in("pre_stop: [{user: root}]"),
        ["error 4:16 a hook in `pre_stop` has no `command`"]
    );
}

#[test]
fn mounts_with_options() {
    let mount = |yaml: &str| spec(&format!("volumes: [{yaml}]")).mounts.remove(0);
    let bind = mount(
        "{type: bind, source: /a, target: /b, bind: {propagation: rslave, create_host_path: false, recursive: readonly, selinux: Z}}",
    );
    assert_eq!(
        (
            bind.propagation.as_str(),
            bind.create_host_path,
            bind.recursive.as_str(),
            bind.selinux.as_str()
        ),
        ("rslave", Some(false), "readonly", "Z")
    );
    assert_eq!(mount("\"/a:/b:ro,z\"").selinux, "z");
    let volume =
        mount("{type: volume, target: /b, volume: {nocopy: true, subpath: s, labels: {a: b}}}");
    assert_eq!(
        (volume.nocopy, volume.subpath.as_str(), volume.labels),
        (true, "s", pairs(&[("a", "b")]))
    );
    let tmpfs = mount("{type: tmpfs, target: /b, tmpfs: {size: 10m, mode: 0o1770}}");
    assert_eq!(
        (tmpfs.tmpfs_size, tmpfs.tmpfs_mode),
        (Some(10 << 20), Some(0o1770))
    );
    let image = mount("{type: image, source: alpine, target: /b, image: {subpath: etc}}");
    assert_eq!(
        (image.kind(), image.source.as_str(), image.subpath.as_str()),
        (v1::MountKind::Image, "alpine", "etc")
    );
}

#[test]
fn mounts_of_other_services() {
    let text = "services:\n  a: {image: x, volumes: [\"data:/data\", \"/etc/x:/x\", \"/anonymous\"]}\n  \
         b: {image: x, volumes: [\"own:/x\"], volumes_from: [\"a:ro\"]}\nvolumes: {data: , own: }\n";
    let project = project(text);
    let mounts: Vec<_> = project.services[1]
        .spec
        .mounts
        .iter()
        .map(|m| (m.source.as_str(), m.target.as_str(), m.read_only))
        .collect();
    assert_eq!(
        mounts,
        [("shop_own", "/x", false), ("shop_data", "/data", true)]
    );
    assert!(
        found(&request(text)).contains(
            &"warning 3:53 the mount at `/anonymous` of `a` is not shared: it has no name that two services could use".to_owned()
        ),
        "{:?}",
        found(&request(text))
    );
    assert_eq!(
        found_in("volumes_from: [\"container:box\"]"),
        ["error 4:20 `container:box` is a container on one machine, not a service of the project"]
    );
}

#[test]
fn what_travels() {
    let text = "services:\n  web:\n    image: x\n    environment: {TOKEN: \"secret://token\", A: b}\n    volumes: [\"./conf:/etc/conf:ro\", \"~/data:/data\", \"/abs:/abs\"]\n    \
         configs: [site, {source: motd, target: /etc/motd, uid: '5', gid: '6', mode: 0440}]\n    secrets: [password, {source: token, target: tok}]\n\
         configs: {site: {file: ./site.conf}, motd: {content: \"hi $$you\"}}\n\
         secrets: {password: {environment: PASSWORD}, token: {x-command: \"pass show token\"}}\n";
    let mut request = with_environment(request(text), &[("HOME", "/home/me")]);
    request.directory = "/srv/shop".into();
    let service = project_of(&request).services.remove(0);
    assert_eq!(service.spec.environment, pairs(&[("A", "b")]));
    assert_eq!(service.spec.mounts.len(), 1);
    let seen: Vec<(&str, &str, &LocalSource, bool)> = service
        .local
        .iter()
        .map(|l: &LocalFile| (l.name.as_str(), l.target.as_str(), &l.source, l.secret))
        .collect();
    let command = LocalSource::Command(vec!["pass".into(), "show".into(), "token".into()]);
    assert_eq!(
        seen,
        [
            (
                "./conf",
                "/etc/conf",
                &LocalSource::Bind("/srv/shop/conf".into()),
                false
            ),
            (
                "~/data",
                "/data",
                &LocalSource::Bind("/home/me/data".into()),
                false
            ),
            (
                "config site",
                "/site",
                &LocalSource::Path("/srv/shop/site.conf".into()),
                false
            ),
            (
                "config motd",
                "/etc/motd",
                &LocalSource::Content("hi $you".into()),
                false
            ),
            (
                "secret password",
                "/run/secrets/password",
                &LocalSource::Variable("PASSWORD".into()),
                true
            ),
            ("secret token", "/run/secrets/tok", &command, true),
            ("secret token", "", &command, true),
        ]
    );
    assert!(service.local[0].read_only_said && !service.local[1].read_only_said);
    let motd = &service.local[3];
    assert_eq!(
        (motd.uid, motd.gid, motd.mode, motd.line),
        (Some(5), Some(6), Some(0o440), 6)
    );
    assert_eq!(service.local[6].variable.as_deref(), Some("TOKEN"));
}

#[test]
fn contents_that_nobody_has() {
    let text = |secret: &str| {
        format!(
            "services:\n  web: {{image: x, secrets: [s], environment: {{A: \"secret://missing\"}}}}\nsecrets: {{s: {secret}}}\n"
        )
    };
    assert_eq!(
        found(&request(&text("{external: true}"))),
        [
            "error 2:29 secret `s` is external, but the cluster stores no secrets",
            "error 2:50 secret `missing` is not declared",
        ]
    );
    assert!(found(&request(&text("{driver: vault}")))[0].contains("the driver `vault`"));
    let exec = "services:\n  web: {image: x, secrets: [s]}\nsecrets: {s: {driver: exec, driver_opts: {command: \"op read x\"}}}\n";
    assert_eq!(
        project(exec).services[0].local[0].source,
        LocalSource::Command(vec!["op".into(), "read".into(), "x".into()])
    );
}

#[test]
fn hook_keys_of_another_container_are_refused() {
    for (hook, column) in [("post_start", 31), ("pre_stop", 29)] {
        for key in ["image: y", "per_replica: true"] {
            let name = key.split(':').next().unwrap();
            assert_eq!(
                found_in(&format!("{hook}: [{{command: a, {key}}}]")),
                [format!(
                    "error 4:{column} `{name}` is not supported: the command runs in the service's own container, once per replica"
                )]
            );
        }
    }
}

#[test]
fn max_attempts_needs_condition_on_failure() {
    let ignored =
        "`max_attempts` is ignored: Docker counts restarts only with `condition: on-failure`";
    for (policy, expected) in [
        ("{max_attempts: 3}", vec![format!("warning 4:45 {ignored}")]),
        (
            "{max_attempts: 0, condition: any}",
            vec![format!("warning 4:45 {ignored}")],
        ),
        (
            "{max_attempts: 3, condition: none}",
            vec![format!("warning 4:45 {ignored}")],
        ),
        ("{max_attempts: 3, condition: on-failure}", vec![]),
        (
            "{max_attempts: -1}",
            vec![
                "error 4:45 invalid `max_attempts` `-1`: it must be between 0 and 4294967295"
                    .to_owned(),
            ],
        ),
        (
            "{max_attempts: -1, condition: on-failure}",
            vec![
                "error 4:45 invalid `max_attempts` `-1`: it must be between 0 and 4294967295"
                    .to_owned(),
            ],
        ),
    ] {
        assert_eq!(
            found_in(&format!("deploy: {{restart_policy: {policy}}}")),
            expected,
            "{policy}"
        );
    }
}

#[test]
fn endpoint_mode_vip_is_reported() {
    assert_eq!(
        found_in("deploy: {endpoint_mode: vip}"),
        [
            "warning 4:29 `endpoint_mode: vip` is ignored: the service's name resolves to the addresses of its replicas, which change when they are replaced"
        ]
    );
    assert_eq!(found_in("deploy: {endpoint_mode: dnsrr}"), [] as [&str; 0]);
    assert!(
        !load(&strict("deploy: {endpoint_mode: vip}"))
            .diagnostics
            .is_empty()
    );
    assert!(
        load(&strict("deploy: {endpoint_mode: vip}"))
            .project
            .is_none()
    );
}

#[test]
fn port_mode_ingress_is_reported_only_where_written() {
    let reported =
        "`mode: ingress` is ignored: the port is published only on machines that run a replica";
    assert_eq!(
        found_in("ports: [{target: 80, published: 80, mode: ingress}]"),
        [format!("warning 4:47 {reported}")]
    );
    let quiet = "ports: [80, \"81:81\", {target: 82}, {target: 83, published: 83, mode: host}]";
    assert_eq!(found_in(quiet), [] as [&str; 0]);
    assert!(
        load(&strict("ports: [{target: 80, mode: ingress}]"))
            .project
            .is_none()
    );
    assert!(load(&strict(quiet)).project.is_some());
    // A default that another file brings along is not written either.
    let merged = several(&[
        "services: {web: {image: x, ports: [{target: 80, published: 80, mode: host}]}}",
        "services: {web: {ports: [{target: 80, published: 80, mode: ingress}, {target: 81}]}}",
    ]);
    assert_eq!(found(&merged), [format!("warning 1:60 {reported}")]);
}

fn strict(keys: &str) -> LoadRequest {
    LoadRequest {
        strict: true,
        ..request(&format!("services:\n  web:\n    image: x\n    {keys}\n"))
    }
}

#[test]
fn keys_without_effect_are_listed_and_not_reported() {
    let mut request = request(
        "version: \"3\"\nservices:\n  web: {image: x, attach: false, expose: [80], develop: {watch: [{path: ., action: rebuild}]}, ports: [{target: 80, name: web}]}\nnetworks: {default: {name: n, attachable: true}}\n",
    );
    let quiet = load(&request);
    assert_eq!(quiet.diagnostics, []);
    assert_eq!(
        quiet.no_effect,
        [
            "version",
            "services.web.expose",
            "services.web.develop",
            "services.web.ports[0].name",
            "networks.default.name",
            "networks.default.attachable",
        ],
        "`attach: false` asks for nothing"
    );
    request.strict = true;
    assert!(load(&request).project.is_some());
}
