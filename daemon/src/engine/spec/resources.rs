//! A container's resource limits and devices.

use bollard::models::{
    DeviceMapping, DeviceRequest, HostConfig, ResourcesBlkioWeightDevice, ResourcesUlimits,
    ThrottleDevice,
};
use uc_api::v1;

use super::{list, map, signed, some_if, text};

/// The engine's driver for devices by CDI name.
const CDI_DRIVER: &str = "cdi";

/// Fills in limits and devices.
pub(super) fn fill(spec: &v1::ServiceSpec, host: &mut HostConfig) {
    if let Some(resources) = &spec.resources {
        limits(resources, host);
    }
    host.ulimits = some_if(!spec.ulimits.is_empty(), || {
        let ulimit = |(name, limit): (&String, &v1::Ulimit)| ResourcesUlimits {
            name: Some(name.clone()),
            soft: Some(limit.soft),
            hard: Some(limit.hard),
        };
        spec.ulimits.iter().map(ulimit).collect()
    });
    host.shm_size = spec.shm_size.map(signed);
    host.device_cgroup_rules = list(&spec.device_cgroup_rules);
    let (cdi, paths): (Vec<_>, Vec<_>) = spec
        .devices
        .iter()
        .partition(|device| is_cdi(&device.source));
    host.devices = list(&paths.into_iter().map(device).collect::<Vec<_>>());
    let by_name = some_if(!cdi.is_empty(), || DeviceRequest {
        driver: Some(CDI_DRIVER.to_owned()),
        device_ids: Some(cdi.iter().map(|device| device.source.clone()).collect()),
        ..Default::default()
    });
    let requests: Vec<DeviceRequest> = spec
        .device_requests
        .iter()
        .map(request)
        .chain(by_name)
        .collect();
    host.device_requests = list(&requests);
}

fn limits(resources: &v1::Resources, host: &mut HostConfig) {
    host.nano_cpus = resources.nano_cpus.map(signed);
    host.memory = resources.memory.map(signed);
    host.pids_limit = resources.pids;
    // Reserved CPU matters for placement only. Reserved memory is also the amount to which the
    // kernel reclaims.
    host.memory_reservation = resources.reserved_memory.map(signed);
    host.memory_swap = resources.memory_swap;
    host.memory_swappiness = resources.memory_swappiness.map(i64::from);
    host.cpu_period = resources.cpu_period;
    host.cpu_quota = resources.cpu_quota;
    host.cpu_realtime_period = resources.cpu_realtime_period;
    host.cpu_realtime_runtime = resources.cpu_realtime_runtime;
    host.cpu_shares = resources.cpu_shares;
    host.cpuset_cpus = text(&resources.cpuset);
    host.oom_kill_disable = resources.oom_kill_disable;
    host.oom_score_adj = resources.oom_score_adj.map(i64::from);
    let Some(io) = &resources.block_io else {
        return;
    };
    host.blkio_weight = io
        .weight
        .map(|weight| u16::try_from(weight).unwrap_or(u16::MAX));
    let weight = |device: &v1::DeviceValue| ResourcesBlkioWeightDevice {
        path: Some(device.path.clone()),
        weight: Some(usize::try_from(device.value).unwrap_or(usize::MAX)),
    };
    host.blkio_weight_device = list(&io.weight_devices.iter().map(weight).collect::<Vec<_>>());
    host.blkio_device_read_bps = rates(&io.read_bps);
    host.blkio_device_write_bps = rates(&io.write_bps);
    host.blkio_device_read_iops = rates(&io.read_iops);
    host.blkio_device_write_iops = rates(&io.write_iops);
}

fn rates(devices: &[v1::DeviceValue]) -> Option<Vec<ThrottleDevice>> {
    let rate = |device: &v1::DeviceValue| ThrottleDevice {
        path: Some(device.path.clone()),
        rate: Some(signed(device.value)),
    };
    list(&devices.iter().map(rate).collect::<Vec<_>>())
}

/// Reports whether a source is a CDI name, `vendor.com/class=name`. No path on the machine has that
/// form.
pub(super) fn is_cdi(source: &str) -> bool {
    !source.starts_with('/')
        && source
            .split_once('=')
            .is_some_and(|(kind, name)| kind.contains('/') && !name.is_empty())
}

fn device(device: &v1::DeviceSpec) -> DeviceMapping {
    let or = |value: &str, default: &str| {
        if value.is_empty() {
            default.to_owned()
        } else {
            value.to_owned()
        }
    };
    DeviceMapping {
        path_on_host: Some(device.source.clone()),
        path_in_container: Some(or(&device.target, &device.source)),
        cgroup_permissions: Some(or(&device.permissions, "rwm")),
    }
}

/// A request without count and ids means all devices.
fn request(request: &v1::DeviceRequest) -> DeviceRequest {
    let by_count = request.device_ids.is_empty();
    DeviceRequest {
        driver: text(&request.driver),
        count: some_if(by_count, || {
            if request.count == 0 {
                -1
            } else {
                request.count
            }
        }),
        device_ids: list(&request.device_ids),
        // The engine takes a list of alternatives, each a list of capabilities that a device must
        // have.
        capabilities: some_if(!request.capabilities.is_empty(), || {
            vec![request.capabilities.clone()]
        }),
        options: map(&request.options),
    }
}
