//! Test support: a service spec with every field set, and that spec with each single value changed.
//! With these, code that must look at every field cannot miss a new one.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::v1;

/// Returns a spec that sets every field, including those of nested messages. It need not make sense
/// as a whole.
///
/// Panics with the path of any field that has its default value. A new field must be set here.
pub fn spec() -> v1::ServiceSpec {
    let spec = filled();
    unset(&value(&spec), "", &mut |path| {
        panic!("every_field::spec() leaves `{path}` unset")
    });
    spec
}

/// Returns the spec of [`spec`] once for each value in it, with that value changed. Each comes with
/// the value's path, such as `resources.cpuset` or `ports[].host_ip`.
pub fn changes() -> Vec<(String, v1::ServiceSpec)> {
    let whole = value(&spec());
    let mut changed = Vec::new();
    each(&whole, "", &mut |path, pointer| {
        let mut other = whole.clone();
        let place = other
            .pointer_mut(pointer)
            .unwrap_or_else(|| panic!("no {pointer}"));
        *place = different(place);
        let spec = serde_json::from_value(other).unwrap_or_else(|error| panic!("{path}: {error}"));
        changed.push((path.to_owned(), spec));
    });
    changed
}

fn value(spec: &v1::ServiceSpec) -> Value {
    serde_json::to_value(spec).unwrap_or_else(|error| panic!("{error}"))
}

/// Enumerations are numbers and must stay valid, so 1 and 2 are swapped. Texts change at the
/// beginning, because hashes are shown by their first digits.
fn different(value: &Value) -> Value {
    match value {
        Value::Bool(yes) => Value::Bool(!yes),
        Value::String(text) => Value::String(format!("2{text}")),
        Value::Number(number) => match number.as_i64() {
            Some(1) => Value::from(2),
            Some(number) => Value::from(number - 1),
            None => Value::from(number.as_f64().expect("every JSON number fits a float") / 2.0),
        },
        other => panic!("{other} is not a single value"),
    }
}

fn each(value: &Value, path: &str, found: &mut impl FnMut(&str, &str)) {
    each_at(value, path, "", found);
}

fn each_at(value: &Value, path: &str, pointer: &str, found: &mut impl FnMut(&str, &str)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                each_at(value, &path, &format!("{pointer}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                each_at(
                    value,
                    &format!("{path}[]"),
                    &format!("{pointer}/{index}"),
                    found,
                );
            }
        }
        _ => found(path, pointer),
    }
}

fn unset(value: &Value, path: &str, found: &mut impl FnMut(&str)) {
    let empty = match value {
        Value::Null => true,
        Value::Bool(yes) => !yes,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    };
    if empty {
        found(path);
    }
    match value {
        Value::Array(items) => items
            .iter()
            .for_each(|item| unset(item, &format!("{path}[]"), found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                unset(value, &format!("{path}.{name}"), found);
            }
        }
        _ => {}
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn map(name: &str, value: &str) -> BTreeMap<String, String> {
    [(name.to_owned(), value.to_owned())].into()
}

fn filled() -> v1::ServiceSpec {
    v1::ServiceSpec {
        project: "shop".into(),
        name: "web".into(),
        image: "web:1".into(),
        built: true,
        command: Some(v1::StringList {
            values: texts(&["serve"]),
        }),
        entrypoint: Some(v1::StringList {
            values: texts(&["/entry"]),
        }),
        environment: map("MODE", "fast"),
        ports: vec![v1::PortSpec {
            container_port: 80,
            published_port: 8000,
            host_ip: "127.0.0.1".into(),
            protocol: v1::Protocol::Udp.into(),
            published_last: 8010,
        }],
        mounts: vec![mount()],
        healthcheck: Some(v1::Healthcheck {
            test: texts(&["CMD"]),
            interval_ms: Some(1),
            timeout_ms: Some(2),
            start_period_ms: Some(3),
            retries: Some(4),
            start_interval_ms: Some(5),
        }),
        depends_on: vec![v1::Dependency {
            service: "db".into(),
            condition: v1::DependencyCondition::Completed.into(),
            restart: true,
        }],
        mode: v1::ServiceMode::Replicated.into(),
        replicas: 3,
        user: "1000".into(),
        working_dir: "/app".into(),
        labels: map("team", "blue"),
        stop_grace_period_ms: Some(2001),
        stop_signal: "SIGQUIT".into(),
        restart: v1::RestartPolicy::OnFailure.into(),
        pull_policy: v1::PullPolicy::Always.into(),
        init: true,
        read_only: true,
        tty: true,
        stdin_open: true,
        hostname: "front".into(),
        cap_add: texts(&["NET_ADMIN"]),
        cap_drop: texts(&["CHOWN"]),
        update_order: v1::UpdateOrder::StopFirst.into(),
        reschedule_after_ms: Some(120_000),
        machines: texts(&["m1"]),
        aliases: texts(&["www"]),
        domainname: "example.org".into(),
        extra_hosts: texts(&["one=10.0.0.1"]),
        dns: texts(&["10.0.0.53"]),
        dns_search: texts(&["corp"]),
        dns_options: texts(&["rotate"]),
        network_mode: "host".into(),
        ipc: "shareable".into(),
        pid: "host".into(),
        uts: "host".into(),
        userns: "host".into(),
        cgroup: "host".into(),
        cgroup_parent: "/parent".into(),
        privileged: true,
        group_add: texts(&["audio"]),
        security_opt: texts(&["no-new-privileges"]),
        device_cgroup_rules: texts(&["c 1:3 r"]),
        devices: vec![v1::DeviceSpec {
            source: "/dev/a".into(),
            target: "/dev/b".into(),
            permissions: "r".into(),
        }],
        device_requests: vec![v1::DeviceRequest {
            driver: "nvidia".into(),
            count: 2,
            device_ids: texts(&["0"]),
            capabilities: texts(&["gpu"]),
            options: map("a", "b"),
        }],
        sysctls: map("net.core.somaxconn", "1024"),
        storage_opt: map("size", "1G"),
        annotations: map("a", "b"),
        ulimits: [("nofile".to_owned(), v1::Ulimit { soft: 10, hard: 20 })].into(),
        resources: Some(resources()),
        logging: Some(v1::Logging {
            driver: "syslog".into(),
            options: map("tag", "x"),
        }),
        runtime: "runsc".into(),
        platform: "linux/arm64".into(),
        shm_size: Some(1 << 20),
        restart_attempts: 5,
        files: vec![v1::FileSpec {
            hash: "0123456789abcdef".into(),
            target: "/etc/conf".into(),
            name: "config conf".into(),
            secret: true,
        }],
        secret_environment: map("DB_PASSWORD", "fedcba9876543210"),
        post_start: vec![hook("warm")],
        pre_stop: vec![hook("drain")],
        pre_deploy: Some(v1::PreDeploy {
            command: texts(&["migrate"]),
            environment: map("STEP", "1"),
            privileged: Some(true),
            timeout_ms: 1000,
            user: "root".into(),
        }),
        update: Some(v1::UpdatePolicy {
            parallelism: Some(2),
            delay_ms: 1000,
            monitor_ms: Some(2000),
            failure_action: v1::FailureAction::Continue.into(),
            max_failure_ratio: 0.5,
        }),
        placement: Some(v1::Placement {
            constraints: texts(&["node.hostname!=one"]),
            spread: texts(&["node.labels.zone"]),
            max_replicas_per_machine: 2,
        }),
        mac_address: "02:42:ac:11:65:43".into(),
        service_labels: map("tier", "front"),
        shared_revisions: texts(&["0123456789abcdef"]),
        image_digest: "sha256:0123456789abcdef".into(),
    }
}

fn mount() -> v1::MountSpec {
    v1::MountSpec {
        kind: v1::MountKind::Image.into(),
        source: "/srv".into(),
        target: "/data".into(),
        read_only: true,
        propagation: "rslave".into(),
        create_host_path: Some(true),
        recursive: "disabled".into(),
        selinux: "z".into(),
        nocopy: true,
        subpath: "a/b".into(),
        labels: map("a", "b"),
        tmpfs_size: Some(1 << 20),
        tmpfs_mode: Some(0o1777),
        tmpfs_options: texts(&["noexec"]),
    }
}

fn resources() -> v1::Resources {
    let device = |path: &str| {
        vec![v1::DeviceValue {
            path: path.into(),
            value: 100,
        }]
    };
    v1::Resources {
        nano_cpus: Some(1_500_000_000),
        memory: Some(1 << 30),
        pids: Some(100),
        reserved_nano_cpus: Some(500_000_000),
        reserved_memory: Some(1 << 29),
        memory_swap: Some(1 << 31),
        memory_swappiness: Some(60),
        cpu_period: Some(100_000),
        cpu_quota: Some(50_000),
        cpu_realtime_period: Some(1_000_000),
        cpu_realtime_runtime: Some(950_000),
        cpu_shares: Some(512),
        cpuset: "0-1".into(),
        oom_kill_disable: Some(true),
        oom_score_adj: Some(-500),
        block_io: Some(v1::BlockIo {
            weight: Some(300),
            weight_devices: device("/dev/a"),
            read_bps: device("/dev/b"),
            write_bps: device("/dev/c"),
            read_iops: device("/dev/d"),
            write_iops: device("/dev/e"),
        }),
    }
}

fn hook(program: &str) -> v1::Hook {
    v1::Hook {
        command: texts(&[program]),
        user: "root".into(),
        privileged: true,
        working_dir: "/".into(),
        environment: map("A", "b"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_changed_alone() {
        let whole = spec();
        let changes = changes();
        assert!(changes.len() > 140, "{}", changes.len());
        for (path, changed) in changes {
            assert_ne!(changed, whole, "{path}");
        }
    }
}
