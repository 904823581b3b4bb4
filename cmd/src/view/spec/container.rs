//! The parts of a spec that describe the container.

use std::collections::BTreeMap;

use serde::Serialize;
use uc_api::v1;

use crate::view::some;
use crate::words::word;

#[derive(Debug, Serialize)]
pub(super) struct Mount {
    kind: String,
    source: Option<String>,
    target: String,
    read_only: bool,
    propagation: Option<String>,
    create_host_path: Option<bool>,
    recursive: Option<String>,
    selinux: Option<String>,
    nocopy: bool,
    subpath: Option<String>,
    labels: BTreeMap<String, String>,
    tmpfs_size: Option<u64>,
    /// Octal, as for `chmod`.
    tmpfs_mode: Option<String>,
    tmpfs_options: Vec<String>,
}

impl From<&v1::MountSpec> for Mount {
    fn from(mount: &v1::MountSpec) -> Self {
        Self {
            kind: word(mount.kind().as_str_name(), "MOUNT_KIND_"),
            source: some(&mount.source),
            target: mount.target.clone(),
            read_only: mount.read_only,
            propagation: some(&mount.propagation),
            create_host_path: mount.create_host_path,
            recursive: some(&mount.recursive),
            selinux: some(&mount.selinux),
            nocopy: mount.nocopy,
            subpath: some(&mount.subpath),
            labels: mount.labels.clone(),
            tmpfs_size: mount.tmpfs_size,
            tmpfs_mode: mount.tmpfs_mode.map(|mode| format!("{mode:04o}")),
            tmpfs_options: mount.tmpfs_options.clone(),
        }
    }
}

/// A file or folder that travels with the deployment.
#[derive(Debug, Serialize)]
pub(super) struct Content {
    name: String,
    target: String,
    hash: String,
    secret: bool,
}

impl From<&v1::FileSpec> for Content {
    fn from(file: &v1::FileSpec) -> Self {
        Self {
            name: file.name.clone(),
            target: file.target.clone(),
            hash: file.hash.clone(),
            secret: file.secret,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Device {
    source: String,
    target: Option<String>,
    permissions: Option<String>,
}

impl From<&v1::DeviceSpec> for Device {
    fn from(device: &v1::DeviceSpec) -> Self {
        Self {
            source: device.source.clone(),
            target: some(&device.target),
            permissions: some(&device.permissions),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct DeviceRequest {
    driver: Option<String>,
    /// -1: all.
    count: i64,
    device_ids: Vec<String>,
    capabilities: Vec<String>,
    options: BTreeMap<String, String>,
}

impl From<&v1::DeviceRequest> for DeviceRequest {
    fn from(request: &v1::DeviceRequest) -> Self {
        Self {
            driver: some(&request.driver),
            count: request.count,
            device_ids: request.device_ids.clone(),
            capabilities: request.capabilities.clone(),
            options: request.options.clone(),
        }
    }
}

/// -1: no limit.
#[derive(Debug, Serialize)]
pub(super) struct Ulimit {
    soft: i64,
    hard: i64,
}

impl From<&v1::Ulimit> for Ulimit {
    fn from(limit: &v1::Ulimit) -> Self {
        Self {
            soft: limit.soft,
            hard: limit.hard,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Logging {
    driver: String,
    options: BTreeMap<String, String>,
}

impl From<&v1::Logging> for Logging {
    fn from(logging: &v1::Logging) -> Self {
        Self {
            driver: some(&logging.driver).unwrap_or_else(|| "local".into()),
            options: logging.options.clone(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Hook {
    command: Vec<String>,
    user: Option<String>,
    privileged: bool,
    working_dir: Option<String>,
    environment: BTreeMap<String, String>,
}

impl From<&v1::Hook> for Hook {
    fn from(hook: &v1::Hook) -> Self {
        Self {
            command: hook.command.clone(),
            user: some(&hook.user),
            privileged: hook.privileged,
            working_dir: some(&hook.working_dir),
            environment: hook.environment.clone(),
        }
    }
}

/// CPUs in billionths, memory in bytes, times in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Resources {
    nano_cpus: Option<u64>,
    memory: Option<u64>,
    pids: Option<i64>,
    reserved_nano_cpus: Option<u64>,
    reserved_memory: Option<u64>,
    memory_swap: Option<i64>,
    memory_swappiness: Option<u32>,
    cpu_period: Option<i64>,
    cpu_quota: Option<i64>,
    cpu_realtime_period: Option<i64>,
    cpu_realtime_runtime: Option<i64>,
    cpu_shares: Option<i64>,
    cpuset: Option<String>,
    oom_kill_disable: Option<bool>,
    oom_score_adj: Option<i32>,
    block_io: Option<BlockIo>,
}

impl From<&v1::Resources> for Resources {
    fn from(resources: &v1::Resources) -> Self {
        Self {
            nano_cpus: resources.nano_cpus,
            memory: resources.memory,
            pids: resources.pids,
            reserved_nano_cpus: resources.reserved_nano_cpus,
            reserved_memory: resources.reserved_memory,
            memory_swap: resources.memory_swap,
            memory_swappiness: resources.memory_swappiness,
            cpu_period: resources.cpu_period,
            cpu_quota: resources.cpu_quota,
            cpu_realtime_period: resources.cpu_realtime_period,
            cpu_realtime_runtime: resources.cpu_realtime_runtime,
            cpu_shares: resources.cpu_shares,
            cpuset: some(&resources.cpuset),
            oom_kill_disable: resources.oom_kill_disable,
            oom_score_adj: resources.oom_score_adj,
            block_io: resources.block_io.as_ref().map(BlockIo::from),
        }
    }
}

#[derive(Debug, Serialize)]
struct BlockIo {
    weight: Option<u32>,
    weight_devices: Vec<DeviceValue>,
    read_bps: Vec<DeviceValue>,
    write_bps: Vec<DeviceValue>,
    read_iops: Vec<DeviceValue>,
    write_iops: Vec<DeviceValue>,
}

#[derive(Debug, Serialize)]
struct DeviceValue {
    path: String,
    value: u64,
}

impl From<&v1::BlockIo> for BlockIo {
    fn from(io: &v1::BlockIo) -> Self {
        let values = |devices: &[v1::DeviceValue]| {
            devices
                .iter()
                .map(|device| DeviceValue {
                    path: device.path.clone(),
                    value: device.value,
                })
                .collect()
        };
        Self {
            weight: io.weight,
            weight_devices: values(&io.weight_devices),
            read_bps: values(&io.read_bps),
            write_bps: values(&io.write_bps),
            read_iops: values(&io.read_iops),
            write_iops: values(&io.write_iops),
        }
    }
}
