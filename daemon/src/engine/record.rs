//! Converts the engine's answers to our records. Pure.

mod ports;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use bollard::models as engine;
use uc_api::layout::{DOCKER_NETWORK, label};
use uc_api::v1;

use super::{AnonymousVolume, Container, HealthLimits, PortHolder, Volume};

/// The engine's own defaults, used if neither image nor service sets a value.
const HEALTH_INTERVAL: Duration = Duration::from_secs(30);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(30);
const HEALTH_RETRIES: u32 = 3;
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The value of a field that the engine leaves out. It leaves fields out whose values are empty or
/// zero, so this is the value.
pub(super) fn or_empty<T: Default>(field: Option<T>) -> T {
    field.unwrap_or_default()
}

/// The value of a label that only the daemon writes. One with an invalid text was set by somebody
/// else and counts as absent.
fn of_label<T: Default, E: fmt::Display>(
    labels: &HashMap<String, String>,
    key: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> T {
    let Some(text) = labels.get(key) else {
        return T::default();
    };
    parse(text).unwrap_or_else(|error| {
        tracing::warn!(label = key, text, %error, "a container has an invalid label, which is ignored");
        T::default()
    })
}

/// Converts one container.
pub(crate) fn container(inspected: engine::ContainerInspectResponse) -> Container {
    let config = or_empty(inspected.config);
    let host = or_empty(inspected.host_config);
    let network = or_empty(inspected.network_settings);
    let state = or_empty(inspected.state);
    let labels = or_empty(config.labels);
    let of = |key: &str| or_empty(labels.get(key).cloned());
    let published = or_empty(network.ports);
    let replica_state = replica_state(state.status);
    let ended = matches!(
        replica_state,
        v1::ReplicaState::Exited | v1::ReplicaState::Dead | v1::ReplicaState::Restarting
    );
    let ip = network
        .networks
        .and_then(|mut networks| networks.remove(DOCKER_NETWORK))
        .and_then(|endpoint| endpoint.ip_address)
        .filter(|ip| !ip.is_empty())
        .unwrap_or_else(|| of(label::ADDRESS));
    let policy = or_empty(host.restart_policy.clone());
    let number = |key: &str| of_label(&labels, key, str::parse);
    let hooks = |key: &str| of_label(&labels, key, |text| serde_json::from_str(text));
    let files = of(label::FILES);
    let anonymous_volumes = anonymous_volumes(
        inspected.mounts.as_deref().unwrap_or(&[]),
        &host,
        &of(label::HANDED_ON),
    );
    let restart = restart(policy.name);
    let exit_code = ended.then(|| or_empty(state.exit_code) as i32);
    let stays_ended = matches!(
        restart,
        v1::RestartPolicy::No | v1::RestartPolicy::OnFailure
    );
    let record = v1::ReplicaRecord {
        container_id: or_empty(inspected.id),
        container_name: or_empty(inspected.name).trim_start_matches('/').to_owned(),
        project: of(label::PROJECT),
        service: of(label::SERVICE),
        revision: of(label::REVISION),
        image: labels
            .get(label::IMAGE)
            .cloned()
            .unwrap_or_else(|| or_empty(config.image)),
        state: replica_state.into(),
        health: health(state.health.as_ref()).into(),
        ip: if has_address(replica_state) {
            ip
        } else {
            String::new()
        },
        created_at_ms: inspected.created.as_deref().map_or(0, milliseconds),
        exit_code,
        ports: ports::ports(or_empty(host.port_bindings), &published),
        draining: false,
        restart_count: inspected
            .restart_count
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(0),
        mounts: mounts(or_empty(inspected.mounts), or_empty(host.tmpfs)),
        files: files
            .split(',')
            .filter(|hash| !hash.is_empty())
            .map(str::to_owned)
            .collect(),
        reserved_nano_cpus: number(label::RESERVED_CPU),
        reserved_memory: number(label::RESERVED_MEMORY),
        own_resolvers: labels.contains_key(label::RESOLVERS),
        dns_server: or_empty(host.dns.into_iter().flatten().next()),
        // The engine does not know it.
        kept: v1::Kept::Unspecified.into(),
        finished: replica_state == v1::ReplicaState::Exited
            && exit_code == Some(0)
            && stays_ended
            && or_empty(state.error.as_deref()).is_empty(),
    };
    Container {
        record,
        managed: labels.contains_key(label::CLUSTER),
        hook: of(label::HOOK),
        hook_limit: Duration::from_millis(number(label::HOOK_LIMIT)),
        // The year 1 means never.
        started_at_ms: state
            .started_at
            .as_deref()
            .map(milliseconds)
            .filter(|started_at_ms| *started_at_ms > 0),
        step: of(label::STEP),
        healthcheck: config.healthcheck.as_ref().and_then(health_limits),
        restart,
        restart_attempts: policy
            .maximum_retry_count
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(0),
        restart_by_default: labels.contains_key(label::RESTART),
        stop_grace: config.stop_timeout.map_or(STOP_GRACE, |seconds| {
            Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX))
        }),
        oom_killed: or_empty(state.oom_killed),
        start_error: or_empty(state.error),
        on_machine_network: host.network_mode.as_deref() == Some("host"),
        network_of: or_empty(
            host.network_mode
                .and_then(|mode| Some(mode.strip_prefix("container:")?.to_owned())),
        ),
        anonymous_volumes,
        post_start: hooks(label::POST_START),
        pre_stop: hooks(label::PRE_STOP),
    }
}

/// Gives a container that shares the network of `other` the address of `other`.
pub(crate) fn share_address(container: &mut Container, other: &Container) {
    if has_address(container.record.state()) {
        container.record.ip.clone_from(&other.record.ip);
        container.on_machine_network = other.on_machine_network;
    }
}

/// A paused container keeps its address. A container that has exited has none, whatever its labels
/// contain.
fn has_address(state: v1::ReplicaState) -> bool {
    matches!(state, v1::ReplicaState::Running | v1::ReplicaState::Paused)
}

/// Converts one volume. Returns `None` for an anonymous volume, which belongs to its container.
pub(crate) fn volume(volume: engine::Volume) -> Option<Volume> {
    let anonymous = volume.labels.contains_key("com.docker.volume.anonymous")
        || uc_api::volumes::is_anonymous(&volume.name);
    if anonymous {
        return None;
    }
    let project = or_empty(volume.labels.get(label::PROJECT).cloned());
    Some(Volume {
        record: v1::VolumeRecord {
            name: volume.name,
            driver: volume.driver,
            project,
        },
        options: volume.options.into_iter().collect(),
    })
}

/// Returns the host ports that a running container holds.
pub(crate) fn port_holders(summary: engine::ContainerSummary) -> Vec<PortHolder> {
    let labels = or_empty(summary.labels);
    let of = |key: &str| or_empty(labels.get(key).cloned());
    let name = or_empty(or_empty(summary.names).into_iter().next());
    let id = or_empty(summary.id);
    or_empty(summary.ports)
        .into_iter()
        .filter_map(|port| {
            Some(PortHolder {
                container_id: id.clone(),
                container_name: name.trim_start_matches('/').to_owned(),
                project: of(label::PROJECT),
                service: of(label::SERVICE),
                host_ip: or_empty(port.ip),
                port: port.public_port.filter(|port| *port != 0)?,
                protocol: match port.typ {
                    Some(engine::PortSummaryTypeEnum::UDP) => v1::Protocol::Udp,
                    Some(engine::PortSummaryTypeEnum::SCTP) => v1::Protocol::Sctp,
                    _ => v1::Protocol::Tcp,
                },
            })
        })
        .collect()
}

fn replica_state(status: Option<engine::ContainerStateStatusEnum>) -> v1::ReplicaState {
    use engine::ContainerStateStatusEnum as Status;
    match status {
        Some(Status::CREATED) => v1::ReplicaState::Created,
        Some(Status::RUNNING | Status::STOPPING) => v1::ReplicaState::Running,
        Some(Status::RESTARTING) => v1::ReplicaState::Restarting,
        Some(Status::PAUSED) => v1::ReplicaState::Paused,
        Some(Status::EXITED) => v1::ReplicaState::Exited,
        Some(Status::DEAD | Status::REMOVING) => v1::ReplicaState::Dead,
        Some(Status::EMPTY) | None => v1::ReplicaState::Unspecified,
    }
}

fn health(health: Option<&engine::Health>) -> v1::Health {
    use engine::HealthStatusEnum as Status;
    match health.and_then(|health| health.status) {
        Some(Status::STARTING) => v1::Health::Starting,
        Some(Status::HEALTHY) => v1::Health::Healthy,
        Some(Status::UNHEALTHY) => v1::Health::Unhealthy,
        Some(Status::NONE | Status::EMPTY) | None => v1::Health::None,
    }
}

fn health_limits(check: &engine::HealthConfig) -> Option<HealthLimits> {
    let kind = check.test.as_ref().and_then(|test| test.first());
    if kind.is_none_or(|kind| kind.is_empty() || kind == "NONE") {
        return None;
    }
    let or = |nanos: Option<i64>, default| match nanos.and_then(|nanos| u64::try_from(nanos).ok()) {
        Some(nanos) if nanos > 0 => Duration::from_nanos(nanos),
        _ => default,
    };
    Some(HealthLimits {
        interval: or(check.interval, HEALTH_INTERVAL),
        timeout: or(check.timeout, HEALTH_TIMEOUT),
        start_period: or(check.start_period, Duration::ZERO),
        retries: check
            .retries
            .and_then(|retries| u32::try_from(retries).ok())
            .filter(|retries| *retries > 0)
            .unwrap_or(HEALTH_RETRIES),
    })
}

fn restart(name: Option<engine::RestartPolicyNameEnum>) -> v1::RestartPolicy {
    use engine::RestartPolicyNameEnum as Name;
    match name {
        Some(Name::ALWAYS) => v1::RestartPolicy::Always,
        Some(Name::UNLESS_STOPPED) => v1::RestartPolicy::UnlessStopped,
        Some(Name::ON_FAILURE) => v1::RestartPolicy::OnFailure,
        Some(Name::NO | Name::EMPTY) | None => v1::RestartPolicy::No,
    }
}

/// Parses an RFC 3339 time into Unix milliseconds. Returns 0 for an invalid time.
fn milliseconds(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>()
        .map_or(0, jiff::Timestamp::as_millisecond)
}

/// The volumes that were not mounted by a name, and those that a predecessor handed on
/// (`handed_on`: their names, separated by commas). A volume is not judged by its name alone,
/// because a user can mount one whose name looks like the engine's own.
fn anonymous_volumes(
    points: &[engine::MountPoint],
    host: &engine::HostConfig,
    handed_on: &str,
) -> Vec<AnonymousVolume> {
    let long = host.mounts.iter().flatten();
    let short = host.binds.iter().flatten();
    let named: Vec<&str> = long
        .filter_map(|mount| mount.source.as_deref())
        .chain(short.filter_map(|bind| bind.split(':').next()))
        .filter(|name| !handed_on.split(',').any(|volume| volume == *name))
        .collect();
    let mut volumes: Vec<AnonymousVolume> = points
        .iter()
        .filter(|point| point.typ.as_deref() == Some("volume"))
        .filter_map(|point| {
            Some(AnonymousVolume {
                name: point
                    .name
                    .clone()
                    .filter(|name| !named.contains(&name.as_str()))?,
                target: point.destination.clone()?,
            })
        })
        .collect();
    volumes.sort_by(|a, b| a.target.cmp(&b.target));
    volumes
}

/// Converts the mounts, ordered by target. The engine does not list tmpfs mounts that were
/// requested by option among them.
fn mounts(points: Vec<engine::MountPoint>, tmpfs: HashMap<String, String>) -> Vec<v1::MountSpec> {
    let in_memory = tmpfs.into_iter().map(|(target, options)| v1::MountSpec {
        kind: v1::MountKind::Tmpfs.into(),
        target,
        read_only: options.split(',').any(|option| option == "ro"),
        ..v1::MountSpec::default()
    });
    let mut mounts: Vec<v1::MountSpec> = points
        .into_iter()
        .filter_map(|point| {
            let kind = match point.typ?.as_str() {
                "volume" => v1::MountKind::Volume,
                "bind" => v1::MountKind::Bind,
                "tmpfs" => v1::MountKind::Tmpfs,
                "image" => v1::MountKind::Image,
                _ => return None,
            };
            let source = match kind {
                v1::MountKind::Volume => point.name,
                v1::MountKind::Bind | v1::MountKind::Image => point.source,
                _ => None,
            };
            Some(v1::MountSpec {
                kind: kind.into(),
                source: or_empty(source),
                target: or_empty(point.destination),
                read_only: !point.rw.unwrap_or(true),
                ..v1::MountSpec::default()
            })
        })
        .chain(in_memory)
        .collect();
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    mounts
}

#[cfg(test)]
mod tests;
