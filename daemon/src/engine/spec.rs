//! Maps a service's spec to the engine's create request. Pure, so that a test can check every key
//! of the compose file.
//!
//! The engine's own defaults are left to the engine, except where a service on several machines
//! needs another one. A key that the engine is too old for is refused and never dropped, because a
//! half-applied spec would be a surprise.

mod check;
mod engine;
mod error;
mod mounts;
mod namespaces;
mod network;
mod resources;

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig,
    RestartPolicy as EngineRestart, RestartPolicyNameEnum,
};
pub(crate) use check::{check, is_object_name, is_reference};
pub(crate) use engine::check_engine;
pub(crate) use error::SpecError;
pub(crate) use namespaces::{check_shared, shared_services};
pub(crate) use network::port_key;
use uc_api::layout::label;
use uc_api::v1;

use super::{AnonymousVolume, ApiVersion, reference};

/// Variable with the id of the machine that a container runs on. It overrides a variable of the
/// same name in the compose file.
pub(crate) const MACHINE_ID_VARIABLE: &str = "UC_MACHINE_ID";
/// From this version on, the engine probes more often while a container starts.
const START_INTERVAL: ApiVersion = ApiVersion::new(1, 44);
/// Log driver of a service that names none. It rotates its files, unlike the engine's own default.
const LOG_DRIVER: &str = "local";

/// Value of [`label::RESTART`].
const RESTART_BY_DEFAULT: &str = "default";

/// What identifies a replica, besides its spec.
#[derive(Debug, Clone)]
pub(crate) struct Placement<'a> {
    /// Cluster id.
    pub cluster: &'a str,
    /// Id of this machine.
    pub machine: &'a str,
    /// Address of this machine on the cluster network, which is the DNS server of its containers.
    pub bridge: Ipv4Addr,
    /// Revision of the spec.
    pub revision: &'a str,
    /// Id of the deployment that creates the container.
    pub deployment: &'a str,
    /// Deployment and step that create the container. Empty if it only runs a command.
    pub step: &'a str,
    /// The image's entrypoint. Required only to remove its command ([`needs_image_entrypoint`]).
    pub image_entrypoint: &'a [String],
    /// The API version of the machine's engine.
    pub api: ApiVersion,
    /// For each of [`shared_services`], the container on this machine whose namespaces are shared.
    pub shared: &'a BTreeMap<String, String>,
    /// Path of each content that the spec names, by hash ([`v1::FileSpec::hash`]).
    pub files: &'a BTreeMap<String, PathBuf>,
    /// The anonymous volumes of the replica that this one replaces
    /// ([`Container::hands_on_to`](super::Container::hands_on_to)).
    pub handed_on: &'a [AnonymousVolume],
    /// Values of the variables in [`v1::ServiceSpec::secret_environment`], by variable name.
    pub secrets: &'a BTreeMap<String, String>,
}

/// Makes the name of a new container: `<project>-<service>-<suffix>`. The suffix has four base-32
/// characters made from `random` (20 bits).
pub(crate) fn container_name(spec: &v1::ServiceSpec, random: u32) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let suffix: String = (0..4)
        .map(|digit| char::from(ALPHABET[(random >> (5 * digit)) as usize & 31]))
        .collect();
    format!("{}-{}-{suffix}", spec.project, spec.name)
}

/// Reports whether the image's entrypoint must be known. An empty command removes the image's
/// command. The engine accepts that only together with an entrypoint.
pub(crate) fn needs_image_entrypoint(spec: &v1::ServiceSpec) -> bool {
    spec.entrypoint.is_none()
        && spec
            .command
            .as_ref()
            .is_some_and(|command| command.values.is_empty())
}

/// Makes the create request. `spec` must have passed [`check()`].
pub(crate) fn container(
    spec: &v1::ServiceSpec,
    name: &str,
    placement: &Placement<'_>,
) -> Result<ContainerCreateBody, SpecError> {
    let (entrypoint, command) = entrypoint_and_command(spec, placement.image_entrypoint)?;
    engine::check_engine(spec, placement.api)?;
    let mut host = HostConfig {
        restart_policy: Some(restart_policy(spec.restart(), spec.restart_attempts)),
        log_config: Some(log_config(spec.logging.as_ref())),
        init: some_if(spec.init, || true),
        readonly_rootfs: some_if(spec.read_only, || true),
        privileged: some_if(spec.privileged, || true),
        cap_add: list(&spec.cap_add),
        cap_drop: list(&spec.cap_drop),
        group_add: list(&spec.group_add),
        security_opt: list(&spec.security_opt),
        sysctls: map(&spec.sysctls),
        storage_opt: map(&spec.storage_opt),
        annotations: map(&spec.annotations),
        runtime: text(&spec.runtime),
        ..Default::default()
    };
    let mut body = ContainerCreateBody {
        image: Some(reference::pinned(spec)),
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
            .map(|ms| signed(ms.div_ceil(1000))),
        healthcheck: spec
            .healthcheck
            .as_ref()
            .map(|check| healthcheck(check, placement.api)),
        ..Default::default()
    };
    network::fill(spec, name, placement, &mut body, &mut host)?;
    namespaces::fill(spec, placement, &mut host)?;
    resources::fill(spec, &mut host);
    mounts::fill(spec, placement, &mut host)?;
    body.host_config = Some(host);
    Ok(body)
}

/// Returns the labels of a volume that is created for a project.
pub(crate) fn volume_labels(
    volume: &v1::VolumeSpec,
    cluster: &str,
    machine: &str,
) -> Vec<(String, String)> {
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

fn list<T: Clone>(values: &[T]) -> Option<Vec<T>> {
    some_if(!values.is_empty(), || values.to_vec())
}

fn map(values: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    some_if(!values.is_empty(), || values.clone().into_iter().collect())
}

/// Converts to the engine's signed number. A value that does not fit is as good as no limit.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

type WordList = Option<Vec<String>>;

/// Returns entrypoint and command. The engine reads an absent list, and also an empty command, as
/// "the image's own". `[""]` means "no entrypoint" and also drops the image's command. Compose
/// works the same way: a new entrypoint never gets the old command.
fn entrypoint_and_command(
    spec: &v1::ServiceSpec,
    of_image: &[String],
) -> Result<(WordList, WordList), SpecError> {
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
        return Err(SpecError::NothingToRun {
            service: spec.name.clone(),
            image: spec.image.clone(),
        });
    }
    Ok((entrypoint, command))
}

/// Labels for everything that must be known about a container later and that the engine does not
/// keep.
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
    let reserved = |of: fn(&v1::Resources) -> Option<u64>| {
        let number = spec.resources.as_ref().and_then(of);
        number
            .filter(|number| *number > 0)
            .map(|number| number.to_string())
    };
    let files: Vec<&str> = spec
        .files
        .iter()
        .map(|file| &file.hash)
        .chain(spec.secret_environment.values())
        .map(String::as_str)
        .collect();
    let address = some_if(spec.network_mode == "host", || placement.bridge.to_string());
    let volumes = placement.handed_on.iter();
    let volumes: Vec<&str> = volumes.map(|volume| volume.name.as_str()).collect();
    let more = [
        (label::FILES, text(&files.join(","))),
        (label::RESERVED_CPU, reserved(|of| of.reserved_nano_cpus)),
        (label::RESERVED_MEMORY, reserved(|of| of.reserved_memory)),
        (label::STEP, text(placement.step)),
        (
            label::IMAGE,
            some_if(!spec.image_digest.is_empty(), || spec.image.clone()),
        ),
        (label::ADDRESS, address),
        // A container in the machine's network is reached at the machine's address. A shared
        // network is its owner's matter.
        (
            label::RESOLVERS,
            some_if(spec.network_mode.is_empty() && !spec.dns.is_empty(), || {
                spec.dns.join(",")
            }),
        ),
        (label::HANDED_ON, text(&volumes.join(","))),
        (
            label::RESTART,
            some_if(spec.restart() == v1::RestartPolicy::Unspecified, || {
                RESTART_BY_DEFAULT.to_owned()
            }),
        ),
        (label::POST_START, hooks(&spec.post_start)),
        (label::PRE_STOP, hooks(&spec.pre_stop)),
    ];
    for (key, value) in more {
        // The daemon trusts these labels later, so a user must not set them.
        labels.remove(key);
        labels.extend(value.map(|value| (key.to_owned(), value)));
    }
    labels
}

fn hooks(hooks: &[v1::Hook]) -> Option<String> {
    some_if(!hooks.is_empty(), || {
        serde_json::to_string(hooks).expect("texts and flags are valid JSON")
    })
}

fn environment(
    spec: &v1::ServiceSpec,
    placement: &Placement<'_>,
) -> Result<Vec<String>, SpecError> {
    let mut variables: BTreeMap<&str, &str> = spec
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    for name in spec.secret_environment.keys() {
        let value = placement
            .secrets
            .get(name)
            .ok_or_else(|| SpecError::Content {
                service: spec.name.clone(),
                name: format!("the value of variable `{name}`"),
            })?;
        variables.insert(name, value);
    }
    variables.insert(MACHINE_ID_VARIABLE, placement.machine);
    Ok(variables
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect())
}

/// Converts a restart policy. A service that sets none begins with `on-failure`, so that a job runs
/// once; [`super::jobs`] changes the policy of a server.
pub(crate) fn restart_policy(policy: v1::RestartPolicy, attempts: u32) -> EngineRestart {
    let name = match policy {
        v1::RestartPolicy::No => RestartPolicyNameEnum::NO,
        v1::RestartPolicy::Always => RestartPolicyNameEnum::ALWAYS,
        v1::RestartPolicy::UnlessStopped => RestartPolicyNameEnum::UNLESS_STOPPED,
        v1::RestartPolicy::OnFailure | v1::RestartPolicy::Unspecified => {
            RestartPolicyNameEnum::ON_FAILURE
        }
    };
    let counted = policy == v1::RestartPolicy::OnFailure && attempts > 0;
    EngineRestart {
        name: Some(name),
        maximum_retry_count: some_if(counted, || i64::from(attempts)),
    }
}

/// Without a `logging` section the driver is [`LOG_DRIVER`]. Options without a driver are for the
/// engine's default driver, as in Docker Compose, so the driver is left out.
fn log_config(logging: Option<&v1::Logging>) -> HostConfigLogConfig {
    let (driver, options) = match logging {
        Some(logging) => (logging.driver.as_str(), map(&logging.options)),
        None => ("", None),
    };
    let driver = match (driver, &options) {
        ("", None) => Some(LOG_DRIVER),
        ("", Some(_)) => None,
        (driver, _) => Some(driver),
    };
    HostConfigLogConfig {
        typ: driver.map(str::to_owned),
        config: options,
    }
}

fn healthcheck(check: &v1::Healthcheck, api: ApiVersion) -> HealthConfig {
    // The engine counts in nanoseconds; 0 means the image's value, or the default.
    let nanos = |ms: Option<u64>| ms.map(|ms| signed(ms.saturating_mul(1_000_000)));
    HealthConfig {
        // Without its own test, the image's test is used with these times.
        test: list(&check.test),
        interval: nanos(check.interval_ms),
        timeout: nanos(check.timeout_ms),
        start_period: nanos(check.start_period_ms),
        retries: check.retries.map(i64::from),
        // Older engines refuse this field. Without it, a container is only found healthy a little
        // later.
        start_interval: nanos(check.start_interval_ms).filter(|_| api >= START_INTERVAL),
    }
}

#[cfg(test)]
mod tests;
