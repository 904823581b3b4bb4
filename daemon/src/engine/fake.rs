//! An engine in memory, for tests without Docker. It passes the same suite as the real one.
//! Containers run a tiny shell with the commands `echo X`, `echo X >&2`, `sleep N`, `exit N`,
//! `cat`, `true` and `false`, joined by `;`.

mod calls;
mod images;
mod shell;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bollard::models as engine;
use bollard::models::ContainerCreateBody;
use bytes::Bytes;
pub(crate) use images::ARCHIVE;
use shell::interpret;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;
use uc_api::layout::DOCKER_NETWORK;
use uc_api::v1;

use super::{record, *};

/// Time between an exit and the restart of the container.
const RESTART_DELAY: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub(crate) struct FakeEngine(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    containers: BTreeMap<String, Fake>,
    volumes: BTreeMap<String, engine::Volume>,
    images: BTreeMap<String, Image>,
    /// What can be pulled, with its digest.
    registry: BTreeMap<String, String>,
    execs: BTreeMap<String, Option<i32>>,
    sizes: Vec<(u16, u16)>,
    events: broadcast::Sender<EngineEvent>,
    offline: bool,
    /// How long the engine works on a new container.
    create_delay: Duration,
    /// How long the engine works on the removal of an image.
    removal_delay: Duration,
    /// Images that the engine fails to remove.
    unremovable: BTreeSet<String>,
    stops: Vec<(String, Duration)>,
    commands: Vec<(String, ExecOptions)>,
    next: u32,
}

#[derive(Debug)]
struct Fake {
    name: String,
    body: ContainerCreateBody,
    /// Names of the volumes that were created for it, by target.
    anonymous: BTreeMap<String, String>,
    status: engine::ContainerStateStatusEnum,
    started_at: Option<jiff::Timestamp>,
    exit_code: i64,
    restarts: i64,
    health: Option<engine::HealthStatusEnum>,
    ip: Option<String>,
    /// Ports chosen from ranges, while the container runs.
    published: engine::PortMap,
    logs: Vec<LogLine>,
    running: Vec<AbortHandle>,
}

impl State {
    /// Returns a container, including what it shares with the container whose network it joined.
    fn look(&self, id: &str) -> Container {
        let mut container = record::container(self.containers[id].inspect(id));
        if let Ok(other) = FakeEngine::find(self, &container.network_of)
            && !container.network_of.is_empty()
        {
            let other = record::container(self.containers[&other].inspect(&other));
            record::share_address(&mut container, &other);
        }
        container
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.running.drain(..).for_each(|task| task.abort());
    }
}

impl Fake {
    fn is_running(&self) -> bool {
        self.status == engine::ContainerStateStatusEnum::RUNNING
    }

    fn inspect(&self, id: &str) -> engine::ContainerInspectResponse {
        let host = self.body.host_config.clone().unwrap_or_default();
        let mounts = host
            .mounts
            .iter()
            .flatten()
            .map(|mount| engine::MountPoint {
                typ: mount.typ.map(|typ| typ.to_string()),
                name: mount.source.clone().or_else(|| {
                    let target = mount.target.as_ref()?;
                    self.anonymous.get(target).cloned()
                }),
                destination: mount.target.clone(),
                rw: mount.read_only.map(|read_only| !read_only),
                ..Default::default()
            });
        let of_image = self.anonymous.iter().filter(|(target, _)| {
            let mut mounted = host.mounts.iter().flatten();
            !mounted.any(|mount| mount.target.as_ref() == Some(target))
        });
        let of_image = of_image.map(|(target, name)| engine::MountPoint {
            typ: Some("volume".to_owned()),
            name: Some(name.clone()),
            destination: Some(target.clone()),
            rw: Some(true),
            ..Default::default()
        });
        let mounts = mounts.chain(of_image);
        engine::ContainerInspectResponse {
            id: Some(id.to_owned()),
            name: Some(format!("/{}", self.name)),
            created: Some("2026-01-02T03:04:05.006Z".to_owned()),
            restart_count: Some(self.restarts),
            state: Some(engine::ContainerState {
                status: Some(self.status),
                exit_code: Some(self.exit_code),
                started_at: self.started_at.map(|at| at.to_string()),
                health: self.health.map(|status| engine::Health {
                    status: Some(status),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            mounts: Some(mounts.collect()),
            config: Some(engine::ContainerConfig {
                image: self.body.image.clone(),
                labels: self.body.labels.clone(),
                healthcheck: self.body.healthcheck.clone(),
                stop_timeout: self.body.stop_timeout,
                ..Default::default()
            }),
            network_settings: Some(engine::NetworkSettings {
                ports: Some(self.published.clone()),
                networks: Some(std::collections::HashMap::from([(
                    DOCKER_NETWORK.to_owned(),
                    engine::EndpointSettings {
                        ip_address: self.ip.clone(),
                        ..Default::default()
                    },
                )])),
                ..Default::default()
            }),
            host_config: Some(host),
            ..Default::default()
        }
    }

    fn holders(&self, id: &str) -> Vec<PortHolder> {
        let container = record::container(self.inspect(id));
        let record = container.record;
        let running = self.is_running();
        let holder = |port: &v1::PortSpec| PortHolder {
            container_id: id.to_owned(),
            container_name: record.container_name.clone(),
            project: record.project.clone(),
            service: record.service.clone(),
            host_ip: if port.host_ip.is_empty() {
                "0.0.0.0".to_owned()
            } else {
                port.host_ip.clone()
            },
            port: port.published_port as u16,
            protocol: port.protocol(),
        };
        record
            .ports
            .iter()
            .filter(|port| running && port.published_port != 0)
            .map(holder)
            .collect()
    }
}

impl FakeEngine {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            containers: BTreeMap::new(),
            volumes: BTreeMap::new(),
            images: BTreeMap::new(),
            registry: BTreeMap::new(),
            execs: BTreeMap::new(),
            sizes: Vec::new(),
            events: broadcast::Sender::new(256),
            offline: false,
            create_delay: Duration::ZERO,
            removal_delay: Duration::ZERO,
            unremovable: BTreeSet::new(),
            stops: Vec::new(),
            commands: Vec::new(),
            next: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Sets the engine offline or online. While it is offline, every call fails and event streams
    /// end.
    pub(crate) fn set_offline(&self, offline: bool) {
        let mut state = self.state();
        state.offline = offline;
        state.events = broadcast::Sender::new(256);
    }

    /// Stops the engine together with all containers. They exit with this code.
    pub(crate) fn stop_engine(&self, exit_code: i64) {
        let mut state = self.state();
        for fake in state.containers.values_mut().filter(|of| of.is_running()) {
            fake.running.drain(..).for_each(|task| task.abort());
            fake.status = engine::ContainerStateStatusEnum::EXITED;
            fake.exit_code = exit_code;
        }
        drop(state);
        self.set_offline(true);
    }

    /// Makes a container look as if it had been started this much earlier.
    pub(crate) fn backdate_start(&self, id: &str, by: Duration) {
        self.change(id, |fake| {
            let started_at = fake.started_at.expect("it was started");
            fake.started_at = Some(started_at - by);
        });
    }

    /// Sets how long the engine works on a new container. As Docker, it finishes the work even if
    /// its caller has gone.
    pub(crate) fn set_create_delay(&self, delay: Duration) {
        self.state().create_delay = delay;
    }

    /// Returns the names of all volumes, the anonymous ones included.
    pub(crate) fn all_volumes(&self) -> Vec<String> {
        self.state().volumes.keys().cloned().collect()
    }

    /// Returns the terminal sizes that were set.
    pub(crate) fn sizes(&self) -> Vec<(u16, u16)> {
        self.state().sizes.clone()
    }

    /// Returns the requested stops as container id and grace period.
    pub(crate) fn stops(&self) -> Vec<(String, Duration)> {
        self.state().stops.clone()
    }

    /// Returns the commands that were run as container id and options.
    pub(crate) fn commands(&self) -> Vec<(String, ExecOptions)> {
        self.state().commands.clone()
    }

    fn reach(&self) -> Result<MutexGuard<'_, State>, EngineError> {
        let state = self.state();
        if state.offline {
            return Err(EngineError::NotRunning {
                socket: DEFAULT_SOCKET.into(),
            });
        }
        Ok(state)
    }

    fn find(state: &State, id: &str) -> Result<String, EngineError> {
        let matches = |(full, fake): &(&String, &Fake)| full.starts_with(id) || fake.name == id;
        let missing = || EngineError::NotFound {
            message: format!("No such container: {id}"),
        };
        state
            .containers
            .iter()
            .find(matches)
            .map(|(full, _)| full.clone())
            .ok_or_else(missing)
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Fake)) {
        let mut state = self.state();
        if let Some(fake) = state.containers.get_mut(id) {
            change(fake);
            let _nobody_may_listen = state.events.send(EngineEvent::Container(id.to_owned()));
        }
    }

    /// The container's present restart policy; none if it was removed.
    fn restart_policy(&self, id: &str) -> Option<v1::RestartPolicy> {
        let state = self.state();
        let fake = state.containers.get(id)?;
        Some(record::container(fake.inspect(id)).restart)
    }

    async fn run(self, id: String, script: String) {
        loop {
            let engine = self.clone();
            let of = id.clone();
            let write = move |stream, text: String| {
                let engine = engine.clone();
                let of = of.clone();
                async move {
                    let time_ns = jiff::Timestamp::now().as_nanosecond() as i64;
                    engine.change(&of, |fake| {
                        fake.logs.push(LogLine {
                            stream,
                            time_ns,
                            message: Bytes::from(text),
                        });
                    });
                }
            };
            let code = interpret(&script, None, write).await;
            let again = match self.restart_policy(&id) {
                None | Some(v1::RestartPolicy::No) => false,
                Some(v1::RestartPolicy::OnFailure) => code != 0,
                Some(_) => true,
            };
            self.change(&id, |fake| {
                fake.exit_code = code.into();
                fake.health = None;
                fake.status = if again {
                    engine::ContainerStateStatusEnum::RESTARTING
                } else {
                    engine::ContainerStateStatusEnum::EXITED
                };
            });
            if !again {
                return;
            }
            tokio::time::sleep(RESTART_DELAY).await;
            self.change(&id, |fake| {
                fake.restarts += 1;
                fake.exit_code = 0;
                fake.status = engine::ContainerStateStatusEnum::RUNNING;
            });
        }
    }

    /// Probes after each interval. `CMD true` succeeds; everything else fails.
    async fn probe(self, id: String, limits: HealthLimits, succeeds: bool) {
        let rounds = if succeeds { 1 } else { limits.retries };
        tokio::time::sleep(limits.interval * rounds).await;
        let health = if succeeds {
            engine::HealthStatusEnum::HEALTHY
        } else {
            engine::HealthStatusEnum::UNHEALTHY
        };
        self.change(&id, |fake| {
            if fake.is_running() {
                fake.health = Some(health);
            }
        });
    }
}
