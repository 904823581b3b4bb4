//! The parts of a spec that describe the container.

use std::collections::BTreeMap;

use uc_api::v1;

use super::driver;
use crate::view::shape::shape;
use crate::words::word;

shape! {
    pub(super) struct Mount of v1::MountSpec {
        kind: String = |mount| word(mount.kind().as_str_name(), "MOUNT_KIND_"),
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
        tmpfs_mode: Option<String> = |mount| mount.tmpfs_mode.map(|mode| format!("{mode:04o}")),
        tmpfs_options: Vec<String>,
    }
}

shape! {
    /// A file or folder that travels with the deployment.
    pub(super) struct Content of v1::FileSpec {
        name: String,
        target: String,
        hash: String,
        secret: bool,
    }
}

shape! {
    pub(super) struct Device of v1::DeviceSpec {
        source: String,
        target: Option<String>,
        permissions: Option<String>,
    }
}

shape! {
    pub(super) struct DeviceRequest of v1::DeviceRequest {
        driver: Option<String>,
        /// -1: all.
        count: i64,
        device_ids: Vec<String>,
        capabilities: Vec<String>,
        options: BTreeMap<String, String>,
    }
}

shape! {
    /// -1: no limit.
    pub(super) struct Ulimit of v1::Ulimit {
        soft: i64,
        hard: i64,
    }
}

shape! {
    pub(super) struct Logging of v1::Logging {
        driver: String = |logging| driver(&logging.driver),
        options: BTreeMap<String, String>,
    }
}

shape! {
    pub(super) struct Hook of v1::Hook {
        command: Vec<String>,
        user: Option<String>,
        privileged: bool,
        working_dir: Option<String>,
        environment: BTreeMap<String, String>,
    }
}

shape! {
    /// CPUs in billionths, memory in bytes, times in microseconds.
    pub(super) struct Resources of v1::Resources {
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
}

shape! {
    struct BlockIo of v1::BlockIo {
        weight: Option<u32>,
        weight_devices: Vec<DeviceValue>,
        read_bps: Vec<DeviceValue>,
        write_bps: Vec<DeviceValue>,
        read_iops: Vec<DeviceValue>,
        write_iops: Vec<DeviceValue>,
    }
}

shape! {
    struct DeviceValue of v1::DeviceValue {
        path: String,
        value: u64,
    }
}
