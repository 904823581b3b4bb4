//! The fields of a spec that are in its containers.

use std::collections::BTreeMap;

use uc_api::v1::{BlockIo, FileSpec, Logging, Resources, ServiceSpec};

use super::words::{number, on, short};
use super::{Changes, MASK, words};

/// Image, command, environment, what is seen where.
pub(super) fn what_runs(changes: &mut Changes, old: &ServiceSpec, new: &ServiceSpec) {
    changes.add("image", &old.image, &new.image);
    changes.add("build", on(old.built), on(new.built));
    changes.add("platform", &old.platform, &new.platform);
    changes.add(
        "command",
        words::command(old.command.as_ref()),
        words::command(new.command.as_ref()),
    );
    changes.add(
        "entrypoint",
        words::command(old.entrypoint.as_ref()),
        words::command(new.entrypoint.as_ref()),
    );
    changes.map("environment", &old.environment, &new.environment);
    changes.map_as(
        "environment",
        &old.secret_environment,
        &new.secret_environment,
        |_, _| MASK.to_owned(),
    );
    changes.list("ports", &old.ports, &new.ports, words::port);
    changes.list("volumes", &old.mounts, &new.mounts, words::mount);
    changes.add(
        "healthcheck",
        words::healthcheck(old),
        words::healthcheck(new),
    );
}

/// Whose process it is, what it is called, how it ends.
pub(super) fn how_it_runs(changes: &mut Changes, old: &ServiceSpec, new: &ServiceSpec) {
    changes.add("user", &old.user, &new.user);
    changes.add("working_dir", &old.working_dir, &new.working_dir);
    changes.map("labels", &old.labels, &new.labels);
    changes.map("annotations", &old.annotations, &new.annotations);
    changes.add("stop_grace_period", words::grace(old), words::grace(new));
    changes.add("stop_signal", &old.stop_signal, &new.stop_signal);
    changes.add("restart", words::restart(old), words::restart(new));
    changes.add("init", on(old.init), on(new.init));
    changes.add("read_only", on(old.read_only), on(new.read_only));
    changes.add("tty", on(old.tty), on(new.tty));
    changes.add("stdin_open", on(old.stdin_open), on(new.stdin_open));
    changes.add("runtime", &old.runtime, &new.runtime);
    let empty = Logging::default();
    let (old, new) = (
        old.logging.as_ref().unwrap_or(&empty),
        new.logging.as_ref().unwrap_or(&empty),
    );
    changes.add("logging.driver", &old.driver, &new.driver);
    changes.map("logging.options", &old.options, &new.options);
}

/// What it may do to its machine.
pub(super) fn rights(changes: &mut Changes, old: &ServiceSpec, new: &ServiceSpec) {
    changes.texts("cap_add", &old.cap_add, &new.cap_add);
    changes.texts("cap_drop", &old.cap_drop, &new.cap_drop);
    changes.add("privileged", on(old.privileged), on(new.privileged));
    changes.texts("group_add", &old.group_add, &new.group_add);
    changes.list(
        "security_opt",
        &old.security_opt,
        &new.security_opt,
        |option| words::security(option),
    );
    changes.texts(
        "device_cgroup_rules",
        &old.device_cgroup_rules,
        &new.device_cgroup_rules,
    );
    changes.list("devices", &old.devices, &new.devices, words::device);
    changes.list(
        "deploy.resources.reservations.devices",
        &old.device_requests,
        &new.device_requests,
        words::device_request,
    );
    changes.map("sysctls", &old.sysctls, &new.sysctls);
    changes.map("storage_opt", &old.storage_opt, &new.storage_opt);
}

/// How it is found and finds others.
pub(super) fn network(changes: &mut Changes, old: &ServiceSpec, new: &ServiceSpec) {
    changes.add("network_mode", &old.network_mode, &new.network_mode);
    changes.add("hostname", &old.hostname, &new.hostname);
    changes.add("domainname", &old.domainname, &new.domainname);
    changes.add("mac_address", &old.mac_address, &new.mac_address);
    changes.texts("extra_hosts", &old.extra_hosts, &new.extra_hosts);
    changes.texts("dns", &old.dns, &new.dns);
    changes.texts("dns_search", &old.dns_search, &new.dns_search);
    changes.texts("dns_opt", &old.dns_options, &new.dns_options);
}

/// What it shares with its machine and other containers.
pub(super) fn namespaces(changes: &mut Changes, old: &ServiceSpec, new: &ServiceSpec) {
    changes.add("ipc", &old.ipc, &new.ipc);
    changes.add("pid", &old.pid, &new.pid);
    changes.add("uts", &old.uts, &new.uts);
    changes.add("userns_mode", &old.userns, &new.userns);
    changes.add("cgroup", &old.cgroup, &new.cgroup);
    changes.add("cgroup_parent", &old.cgroup_parent, &new.cgroup_parent);
    // Not a key of the file: the service it shares with got another revision.
    changes.list(
        "shared service",
        &old.shared_revisions,
        &new.shared_revisions,
        |revision| short(revision).to_owned(),
    );
}

/// How much of its machine it may have.
pub(super) fn resources(changes: &mut Changes, old: &ServiceSpec, new: &ServiceSpec) {
    let size = |bytes: Option<u64>| bytes.map(words::bytes).unwrap_or_default();
    changes.add("shm_size", size(old.shm_size), size(new.shm_size));
    changes.map_as("ulimits", &old.ulimits, &new.ulimits, |_, limit| {
        words::ulimit(limit)
    });
    let empty = Resources::default();
    let old = old.resources.as_ref().unwrap_or(&empty);
    let new = new.resources.as_ref().unwrap_or(&empty);
    let mut add =
        |field: &str, show: &dyn Fn(&Resources) -> String| changes.add(field, show(old), show(new));
    let cores = |nanos: Option<u64>| nanos.map(words::cores).unwrap_or_default();
    add("deploy.resources.limits.cpus", &|of| cores(of.nano_cpus));
    add("deploy.resources.limits.memory", &|of| size(of.memory));
    add("deploy.resources.limits.pids", &|of| number(of.pids));
    add("deploy.resources.reservations.cpus", &|of| {
        cores(of.reserved_nano_cpus)
    });
    add("deploy.resources.reservations.memory", &|of| {
        size(of.reserved_memory)
    });
    add("memswap_limit", &|of| match of.memory_swap {
        Some(limit) => u64::try_from(limit).map_or_else(|_| limit.to_string(), words::bytes),
        None => String::new(),
    });
    add("mem_swappiness", &|of| number(of.memory_swappiness));
    add("cpu_period", &|of| number(of.cpu_period));
    add("cpu_quota", &|of| number(of.cpu_quota));
    add("cpu_rt_period", &|of| number(of.cpu_realtime_period));
    add("cpu_rt_runtime", &|of| number(of.cpu_realtime_runtime));
    add("cpu_shares", &|of| number(of.cpu_shares));
    add("cpuset", &|of| of.cpuset.clone());
    add("oom_kill_disable", &|of| number(of.oom_kill_disable));
    add("oom_score_adj", &|of| number(of.oom_score_adj));
    let empty = BlockIo::default();
    let old = old.block_io.as_ref().unwrap_or(&empty);
    let new = new.block_io.as_ref().unwrap_or(&empty);
    changes.add(
        "blkio_config.weight",
        number(old.weight),
        number(new.weight),
    );
    for (name, of) in [
        (
            "weight_device",
            (|io| &io.weight_devices) as fn(&BlockIo) -> &Vec<_>,
        ),
        ("device_read_bps", |io| &io.read_bps),
        ("device_write_bps", |io| &io.write_bps),
        ("device_read_iops", |io| &io.read_iops),
        ("device_write_iops", |io| &io.write_iops),
    ] {
        changes.list(
            &format!("blkio_config.{name}"),
            of(old),
            of(new),
            words::device_value,
        );
    }
}

/// What travels with the deployment, each under the key it comes from.
pub(super) fn contents(changes: &mut Changes, old: &ServiceSpec, new: &ServiceSpec) {
    for (key, prefix) in [
        ("configs", "config "),
        ("secrets", "secret "),
        ("volumes", ""),
    ] {
        // The same content may be at several places.
        let by_name = |files: &[FileSpec]| {
            let mut named: BTreeMap<String, Vec<FileSpec>> = BTreeMap::new();
            for file in files.iter().filter(|file| key_of(file) == key) {
                let name = file.name.strip_prefix(prefix).unwrap_or(&file.name);
                named.entry(name.to_owned()).or_default().push(file.clone());
            }
            named
        };
        changes.map_as(
            key,
            &by_name(&old.files),
            &by_name(&new.files),
            |_, files| files.iter().map(words::file).collect::<Vec<_>>().join(", "),
        );
    }
}

fn key_of(file: &FileSpec) -> &'static str {
    match file.name.split_once(' ') {
        Some(("config", _)) => "configs",
        Some(("secret", _)) => "secrets",
        _ => "volumes",
    }
}
