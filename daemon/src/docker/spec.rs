//! From a service's spec to what the engine is told: pure, so that every key a person writes can be checked by a test.
//!
//! The engine's own defaults are left to the engine; only where a service on several machines needs another one is it set here.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use bollard::models::ContainerCreateBody;
use bollard::models::EndpointSettings;
use bollard::models::HealthConfig;
use bollard::models::HostConfig;
use bollard::models::HostConfigLogConfig;
use bollard::models::Mount;
use bollard::models::MountBindOptions;
use bollard::models::MountType;
use bollard::models::NetworkingConfig;
use bollard::models::PortBinding;
use bollard::models::RestartPolicy as EngineRestart;
use bollard::models::RestartPolicyNameEnum;
use thiserror::Error;
use uc_api::layout::DOCKER_NETWORK;
use uc_api::layout::DOMAIN;
use uc_api::layout::label;
use uc_api::name::MAX_LABEL;
use uc_api::v1;
use uc_api::{ProjectName, ServiceName};

/// Which machine a container runs on; ours wins over a variable of that name in the compose file.
pub const MACHINE_ID_VARIABLE: &str = "UC_MACHINE_ID";

/// What identifies a replica beside its spec.
#[derive(Debug, Clone)]
pub struct Placement<'a> {
    /// Cluster id.
    pub cluster: &'a str,
    /// Id of this machine.
    pub machine: &'a str,
    /// Address of this machine on the cluster network: its containers' DNS server.
    pub bridge: Ipv4Addr,
    /// Revision of the spec.
    pub revision: &'a str,
    /// The deployment that asks.
    pub deployment: &'a str,
    /// What the image runs; needed only to take its command away ([`needs_image_entrypoint`]).
    pub image_entrypoint: &'a [String],
    /// Where the contents that the spec names are on this machine, by hash ([`v1::FileSpec::hash`]).
    pub files: &'a BTreeMap<String, PathBuf>,
    /// Values of the variables in [`v1::ServiceSpec::secret_environment`], by the variable's name.
    pub secrets: &'a BTreeMap<String, String>,
}

/// Why a spec cannot become a container.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpecError {
    /// Project or service name.
    #[error(transparent)]
    Name(#[from] uc_api::name::NameError),
    /// No image at all.
    #[error("service `{service}` has no image")]
    NoImage {
        /// Its name.
        service: String,
    },
    /// A reference that no registry could serve.
    #[error("service `{service}`: `{image}` is not an image reference")]
    Image {
        /// Its name.
        service: String,
        /// What was given.
        image: String,
    },
    /// A port outside 1..=65535, or a host address that is none.
    #[error("service `{service}`: port {port}: {reason}")]
    Port {
        /// Its name.
        service: String,
        /// As `published:container`.
        port: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A mount without an absolute target, or of no kind.
    #[error("service `{service}`: mount at `{target}`: {reason}")]
    Mount {
        /// Its name.
        service: String,
        /// Where.
        target: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Content that was to travel with the deployment and is not on this machine.
    #[error("service `{service}`: {name} is not on this machine")]
    Content {
        /// Its name.
        service: String,
        /// The content's name for people.
        name: String,
    },
    /// Command set to nothing, and the image runs nothing by itself.
    #[error("service `{service}`: nothing to run: its command is empty and `{image}` has no entrypoint")]
    NothingToRun {
        /// Its name.
        service: String,
        /// Its image.
        image: String,
    },
}

/// The name of a new container: `<project>-<service>-<suffix>`, the suffix being four characters of base 32 made from `random` (20 bits).
pub fn container_name(spec: &v1::ServiceSpec, random: u32) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let suffix: String =
        (0..4).map(|digit| char::from(ALPHABET[(random >> (5 * digit)) as usize & 31])).collect();
    format!("{}-{}-{suffix}", spec.project, spec.name)
}

/// The host name inside: what the person chose, else the container's name; of one that is too long for Linux, the end, which tells it apart.
fn hostname(spec: &v1::ServiceSpec, name: &str) -> String {
    if !spec.hostname.is_empty() {
        return spec.hostname.clone();
    }
    let from = name.len().saturating_sub(MAX_LABEL);
    name.get(from..).unwrap_or(name).trim_start_matches(['-', '_', '.']).to_owned()
}

/// An empty command means "not the image's". The engine can say that only together with an entrypoint, so the image's has to be known.
pub fn needs_image_entrypoint(spec: &v1::ServiceSpec) -> bool {
    spec.entrypoint.is_none() && spec.command.as_ref().is_some_and(|command| command.values.is_empty())
}

/// What is wrong with a spec, before anything is done for it.
pub fn check(spec: &v1::ServiceSpec) -> Result<(), SpecError> {
    let _: ProjectName = spec.project.parse()?;
    let _: ServiceName = spec.name.parse()?;
    let service = || spec.name.clone();
    if spec.image.is_empty() {
        return Err(SpecError::NoImage { service: service() });
    }
    if !is_reference(&spec.image) {
        return Err(SpecError::Image { service: service(), image: spec.image.clone() });
    }
    for port in &spec.ports {
        let wrong = |reason| SpecError::Port {
            service: service(),
            port: format!("{}:{}", port.published_port, port.container_port),
            reason,
        };
        if !(1..=65535).contains(&port.container_port) {
            return Err(wrong("the container's port must be 1 to 65535"));
        }
        if port.published_port > 65535 {
            return Err(wrong("the published port must be at most 65535"));
        }
        if !port.host_ip.is_empty() && port.host_ip.parse::<IpAddr>().is_err() {
            return Err(wrong("its host address is not an IP address"));
        }
    }
    for mount in &spec.mounts {
        let wrong = |reason| SpecError::Mount { service: service(), target: mount.target.clone(), reason };
        if !mount.target.starts_with('/') {
            return Err(wrong("the target must be an absolute path"));
        }
        match mount.kind() {
            v1::MountKind::Bind if !mount.source.starts_with('/') => {
                return Err(wrong("a bind mount's source must be an absolute path on the machine"));
            }
            v1::MountKind::Unspecified => return Err(wrong("it is neither volume, bind nor tmpfs")),
            _ => {}
        }
    }
    Ok(())
}

/// Characters of a reference only: it becomes a part of a path in the engine's API.
pub(crate) fn is_reference(image: &str) -> bool {
    image.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b))
        && image.starts_with(|first: char| first.is_ascii_alphanumeric())
        && !image.contains("..")
        && !image.contains("//")
}

/// Name and id of objects of the engine: likewise.
pub(crate) fn is_object_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// What the engine is told to create. `spec` has passed [`check`].
pub fn container(
    spec: &v1::ServiceSpec,
    name: &str,
    placement: &Placement<'_>,
) -> Result<ContainerCreateBody, SpecError> {
    let (entrypoint, command) = what_to_run(spec, placement.image_entrypoint)?;
    let (binds, mut mounts) = mounts(&spec.mounts);
    mounts.extend(files(spec, placement.files)?);
    let host_config = HostConfig {
        network_mode: Some(DOCKER_NETWORK.to_owned()),
        dns: Some(vec![placement.bridge.to_string()]),
        dns_search: Some(vec![format!("{}.{DOMAIN}", spec.project), DOMAIN.to_owned()]),
        dns_options: Some(vec!["ndots:1".to_owned()]),
        restart_policy: Some(EngineRestart {
            name: Some(restart(spec.restart())),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig { typ: Some("local".to_owned()), config: None }),
        port_bindings: some_if(!spec.ports.is_empty(), || port_bindings(&spec.ports)),
        binds: some_if(!binds.is_empty(), || binds),
        mounts: some_if(!mounts.is_empty(), || mounts),
        init: some_if(spec.init, || true),
        readonly_rootfs: some_if(spec.read_only, || true),
        cap_add: some_if(!spec.cap_add.is_empty(), || spec.cap_add.clone()),
        cap_drop: some_if(!spec.cap_drop.is_empty(), || spec.cap_drop.clone()),
        ..Default::default()
    };
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        hostname: Some(hostname(spec, name)),
        labels: Some(labels(spec, placement)),
        env: Some(environment(spec, placement)?),
        entrypoint,
        cmd: command,
        user: text(&spec.user),
        working_dir: text(&spec.working_dir),
        tty: some_if(spec.tty, || true),
        open_stdin: some_if(spec.stdin_open, || true),
        stop_signal: text(&spec.stop_signal),
        stop_timeout: spec
            .stop_grace_period_ms
            .map(|ms| i64::try_from(ms.div_ceil(1000)).unwrap_or(i64::MAX)),
        healthcheck: spec.healthcheck.as_ref().map(healthcheck),
        exposed_ports: some_if(!spec.ports.is_empty(), || exposed(&spec.ports)),
        host_config: Some(host_config),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(DOCKER_NETWORK.to_owned(), EndpointSettings::default())])),
        }),
        ..Default::default()
    })
}

/// Labels of a volume made for a project.
pub fn volume_labels(volume: &v1::VolumeSpec, cluster: &str, machine: &str) -> Vec<(String, String)> {
    let mut labels: BTreeMap<String, String> = volume.labels.clone().into_iter().collect();
    labels.insert(label::CLUSTER.to_owned(), cluster.to_owned());
    labels.insert(label::MACHINE.to_owned(), machine.to_owned());
    labels.insert(label::PROJECT.to_owned(), volume.project.clone());
    labels.into_iter().collect()
}

fn some_if<T>(yes: bool, value: impl FnOnce() -> T) -> Option<T> {
    yes.then(value)
}

fn text(value: &str) -> Option<String> {
    some_if(!value.is_empty(), || value.to_owned())
}

type Words = Option<Vec<String>>;

/// Entrypoint and command. To the engine an absent list is the image's own and so is an empty command; `[""]` is how it spells "no
/// entrypoint", which also drops the image's command (as Compose has it: a new entrypoint never gets the old command).
fn what_to_run(spec: &v1::ServiceSpec, of_image: &[String]) -> Result<(Words, Words), SpecError> {
    let command = spec.command.as_ref().map(|list| list.values.clone());
    let entrypoint = match &spec.entrypoint {
        Some(list) if list.values.is_empty() => Some(vec![String::new()]),
        Some(list) => Some(list.values.clone()),
        None if needs_image_entrypoint(spec) => Some(of_image.to_vec()),
        None => None,
    };
    let no_entrypoint = entrypoint
        .as_ref()
        .is_some_and(|words| words.first().is_none_or(String::is_empty) && words.len() < 2);
    if no_entrypoint && command.as_ref().is_none_or(Vec::is_empty) {
        return Err(SpecError::NothingToRun { service: spec.name.clone(), image: spec.image.clone() });
    }
    Ok((entrypoint, command))
}

fn labels(spec: &v1::ServiceSpec, placement: &Placement<'_>) -> HashMap<String, String> {
    let ours = [
        (label::CLUSTER, placement.cluster),
        (label::MACHINE, placement.machine),
        (label::PROJECT, &spec.project),
        (label::SERVICE, &spec.name),
        (label::REVISION, placement.revision),
        (label::DEPLOYMENT, placement.deployment),
    ];
    let mut labels: HashMap<String, String> = spec.labels.clone().into_iter().collect();
    labels.extend(ours.map(|(key, value)| (key.to_owned(), value.to_owned())));
    labels
}

fn environment(spec: &v1::ServiceSpec, placement: &Placement<'_>) -> Result<Vec<String>, SpecError> {
    let mut variables: BTreeMap<&str, &str> =
        spec.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    for name in spec.secret_environment.keys() {
        let value = placement.secrets.get(name).ok_or_else(|| SpecError::Content {
            service: spec.name.clone(),
            name: format!("the value of variable `{name}`"),
        })?;
        variables.insert(name, value);
    }
    variables.insert(MACHINE_ID_VARIABLE, placement.machine);
    Ok(variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

/// What travelled with the deployment, read only. In the new notation, which refuses a source that is not there.
fn files(spec: &v1::ServiceSpec, sources: &BTreeMap<String, PathBuf>) -> Result<Vec<Mount>, SpecError> {
    let mount = |file: &v1::FileSpec| {
        let source = sources.get(&file.hash).ok_or_else(|| SpecError::Content {
            service: spec.name.clone(),
            name: format!("the content of {}", file.name),
        })?;
        Ok(Mount {
            target: Some(file.target.clone()),
            source: Some(source.to_string_lossy().into_owned()),
            typ: Some(MountType::BIND),
            read_only: Some(true),
            ..Default::default()
        })
    };
    spec.files.iter().map(mount).collect()
}

fn restart(policy: v1::RestartPolicy) -> RestartPolicyNameEnum {
    match policy {
        v1::RestartPolicy::No => RestartPolicyNameEnum::NO,
        v1::RestartPolicy::Always => RestartPolicyNameEnum::ALWAYS,
        v1::RestartPolicy::OnFailure => RestartPolicyNameEnum::ON_FAILURE,
        v1::RestartPolicy::UnlessStopped | v1::RestartPolicy::Unspecified => {
            RestartPolicyNameEnum::UNLESS_STOPPED
        }
    }
}

/// `80/tcp`, as the engine writes it.
pub(crate) fn port_key(port: u32, protocol: v1::Protocol) -> String {
    let protocol = if protocol == v1::Protocol::Udp { "udp" } else { "tcp" };
    format!("{port}/{protocol}")
}

fn exposed(ports: &[v1::PortSpec]) -> Vec<String> {
    let mut exposed: Vec<String> =
        ports.iter().map(|port| port_key(port.container_port, port.protocol())).collect();
    exposed.sort();
    exposed.dedup();
    exposed
}

/// Several published ports of one container port are all kept.
fn port_bindings(ports: &[v1::PortSpec]) -> HashMap<String, Option<Vec<PortBinding>>> {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in ports {
        bindings
            .entry(port_key(port.container_port, port.protocol()))
            .or_default()
            .get_or_insert_with(Vec::new)
            .push(PortBinding {
                host_ip: Some(port.host_ip.clone()),
                host_port: Some(
                    some_if(port.published_port != 0, || port.published_port.to_string()).unwrap_or_default(),
                ),
            });
    }
    bindings
}

fn healthcheck(check: &v1::Healthcheck) -> HealthConfig {
    // The engine counts in nanoseconds; 0 is "the image's, or the default".
    let nanos =
        |ms: Option<u64>| ms.map(|ms| i64::try_from(ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX));
    HealthConfig {
        // No test of its own: the image's, with other times.
        test: some_if(!check.test.is_empty(), || check.test.clone()),
        interval: nanos(check.interval_ms),
        timeout: nanos(check.timeout_ms),
        start_period: nanos(check.start_period_ms),
        retries: check.retries.map(i64::from),
        start_interval: None,
    }
}

/// Bind mounts in the old notation, because only that makes a missing folder on the machine on every engine we support, as Compose does;
/// a path with `:` cannot be written in it.
fn mounts(specs: &[v1::MountSpec]) -> (Vec<String>, Vec<Mount>) {
    let mut binds = Vec::new();
    let mut mounts = Vec::new();
    for spec in specs {
        let bind = spec.kind() == v1::MountKind::Bind;
        if bind && !spec.source.contains(':') && !spec.target.contains(':') {
            let mode = if spec.read_only { ":ro" } else { "" };
            binds.push(format!("{}:{}{mode}", spec.source, spec.target));
            continue;
        }
        mounts.push(Mount {
            target: Some(spec.target.clone()),
            source: text(&spec.source),
            typ: Some(match spec.kind() {
                v1::MountKind::Bind => MountType::BIND,
                v1::MountKind::Tmpfs => MountType::TMPFS,
                v1::MountKind::Image => MountType::IMAGE,
                v1::MountKind::Volume | v1::MountKind::Unspecified => MountType::VOLUME,
            }),
            read_only: some_if(spec.read_only, || true),
            bind_options: some_if(bind, || MountBindOptions {
                create_mountpoint: Some(true),
                ..Default::default()
            }),
            ..Default::default()
        });
    }
    (binds, mounts)
}

#[cfg(test)]
mod tests;
