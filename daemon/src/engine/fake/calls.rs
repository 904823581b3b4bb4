//! The calls of the engine in memory.

use std::pin::Pin;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};

use super::shell::script;
use super::*;
use crate::engine::logs::is_in_time_range;

#[async_trait]
impl Engine for FakeEngine {
    async fn version(&self) -> Result<EngineVersion, EngineError> {
        let _state = self.reach()?;
        Ok(EngineVersion {
            version: "27.0.0".to_owned(),
            api: ApiVersion::new(1, 46),
        })
    }

    async fn containers(&self) -> Result<Vec<Container>, EngineError> {
        let state = self.reach()?;
        let all = state.containers.keys().map(|id| state.look(id));
        Ok(all.filter(|container| container.managed).collect())
    }

    async fn inspect(&self, id: &str) -> Result<Container, EngineError> {
        let state = self.reach()?;
        let id = Self::find(&state, id)?;
        Ok(state.look(&id))
    }

    async fn create(
        &self,
        name: &str,
        platform: &str,
        body: ContainerCreateBody,
    ) -> Result<String, EngineError> {
        let delay = self.reach()?.create_delay;
        if delay.is_zero() {
            return self.make(name, platform, body);
        }
        let (engine, name, platform) = (self.clone(), name.to_owned(), platform.to_owned());
        let made = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            engine.make(&name, &platform, body)
        });
        made.await.unwrap()
    }

    async fn start(&self, id: &str) -> Result<(), EngineError> {
        let (id, fake) = {
            let state = self.reach()?;
            let id = Self::find(&state, id)?;
            let fake = &state.containers[&id];
            if fake.is_running() {
                return Ok(());
            }
            let holders: Vec<PortHolder> = state
                .containers
                .iter()
                .flat_map(|(other, fake)| fake.holders(other))
                .collect();
            let published = publish(&record::container(fake.inspect(&id)).record.ports, &holders)?;
            let command = fake.body.cmd.clone().unwrap_or_default();
            let Some(script) = script(&command) else {
                let message = format!(
                    "exec: \"{}\": executable file not found in $PATH",
                    command.join(" ")
                );
                return Err(EngineError::Refused { message });
            };
            let container = record::container(fake.inspect(&id));
            (
                id.clone(),
                (script, container, fake.body.healthcheck.clone(), published),
            )
        };
        let (script, container, healthcheck, published) = fake;
        let number = u32::from_str_radix(&id[..8], 16).unwrap();
        let mut tasks = vec![tokio::spawn(self.clone().run(id.clone(), script)).abort_handle()];
        if let Some(limits) = container.healthcheck {
            let succeeds = healthcheck
                .and_then(|check| check.test)
                .unwrap_or_default()
                .ends_with(&["true".into()]);
            tasks.push(
                tokio::spawn(self.clone().probe(id.clone(), limits, succeeds)).abort_handle(),
            );
        }
        self.change(&id, |fake| {
            fake.status = engine::ContainerStateStatusEnum::RUNNING;
            fake.started_at = Some(jiff::Timestamp::now());
            fake.restarts = 0;
            fake.exit_code = 0;
            let host = fake.body.host_config.as_ref();
            let own = host.is_none_or(|host| host.network_mode.as_deref() == Some(DOCKER_NETWORK));
            fake.ip = own.then(|| format!("10.210.0.{}", number + 1));
            fake.published = published;
            fake.health = container
                .healthcheck
                .map(|_| engine::HealthStatusEnum::STARTING);
            fake.running = tasks;
        });
        Ok(())
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        let id = {
            let mut state = self.reach()?;
            let id = Self::find(&state, id)?;
            state.stops.push((id.clone(), grace));
            id
        };
        self.change(&id, |fake| {
            fake.running.drain(..).for_each(|task| task.abort());
            if fake.status != engine::ContainerStateStatusEnum::CREATED
                && fake.status != engine::ContainerStateStatusEnum::EXITED
            {
                fake.status = engine::ContainerStateStatusEnum::EXITED;
                fake.exit_code = 137;
                fake.ip = None;
                fake.published.clear();
            }
        });
        Ok(())
    }

    async fn set_restart(
        &self,
        id: &str,
        policy: v1::RestartPolicy,
        attempts: u32,
    ) -> Result<(), EngineError> {
        let id = Self::find(&*self.reach()?, id)?;
        self.change(&id, |fake| {
            let host = fake.body.host_config.get_or_insert_default();
            host.restart_policy = Some(spec::restart_policy(policy, attempts));
        });
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let mut state = self.reach()?;
        let Ok(id) = Self::find(&state, id) else {
            return Ok(());
        };
        let unused = state.look(&id).anonymous_volumes;
        state.containers.remove(&id);
        for volume in unused {
            let mut others = state.containers.keys().map(|id| state.look(id));
            let is_used = others.any(|other| {
                let mut mounts = other.record.mounts.iter();
                mounts.any(|mount| mount.source == volume.name)
            });
            if !is_used {
                state.volumes.remove(&volume.name);
            }
        }
        let _nobody_may_listen = state.events.send(EngineEvent::Container(id));
        Ok(())
    }

    async fn logs(
        &self,
        id: &str,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError> {
        let (id, mut events) = {
            let state = self.reach()?;
            (Self::find(&state, id)?, state.events.subscribe())
        };
        let engine = self.clone();
        let (lines, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut seen: Option<usize> = None;
            loop {
                let (new, running) = {
                    let state = engine.state();
                    let Some(fake) = state.containers.get(&id) else {
                        return;
                    };
                    let all = &fake.logs;
                    let tail = options.tail.map_or(all.len(), |tail| tail as usize);
                    let from = seen.unwrap_or_else(|| all.len().saturating_sub(tail));
                    seen = Some(all.len());
                    (all[from..].to_vec(), fake.is_running())
                };
                for line in new
                    .into_iter()
                    .filter(|line| is_in_time_range(line, &options))
                {
                    if lines.send(Ok(line)).await.is_err() {
                        return;
                    }
                }
                if !options.follow || !running {
                    return;
                }
                tokio::select! {
                    event = events.recv() => if let Err(broadcast::error::RecvError::Closed) = event { return },
                    () = lines.closed() => return,
                }
            }
        });
        Ok(ReceiverStream::new(receiver).boxed())
    }

    async fn exec(&self, id: &str, options: ExecOptions) -> Result<ExecSession, EngineError> {
        let exec_id = {
            let mut state = self.reach()?;
            let id = Self::find(&state, id)?;
            if !state.containers[&id].is_running() {
                return Err(EngineError::Refused {
                    message: format!("Container {id} is not running"),
                });
            }
            state.commands.push((id, options.clone()));
            state.next += 1;
            let exec_id = format!("e{}", state.next);
            state.execs.insert(exec_id.clone(), None);
            exec_id
        };
        let (input, program_input) = tokio::io::duplex(64);
        let (output, receiver) = mpsc::channel(16);
        let engine = self.clone();
        let id = exec_id.clone();
        tokio::spawn(async move {
            let send = |stream, text: String| {
                let output = output.clone();
                async move {
                    let piece = if options.tty {
                        ExecOutput::Stdout(Bytes::from(format!("{text}\r\n")))
                    } else if stream == v1::LogStream::Stderr {
                        ExecOutput::Stderr(Bytes::from(format!("{text}\n")))
                    } else {
                        ExecOutput::Stdout(Bytes::from(format!("{text}\n")))
                    };
                    let _nobody_may_listen = output.send(Ok(piece)).await;
                }
            };
            let code = if let Some(script) = script(&options.command) {
                interpret(&script, Some(program_input), send).await
            } else {
                let why = "OCI runtime exec failed: executable file not found in $PATH: unknown";
                send(v1::LogStream::Stdout, why.to_owned()).await;
                127
            };
            engine.state().execs.insert(id, Some(code));
        });
        let input: Pin<Box<dyn AsyncWrite + Send>> = Box::pin(input);
        Ok(ExecSession {
            id: exec_id,
            output: ReceiverStream::new(receiver).boxed(),
            input,
        })
    }

    async fn exec_resize(
        &self,
        _exec_id: &str,
        columns: u16,
        rows: u16,
    ) -> Result<(), EngineError> {
        self.reach()?.sizes.push((columns, rows));
        Ok(())
    }

    async fn exec_exit_code(&self, exec_id: &str) -> Result<i32, EngineError> {
        loop {
            if let Some(code) = self.reach()?.execs[exec_id] {
                return Ok(code);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn volumes(&self) -> Result<Vec<Volume>, EngineError> {
        Ok(self
            .reach()?
            .volumes
            .values()
            .cloned()
            .filter_map(record::volume)
            .collect())
    }

    async fn create_volume(
        &self,
        wanted: &v1::VolumeSpec,
        labels: Vec<(String, String)>,
    ) -> Result<(), EngineError> {
        let mut state = self.reach()?;
        let driver = if wanted.driver.is_empty() {
            "local"
        } else {
            &wanted.driver
        };
        state
            .volumes
            .entry(wanted.name.clone())
            .or_insert_with(|| engine::Volume {
                labels: labels.into_iter().collect(),
                options: wanted.driver_opts.clone().into_iter().collect(),
                ..volume(&wanted.name, driver)
            });
        let _nobody_may_listen = state.events.send(EngineEvent::Volume);
        Ok(())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, EngineError> {
        self.find_image(reference)
    }

    async fn images(&self) -> Result<Vec<NamedImage>, EngineError> {
        self.list_images()
    }

    async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        let delay = self.reach()?.removal_delay;
        tokio::time::sleep(delay).await;
        self.remove_name(reference)
    }

    async fn registry_digest(&self, reference: &str) -> Result<String, EngineError> {
        self.look_up(reference)
    }

    async fn pull(
        &self,
        reference: &str,
        platform: &str,
    ) -> Result<BoxStream<'static, Result<String, EngineError>>, EngineError> {
        Ok(self.pull_image(reference, platform))
    }

    async fn load(
        &self,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), EngineError> {
        self.load_image(archive).await
    }

    async fn port_holders(&self) -> Result<Vec<PortHolder>, EngineError> {
        Ok(self
            .reach()?
            .containers
            .iter()
            .flat_map(|(id, fake)| fake.holders(id))
            .collect())
    }

    async fn events(
        &self,
    ) -> Result<BoxStream<'static, Result<EngineEvent, EngineError>>, EngineError> {
        let events = BroadcastStream::new(self.reach()?.events.subscribe());
        Ok(events
            .map(|event| {
                event.map_err(|error| EngineError::Broken {
                    message: error.to_string(),
                })
            })
            .boxed())
    }
}

impl FakeEngine {
    /// Makes a container.
    fn make(
        &self,
        name: &str,
        platform: &str,
        body: ContainerCreateBody,
    ) -> Result<String, EngineError> {
        let mut state = self.reach()?;
        if state.containers.values().any(|fake| fake.name == name) {
            let message =
                format!("Conflict. The container name \"/{name}\" is already in use by container");
            return Err(EngineError::NameTaken { message });
        }
        let image = body.image.clone().unwrap_or_default();
        let Some(present) = state.images.get(&image) else {
            return Err(EngineError::ImageMissing { image });
        };
        if !platform::fits(platform, &present.platform) {
            let message = format!("image {image} does not match the specified platform {platform}");
            return Err(EngineError::OtherPlatform { message });
        }
        state.next += 1;
        let id = format!("{:08x}{}", state.next, "f".repeat(56));
        let anonymous: BTreeMap<String, String> = unnamed_targets(&body)
            .into_iter()
            .map(|target| {
                state.next += 1;
                (target, format!("{:064x}", state.next))
            })
            .collect();
        for name in anonymous.values() {
            state.volumes.insert(name.clone(), volume(name, "local"));
        }
        let fake = Fake {
            name: name.to_owned(),
            body,
            anonymous,
            status: engine::ContainerStateStatusEnum::CREATED,
            started_at: None,
            exit_code: 0,
            restarts: 0,
            health: None,
            ip: None,
            published: engine::PortMap::new(),
            logs: Vec::new(),
            running: Vec::new(),
        };
        state.containers.insert(id.clone(), fake);
        let _nobody_may_listen = state.events.send(EngineEvent::Container(id.clone()));
        Ok(id)
    }
}

/// The targets of the volumes for which neither the mounts nor the image give a name.
fn unnamed_targets(body: &ContainerCreateBody) -> BTreeSet<String> {
    let mounts = || {
        let hosts = body.host_config.iter();
        hosts.flat_map(|host| host.mounts.iter().flatten())
    };
    let unnamed = mounts()
        .filter(|mount| mount.typ == Some(engine::MountType::VOLUME) && mount.source.is_none());
    let of_image = body.volumes.iter().flatten().filter(|target| {
        let mut mounted = mounts();
        !mounted.any(|mount| mount.target.as_ref() == Some(*target))
    });
    unnamed
        .filter_map(|mount| mount.target.clone())
        .chain(of_image.cloned())
        .collect()
}

fn volume(name: &str, driver: &str) -> engine::Volume {
    engine::Volume {
        name: name.to_owned(),
        driver: driver.to_owned(),
        ..Default::default()
    }
}

/// Chooses a free port for each requested binding.
fn publish(
    wanted: &[v1::PortSpec],
    holders: &[PortHolder],
) -> Result<engine::PortMap, EngineError> {
    let mut published = engine::PortMap::new();
    for port in wanted.iter().filter(|port| port.published_port != 0) {
        let last = port.published_last.max(port.published_port);
        let held = |number: &u32| {
            holders
                .iter()
                .any(|holder| u32::from(holder.port) == *number)
        };
        let Some(free) = (port.published_port..=last).find(|number| !held(number)) else {
            let message = format!("Bind for 0.0.0.0:{last} failed: port is already allocated");
            return Err(EngineError::PortTaken { message });
        };
        let bindings = published
            .entry(spec::port_key(port.container_port, port.protocol()))
            .or_default();
        bindings.get_or_insert_default().push(engine::PortBinding {
            host_ip: Some("0.0.0.0".to_owned()),
            host_port: Some(free.to_string()),
        });
    }
    Ok(published)
}
